//! Packs layers and a config into a docker archive, the form that `docker load` reads.
//!
//! The result depends on the layers and the config alone: times are fixed, owners are root, the order is given.

use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// Builds a layer in memory, one entry after the other.
pub struct Layer {
    builder: tar::Builder<Vec<u8>>,
}

/// Who owns an entry: user and group.
#[derive(Clone, Copy)]
pub struct Owner(pub u64, pub u64);

pub const ROOT: Owner = Owner(0, 0);

impl Layer {
    pub fn new() -> Self {
        Self {
            builder: tar::Builder::new(Vec::new()),
        }
    }

    fn header(kind: tar::EntryType, mode: u32, owner: Owner, size: u64) -> tar::Header {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_uid(owner.0);
        header.set_gid(owner.1);
        header.set_size(size);
        header.set_mtime(1_735_689_600);
        header
    }

    pub fn directory(&mut self, path: &str, mode: u32, owner: Owner) -> Result<()> {
        let mut header = Self::header(tar::EntryType::Directory, mode, owner, 0);
        self.builder
            .append_data(&mut header, path, std::io::empty())?;
        Ok(())
    }

    pub fn file(&mut self, path: &str, mode: u32, owner: Owner, content: &[u8]) -> Result<()> {
        let mut header = Self::header(tar::EntryType::Regular, mode, owner, content.len() as u64);
        self.builder.append_data(&mut header, path, content)?;
        Ok(())
    }

    pub fn link(&mut self, path: &str, target: &str) -> Result<()> {
        let mut header = Self::header(tar::EntryType::Symlink, 0o777, ROOT, 0);
        self.builder.append_link(&mut header, path, target)?;
        Ok(())
    }

    /// Ends the layer and writes it to `path`.
    pub fn finish(self, path: &Path) -> Result<()> {
        let bytes = self.builder.into_inner()?;
        std::fs::write(path, bytes).with_context(|| format!("write `{}`", path.display()))
    }
}

/// The SHA-256 of what `reader` gives, in hex.
fn sha256(mut reader: impl Read) -> Result<String> {
    let mut state = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        let count = reader.read(&mut buffer)?;
        if count == 0 {
            break;
        }
        state.update(&buffer[..count]);
    }
    Ok(state
        .finalize()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect())
}

/// Writes an archive of one image: `layers` bottom first, `config` as the `config` member of its image config.
pub fn pack(output: &Path, reference: &str, layers: &[&Path], config: &Value) -> Result<()> {
    let mut ids = Vec::new();
    for layer in layers {
        let file = File::open(layer).with_context(|| format!("open `{}`", layer.display()))?;
        ids.push(sha256(file)?);
    }
    let created = "2025-01-01T00:00:00Z";
    let image = json!({
        "architecture": "amd64",
        "os": "linux",
        "created": created,
        "config": config,
        "rootfs": {"type": "layers", "diff_ids": ids.iter().map(|id| format!("sha256:{id}")).collect::<Vec<_>>()},
        "history": ids.iter().map(|_| json!({"created": created, "created_by": "cargo xtask images"})).collect::<Vec<_>>(),
    });
    let image = serde_json::to_vec(&image)?;
    let image_id = sha256(image.as_slice())?;
    let manifest = json!([{
        "Config": format!("{image_id}.json"),
        "RepoTags": [reference],
        "Layers": ids.iter().map(|id| format!("{id}/layer.tar")).collect::<Vec<_>>(),
    }]);
    let manifest = serde_json::to_vec(&manifest)?;

    let partial = output.with_extension("partial");
    let mut builder = tar::Builder::new(File::create(&partial)?);
    let mut member = |name: &str, size: u64, reader: &mut dyn Read| -> Result<()> {
        let mut header = Layer::header(tar::EntryType::Regular, 0o644, ROOT, size);
        builder.append_data(&mut header, name, reader)?;
        Ok(())
    };
    member(
        &format!("{image_id}.json"),
        image.len() as u64,
        &mut image.as_slice(),
    )?;
    for (id, layer) in ids.iter().zip(layers) {
        let mut file = File::open(layer)?;
        member(
            &format!("{id}/layer.tar"),
            file.metadata()?.len(),
            &mut file,
        )?;
    }
    member(
        "manifest.json",
        manifest.len() as u64,
        &mut manifest.as_slice(),
    )?;
    builder.into_inner()?.flush()?;
    std::fs::rename(&partial, output)?;
    Ok(())
}
