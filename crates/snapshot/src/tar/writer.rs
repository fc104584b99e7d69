//! Writes archives: ustar where it suffices, pax records where a value does not fit.

use super::header::BLOCK;
use super::reader::Kind;
use std::io::{self, Write};

/// Is an entry to write; content follows by [`Writer::data`].
#[derive(Clone, Debug)]
pub struct NewEntry<'a> {
    pub path: &'a [u8],
    pub link: &'a [u8],
    pub kind: Kind,
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub mtime: (i64, u32),
    pub device: (u32, u32),
    pub size: u64,
    pub xattrs: &'a [(Vec<u8>, Vec<u8>)],
}

impl<'a> NewEntry<'a> {
    /// Makes a root-owned entry of the given mode.
    pub fn new(path: &'a [u8], kind: Kind, mode: u32, size: u64, mtime: (i64, u32)) -> Self {
        Self {
            path,
            link: b"",
            kind,
            mode,
            uid: 0,
            gid: 0,
            mtime,
            device: (0, 0),
            size,
            xattrs: &[],
        }
    }
}

/// Writes entries to a stream.
pub struct Writer<W> {
    output: W,
    remaining: u64,
    padding: usize,
}

impl<W: Write> Writer<W> {
    /// Starts an archive.
    pub fn new(output: W) -> Self {
        Self {
            output,
            remaining: 0,
            padding: 0,
        }
    }

    /// Writes an entry's header; a regular file's `size` bytes must follow.
    pub fn entry(&mut self, entry: &NewEntry<'_>) -> io::Result<()> {
        self.close_entry()?;
        let mut records = Vec::new();
        let mut block = [0_u8; BLOCK];
        let ascii = |text: &[u8]| text.is_ascii();
        let (prefix, name) = match split_name(entry.path) {
            Some(split) if ascii(entry.path) => split,
            _ => {
                pax(&mut records, b"path", entry.path);
                (&b""[..], &entry.path[..entry.path.len().min(100)])
            }
        };
        block[..name.len()].copy_from_slice(name);
        block[345..345 + prefix.len()].copy_from_slice(prefix);
        if entry.link.len() > 100 || !ascii(entry.link) {
            pax(&mut records, b"linkpath", entry.link);
        }
        let link = &entry.link[..entry.link.len().min(100)];
        block[157..157 + link.len()].copy_from_slice(link);
        octal(&mut block[100..108], u64::from(entry.mode));
        let mut number = |range: std::ops::Range<usize>, key: &[u8], value: u64| {
            if !octal(&mut block[range], value) {
                pax(&mut records, key, value.to_string().as_bytes());
            }
        };
        number(108..116, b"uid", u64::from(entry.uid));
        number(116..124, b"gid", u64::from(entry.gid));
        number(124..136, b"size", entry.size);
        let seconds = u64::try_from(entry.mtime.0).unwrap_or(0);
        let fits = octal(&mut block[136..148], seconds);
        if !fits || entry.mtime.1 != 0 || entry.mtime.0 < 0 {
            pax(&mut records, b"mtime", pax_time(entry.mtime).as_bytes());
        }
        block[156] = match entry.kind {
            Kind::File => b'0',
            Kind::HardLink => b'1',
            Kind::SymbolicLink => b'2',
            Kind::CharacterDevice => b'3',
            Kind::BlockDevice => b'4',
            Kind::Directory => b'5',
            Kind::Fifo => b'6',
        };
        block[257..265].copy_from_slice(b"ustar\x0000");
        octal(&mut block[329..337], u64::from(entry.device.0));
        octal(&mut block[337..345], u64::from(entry.device.1));
        for (name, value) in entry.xattrs {
            pax(
                &mut records,
                &[b"SCHILY.xattr.", name.as_slice()].concat(),
                value,
            );
        }
        if !records.is_empty() {
            let mut extended = [0_u8; BLOCK];
            let base = entry
                .path
                .rsplit(|byte| *byte == b'/')
                .find(|part| !part.is_empty())
                .unwrap_or(b"entry");
            let label: Vec<u8> = [b"PaxHeaders.0/", base]
                .concat()
                .into_iter()
                .filter(u8::is_ascii)
                .take(100)
                .collect();
            extended[..label.len()].copy_from_slice(&label);
            octal(&mut extended[100..108], 0o644);
            octal(&mut extended[108..116], 0);
            octal(&mut extended[116..124], 0);
            octal(&mut extended[124..136], records.len() as u64);
            octal(&mut extended[136..148], 0);
            extended[156] = b'x';
            extended[257..265].copy_from_slice(b"ustar\x0000");
            self.block(&mut extended)?;
            self.output.write_all(&records)?;
            self.pad(records.len() as u64)?;
        }
        self.block(&mut block)?;
        self.remaining = entry.size;
        self.padding = pad_of(entry.size);
        Ok(())
    }

    /// Writes content of the current entry.
    pub fn data(&mut self, bytes: &[u8]) -> io::Result<()> {
        let left = self.remaining.checked_sub(bytes.len() as u64);
        self.remaining = left
            .ok_or_else(|| io::Error::other("more content than the archive's header announced"))?;
        self.output.write_all(bytes)
    }

