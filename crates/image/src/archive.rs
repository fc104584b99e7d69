//! Reads an image archive once, from first byte to last, whatever the order of its parts.
//!
//! Layers are unpacked while they pass by, before it is known which image they belong to: layers do not depend on
//! each other, so each gets a directory of its own and a name at the end. Small parts (JSON) are kept in memory. What
//! turns out not to be needed is discarded.

use crate::decompress::{Compression, detect, sniffed};
use crate::error::{Error, Result};
use crate::pipe::{PIECE_BYTES, pipe};
use crate::unpack::{BlobHash, Unpacked, Unpacker, Unpacking, copy};
use gantry_api::digest::Digest;
use gantry_snapshot::Snapshots;
use gantry_snapshot::tar::{BLOCK, Kind, Reader, is_header};
use std::collections::HashMap;
use std::io::Read;
use std::sync::Arc;

/// Is the largest part that is kept in memory; a configuration or manifest is far smaller.
const SMALL_BYTES_MAX: u64 = 16 << 20;
/// Is how many layers may be in work behind the one that arrives.
const UNPACKING_MAX: usize = 4;
/// Links may point at links; deeper chains are loops.
const LINKS_MAX: usize = 16;

/// Is a layer of the archive.
pub(crate) enum Part {
    /// The store has it already; its content was not looked at.
    Known(Digest),
    Unpacked(Box<Unpacked>),
    /// It could not be unpacked, which matters only if an image needs it.
    Failed(Error),
    /// An earlier part with the same content was taken.
    Same(String),
}

/// Is everything that an archive had.
#[derive(Default)]
pub(crate) struct Parts {
    small: HashMap<String, Vec<u8>>,
    layers: HashMap<String, Part>,
    links: HashMap<String, String>,
}

/// Tells how far a layer has come: its name in the archive, its digest if the name says so, bytes done, bytes in all.
pub(crate) type Progress<'a> = &'a mut dyn FnMut(Option<&Digest>, u64, u64);

/// Reads an archive. `is_known` tells whether a layer of that diffID is in the store and, if so, keeps it there.
pub(crate) fn read(
    input: impl Read + Send,
    snapshots: &Snapshots,
    is_known: &dyn Fn(&Digest) -> bool,
    progress: Progress<'_>,
) -> Result<Parts> {
    let mut input = sniffed(input)?;
    std::thread::scope(|scope| {
        let (sender, receiver) = pipe();
        // Reading, and decompressing a whole archive, goes on beside the copying to the layers' threads.
        std::thread::Builder::new()
            .name("archive-read".into())
            .spawn_scoped(scope, move || {
                let mut wanted = true;
                let result = copy(&mut *input, |piece| {
                    wanted = wanted && sender.send(piece);
                    wanted
                });
                match result {
                    Ok(()) => sender.end(),
                    Err(error) => sender.fail(&error),
                }
            })
            .map_err(|error| Error::io("start thread `archive-read`", error))?;
        let mut scan = Scan {
            snapshots,
            parts: Parts::default(),
            unpacking: Vec::new(),
        };
        let result = scan.run(&mut Reader::new(receiver, ()), is_known, progress);
        // Also behind an error: no thread may be left at work.
        scan.settle(0);
        result.map(|()| scan.parts)
    })
}

struct Scan<'a> {
    snapshots: &'a Snapshots,
    parts: Parts,
    unpacking: Vec<(String, Unpacking)>,
}

