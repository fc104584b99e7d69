//! DNS messages (RFC 1035, RFC 6891): what is needed to read a question, to answer it and to check what a server says.
//!
//! Compression pointers are never followed: a question cannot hold one, and elsewhere a name ends with its first. So no
//! message, however made, costs more than one walk over its bytes.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

const HEADER_BYTES: usize = 12;
/// The longest name on the wire.
const NAME_BYTES_MAX: usize = 255;
const LABEL_BYTES_MAX: usize = 63;
/// What fits into a datagram for a client that says nothing else.
const UDP_BYTES: usize = 512;
/// The longest message over TCP.
pub const TCP_BYTES_MAX: usize = 65_535;
/// Seconds that an answer may be kept (Docker's figure).
const TTL_SECONDS: u32 = 600;
const OPT_BYTES: usize = 11;

const QR: u16 = 1 << 15;
const OPCODE: u16 = 0b1111 << 11;
const TC: u16 = 1 << 9;
const RD: u16 = 1 << 8;
const RA: u16 = 1 << 7;
const CD: u16 = 1 << 4;
const RCODE: u16 = 0b1111;

pub const TYPE_A: u16 = 1;
pub const TYPE_PTR: u16 = 12;
pub const TYPE_MX: u16 = 15;
pub const TYPE_AAAA: u16 = 28;
const TYPE_OPT: u16 = 41;
const CLASS_IN: u16 = 1;

/// Response codes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u16)]
pub enum Rcode {
    NoError = 0,
    FormatError = 1,
    ServerFailure = 2,
    NotImplemented = 4,
    Refused = 5,
}

/// A name in lower case with dots and without the last of them.
#[derive(Debug, Clone, Copy)]
pub struct Name {
    text: [u8; NAME_BYTES_MAX],
    length: u8,
    /// No label has a dot of its own, so that the text stands for this name alone.
    is_plain: bool,
}

impl Name {
    /// Returns the text, `None` if it would stand for more than one name.
    pub fn text(&self) -> Option<&[u8]> {
        self.is_plain
            .then(|| &self.text[..usize::from(self.length)])
    }
}

/// A question and what is needed to answer it.
#[derive(Debug)]
pub struct Query<'a> {
    /// The message without what may follow it.
    pub message: &'a [u8],
    pub name: Name,
    pub kind: u16,
    question_end: usize,
    /// The size of datagrams that the client takes, if it speaks EDNS.
    edns_bytes: Option<u16>,
}

/// What becomes of a message that is no query.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Nobody is answered.
    Ignored,
    Refused(Rcode),
}

const MALFORMED: Fault = Fault::Refused(Rcode::FormatError);

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    let pair = bytes.get(at..at + 2)?;
    Some(u16::from_be_bytes([pair[0], pair[1]]))
}

/// Reads the question's name; returns where it ends.
fn question_name(bytes: &[u8]) -> Option<(Name, usize)> {
    let mut name = Name {
        text: [0; NAME_BYTES_MAX],
        length: 0,
        is_plain: true,
    };
    let (mut at, mut length) = (HEADER_BYTES, 0usize);
    loop {
        let size = usize::from(*bytes.get(at)?);
        at += 1;
        if size == 0 {
            break;
        }
        // More than 63 is a pointer or a kind of label that nobody uses.
        if size > LABEL_BYTES_MAX || at + size - HEADER_BYTES >= NAME_BYTES_MAX {
            return None;
        }
        if length > 0 {
            name.text[length] = b'.';
            length += 1;
        }
        for &byte in bytes.get(at..at + size)? {
            name.is_plain &= byte != b'.';
            name.text[length] = byte.to_ascii_lowercase();
            length += 1;
        }
        at += size;
    }
    name.length = u8::try_from(length).ok()?;
    Some((name, at))
}

/// Returns where the name that begins at `at` ends.
fn skip_name(bytes: &[u8], mut at: usize) -> Option<usize> {
    loop {
        match usize::from(*bytes.get(at)?) {
            0 => return Some(at + 1),
            size if size <= LABEL_BYTES_MAX => at += 1 + size,
            pointer if pointer >= 0xc0 => return Some(at + 2),
            _ => return None,
        }
    }
}