    /// Writes an entry with its content.
    pub fn file(&mut self, entry: &NewEntry<'_>, content: &[u8]) -> io::Result<()> {
        self.entry(&NewEntry {
            size: content.len() as u64,
            ..entry.clone()
        })?;
        self.data(content)
    }

    /// Writes the end mark and gives the stream back.
    pub fn finish(mut self) -> io::Result<W> {
        self.close_entry()?;
        self.output.write_all(&[0; 2 * BLOCK])?;
        self.output.flush()?;
        Ok(self.output)
    }

    fn close_entry(&mut self) -> io::Result<()> {
        if self.remaining != 0 {
            return Err(io::Error::other(
                "less content than the archive's header announced",
            ));
        }
        let padding = std::mem::take(&mut self.padding);
        self.output.write_all(&[0; BLOCK][..padding])
    }

    fn pad(&mut self, size: u64) -> io::Result<()> {
        self.output.write_all(&[0; BLOCK][..pad_of(size)])
    }

    fn block(&mut self, block: &mut [u8; BLOCK]) -> io::Result<()> {
        block[148..156].fill(b' ');
        let sum: u64 = block.iter().map(|byte| u64::from(*byte)).sum();
        octal(&mut block[148..155], sum);
        self.output.write_all(block)
    }
}

fn pad_of(size: u64) -> usize {
    (size.wrapping_neg() % BLOCK as u64) as usize
}

/// Writes zero-filled octal digits and a NUL; tells whether the value fits.
fn octal(field: &mut [u8], value: u64) -> bool {
    let digits = field.len() - 1;
    let text = format!("{value:0digits$o}");
    let fits = text.len() == digits;
    let text = if fits { text } else { "0".repeat(digits) };
    field[..digits].copy_from_slice(text.as_bytes());
    field[digits] = 0;
    fits
}

fn split_name(path: &[u8]) -> Option<(&[u8], &[u8])> {
    if path.len() <= 100 {
        return Some((b"", path));
    }
    // The last byte is no place to split: a directory's name ends in a slash.
    let end = (path.len() - 1).min(156);
    let at = path[..end].iter().rposition(|byte| *byte == b'/')?;
    let (prefix, name) = (&path[..at], &path[at + 1..]);
    (name.len() <= 100 && !prefix.is_empty()).then_some((prefix, name))
}

fn pax_time((seconds, nanos): (i64, u32)) -> String {
    let total = i128::from(seconds) * 1_000_000_000 + i128::from(nanos);
    let (sign, total) = if total < 0 {
        ("-", -total)
    } else {
        ("", total)
    };
    let text = format!(
        "{sign}{}.{:09}",
        total / 1_000_000_000,
        total % 1_000_000_000
    );
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// Appends `length key=value\n`, where the length counts its own digits.
fn pax(records: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    let fixed = key.len() + value.len() + 3;
    let mut length = fixed + 1;
    while fixed + length.to_string().len() != length {
        length = fixed + length.to_string().len();
    }
    records.extend_from_slice(format!("{length} ").as_bytes());
    records.extend_from_slice(key);
    records.push(b'=');
    records.extend_from_slice(value);
    records.push(b'\n');
}

#[cfg(test)]
mod tests {
    use super::super::Reader;
    use super::*;

    #[test]
    fn what_is_written_reads_back() {
        let long = [b"d/".repeat(90), b"name".to_vec()].concat();
        let xattrs = [(b"user.a".to_vec(), vec![0, 1, b'\n', 255])];
        let entries = [
            NewEntry::new(b"plain", Kind::File, 0o644, 3, (10, 0)),
            NewEntry {
                uid: 3_000_000,
                xattrs: &xattrs,
                ..NewEntry::new(&long, Kind::File, 0o4755, 3, (-2, 500))
            },
            NewEntry {
                link: &long,
                ..NewEntry::new(b"l\xff", Kind::SymbolicLink, 0o777, 0, (1 << 40, 1))
            },
            NewEntry {
                device: (8, 1),
                ..NewEntry::new(b"sda1", Kind::BlockDevice, 0o600, 0, (0, 0))
            },
        ];
        let mut writer = Writer::new(Vec::new());
        for entry in &entries {
            writer.entry(entry).unwrap();
            if entry.size > 0 {
                writer.data(b"abc").unwrap();
            }
        }
        let bytes = writer.finish().unwrap();
        assert_eq!(bytes.len() % BLOCK, 0);
        let mut reader = Reader::new(bytes.as_slice(), ());
        for entry in &entries {
            let read = reader.next_entry().unwrap().unwrap();
            assert_eq!(
                (read.path.as_slice(), read.link.as_slice()),
                (entry.path, entry.link)
            );
            assert_eq!(
                (read.kind, read.mode, read.uid, read.gid),
                (entry.kind, entry.mode, entry.uid, entry.gid)
            );
            assert_eq!(
                (read.mtime, read.device, read.size),
                (entry.mtime, entry.device, entry.size)
            );
            assert_eq!(read.xattrs, entry.xattrs);
        }
        assert!(reader.next_entry().unwrap().is_none());
    }

    #[test]
    fn wrong_amounts_of_content_are_refused() {
        let entry = NewEntry::new(b"a", Kind::File, 0o644, 3, (0, 0));
        let mut writer = Writer::new(Vec::new());
        writer.entry(&entry).unwrap();
        assert!(writer.data(b"abcd").is_err());
        assert!(writer.finish().is_err());
    }
}