impl Scan<'_> {
    fn run<R: std::io::BufRead>(
        &mut self,
        reader: &mut Reader<R, ()>,
        is_known: &dyn Fn(&Digest) -> bool,
        progress: Progress<'_>,
    ) -> Result<()> {
        while let Some(entry) = reader.next_entry()? {
            let name = clean(&String::from_utf8_lossy(&entry.path));
            match entry.kind {
                Kind::File => {}
                Kind::SymbolicLink => {
                    let target = String::from_utf8_lossy(&entry.link).into_owned();
                    let directory = name.rsplit_once('/').map_or("", |(directory, _)| directory);
                    let target = if target.starts_with('/') {
                        target
                    } else {
                        format!("{directory}/{target}")
                    };
                    self.parts.links.insert(name, clean(&target));
                    continue;
                }
                Kind::HardLink => {
                    self.parts
                        .links
                        .insert(name, clean(&String::from_utf8_lossy(&entry.link)));
                    continue;
                }
                _ => continue,
            }
            if self.parts.small.contains_key(&name) || self.has_layer(&name) {
                continue;
            }
            if let Some(digest) = named_digest(&name)
                && is_known(&digest)
            {
                progress(Some(&digest), entry.stored_size, entry.stored_size);
                self.parts.layers.insert(name, Part::Known(digest));
                continue;
            }
            self.file(name, entry.stored_size, reader, progress)?;
        }
        Ok(())
    }

    fn has_layer(&self, name: &str) -> bool {
        self.parts.layers.contains_key(name)
            || self.unpacking.iter().any(|(other, _)| other == name)
    }

    /// Takes a file: the first block decides whether it is kept or unpacked.
    fn file<R: std::io::BufRead>(
        &mut self,
        name: String,
        size: u64,
        reader: &mut Reader<R, ()>,
        progress: Progress<'_>,
    ) -> Result<()> {
        let digest = named_digest(&name);
        let mut start = Vec::with_capacity(PIECE_BYTES);
        let mut target = Target::Undecided;
        let mut done = 0_u64;
        let snapshots = self.snapshots;
        let result = reader.content(&mut |mut bytes| {
            while !bytes.is_empty() {
                let length = bytes.len().min(PIECE_BYTES - start.len());
                start.extend_from_slice(&bytes[..length]);
                bytes = &bytes[length..];
                done += length as u64;
                if matches!(target, Target::Undecided) && (start.len() >= BLOCK || done == size) {
                    target = decide(&start, size, snapshots).map_err(|error| {
                        gantry_snapshot::Error::io(
                            "start to unpack a layer",
                            std::io::Error::other(error.to_string()),
                        )
                    })?;
                }
                match &mut target {
                    Target::Layer(unpacker) if start.len() == PIECE_BYTES || done == size => {
                        unpacker.send(&Arc::new(std::mem::replace(
                            &mut start,
                            Vec::with_capacity(PIECE_BYTES),
                        )));
                        if let Some(digest) = &digest {
                            progress(Some(digest), done, size);
                        }
                    }
                    Target::Ignored => start.clear(),
                    Target::Small(kept) => kept.append(&mut start),
                    Target::Layer(_) | Target::Undecided => {}
                }
            }
            Ok(())
        });
        match target {
            Target::Layer(unpacker) => {
                if let Err(error) = result {
                    unpacker.abort();
                    return Err(error.into());
                }
                self.unpacking.push((name, unpacker.end()));
                self.settle(UNPACKING_MAX);
            }
            Target::Small(kept) => {
                result?;
                self.parts.small.insert(name, kept);
            }
            // Of an empty file nothing arrives; it may be a layer of an archive without entries.
            Target::Undecided => {
                result?;
                self.parts.small.insert(name, start);
            }
            Target::Ignored => {
                result?;
                let text =
                    format!("`{name}` of the archive is neither a layer nor a configuration");
                self.parts
                    .layers
                    .insert(name, Part::Failed(Error::invalid(text)));
            }
        }
        Ok(())
    }

    /// Waits until at most `left` layers are in work.
    fn settle(&mut self, left: usize) {
        while self.unpacking.len() > left {
            let (name, unpacking) = self.unpacking.remove(0);
            let part = match unpacking.wait() {
                Ok(unpacked) => match self.same(&unpacked.diff_id) {
                    Some(other) => Part::Same(other),
                    None => Part::Unpacked(Box::new(unpacked)),
                },
                Err(error) => Part::Failed(error),
            };
            self.parts.layers.insert(name, part);
        }
    }

    fn same(&self, diff_id: &Digest) -> Option<String> {
        self.parts
            .layers
            .iter()
            .find_map(|(name, part)| match part {
                Part::Unpacked(unpacked) if unpacked.diff_id == *diff_id => Some(name.clone()),
                _ => None,
            })
    }
}

