//! Reads an archive entry by entry from a stream that is never sought.

use super::header::{BLOCK, Header, invalid};
use crate::error::{Error, Result};
use std::io::{self, BufRead};

/// Limits what one long name, link or pax record may take: 1 MiB, as other readers do.
const SPECIAL_SIZE_MAX: u64 = 1 << 20;

/// Receives every byte of the archive that is not content handed out by [`Reader::content`].
pub trait Tee {
    /// Records bytes in the order of the archive.
    fn raw(&mut self, bytes: &[u8]) -> Result<()>;
}

/// Records nothing.
impl Tee for () {
    fn raw(&mut self, _: &[u8]) -> Result<()> {
        Ok(())
    }
}

/// Is what an entry makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    File,
    HardLink,
    SymbolicLink,
    CharacterDevice,
    BlockDevice,
    Directory,
    Fifo,
}

/// Is one entry with all extensions applied. Names are bytes as they stand in the archive.
#[derive(Clone, Debug)]
pub struct Entry {
    pub path: Vec<u8>,
    pub link: Vec<u8>,
    pub kind: Kind,
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    /// Seconds and nanoseconds since 1970.
    pub mtime: (i64, u32),
    /// Major and minor.
    pub device: (u32, u32),
    /// The file's size; for sparse files that with its holes.
    pub size: u64,
    /// The bytes in the archive.
    pub stored_size: u64,
    /// Where the stored bytes go, `(offset, length)` in order; `None` for a file without holes.
    pub sparse: Option<Vec<(u64, u64)>>,
    /// Extended attributes, name and value.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

#[derive(Default)]
struct Pax {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    size: Option<u64>,
    uid: Option<i64>,
    gid: Option<i64>,
    mtime: Option<(i64, u32)>,
    xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    sparse_major: Option<u64>,
    sparse_minor: Option<u64>,
    sparse_name: Option<Vec<u8>>,
    sparse_size: Option<u64>,
    sparse_map: Vec<u64>,
    is_sparse: bool,
}

/// Reads entries from `input`.
pub struct Reader<R, T> {
    input: R,
    tee: T,
    /// Content of the current entry that was not taken yet.
    remaining: u64,
    padding: u64,
    finished: bool,
}

impl<R: BufRead, T: Tee> Reader<R, T> {
    /// Starts to read.
    pub fn new(input: R, tee: T) -> Self {
        Self {
            input,
            tee,
            remaining: 0,
            padding: 0,
            finished: false,
        }
    }

    /// Gives the recorder.
    pub fn tee(&mut self) -> &mut T {
        &mut self.tee
    }

    /// Takes the recorder out.
    pub fn into_tee(self) -> T {
        self.tee
    }

    /// Moves to the next entry; what was not taken of the last one goes to the recorder. `None` is the end, behind
    /// which everything up to the end of the stream was recorded.
    pub fn next_entry(&mut self) -> Result<Option<Entry>> {
        if self.finished {
            return Ok(None);
        }
        self.skip()?;
        let mut pax = Pax::default();
        let mut long_name = None;
        let mut long_link = None;
        loop {
            let Some(block) = self.block()? else {
                self.finished = true;
                return Ok(None);
            };
            if block.iter().all(|byte| *byte == 0) {
                return self.end();
            }
            let header = Header(&block);
            if !header.checksum_holds() {
                return Err(invalid());
            }
            match header.type_flag() {
                b'x' => {
                    let body = self.special(header.size()?)?;
                    pax = parse_pax(&body)?;
                }
                b'g' => {
                    self.special(header.size()?)?;
                }
                b'L' => long_name = Some(without_nul(self.special(header.size()?)?)),
                b'K' => long_link = Some(without_nul(self.special(header.size()?)?)),
                _ => return self.entry(&header, pax, long_name, long_link).map(Some),
            }
        }
    }

    /// Hands out the current entry's stored bytes in pieces that are not copied; they are not recorded.
    pub fn content(&mut self, take: &mut dyn FnMut(&[u8]) -> Result<()>) -> Result<()> {
        while self.remaining > 0 {
            let buffer = fill(&mut self.input)?;
            if buffer.is_empty() {
                return Err(unexpected_end());
            }
            let length = buffer
                .len()
                .min(usize::try_from(self.remaining).unwrap_or(usize::MAX));
            take(&buffer[..length])?;
            self.input.consume(length);
            self.remaining -= length as u64;
        }
        Ok(())
    }

