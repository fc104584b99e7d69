//! Uploads: a blob that comes in pieces, over several requests and over restarts.
//!
//! ```text
//! begin ──▶ idle ──open──▶ one request writes ──┬─ dropped ──▶ idle     what came is kept
//!             ▲                                 ├─ commit ───▶ blob     hash compared, synced, linked
//!             └─────────────────────────────────┴─ discard ──▶ gone
//! ```
//! Bytes are hashed as they come, and the hash of an idle upload waits in memory. After a restart, or where the digest
//! turns out to be of another algorithm, what is on the disk is hashed again.

use super::{Store, list, modified, read};
use crate::error::{Code, Error, Result};
use crate::hash::{Algorithm, Hasher, digest_of};
use crate::name::Name;
use gantry_api::digest::Digest;
use gantry_image::content::Partial;
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::collections::HashMap;
use std::io::Read as _;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

/// How much of a partial is read at once to hash it again.
const REHASH_PIECE: usize = 1 << 20;

/// Hashes of the uploads that no request writes now.
pub(super) type Sessions = Mutex<HashMap<String, Hasher>>;

/// Is `ROOT/uploads/ID`.
#[derive(Debug, Serialize, Deserialize)]
struct Record {
    repository: String,
    algorithm: Algorithm,
}

/// Is how far an upload is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UploadStatus {
    pub bytes: u64,
}

/// Is an upload that one request writes. Dropped, it waits for the next.
pub struct Upload<'a> {
    store: &'a Store,
    name: Name,
    id: String,
    partial: Option<Partial>,
    hasher: Hasher,
}

impl Store {
    /// Begins an upload and gives its id.
    ///
    /// # Errors
    /// Fails where the disk does.
    pub fn begin_upload(&self, name: &Name, algorithm: Algorithm) -> Result<String> {
        let id = random_id()?;
        let record = Record {
            repository: name.as_str().to_owned(),
            algorithm,
        };
        // Not synced: an upload that a loss of power takes is begun anew.
        let path = self.upload_path(&id);
        std::fs::write(&path, json!(record).to_string())
            .map_err(|error| Error::io(format!("write `{}`", path.display()), &error))?;
        drop(self.content.partial(&id)?);
        self.sessions().insert(id.clone(), Hasher::new(algorithm));
        Ok(id)
    }

