//! Host names to addresses without the C library's name service, which a static binary cannot load: literals,
//! /etc/hosts and one DNS question to the servers of /etc/resolv.conf.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;
use tokio::net::UdpSocket;

/// Resolves a host name to one address.
pub async fn resolve(host: &str) -> io::Result<IpAddr> {
    if let Ok(address) = host.parse() {
        return Ok(address);
    }
    if let Some(address) = std::fs::read_to_string("/etc/hosts")
        .ok()
        .and_then(|text| find_in_hosts(&text, host))
    {
        return Ok(address);
    }
    if host == "localhost" {
        return Ok(IpAddr::V4(Ipv4Addr::LOCALHOST));
    }
    let servers = nameservers(&std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default());
    for server in servers {
        if let Ok(Ok(Some(address))) =
            tokio::time::timeout(Duration::from_secs(5), ask(server, host)).await
        {
            return Ok(address);
        }
    }
    Err(io::Error::other(format!(
        "dial tcp: lookup {host}: no such host"
    )))
}

fn find_in_hosts(text: &str, host: &str) -> Option<IpAddr> {
    text.lines().find_map(|line| {
        let mut words = line.split('#').next()?.split_whitespace();
        let address = words.next()?.parse().ok()?;
        words
            .any(|name| name.eq_ignore_ascii_case(host))
            .then_some(address)
    })
}

fn nameservers(text: &str) -> Vec<IpAddr> {
    text.lines()
        .filter_map(|line| line.trim().strip_prefix("nameserver"))
        .filter_map(|rest| rest.trim().parse().ok())
        .collect()
}

async fn ask(server: IpAddr, host: &str) -> io::Result<Option<IpAddr>> {
    let socket = UdpSocket::bind(if server.is_ipv4() {
        "0.0.0.0:0"
    } else {
        "[::]:0"
    })
    .await?;
    socket.connect(SocketAddr::new(server, 53)).await?;
    socket.send(&question(host)).await?;
    let mut answer = [0u8; 1500];
    let length = socket.recv(&mut answer).await?;
    Ok(first_a_record(&answer[..length]))
}

/// Writes a DNS question for an A record (RFC 1035, section 4).
fn question(host: &str) -> Vec<u8> {
    let mut out = vec![0x47, 0x54, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in host.trim_end_matches('.').split('.') {
        out.push(label.len().min(63) as u8);
        out.extend_from_slice(&label.as_bytes()[..label.len().min(63)]);
    }
    out.extend_from_slice(&[0, 0, 1, 0, 1]);
    out
}

fn first_a_record(message: &[u8]) -> Option<IpAddr> {
    let word = |at: usize| {
        Some(u16::from_be_bytes([
            *message.get(at)?,
            *message.get(at + 1)?,
        ]))
    };
    let (questions, answers) = (word(4)?, word(6)?);
    let mut at = 12;
    for _ in 0..questions {
        at = skip_name(message, at)? + 4;
    }
    for _ in 0..answers {
        at = skip_name(message, at)?;
        let (kind, length) = (word(at)?, word(at + 8)? as usize);
        let data = message.get(at + 10..at + 10 + length)?;
        if let (1, Ok(octets)) = (kind, <[u8; 4]>::try_from(data)) {
            return Some(IpAddr::from(octets));
        }
        at += 10 + length;
    }
    None
}

fn skip_name(message: &[u8], mut at: usize) -> Option<usize> {
    loop {
        match *message.get(at)? {
            0 => return Some(at + 1),
            pointer if pointer & 0xc0 == 0xc0 => return Some(at + 2),
            length => at += 1 + length as usize,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_and_resolv_conf_are_read() {
        let hosts = "127.0.0.1 localhost # c\n10.0.0.5 build.example Build\n";
        assert_eq!(find_in_hosts(hosts, "build"), "10.0.0.5".parse().ok());
        assert_eq!(find_in_hosts(hosts, "c"), None);
        assert_eq!(
            nameservers("search x\nnameserver 1.2.3.4\n"),
            ["1.2.3.4".parse::<IpAddr>().expect("address")]
        );
    }

    #[test]
    fn an_answer_with_a_compressed_name_is_read() {
        let mut message = question("a.b");
        message[7] = 1;
        message.extend_from_slice(&[0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 9, 0, 4, 10, 1, 2, 3]);
        assert_eq!(first_a_record(&message), "10.1.2.3".parse().ok());
        assert_eq!(first_a_record(&message[..20]), None);
    }
}