enum Target {
    Undecided,
    Small(Vec<u8>),
    Layer(Unpacker),
    Ignored,
}

/// Decides by the first block what a file is.
fn decide(start: &[u8], size: u64, snapshots: &Snapshots) -> Result<Target> {
    let compression = detect(start);
    let is_archive = start
        .get(..BLOCK)
        .is_some_and(|block| is_header(block) || block.iter().all(|byte| *byte == 0));
    if compression != Compression::None || is_archive {
        return Unpacker::start(snapshots, compression, BlobHash::Here).map(Target::Layer);
    }
    Ok(if size <= SMALL_BYTES_MAX {
        Target::Small(Vec::new())
    } else {
        Target::Ignored
    })
}

impl Parts {
    /// Gives a small part by its name in the archive.
    pub fn small(&self, name: &str) -> Option<&[u8]> {
        let name = self.resolve(name)?;
        self.small.get(&name).map(Vec::as_slice)
    }

    /// Gives the name under which a layer stands, links followed.
    pub fn layer_name(&self, name: &str) -> Option<String> {
        let mut name = self.resolve(name)?;
        if let Some(Part::Same(other)) = self.layers.get(&name) {
            name.clone_from(other);
        }
        self.layers.contains_key(&name).then_some(name)
    }

    /// Gives a layer by the name that [`Parts::layer_name`] gave.
    pub fn layer(&self, name: &str) -> Option<&Part> {
        self.layers.get(name)
    }

    /// Takes a layer out.
    pub fn take_layer(&mut self, name: &str) -> Option<Part> {
        self.layers.remove(name)
    }

    fn resolve(&self, name: &str) -> Option<String> {
        let mut name = clean(name);
        for _ in 0..LINKS_MAX {
            match self.links.get(&name) {
                Some(target) => name.clone_from(target),
                None => return Some(name),
            }
        }
        None
    }
}

/// Reads a digest out of `blobs/sha256/HEX`, or of podman's `HEX.tar`.
fn named_digest(name: &str) -> Option<Digest> {
    let hex = match name.strip_prefix("blobs/sha256/") {
        Some(hex) => hex,
        None => name.strip_suffix(".tar")?,
    };
    format!("sha256:{hex}").parse().ok()
}

/// Gives a name without `.`, `..` and superfluous slashes, rooted at the archive.
fn clean(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            _ => parts.push(part),
        }
    }
    parts.join("/")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_are_read_from_names() {
        let hex = "ab".repeat(32);
        assert_eq!(
            named_digest(&format!("blobs/sha256/{hex}")).unwrap().hex(),
            hex
        );
        assert_eq!(named_digest(&format!("{hex}.tar")).unwrap().hex(), hex);
        for name in [
            "layer.tar".to_owned(),
            format!("{hex}/layer.tar"),
            format!("{hex}.json"),
            hex,
        ] {
            assert!(named_digest(&name).is_none(), "{name}");
        }
    }

    #[test]
    fn links_are_followed_within_the_archive() {
        let mut parts = Parts::default();
        parts
            .links
            .insert("b/layer.tar".into(), clean("b/../a/layer.tar"));
        parts.links.insert("x".into(), "y".into());
        parts.links.insert("y".into(), "x".into());
        parts.small.insert("a/layer.tar".into(), b"1".to_vec());
        assert_eq!(parts.small("./b/layer.tar"), Some(b"1".as_slice()));
        assert_eq!(parts.small("x"), None);
    }
}
