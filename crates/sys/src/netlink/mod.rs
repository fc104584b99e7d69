//! Netlink sockets: messages built as bytes, several sent by one sendmsg(2), answers told apart by sequence number.
//!
//! A request is processed by the kernel inside sendmsg(2), so the answers of a batch lie in the receive queue when the
//! call returns: nothing here waits except for dumps. Only the last message of a batch asks for an acknowledgement; a
//! message that fails is reported in any case, and the error names its index. Families build on this: [`route`],
//! [`conntrack`] and `crate::nft`.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::net::sockopt::set_socket_send_buffer_size_force;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink as rustix_netlink,
};

pub mod conntrack;
pub mod route;

pub const NLM_F_REQUEST: u16 = 0x1;
pub const NLM_F_ACK: u16 = 0x4;
pub const NLM_F_DUMP: u16 = 0x300;
pub const NLM_F_REPLACE: u16 = 0x100;
pub const NLM_F_EXCL: u16 = 0x200;
pub const NLM_F_CREATE: u16 = 0x400;
pub const NLM_F_APPEND: u16 = 0x800;
const NLM_F_DUMP_INTR: u16 = 0x10;
const NLM_F_CAPPED: u16 = 0x100;
const NLM_F_ACK_TLVS: u16 = 0x200;

const NLMSG_NOOP: u16 = 1;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLMSGERR_ATTR_MSG: u16 = 1;

const NLA_F_NESTED: u16 = 1 << 15;
const NLA_TYPE_MASK: u16 = 0x3fff;

const HEADER_BYTES: usize = 16;
/// The kernel fills at most 32 KiB per datagram of a dump when the reader offers as much.
const RECEIVE_BYTES: usize = 32 * 1024;

/// A netlink protocol family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    Route,
    Netfilter,
}

/// Why a batch failed.
#[derive(Debug, thiserror::Error)]
#[error("netlink message {index}{}{}", if text.is_empty() { "" } else { ": " }, text)]
pub struct BatchError {
    /// Which message failed, counted from 0 in the order of the batch.
    pub index: usize,
    /// The kernel's own words (extended acknowledgement), often empty.
    pub text: String,
    #[source]
    pub source: io::Error,
}

impl BatchError {
    fn new(index: usize, source: io::Error) -> Self {
        Self {
            index,
            text: String::new(),
            source,
        }
    }

    /// Gives the errno, or 0 where the failure was not the kernel's.
    pub fn errno(&self) -> i32 {
        self.source.raw_os_error().unwrap_or(0)
    }
}

impl From<BatchError> for io::Error {
    fn from(error: BatchError) -> Self {
        if error.text.is_empty() {
            error.source
        } else {
            Self::new(
                error.source.kind(),
                format!("{} ({})", error.source, error.text),
            )
        }
    }
}

/// Messages to be sent together. Attributes go to the message begun last.
#[derive(Debug, Default, Clone)]
pub struct Batch {
    bytes: Vec<u8>,
    starts: Vec<usize>,
}

/// The position of an attribute that is still open.
#[must_use]
pub struct Nest(usize);

impl Batch {
    pub fn new() -> Self {
        Self::default()
    }

    /// Begins a message with its family's fixed header; the one before ends here.
    pub fn message(&mut self, kind: u16, flags: u16, header: &[u8]) -> &mut Self {
        self.finish();
        self.starts.push(self.bytes.len());
        self.bytes.extend_from_slice(&0u32.to_ne_bytes());
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes
            .extend_from_slice(&(flags | NLM_F_REQUEST).to_ne_bytes());
        self.bytes.extend_from_slice(&[0; 8]);
        self.bytes.extend_from_slice(header);
        self.pad();
        self
    }

    /// Adds an attribute.
    pub fn attribute(&mut self, kind: u16, value: &[u8]) -> &mut Self {
        let length = u16::try_from(value.len() + 4).expect("an attribute is shorter than 64 KiB");
        self.bytes.extend_from_slice(&length.to_ne_bytes());
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(value);
        self.pad();
        self
    }

    pub fn attribute_u8(&mut self, kind: u16, value: u8) -> &mut Self {
        self.attribute(kind, &[value])
    }