    /// Hands out the current entry's stored bytes and records them as well.
    pub fn content_recorded(&mut self, take: &mut dyn FnMut(&[u8]) -> Result<()>) -> Result<()> {
        while self.remaining > 0 {
            let buffer = fill(&mut self.input)?;
            if buffer.is_empty() {
                return Err(unexpected_end());
            }
            let length = buffer
                .len()
                .min(usize::try_from(self.remaining).unwrap_or(usize::MAX));
            take(&buffer[..length])?;
            self.tee.raw(&buffer[..length])?;
            self.input.consume(length);
            self.remaining -= length as u64;
        }
        Ok(())
    }

    fn skip(&mut self) -> Result<()> {
        self.remaining += std::mem::take(&mut self.padding);
        self.content_recorded(&mut |_| Ok(()))
    }

    /// Reads one block; `None` at a clean end of the stream.
    fn block(&mut self) -> Result<Option<[u8; BLOCK]>> {
        let mut block = [0; BLOCK];
        let mut filled = 0;
        while filled < BLOCK {
            let buffer = fill(&mut self.input)?;
            if buffer.is_empty() {
                if filled == 0 {
                    return Ok(None);
                }
                return Err(unexpected_end());
            }
            let length = buffer.len().min(BLOCK - filled);
            block[filled..filled + length].copy_from_slice(&buffer[..length]);
            self.input.consume(length);
            filled += length;
        }
        self.tee.raw(&block)?;
        Ok(Some(block))
    }

    /// Reads and records the body of an extension header with its padding.
    fn special(&mut self, size: u64) -> Result<Vec<u8>> {
        if size > SPECIAL_SIZE_MAX {
            return Err(Error::archive("archive/tar: header field too long"));
        }
        let mut body = Vec::with_capacity(size as usize);
        self.remaining = size;
        self.content_recorded(&mut |bytes| {
            body.extend_from_slice(bytes);
            Ok(())
        })?;
        self.padding = padding(size);
        self.skip()?;
        Ok(body)
    }

    /// Takes the end mark and everything behind it: it belongs to the archive's digest.
    fn end(&mut self) -> Result<Option<Entry>> {
        self.finished = true;
        if let Some(block) = self.block()? {
            if block.iter().any(|byte| *byte != 0) {
                return Err(invalid());
            }
            loop {
                let buffer = fill(&mut self.input)?;
                if buffer.is_empty() {
                    break;
                }
                self.tee.raw(buffer)?;
                let length = buffer.len();
                self.input.consume(length);
            }
        }
        Ok(None)
    }

    fn entry(
        &mut self,
        header: &Header<'_>,
        pax: Pax,
        long_name: Option<Vec<u8>>,
        long_link: Option<Vec<u8>>,
    ) -> Result<Entry> {
        let path = pax
            .sparse_name
            .or(pax.path)
            .or(long_name)
            .unwrap_or_else(|| header.name());
        let link = pax.link.or(long_link).unwrap_or_else(|| header.link());
        let kind = match header.type_flag() {
            b'0' | 0 | b'7' | b'S' if path.ends_with(b"/") => Kind::Directory,
            b'0' | 0 | b'7' | b'S' => Kind::File,
            b'1' => Kind::HardLink,
            b'2' => Kind::SymbolicLink,
            b'3' => Kind::CharacterDevice,
            b'4' => Kind::BlockDevice,
            b'5' => Kind::Directory,
            b'6' => Kind::Fifo,
            other => return Err(Error::archive(format!("unhandled tar header type {other}"))),
        };
        let stored_size = if kind == Kind::File {
            pax.size.map_or_else(|| header.size(), Ok)?
        } else {
            0
        };
        self.remaining = stored_size;
        self.padding = padding(stored_size);
        let mut size = stored_size;
        let mut sparse = None;
        if kind == Kind::File && header.type_flag() == b'S' {
            let (map, real_size) = self.gnu_sparse(header)?;
            size = real_size;
            sparse = Some(map);
        } else if kind == Kind::File && pax.is_sparse {
            let flat = if pax.sparse_major == Some(1) && pax.sparse_minor.unwrap_or(0) == 0 {
                self.sparse_map_in_content()?
            } else {
                pax.sparse_map
            };
            if flat.len() % 2 != 0 {
                return Err(invalid());
            }
            sparse = Some(
                flat.chunks_exact(2)
                    .map(|pair| (pair[0], pair[1]))
                    .collect::<Vec<_>>(),
            );
            size = pax.sparse_size.unwrap_or(size);
        }
        if let Some(map) = &sparse {
            check_sparse(map, size, self.remaining)?;
        }
        let id = |number: i64| u32::try_from(number).map_err(|_| invalid());
        Ok(Entry {
            path,
            link,
            kind,
            mode: header.mode()?,
            uid: id(pax.uid.map_or_else(|| header.uid(), Ok)?)?,
            gid: id(pax.gid.map_or_else(|| header.gid(), Ok)?)?,
            mtime: pax
                .mtime
                .map_or_else(|| header.mtime().map(|seconds| (seconds, 0)), Ok)?,
            device: if matches!(kind, Kind::CharacterDevice | Kind::BlockDevice) {
                header.device()?
            } else {
                (0, 0)
            },
            size,
            stored_size: self.remaining,
            sparse,
            xattrs: pax.xattrs,
        })
    }

