//! The frames by which an address's new owner makes itself known to its neighbours.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
const ICMP6: u8 = 58;
const NEIGHBOUR_ADVERTISEMENT: u8 = 136;
/// What was known before is to be replaced.
const OVERRIDE: u8 = 0x20;
const TARGET_LINK_ADDRESS: u8 = 2;

/// Builds the announcement of an address.
pub(super) fn frame(hardware: [u8; 6], address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => arp(hardware, address),
        IpAddr::V6(address) => advertisement(hardware, address),
    }
}

/// An ARP announcement (RFC 5227 section 3).
fn arp(hardware: [u8; 6], address: Ipv4Addr) -> Vec<u8> {
    let mut frame = vec![0xff; 6];
    frame.extend_from_slice(&hardware);
    // EtherType ARP; Ethernet, IPv4, lengths 6 and 4, request.
    frame.extend_from_slice(&[0x08, 0x06, 0, 1, 0x08, 0, 6, 4, 0, 1]);
    frame.extend_from_slice(&hardware);
    frame.extend_from_slice(&address.octets());
    frame.extend_from_slice(&[0; 6]);
    frame.extend_from_slice(&address.octets());
    frame
}

/// An unsolicited neighbour advertisement to all nodes (RFC 4861 section 7.2.6).
fn advertisement(hardware: [u8; 6], address: Ipv6Addr) -> Vec<u8> {
    let mut message = vec![NEIGHBOUR_ADVERTISEMENT, 0, 0, 0, OVERRIDE, 0, 0, 0];
    message.extend_from_slice(&address.octets());
    message.extend_from_slice(&[TARGET_LINK_ADDRESS, 1]);
    message.extend_from_slice(&hardware);
    let sum = checksum(address, ALL_NODES, &message);
    message[2..4].copy_from_slice(&sum.to_be_bytes());

    let mut frame = vec![0x33, 0x33, 0, 0, 0, 1];
    frame.extend_from_slice(&hardware);
    // EtherType IPv6; version 6, length, next header, hop limit 255 as the protocol demands.
    frame.extend_from_slice(&[
        0x86,
        0xdd,
        0x60,
        0,
        0,
        0,
        0,
        message.len() as u8,
        ICMP6,
        255,
    ]);
    frame.extend_from_slice(&address.octets());
    frame.extend_from_slice(&ALL_NODES.octets());
    frame.extend_from_slice(&message);
    frame
}

/// The Internet checksum over the pseudo-header and an ICMPv6 message of even length.
fn checksum(source: Ipv6Addr, destination: Ipv6Addr, message: &[u8]) -> u16 {
    let mut bytes = source.octets().to_vec();
    bytes.extend_from_slice(&destination.octets());
    bytes.extend_from_slice(&[0, 0, 0, message.len() as u8, 0, 0, 0, ICMP6]);
    bytes.extend_from_slice(message);
    let mut sum: u32 = bytes
        .chunks_exact(2)
        .map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])))
        .sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ipv4_is_announced_by_an_arp_request_for_ones_own_address() {
        let frame = frame([2, 0, 0, 0, 0, 9], Ipv4Addr::new(172, 17, 0, 2).into());
        assert_eq!(frame.len(), 42);
        assert_eq!(frame[..6], [0xff; 6]);
        assert_eq!(frame[6..12], frame[22..28]);
        assert_eq!(frame[12..14], [8, 6]);
        assert_eq!(frame[28..32], [172, 17, 0, 2]);
        assert_eq!(frame[28..32], frame[38..42]);
        assert_eq!(frame[32..38], [0; 6]);
    }

    #[test]
    fn ipv6_is_announced_by_an_advertisement_whose_sum_is_right() {
        let address: Ipv6Addr = "fd00::2".parse().unwrap();
        let frame = frame([2, 0, 0, 0, 0, 9], address.into());
        assert_eq!(frame.len(), 14 + 40 + 32);
        assert_eq!(frame[12..14], [0x86, 0xdd]);
        // Over a message that holds its own sum the sum is zero.
        assert_eq!(checksum(address, ALL_NODES, &frame[54..]), 0);
    }
}