    pub fn attribute_u32(&mut self, kind: u16, value: u32) -> &mut Self {
        self.attribute(kind, &value.to_ne_bytes())
    }

    /// Adds a number in network order, as nf_tables and conntrack want theirs.
    pub fn attribute_be32(&mut self, kind: u16, value: u32) -> &mut Self {
        self.attribute(kind, &value.to_be_bytes())
    }

    /// Adds a string with its terminating zero.
    pub fn attribute_str(&mut self, kind: u16, value: &str) -> &mut Self {
        let mut bytes = Vec::with_capacity(value.len() + 1);
        bytes.extend_from_slice(value.as_bytes());
        bytes.push(0);
        self.attribute(kind, &bytes)
    }

    /// Opens an attribute that holds attributes; `end` closes it.
    pub fn nest(&mut self, kind: u16) -> Nest {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&0u16.to_ne_bytes());
        self.bytes
            .extend_from_slice(&(kind | NLA_F_NESTED).to_ne_bytes());
        Nest(start)
    }

    /// Adds bytes of a fixed header inside a nest (the veth peer's `ifinfomsg`).
    pub fn raw(&mut self, bytes: &[u8]) -> &mut Self {
        self.bytes.extend_from_slice(bytes);
        self.pad();
        self
    }

    pub fn end(&mut self, nest: Nest) -> &mut Self {
        let length =
            u16::try_from(self.bytes.len() - nest.0).expect("a nest is shorter than 64 KiB");
        self.bytes[nest.0..nest.0 + 2].copy_from_slice(&length.to_ne_bytes());
        self
    }

    /// Says how many messages there are.
    pub fn len(&self) -> usize {
        self.starts.len()
    }

    pub fn is_empty(&self) -> bool {
        self.starts.is_empty()
    }

    /// Gives the size of the messages in bytes.
    pub fn size_bytes(&self) -> usize {
        self.bytes.len()
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }

    fn finish(&mut self) {
        if let Some(&start) = self.starts.last() {
            let length =
                u32::try_from(self.bytes.len() - start).expect("a message is shorter than 4 GiB");
            self.bytes[start..start + 4].copy_from_slice(&length.to_ne_bytes());
        }
    }

    fn set_sequence(&mut self, first: u32) {
        for (offset, &start) in (0u32..).zip(&self.starts) {
            self.bytes[start + 8..start + 12]
                .copy_from_slice(&first.wrapping_add(offset).to_ne_bytes());
        }
    }

    /// Asks for an acknowledgement of one message.
    pub(crate) fn acknowledge(&mut self, index: usize) {
        self.add_flags(index, NLM_F_ACK);
    }

    fn add_flags(&mut self, index: usize, flags: u16) {
        let at = self.starts[index] + 6;
        let old = u16::from_ne_bytes([self.bytes[at], self.bytes[at + 1]]);
        self.bytes[at..at + 2].copy_from_slice(&(old | flags).to_ne_bytes());
    }
}

/// A message from the kernel.
#[derive(Debug, Clone, Copy)]
pub struct Message<'a> {
    pub kind: u16,
    pub flags: u16,
    pub sequence: u32,
    /// The family's fixed header and the attributes.
    pub payload: &'a [u8],
}

impl<'a> Message<'a> {
    /// Gives the fixed header of `size` bytes and the attributes after it.
    pub fn split(&self, size: usize) -> Option<(&'a [u8], Attributes<'a>)> {
        let header = self.payload.get(..size)?;
        let rest = self.payload.get(size.next_multiple_of(4)..).unwrap_or(&[]);
        Some((header, Attributes(rest)))
    }
}

/// Walks through the messages of one datagram.
#[derive(Debug, Clone, Copy)]
pub struct Messages<'a>(pub &'a [u8]);

impl<'a> Iterator for Messages<'a> {
    type Item = Message<'a>;

