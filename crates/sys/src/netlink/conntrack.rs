//! ctnetlink: entries of the connection tracking table.
//!
//! Entries of UDP outlive the rules that made them: a client that keeps sending from one port is led by its old entry
//! to where the port pointed before. So they are deleted whenever a port is published or given back.

use std::io;
use std::net::IpAddr;

use super::{Attributes, Batch, Message, NLM_F_DUMP, Socket};

const NFNL_SUBSYS_CTNETLINK: u16 = 1;
const IPCTNL_MSG_CT_GET: u16 = NFNL_SUBSYS_CTNETLINK << 8 | 1;
const IPCTNL_MSG_CT_DELETE: u16 = NFNL_SUBSYS_CTNETLINK << 8 | 2;

const CTA_TUPLE_ORIG: u16 = 1;
const CTA_TUPLE_REPLY: u16 = 2;
const CTA_ID: u16 = 12;
const CTA_FILTER: u16 = 25;
const CTA_FILTER_ORIG_FLAGS: u16 = 1;
const CTA_FILTER_REPLY_FLAGS: u16 = 2;
const CTA_FILTER_F_CTA_PROTO_NUM: u32 = 1 << 3;
const CTA_TUPLE_IP: u16 = 1;
const CTA_TUPLE_PROTO: u16 = 2;
const CTA_IP_V4_SRC: u16 = 1;
const CTA_IP_V4_DST: u16 = 2;
const CTA_IP_V6_SRC: u16 = 3;
const CTA_IP_V6_DST: u16 = 4;
const CTA_PROTO_NUM: u16 = 1;
const CTA_PROTO_SRC_PORT: u16 = 2;
const CTA_PROTO_DST_PORT: u16 = 3;
const AF_UNSPEC: u8 = 0;
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;

/// One direction of a tracked connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tuple {
    pub source: IpAddr,
    pub destination: IpAddr,
    pub protocol: u8,
    pub source_port: u16,
    pub destination_port: u16,
}

/// A tracked connection: as it was asked for, and as its answers come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    pub original: Tuple,
    pub reply: Tuple,
    id: u32,
}

fn tuple(value: &[u8]) -> Option<Tuple> {
    let attributes = Attributes(value);
    let address = |v4, v6| {
        attributes
            .path(&[CTA_TUPLE_IP, v4])
            .or_else(|| attributes.path(&[CTA_TUPLE_IP, v6]))
            .and_then(super::route::address_of)
    };
    let port = |kind| {
        attributes
            .path(&[CTA_TUPLE_PROTO, kind])
            .and_then(|value| value.first_chunk::<2>())
            .map_or(0, |bytes| u16::from_be_bytes(*bytes))
    };
    Some(Tuple {
        source: address(CTA_IP_V4_SRC, CTA_IP_V6_SRC)?,
        destination: address(CTA_IP_V4_DST, CTA_IP_V6_DST)?,
        protocol: *attributes
            .path(&[CTA_TUPLE_PROTO, CTA_PROTO_NUM])?
            .first()?,
        source_port: port(CTA_PROTO_SRC_PORT),
        destination_port: port(CTA_PROTO_DST_PORT),
    })
}

fn parse(message: &Message<'_>) -> Option<Entry> {
    let (_, attributes) = message.split(4)?;
    Some(Entry {
        original: tuple(attributes.find(CTA_TUPLE_ORIG)?)?,
        reply: tuple(attributes.find(CTA_TUPLE_REPLY)?)?,
        id: super::be32_of(attributes.find(CTA_ID)?)?,
    })
}

/// Lists the entries of one protocol, of both families. The kernel filters, so a table full of TCP costs no copies.
pub fn entries(socket: &Socket, protocol: u8) -> io::Result<Vec<Entry>> {
    let mut batch = Batch::new();
    batch.message(IPCTNL_MSG_CT_GET, NLM_F_DUMP, &[AF_UNSPEC, 0, 0, 0]);
    let filter = batch.nest(CTA_FILTER);
    batch.attribute_u32(CTA_FILTER_ORIG_FLAGS, CTA_FILTER_F_CTA_PROTO_NUM);
    batch.attribute_u32(CTA_FILTER_REPLY_FLAGS, 0);
    batch.end(filter);
    let original = batch.nest(CTA_TUPLE_ORIG);
    let proto = batch.nest(CTA_TUPLE_PROTO);
    batch.attribute_u8(CTA_PROTO_NUM, protocol);
    batch.end(proto);
    batch.end(original);
    let mut found = Vec::new();
    let answer = socket.query(&mut batch, |message| found.extend(parse(message)));
    match answer {
        // Before Linux 5.8 there is no filter.
        Err(error) if matches!(error.raw_os_error(), Some(libc::EOPNOTSUPP | libc::EINVAL)) => {
            let mut batch = Batch::new();
            batch.message(IPCTNL_MSG_CT_GET, NLM_F_DUMP, &[AF_UNSPEC, 0, 0, 0]);
            found.clear();
            socket.query(&mut batch, |message| found.extend(parse(message)))?;
        }
        answer => answer?,
    }
    found.retain(|entry| entry.original.protocol == protocol);
    Ok(found)
}

/// Deletes one entry; one that is gone or was replaced meanwhile is no error.
pub fn delete(socket: &Socket, entry: &Entry) -> io::Result<()> {
    let mut batch = Batch::new();
    let family = match entry.original.source {
        IpAddr::V4(_) => AF_INET,
        IpAddr::V6(_) => AF_INET6,
    };
    batch.message(IPCTNL_MSG_CT_DELETE, 0, &[family, 0, 0, 0]);
    let original = batch.nest(CTA_TUPLE_ORIG);
    let ip = batch.nest(CTA_TUPLE_IP);
    for (address, v4, v6) in [
        (entry.original.source, CTA_IP_V4_SRC, CTA_IP_V6_SRC),
        (entry.original.destination, CTA_IP_V4_DST, CTA_IP_V6_DST),
    ] {
        match address {
            IpAddr::V4(address) => batch.attribute(v4, &address.octets()),
            IpAddr::V6(address) => batch.attribute(v6, &address.octets()),
        };
    }
    batch.end(ip);
    let proto = batch.nest(CTA_TUPLE_PROTO);
    batch.attribute_u8(CTA_PROTO_NUM, entry.original.protocol);
    batch.attribute(
        CTA_PROTO_SRC_PORT,
        &entry.original.source_port.to_be_bytes(),
    );
    batch.attribute(
        CTA_PROTO_DST_PORT,
        &entry.original.destination_port.to_be_bytes(),
    );
    batch.end(proto);
    batch.end(original);
    batch.attribute_be32(CTA_ID, entry.id);
    match socket.execute(&mut batch) {
        Err(error) if error.errno() == libc::ENOENT => Ok(()),
        answer => Ok(answer?),
    }
}