/// Reads a query.
pub fn parse(bytes: &[u8]) -> Result<Query<'_>, Fault> {
    let header = bytes.get(..HEADER_BYTES).ok_or(Fault::Ignored)?;
    let field = |index: usize| u16::from_be_bytes([header[2 * index], header[2 * index + 1]]);
    let flags = field(1);
    if flags & QR != 0 {
        return Err(Fault::Ignored);
    }
    if flags & OPCODE != 0 {
        return Err(Fault::Refused(Rcode::NotImplemented));
    }
    let (questions, answers, authorities, additional) = (field(2), field(3), field(4), field(5));
    // As miekg/dns takes them: one question, and hardly anything else.
    if questions != 1 || answers > 1 || authorities > 1 || additional > 2 {
        return Err(MALFORMED);
    }
    let (name, name_end) = question_name(bytes).ok_or(MALFORMED)?;
    let kind = u16_at(bytes, name_end).ok_or(MALFORMED)?;
    u16_at(bytes, name_end + 2).ok_or(MALFORMED)?;
    let question_end = name_end + 4;
    let (end, edns_bytes) =
        records(bytes, question_end, answers + authorities + additional).ok_or(MALFORMED)?;
    Ok(Query {
        message: &bytes[..end],
        name,
        kind,
        question_end,
        edns_bytes,
    })
}

/// Walks over so many records; returns where the last ends and the size that an OPT record names.
fn records(bytes: &[u8], mut at: usize, count: u16) -> Option<(usize, Option<u16>)> {
    let mut edns_bytes = None;
    for _ in 0..count {
        let begin = at;
        at = skip_name(bytes, at)?;
        let (kind, class) = (u16_at(bytes, at)?, u16_at(bytes, at + 2)?);
        at += 10 + usize::from(u16_at(bytes, at + 8)?);
        if at > bytes.len() {
            return None;
        }
        // Only one, and at the root.
        if kind == TYPE_OPT && (bytes[begin] != 0 || edns_bytes.replace(class).is_some()) {
            return None;
        }
    }
    Some((at, edns_bytes))
}

/// A record of an answer; its name is the question's.
#[derive(Debug, Clone, Copy)]
pub enum Record<'a> {
    A(Ipv4Addr),
    Aaaa(Ipv6Addr),
    Ptr(&'a str),
}

impl From<IpAddr> for Record<'_> {
    fn from(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(address) => Self::A(address),
            IpAddr::V6(address) => Self::Aaaa(address),
        }
    }
}

impl Query<'_> {
    /// Tells how long an answer by a datagram may be.
    pub fn udp_bytes_max(&self) -> usize {
        usize::from(self.edns_bytes.unwrap_or(0)).max(UDP_BYTES)
    }

    /// The question's bytes.
    pub fn question(&self) -> &[u8] {
        &self.message[HEADER_BYTES..self.question_end]
    }

    /// Writes an answer into `out`, at most `bytes_max` long: what does not fit is left out, and the answer says so.
    pub fn answer<'r>(
        &self,
        rcode: Rcode,
        records: impl Iterator<Item = Record<'r>>,
        bytes_max: usize,
        out: &mut Vec<u8>,
    ) {
        out.clear();
        out.extend_from_slice(&self.message[..HEADER_BYTES]);
        out.extend_from_slice(self.question());
        let room = match self.edns_bytes {
            Some(_) => bytes_max.saturating_sub(OPT_BYTES),
            None => bytes_max,
        };
        let (mut count, mut is_cut) = (0u16, false);
        for record in records {
            let before = out.len();
            if !push(record, out) {
                continue;
            }
            if out.len() > room {
                out.truncate(before);
                is_cut = true;
                break;
            }
            count += 1;
        }
        if self.edns_bytes.is_some() {
            // The root, OPT, the size we take, no extended code, version 0, no options.
            let [high, low] = (TCP_BYTES_MAX as u16).to_be_bytes();
            out.extend_from_slice(&[0, 0, TYPE_OPT as u8, high, low, 0, 0, 0, 0, 0, 0]);
        }
        let asked = u16_at(self.message, 2).unwrap_or(0);
        let cut = if is_cut { TC } else { 0 };
        let flags = QR | (asked & (RD | CD)) | RA | cut | rcode as u16;
        let counts = [flags, 1, count, 0, u16::from(self.edns_bytes.is_some())];
        for (index, value) in counts.into_iter().enumerate() {
            out[2 + 2 * index..4 + 2 * index].copy_from_slice(&value.to_be_bytes());
        }
    }
}

