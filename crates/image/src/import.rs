//! Makes an image of a plain root archive.

use crate::changes;
use crate::error::{Error, Result};
use crate::load::{image_record, layer_record};
use crate::store::{Images, Staged, now};
use crate::unpack::{BlobHash, Unpacked, Unpacker, copy};
use gantry_api::id::ImageId;
use gantry_api::oci::image::{History, ImageConfig, RootFs, RunConfig};
use gantry_api::platform::Platform;
use gantry_api::reference::Reference;
use std::io::Read;

/// Says what to make of the archive.
#[derive(Clone, Debug)]
pub struct ImportOptions {
    pub reference: Option<Reference>,
    /// Empty takes Docker's `Imported from -`.
    pub message: String,
    /// Dockerfile instructions.
    pub changes: Vec<String>,
    pub platform: Option<Platform>,
}

impl Images {
    /// Makes an image with one layer of an archive, which may be compressed.
    ///
    /// # Errors
    /// The changes are checked before the archive is read.
    pub fn import(&self, input: impl Read + Send, options: &ImportOptions) -> Result<ImageId> {
        let ImportOptions {
            reference,
            message,
            changes,
            platform,
        } = options;
        let mut run = RunConfig::default();
        changes::apply(&mut run, changes)?;
        if let Some(platform) = platform
            && platform.os != "linux"
        {
            return Err(Error::invalid(format!(
                "cannot import a {} image on linux",
                platform.os
            )));
        }
        let unpacked = self.unpack(input)?;
        let created = now();
        let platform = platform.clone().unwrap_or_else(Platform::host);
        let comment = if message.is_empty() {
            "Imported from -".to_owned()
        } else {
            message.clone()
        };
        let config = ImageConfig {
            created: Some(created),
            architecture: platform.architecture,
            variant: platform.variant,
            os: platform.os,
            comment: comment.clone(),
            config: run,
            rootfs: RootFs {
                diff_ids: vec![unpacked.diff_id.clone()],
                ..RootFs::default()
            },
            history: vec![History {
                created: Some(created),
                comment,
                ..History::default()
            }],
            ..ImageConfig::default()
        };
        self.add(
            &config,
            unpacked,
            None,
            reference.clone().map(Reference::or_latest),
        )
    }

    /// Unpacks one archive, compressed or not, as a layer.
    pub(crate) fn unpack(&self, input: impl Read + Send) -> Result<Unpacked> {
        let (start, mut input) =
            crate::decompress::peek(input).map_err(|error| Error::io("read archive", error))?;
        let compression = crate::decompress::detect(&start);
        // A compression that cannot be read is refused before anything is made.
        crate::decompress::open(compression, std::io::empty())?;
        let mut unpacker = Unpacker::start(&self.0.snapshots, compression, BlobHash::Elsewhere)?;
        if let Err(error) = copy(&mut input, |piece| {
            unpacker.send(piece);
            unpacker.is_wanted()
        }) {
            unpacker.abort();
            return Err(Error::io("read archive", error));
        }
        unpacker.end().wait()
    }

    /// Stores an image whose topmost layer is new.
    pub(crate) fn add(
        &self,
        config: &ImageConfig,
        top: Unpacked,
        parent: Option<ImageId>,
        reference: Option<Reference>,
    ) -> Result<ImageId> {
        let raw = serde_json::to_vec(config).map_err(|error| {
            Error::io(
                "write the image's configuration",
                std::io::Error::from(error),
            )
        })?;
        let record = image_record(&raw, config, parent)?;
        let id = record.id.clone();
        self.commit(Staged {
            images: vec![(record, raw)],
            layers: vec![layer_record(top)],
            references: reference
                .into_iter()
                .map(|reference| (reference, id.clone()))
                .collect(),
            ..Staged::default()
        })?;
        Ok(id)
    }
}
