//! Makes an image of what a container wrote.

use crate::error::{Error, Result};
use crate::pipe::PIECE_BYTES;
use crate::store::{Images, now};
use gantry_api::id::ImageId;
use gantry_api::oci::image::{History, ImageConfig, RootFs, RunConfig};
use gantry_api::reference::Reference;
use gantry_snapshot::apply::Form;
use gantry_snapshot::export::write_tree;
use std::io::BufWriter;

/// Says what the new image is to be.
#[derive(Clone, Debug)]
pub struct CommitOptions {
    /// The image that the container was made from.
    pub parent: ImageId,
    /// The new image's defaults, changes included.
    pub run: RunConfig,
    pub author: String,
    pub comment: String,
    /// What the history says the layer was made by.
    pub created_by: String,
    pub reference: Option<Reference>,
}

impl Images {
    /// Makes an image of the container's snapshot `number`; the container goes on with its own.
    pub fn commit_container(&self, number: u64, options: &CommitOptions) -> Result<ImageId> {
        let CommitOptions {
            parent,
            run,
            author,
            comment,
            created_by,
            reference,
        } = options;
        let lease = self.open_lease();
        let base = self.get_by_id(parent)?;
        for layer in &base.layers {
            self.lease(&layer.diff_id, &lease);
        }
        let upper = std::fs::File::open(self.overlay(number)?.upper)
            .map_err(|error| Error::io(format!("open snapshot {number}"), error))?;
        let (reader, writer) = std::io::pipe().map_err(|error| Error::io("make a pipe", error))?;
        let unpacked = std::thread::scope(|scope| {
            let export = std::thread::Builder::new()
                .name("commit-export".into())
                .spawn_scoped(scope, move || {
                    write_tree(
                        &upper,
                        Form::Layer,
                        BufWriter::with_capacity(PIECE_BYTES, writer),
                    )
                })
                .map_err(|error| Error::io("start thread `commit-export`", error))?;
            let unpacked = self.unpack(reader);
            // The reader is gone by now, so the other side has ended in any case.
            let exported = export.join().unwrap_or_else(|_| {
                Err(gantry_snapshot::Error::io(
                    "read the container's files",
                    std::io::Error::other("a thread panicked"),
                ))
            });
            let unpacked = unpacked?;
            exported?;
            Ok::<_, Error>(unpacked)
        })?;
        let created = now();
        let mut diff_ids = base.config().rootfs.diff_ids.clone();
        diff_ids.push(unpacked.diff_id.clone());
        let mut history = base.config().history.clone();
        history.push(History {
            created: Some(created),
            created_by: created_by.clone(),
            author: author.clone(),
            comment: comment.clone(),
            ..History::default()
        });
        let platform = base.config().platform();
        let config = ImageConfig {
            created: Some(created),
            author: author.clone(),
            architecture: platform.architecture,
            variant: platform.variant,
            os: platform.os,
            os_version: platform.os_version,
            os_features: platform.os_features,
            comment: comment.clone(),
            config: run.clone(),
            rootfs: RootFs {
                diff_ids,
                ..RootFs::default()
            },
            history,
            ..ImageConfig::default()
        };
        self.add(
            &config,
            unpacked,
            Some(parent.clone()),
            reference.clone().map(Reference::or_latest),
        )
    }
}