    /// Reads the map of GNU's old sparse format: four pairs in the header, 21 in each further block.
    fn gnu_sparse(&mut self, header: &Header<'_>) -> Result<(Vec<(u64, u64)>, u64)> {
        let mut map = Vec::new();
        let take = |map: &mut Vec<(u64, u64)>, bytes: &[u8]| -> Result<()> {
            for pair in bytes.chunks_exact(24) {
                if pair[0] == 0 {
                    break;
                }
                let number = |field: &[u8]| {
                    super::header::number(field)
                        .and_then(|number| u64::try_from(number).ok())
                        .ok_or_else(invalid)
                };
                map.push((number(&pair[..12])?, number(&pair[12..])?));
            }
            Ok(())
        };
        take(&mut map, &header.0[386..482])?;
        let mut more = header.0[482] != 0;
        while more {
            // The map's blocks stand between header and content and are not counted by the size field.
            let block = self.block()?.ok_or_else(unexpected_end)?;
            take(&mut map, &block[..504])?;
            more = block[504] != 0;
            if map.len() > 1 << 20 {
                return Err(Error::archive("archive/tar: header field too long"));
            }
        }
        let real_size = u64::try_from(header.number(483..495)?).map_err(|_| invalid())?;
        Ok((map, real_size))
    }

    /// Reads the map of pax sparse format 1.0: decimal lines in front of the content, padded to a block.
    fn sparse_map_in_content(&mut self) -> Result<Vec<u64>> {
        let mut numbers: Vec<u64> = Vec::new();
        let mut wanted = None;
        let mut current: Option<u64> = None;
        loop {
            if self.remaining < BLOCK as u64 {
                return Err(invalid());
            }
            let block = self.block()?.ok_or_else(unexpected_end)?;
            self.remaining -= BLOCK as u64;
            for byte in block {
                if wanted.is_some_and(|wanted: u64| numbers.len() as u64 >= wanted) {
                    break;
                }
                match byte {
                    b'0'..=b'9' => {
                        let digit = u64::from(byte - b'0');
                        let value = current
                            .unwrap_or(0)
                            .checked_mul(10)
                            .and_then(|n| n.checked_add(digit));
                        current = Some(value.ok_or_else(invalid)?);
                    }
                    b'\n' => {
                        let number = current.take().ok_or_else(invalid)?;
                        if wanted.is_none() {
                            if number > 1 << 20 {
                                return Err(Error::archive("archive/tar: header field too long"));
                            }
                            wanted = Some(number * 2);
                        } else {
                            numbers.push(number);
                        }
                    }
                    _ => return Err(invalid()),
                }
            }
            if wanted.is_some_and(|wanted| numbers.len() as u64 >= wanted) {
                return Ok(numbers);
            }
        }
    }
}

fn check_sparse(map: &[(u64, u64)], size: u64, stored: u64) -> Result<()> {
    let (mut end, mut sum) = (0_u64, 0_u64);
    for (offset, length) in map {
        if *offset < end {
            return Err(invalid());
        }
        end = offset.checked_add(*length).ok_or_else(invalid)?;
        sum += length;
    }
    if end > size || sum != stored {
        Err(invalid())
    } else {
        Ok(())
    }
}

fn fill<R: BufRead>(input: &mut R) -> Result<&[u8]> {
    loop {
        // The borrow checker cannot see that the buffer is only returned on success, hence the second call.
        match input.fill_buf() {
            Ok(_) => break,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                return Err(unexpected_end());
            }
            Err(error) => return Err(Error::io("read archive", error)),
        }
    }
    input
        .fill_buf()
        .map_err(|error| Error::io("read archive", error))
}

fn unexpected_end() -> Error {
    Error::archive("unexpected EOF")
}

fn padding(size: u64) -> u64 {
    size.wrapping_neg() % BLOCK as u64
}

fn without_nul(mut text: Vec<u8>) -> Vec<u8> {
    if let Some(end) = text.iter().position(|byte| *byte == 0) {
        text.truncate(end);
    }
    text
}