    fn next(&mut self) -> Option<Message<'a>> {
        let header = self.0.first_chunk::<HEADER_BYTES>()?;
        let length = u32::from_ne_bytes([header[0], header[1], header[2], header[3]]) as usize;
        let payload = self.0.get(HEADER_BYTES..length)?;
        let message = Message {
            kind: u16::from_ne_bytes([header[4], header[5]]),
            flags: u16::from_ne_bytes([header[6], header[7]]),
            sequence: u32::from_ne_bytes([header[8], header[9], header[10], header[11]]),
            payload,
        };
        self.0 = self.0.get(length.next_multiple_of(4)..).unwrap_or(&[]);
        Some(message)
    }
}

/// Walks through attributes, each with its type without flags.
#[derive(Debug, Clone, Copy)]
pub struct Attributes<'a>(pub &'a [u8]);

impl<'a> Iterator for Attributes<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<(u16, &'a [u8])> {
        let header = self.0.first_chunk::<4>()?;
        let length = u16::from_ne_bytes([header[0], header[1]]) as usize;
        let value = self.0.get(4..length)?;
        self.0 = self.0.get(length.next_multiple_of(4)..).unwrap_or(&[]);
        Some((
            u16::from_ne_bytes([header[2], header[3]]) & NLA_TYPE_MASK,
            value,
        ))
    }
}

impl<'a> Attributes<'a> {
    /// Finds the first attribute of a type.
    pub fn find(mut self, kind: u16) -> Option<&'a [u8]> {
        Iterator::find(&mut self, |&(found, _)| found == kind).map(|(_, value)| value)
    }

    /// Follows nested attributes down to one.
    pub fn path(self, kinds: &[u16]) -> Option<&'a [u8]> {
        let (last, nests) = kinds.split_last()?;
        let mut here = self;
        for &kind in nests {
            here = Attributes(here.find(kind)?);
        }
        here.find(*last)
    }
}

/// Reads a u32 in the machine's order.
pub fn u32_of(value: &[u8]) -> Option<u32> {
    value
        .first_chunk::<4>()
        .map(|bytes| u32::from_ne_bytes(*bytes))
}

/// Reads a u32 in network order.
pub fn be32_of(value: &[u8]) -> Option<u32> {
    value
        .first_chunk::<4>()
        .map(|bytes| u32::from_be_bytes(*bytes))
}

/// Reads a string, without its terminating zero.
pub fn str_of(value: &[u8]) -> String {
    let end = value
        .iter()
        .position(|&byte| byte == 0)
        .unwrap_or(value.len());
    String::from_utf8_lossy(&value[..end]).into_owned()
}

/// A netlink socket. Callers serialise their calls: two threads in one socket would read each other's answers.
#[derive(Debug)]
pub struct Socket {
    fd: OwnedFd,
    sequence: AtomicU32,
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl From<Socket> for OwnedFd {
    fn from(socket: Socket) -> Self {
        socket.fd
    }
}

impl From<OwnedFd> for Socket {
    /// Takes a socket made by [`Socket::open`], possibly by another thread in another namespace.
    fn from(fd: OwnedFd) -> Self {
        Self {
            fd,
            sequence: AtomicU32::new(1),
        }
    }
}

/// What the kernel counts beside the bytes of a message themselves.
const SEND_BUFFER_SLACK: usize = 64 << 10;

impl Socket {
    /// Opens a socket in the calling thread's network namespace.
    pub fn open(family: Family) -> io::Result<Self> {
        let protocol = match family {
            // NETLINK_ROUTE is protocol 0.
            Family::Route => None,
            Family::Netfilter => Some(rustix_netlink::NETFILTER),
        };
        let fd = rustix::net::socket_with(
            AddressFamily::NETLINK,
            SocketType::RAW,
            SocketFlags::CLOEXEC,
            protocol,
        )?;
        // Acknowledgements without the copy of the request, errors with the kernel's words.
        crate::net::set_netlink_option(fd.as_fd(), libc::NETLINK_CAP_ACK)?;
        crate::net::set_netlink_option(fd.as_fd(), libc::NETLINK_EXT_ACK)?;
        Ok(Self::from(fd))
    }

    /// Joins multicast groups (`NFNLGRP_NFTABLES`, `RTNLGRP_LINK`). To be called once.
    pub fn subscribe(&self, groups: &[u32]) -> io::Result<()> {
        // A socket without a port number of its own is left out of notifications.
        rustix::net::bind(&self.fd, &rustix_netlink::SocketAddrNetlink::new(0, 0))?;
        groups
            .iter()
            .try_for_each(|&group| crate::net::netlink_add_membership(self.fd.as_fd(), group))
    }

