//! Blobs: which repository has which, and reading them.

use super::{Kind, Store, modified, renew_old};
use crate::error::{Code, Error, Result};
use crate::name::Name;
use gantry_api::digest::Digest;
use serde_json::json;
use std::fs::File;
use std::ops::ControlFlow;
use std::sync::PoisonError;

/// Says whether the engine's blobs may be taken over for this client: only for one that has the right to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Adopt {
    Yes,
    No,
}

impl Store {
    /// Gives the size of a repository's blob, and renews its grace, because a client that is told that a blob is there
    /// does not send it.
    ///
    /// # Errors
    /// [`Code::BlobUnknown`] where the repository has it not.
    pub fn blob_size(&self, name: &Name, digest: &Digest, adopt: Adopt) -> Result<u64> {
        let lock = self.repository(name);
        let _shared = lock.read().unwrap_or_else(PoisonError::into_inner);
        self.linked_size(name, digest, adopt)?
            .ok_or_else(|| unknown(digest))
    }

    /// As [`Store::blob_size`]; the repository's lock is held.
    pub(super) fn linked_size(
        &self,
        name: &Name,
        digest: &Digest,
        adopt: Adopt,
    ) -> Result<Option<u64>> {
        let link = self.link(name, Kind::Blobs, digest);
        if let Some(time) = modified(&link)? {
            renew_old(&link, time)?;
            if let Some(size) = self.content.size(digest)? {
                return Ok(Some(size));
            }
        }
        match (&self.engine, adopt) {
            (Some(engine), Adopt::Yes) => {
                let _pin = self.pin(digest);
                if !self.content.adopt(engine, digest)? {
                    return Ok(None);
                }
                self.write(&link, b"")?;
                Ok(self.content.size(digest)?)
            }
            _ => Ok(None),
        }
    }

    /// Opens a repository's blob: the file and its size.
    ///
    /// # Errors
    /// [`Code::BlobUnknown`] where the repository has it not.
    pub fn open_blob(&self, name: &Name, digest: &Digest) -> Result<(File, u64)> {
        let size = self.blob_size(name, digest, Adopt::No)?;
        Ok((self.content.read(digest)?, size))
    }

    /// Gives a repository a blob that another one has; tells whether that has it.
    ///
    /// # Errors
    /// Fails where the disk does.
    pub fn mount(&self, name: &Name, digest: &Digest, from: &Name) -> Result<bool> {
        if modified(&self.link(from, Kind::Blobs, digest))?.is_none() {
            return Ok(false);
        }
        self.link_content(name, digest)
    }

    /// Gives a repository a blob if its content is here for another one; tells whether it is.
    ///
    /// # Errors
    /// Fails where the disk does.
    pub fn link_content(&self, name: &Name, digest: &Digest) -> Result<bool> {
        let _pin = self.pin(digest);
        if self.content.size(digest)?.is_none() {
            return Ok(false);
        }
        self.link_blob(name, digest)?;
        Ok(true)
    }

    /// Finds a repository that has a blob and that the caller may take it from.
    ///
    /// # Errors
    /// Fails where the disk does.
    pub fn holder(
        &self,
        digest: &Digest,
        may_take: impl Fn(&Name) -> bool,
    ) -> Result<Option<Name>> {
        // Most that are asked for are not here, and that costs no walk.
        if self.content.size(digest)?.is_none() {
            return Ok(None);
        }
        let mut found = None;
        self.walk(|name| {
            if self.link(&name, Kind::Blobs, digest).exists() && may_take(&name) {
                found = Some(name);
                return ControlFlow::Break(());
            }
            ControlFlow::Continue(())
        })?;
        Ok(found)
    }

    /// Gives a repository a blob whose content is there and pinned.
    pub(super) fn link_blob(&self, name: &Name, digest: &Digest) -> Result<()> {
        let lock = self.repository(name);
        let _shared = lock.read().unwrap_or_else(PoisonError::into_inner);
        self.write(&self.link(name, Kind::Blobs, digest), b"")
    }

    /// Takes a blob from a repository. Its content goes with the next collection if nobody else has it.
    ///
    /// # Errors
    /// [`Code::BlobUnknown`] where the repository has it not.
    pub fn delete_blob(&self, name: &Name, digest: &Digest) -> Result<()> {
        let lock = self.repository(name);
        let _exclusive = lock.write().unwrap_or_else(PoisonError::into_inner);
        if self.erase(&self.link(name, Kind::Blobs, digest))? {
            Ok(())
        } else {
            Err(unknown(digest))
        }
    }
}

fn unknown(digest: &Digest) -> Error {
    Error::new(Code::BlobUnknown, json!({ "digest": digest }))
}