fn parse_pax(mut body: &[u8]) -> Result<Pax> {
    let mut pax = Pax::default();
    while !body.is_empty() {
        let space = body
            .iter()
            .position(|byte| *byte == b' ')
            .ok_or_else(invalid)?;
        let length = decimal(&body[..space]).ok_or_else(invalid)? as usize;
        if length <= space + 1 || length > body.len() || body[length - 1] != b'\n' {
            return Err(invalid());
        }
        let record = &body[space + 1..length - 1];
        body = &body[length..];
        let equals = record
            .iter()
            .position(|byte| *byte == b'=')
            .ok_or_else(invalid)?;
        let (key, value) = (&record[..equals], &record[equals + 1..]);
        pax.set(key, value)?;
    }
    Ok(pax)
}

impl Pax {
    fn set(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        let number = || decimal(value).ok_or_else(invalid);
        match key {
            b"path" if !value.is_empty() => self.path = Some(checked_name(value)?),
            b"linkpath" if !value.is_empty() => self.link = Some(checked_name(value)?),
            b"size" if !value.is_empty() => self.size = Some(number()?),
            b"uid" if !value.is_empty() => self.uid = Some(number()?.cast_signed()),
            b"gid" if !value.is_empty() => self.gid = Some(number()?.cast_signed()),
            b"mtime" if !value.is_empty() => self.mtime = Some(time(value).ok_or_else(invalid)?),
            b"GNU.sparse.major" => self.sparse_major = Some(number()?),
            b"GNU.sparse.minor" => self.sparse_minor = Some(number()?),
            b"GNU.sparse.name" => self.sparse_name = Some(checked_name(value)?),
            b"GNU.sparse.size" | b"GNU.sparse.realsize" => self.sparse_size = Some(number()?),
            b"GNU.sparse.offset" | b"GNU.sparse.numbytes" => self.sparse_map.push(number()?),
            b"GNU.sparse.map" => {
                for part in value
                    .split(|byte| *byte == b',')
                    .filter(|part| !part.is_empty())
                {
                    self.sparse_map.push(decimal(part).ok_or_else(invalid)?);
                }
            }
            _ => {
                if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
                    self.xattrs.push((name.to_vec(), value.to_vec()));
                }
            }
        }
        self.is_sparse |= key.starts_with(b"GNU.sparse.");
        Ok(())
    }
}

fn checked_name(value: &[u8]) -> Result<Vec<u8>> {
    if value.contains(&0) {
        Err(invalid())
    } else {
        Ok(value.to_vec())
    }
}

fn decimal(text: &[u8]) -> Option<u64> {
    if text.is_empty() || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// Reads `seconds[.fraction]`, possibly negative, to nanoseconds; further digits are cut.
fn time(text: &[u8]) -> Option<(i64, u32)> {
    let (negative, text) = match text.strip_prefix(b"-") {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let (whole, fraction) = match text.iter().position(|byte| *byte == b'.') {
        Some(dot) => (&text[..dot], &text[dot + 1..]),
        None => (text, &b""[..]),
    };
    let seconds = i64::try_from(decimal(whole)?).ok()?;
    let mut nanos = 0_u32;
    for index in 0..9 {
        let digit = fraction.get(index).copied().unwrap_or(b'0');
        if !digit.is_ascii_digit() {
            return None;
        }
        nanos = nanos * 10 + u32::from(digit - b'0');
    }
    Some(match (negative, nanos) {
        (false, nanos) => (seconds, nanos),
        (true, 0) => (-seconds, 0),
        (true, nanos) => (-seconds - 1, 1_000_000_000 - nanos),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pax_times_have_nanoseconds_and_signs() {
        for (text, value) in [
            (b"12".as_slice(), Some((12, 0))),
            (b"12.5", Some((12, 500_000_000))),
            (b"12.1234567899", Some((12, 123_456_789))),
            (b"-1.5", Some((-2, 500_000_000))),
            (b"-3", Some((-3, 0))),
            (b"x", None),
            (b"1.x", None),
        ] {
            assert_eq!(time(text), value, "{text:?}");
        }
    }

    #[test]
    fn broken_pax_records_are_refused() {
        for body in [
            b"5 a=b\n".as_slice(),
            b"6 ab\n\n",
            b"99 a=b\n",
            b"0 =\n",
            b"-6 a=b\n",
            b"9 path=\0\n\n",
            b"x",
        ] {
            assert!(parse_pax(body).is_err(), "{body:?}");
        }
        assert_eq!(parse_pax(b"10 path=x\n").unwrap().path.unwrap(), b"x");
    }

    #[test]
    fn sparse_maps_must_be_ordered_and_complete() {
        assert!(check_sparse(&[(0, 5), (10, 5)], 20, 10).is_ok());
        assert!(check_sparse(&[(10, 5), (0, 5)], 20, 10).is_err());
        assert!(check_sparse(&[(0, 5)], 4, 5).is_err());
        assert!(check_sparse(&[(0, 5)], 5, 6).is_err());
        assert!(check_sparse(&[(u64::MAX, 5)], 5, 5).is_err());
    }
}