    /// Sends all messages by one sendmsg(2) and reports the first that failed.
    pub fn execute(&self, batch: &mut Batch) -> Result<(), BatchError> {
        if batch.is_empty() {
            return Ok(());
        }
        batch.add_flags(batch.len() - 1, NLM_F_ACK);
        self.exchange(batch, batch.len() - 1)
    }

    /// As `execute`, where the message that asks for the acknowledgement is chosen by the caller beforehand.
    pub(crate) fn exchange(
        &self,
        batch: &mut Batch,
        acknowledged: usize,
    ) -> Result<(), BatchError> {
        batch.finish();
        let count = u32::try_from(batch.len()).unwrap_or(u32::MAX);
        let first = self.sequence.fetch_add(count, Ordering::Relaxed);
        batch.set_sequence(first);
        self.drain();
        self.send(&batch.bytes)
            .map_err(|source| BatchError::new(0, source))?;
        let mut buffer = vec![0; 8 * 1024];
        let mut failed: Option<BatchError> = None;
        let mut answered = false;
        loop {
            let length = match rustix::net::recv(&self.fd, &mut buffer[..], RecvFlags::DONTWAIT) {
                Ok((length, _)) => length,
                Err(rustix::io::Errno::WOULDBLOCK) => break,
                Err(rustix::io::Errno::INTR) => continue,
                Err(error) => return Err(BatchError::new(0, error.into())),
            };
            for message in Messages(&buffer[..length]) {
                let index = message.sequence.wrapping_sub(first);
                if message.kind != NLMSG_ERROR || index >= count {
                    continue;
                }
                let index = index as usize;
                match error_of(&message) {
                    None => answered |= index == acknowledged,
                    Some((source, text)) => {
                        if failed.as_ref().is_none_or(|earlier| index < earlier.index) {
                            failed = Some(BatchError {
                                index,
                                text,
                                source,
                            });
                        }
                    }
                }
            }
        }
        match failed {
            Some(error) => Err(error),
            None if answered => Ok(()),
            None => Err(BatchError::new(
                acknowledged,
                io::Error::new(
                    io::ErrorKind::UnexpectedEof,
                    "the kernel did not acknowledge",
                ),
            )),
        }
    }