    /// Opens an upload of a repository for one request.
    ///
    /// # Errors
    /// [`Code::BlobUploadUnknown`]; [`Code::Busy`] where another request writes it.
    pub fn open_upload(&self, name: &Name, id: &str) -> Result<Upload<'_>> {
        let record = self.upload_record(name, id)?;
        let partial = self.content.partial(id)?;
        let known = self.sessions().remove(id);
        let hasher = match known {
            Some(hasher) if hasher.bytes() == partial.bytes() => hasher,
            _ => rehash(&partial, record.algorithm)?,
        };
        Ok(Upload {
            store: self,
            name: name.clone(),
            id: id.to_owned(),
            partial: Some(partial),
            hasher,
        })
    }

    /// Opens what a cache has of a blob that it fetches for a repository.
    ///
    /// # Errors
    /// [`Code::Busy`] where it is being written.
    pub fn open_fetch(&self, name: &Name, digest: &Digest) -> Result<Upload<'_>> {
        let key = digest_of(Algorithm::Sha256, format!("{name}@{digest}").as_bytes());
        let id = format!("cache-{}", key.hex());
        let partial = self.content.partial(&id)?;
        let algorithm = Algorithm::by_name(digest.algorithm()).ok_or(Code::DigestInvalid)?;
        let known = self.sessions().remove(&id);
        let hasher = match known {
            Some(hasher) if hasher.bytes() == partial.bytes() => hasher,
            _ => rehash(&partial, algorithm)?,
        };
        Ok(Upload {
            store: self,
            name: name.clone(),
            id,
            partial: Some(partial),
            hasher,
        })
    }

    /// Tells how far an upload is, also while a request writes it.
    ///
    /// # Errors
    /// [`Code::BlobUploadUnknown`].
    pub fn upload_status(&self, name: &Name, id: &str) -> Result<UploadStatus> {
        self.upload_record(name, id)?;
        let path = self.root.join("content/partial").join(id);
        match std::fs::metadata(&path) {
            Ok(metadata) => Ok(UploadStatus {
                bytes: metadata.len(),
            }),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                Err(Code::BlobUploadUnknown.into())
            }
            Err(error) => Err(Error::io(format!("stat `{}`", path.display()), &error)),
        }
    }

    /// Counts the uploads that were begun and not ended.
    ///
    /// # Errors
    /// Fails where the disk does.
    pub fn uploads(&self) -> Result<usize> {
        Ok(list(&self.root.join("uploads"))?.len())
    }

    /// Removes uploads, and what a cache did not finish, that nobody has written to for so long; says how many.
    ///
    /// # Errors
    /// Fails where the disk does.
    pub fn expire_uploads(&self, age: Duration) -> Result<usize> {
        let now = SystemTime::now();
        let is_old = |time: SystemTime| now.duration_since(time).is_ok_and(|passed| passed >= age);
        let mut expired = 0;
        for (id, _, time) in self.content.idle_partials()? {
            // One that a request opens in between is in use again.
            if is_old(time) && self.content.remove_partial(&id).unwrap_or(false) {
                self.forget_upload(&id);
                expired += 1;
            }
        }
        for id in list(&self.root.join("uploads"))? {
            let path = self.upload_path(&id);
            let has_partial = self.root.join("content/partial").join(&id).exists();
            if !has_partial && modified(&path)?.is_some_and(is_old) {
                self.forget_upload(&id);
            }
        }
        Ok(expired)
    }

    fn upload_record(&self, name: &Name, id: &str) -> Result<Record> {
        let record: Option<Record> = read(&self.upload_path(id))?
            .and_then(|text| serde_json::from_str(&text).ok())
            .filter(|record: &Record| record.repository == name.as_str());
        record.ok_or_else(|| Error::new(Code::BlobUploadUnknown, json!({ "upload": id })))
    }

    fn upload_path(&self, id: &str) -> PathBuf {
        self.root.join("uploads").join(id)
    }

    fn forget_upload(&self, id: &str) {
        self.sessions().remove(id);
        let _ = std::fs::remove_file(self.upload_path(id));
    }

    fn sessions(&self) -> std::sync::MutexGuard<'_, HashMap<String, Hasher>> {
        self.uploads.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Upload<'_> {
    /// Gives how many bytes there are.
    pub fn bytes(&self) -> u64 {
        self.hasher.bytes()
    }

    /// Opens what there is for reading; it goes on to read what is added, and what it becomes.
    ///
    /// # Errors
    /// Fails where the file cannot be opened.
    pub fn reader(&self) -> Result<std::fs::File> {
        let partial = self.partial.as_ref().ok_or(Code::BlobUploadUnknown)?;
        Ok(partial.reader()?)
    }

    /// Adds bytes at the end.
    ///
    /// # Errors
    /// [`Code::NoSpace`] on a full disk; what is on the disk then is what was hashed.
    pub fn append(&mut self, bytes: &[u8]) -> Result<()> {
        let Some(partial) = &mut self.partial else {
            return Err(Code::BlobUploadUnknown.into());
        };
        if let Err(error) = partial.append(bytes, &|| false) {
            partial.truncate(self.hasher.bytes())?;
            return Err(error.into());
        }
        self.hasher.update(bytes);
        Ok(())
    }

    /// Ends the upload as a blob of its repository.
    ///
    /// # Errors
    /// [`Code::DigestInvalid`] where the bytes are others; nothing is kept of them then.
    pub fn commit(mut self, digest: &Digest) -> Result<()> {
        let Some(partial) = self.partial.take() else {
            return Err(Code::BlobUploadUnknown.into());
        };
        let is_same = match Algorithm::by_name(digest.algorithm()) {
            Some(algorithm) if algorithm != self.hasher.algorithm() => {
                rehash(&partial, algorithm)?.is(digest)
            }
            _ => self.hasher.is(digest),
        };
        if !is_same {
            partial.discard()?;
            self.store.forget_upload(&self.id);
            return Err(Error::new(Code::DigestInvalid, json!({ "digest": digest })));
        }
        let _pin = self.store.pin(digest);
        partial.commit(digest)?;
        self.store.link_blob(&self.name, digest)?;
        self.store.forget_upload(&self.id);
        Ok(())
    }

    /// Gives the upload up.
    ///
    /// # Errors
    /// Fails where the disk does.
    pub fn discard(mut self) -> Result<()> {
        if let Some(partial) = self.partial.take() {
            partial.discard()?;
        }
        self.store.forget_upload(&self.id);
        Ok(())
    }
}

impl Drop for Upload<'_> {
    fn drop(&mut self) {
        if self.partial.is_some() {
            let hasher = self.hasher.clone();
            // Before the partial is free for the next request.
            self.store.sessions().insert(self.id.clone(), hasher);
        }
    }
}

/// Hashes what is on the disk.
fn rehash(partial: &Partial, algorithm: Algorithm) -> Result<Hasher> {
    let mut hasher = Hasher::new(algorithm);
    let mut file = partial.reader()?;
    let mut piece = vec![0; REHASH_PIECE];
    loop {
        match file.read(&mut piece) {
            Ok(0) => return Ok(hasher),
            Ok(count) => hasher.update(&piece[..count]),
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(Error::io("read an upload", &error)),
        }
    }
}

/// Makes a random id of a UUID's form (RFC 9562, version 4).
fn random_id() -> Result<String> {
    let mut bytes = [0_u8; 16];
    crate::random(&mut bytes)?;
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let hex = gantry_api::id::hex(&bytes);
    Ok([
        &hex[..8],
        &hex[8..12],
        &hex[12..16],
        &hex[16..20],
        &hex[20..],
    ]
    .join("-"))
}