/// Writes a record; false for one that cannot be written.
fn push(record: Record<'_>, out: &mut Vec<u8>) -> bool {
    let begin = out.len();
    let kind = match record {
        Record::A(_) => TYPE_A,
        Record::Aaaa(_) => TYPE_AAAA,
        Record::Ptr(_) => TYPE_PTR,
    };
    // A pointer to the question's name.
    out.extend_from_slice(&[0xc0, HEADER_BYTES as u8]);
    out.extend_from_slice(&kind.to_be_bytes());
    out.extend_from_slice(&CLASS_IN.to_be_bytes());
    out.extend_from_slice(&TTL_SECONDS.to_be_bytes());
    out.extend_from_slice(&[0, 0]);
    let data = out.len();
    match record {
        Record::A(address) => out.extend_from_slice(&address.octets()),
        Record::Aaaa(address) => out.extend_from_slice(&address.octets()),
        Record::Ptr(name) => {
            for label in name.split('.') {
                if label.is_empty() || label.len() > LABEL_BYTES_MAX {
                    out.truncate(begin);
                    return false;
                }
                out.push(label.len() as u8);
                out.extend_from_slice(label.as_bytes());
            }
            out.push(0);
        }
    }
    let length = out.len() - data;
    if length > NAME_BYTES_MAX {
        out.truncate(begin);
        return false;
    }
    out[data - 2..data].copy_from_slice(&(length as u16).to_be_bytes());
    true
}

/// Writes the answer to what is no query: a header alone.
pub fn refuse(bytes: &[u8], rcode: Rcode, out: &mut Vec<u8>) {
    out.clear();
    let Some(header) = bytes.first_chunk::<4>() else {
        return;
    };
    let asked = u16::from_be_bytes([header[2], header[3]]);
    let flags = QR | (asked & (OPCODE | RD)) | rcode as u16;
    out.extend_from_slice(&header[..2]);
    out.extend_from_slice(&flags.to_be_bytes());
    out.resize(HEADER_BYTES, 0);
}

/// What a server's message is worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Not the answer to this question: a late one or a forged one.
    NotOurs,
    Answer,
    /// The server cannot or will not; another may.
    Failed,
}

/// Judges a server's message by the number and the question that were sent to it.
pub fn judge(reply: &[u8], id: u16, question: &[u8]) -> Verdict {
    let field = |index: usize| u16_at(reply, 2 * index);
    let (Some(number), Some(flags), Some(questions)) = (field(0), field(1), field(2)) else {
        return Verdict::NotOurs;
    };
    if number != id || flags & QR == 0 || reply.len() < HEADER_BYTES {
        return Verdict::NotOurs;
    }
    let rcode = flags & RCODE;
    if questions == 0 && rcode != 0 {
        // Servers that do not like a message sometimes do not repeat it.
        return Verdict::Failed;
    }
    let Some(repeated) = reply.get(HEADER_BYTES..HEADER_BYTES + question.len()) else {
        return Verdict::NotOurs;
    };
    // Type and class are numbers and not letters.
    let name = question.len().saturating_sub(4);
    if questions != 1
        || !repeated[..name].eq_ignore_ascii_case(&question[..name])
        || repeated[name..] != question[name..]
    {
        return Verdict::NotOurs;
    }
    if rcode == Rcode::ServerFailure as u16 || rcode == Rcode::Refused as u16 {
        return Verdict::Failed;
    }
    Verdict::Answer
}

/// Makes a server's answer the client's: its number, its way to write the question.
pub fn adopt(reply: &mut [u8], query: &Query<'_>) {
    reply[..2].copy_from_slice(&query.message[..2]);
    if let Some(question) = reply.get_mut(HEADER_BYTES..query.question_end)
        && question.eq_ignore_ascii_case(query.question())
    {
        question.copy_from_slice(query.question());
    }
}

/// Cuts an answer that is longer than the client takes down to its question and says so.
pub fn cut(reply: &[u8], query: &Query<'_>, out: &mut Vec<u8>) {
    query.answer(Rcode::NoError, std::iter::empty(), usize::MAX, out);
    let flags = u16_at(reply, 2).unwrap_or(0) | TC;
    out[2..4].copy_from_slice(&flags.to_be_bytes());
}

#[cfg(test)]
#[path = "message_tests.rs"]
mod tests;