    /// Sends one request that is a dump or a query and hands each answer to `visit`. A dump that was disturbed by a
    /// change is reported as `Interrupted`, for the caller to repeat.
    pub fn query(&self, batch: &mut Batch, mut visit: impl FnMut(&Message<'_>)) -> io::Result<()> {
        batch.finish();
        let first = self.sequence.fetch_add(1, Ordering::Relaxed);
        batch.set_sequence(first);
        let flags = u16::from_ne_bytes([batch.bytes[6], batch.bytes[7]]);
        let dump = flags & NLM_F_DUMP == NLM_F_DUMP;
        if !dump {
            batch.add_flags(0, NLM_F_ACK);
        }
        self.drain();
        self.send(&batch.bytes)?;
        let mut buffer = vec![0; RECEIVE_BYTES];
        let mut disturbed = false;
        loop {
            let length = match rustix::net::recv(&self.fd, &mut buffer[..], RecvFlags::empty()) {
                Ok((length, _)) => length,
                Err(rustix::io::Errno::INTR) => continue,
                Err(error) => return Err(error.into()),
            };
            for message in Messages(&buffer[..length]) {
                if message.sequence != first {
                    continue;
                }
                disturbed |= message.flags & NLM_F_DUMP_INTR != 0;
                match message.kind {
                    NLMSG_NOOP => {}
                    NLMSG_ERROR => {
                        return match error_of(&message) {
                            None => Ok(()),
                            Some((source, _)) => Err(source),
                        };
                    }
                    NLMSG_DONE => {
                        return if disturbed {
                            Err(io::ErrorKind::Interrupted.into())
                        } else {
                            Ok(())
                        };
                    }
                    _ => visit(&message),
                }
            }
        }
    }

    /// Waits for one datagram of a subscribed group.
    pub fn receive(&self, buffer: &mut [u8]) -> io::Result<usize> {
        Ok(rustix::io::retry_on_intr(|| {
            rustix::net::recv(&self.fd, &mut *buffer, RecvFlags::empty())
        })?
        .0)
    }

    fn send(&self, bytes: &[u8]) -> io::Result<()> {
        let send =
            || rustix::io::retry_on_intr(|| rustix::net::send(&self.fd, bytes, SendFlags::empty()));
        let sent = match send() {
            // A batch goes as one message, which the socket's buffer must hold: 208 KiB unless told otherwise, that is some
            // eighty networks or a few thousand ports. Room for it needs CAP_NET_ADMIN, as the batch itself does.
            Err(rustix::io::Errno::MSGSIZE) => {
                set_socket_send_buffer_size_force(&self.fd, bytes.len() + SEND_BUFFER_SLACK)?;
                send()?
            }
            sent => sent?,
        };
        if sent == bytes.len() {
            Ok(())
        } else {
            Err(io::ErrorKind::WriteZero.into())
        }
    }

    /// Throws away what an earlier, failed call left behind.
    fn drain(&self) {
        let mut byte = [0; 1];
        while rustix::net::recv(
            &self.fd,
            &mut byte[..],
            RecvFlags::DONTWAIT | RecvFlags::TRUNC,
        )
        .is_ok()
        {}
    }
}

/// Reads an error message: `None` is an acknowledgement.
fn error_of(message: &Message<'_>) -> Option<(io::Error, String)> {
    let code = message
        .payload
        .first_chunk::<4>()
        .map_or(-libc::EPROTO, |bytes| i32::from_ne_bytes(*bytes));
    if code == 0 {
        return None;
    }
    let mut text = String::new();
    if message.flags & NLM_F_ACK_TLVS != 0 {
        // The offending request follows: its header alone when capped.
        let request = message
            .payload
            .get(4..8)
            .and_then(u32_of)
            .filter(|_| message.flags & NLM_F_CAPPED == 0)
            .map_or(HEADER_BYTES, |length| length as usize);
        if let Some(rest) = message.payload.get(4 + request.next_multiple_of(4)..)
            && let Some(words) = Attributes(rest).find(NLMSGERR_ATTR_MSG)
        {
            text = str_of(words);
        }
    }
    Some((io::Error::from_raw_os_error(-code), text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_and_attributes_are_read_as_they_were_built() {
        let mut batch = Batch::new();
        batch.message(16, NLM_F_CREATE, &[1, 2, 3]);
        batch.attribute_str(3, "eth0");
        let nest = batch.nest(18);
        batch.attribute_u32(4, 1500);
        batch.attribute_u8(5, 9);
        batch.end(nest);
        batch.message(20, 0, &[]);
        batch.finish();
        batch.set_sequence(7);
        let messages: Vec<Message<'_>> = Messages(&batch.bytes).collect();
        assert_eq!(messages.len(), 2);
        assert_eq!((messages[0].kind, messages[0].sequence), (16, 7));
        assert_eq!(messages[0].flags, NLM_F_CREATE | NLM_F_REQUEST);
        assert_eq!((messages[1].kind, messages[1].sequence), (20, 8));
        let (header, attributes) = messages[0].split(3).unwrap();
        assert_eq!(header, [1, 2, 3]);
        assert_eq!(attributes.find(3).map(str_of).as_deref(), Some("eth0"));
        assert_eq!(attributes.path(&[18, 4]).and_then(u32_of), Some(1500));
        assert_eq!(attributes.path(&[18, 5]), Some(&[9][..]));
        assert_eq!(attributes.path(&[18, 6]), None);
    }

    #[test]
    fn broken_lengths_end_the_walk() {
        assert_eq!(
            Messages(&[255, 255, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]).count(),
            0
        );
        assert_eq!(
            Messages(&[3, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]).count(),
            0
        );
        assert_eq!(Attributes(&[2, 0, 1, 0, 9]).count(), 0);
        assert_eq!(Attributes(&[200, 0, 1, 0, 9]).count(), 0);
    }
}
