//! Manifests and tags.

use super::blobs::Adopt;
use super::{Kind, Parsed, Store, digest_of_file, list, modified, read, renew, renew_old};
use crate::error::{Code, Error, Result};
use crate::hash::{Algorithm, digest_of};
use crate::name::{Name, Reference};
use gantry_api::digest::Digest;
use serde_json::{Value, json};
use std::sync::{Arc, PoisonError};
use std::time::SystemTime;

/// Is a manifest as it was pushed.
#[derive(Clone, Debug)]
pub struct StoredManifest {
    pub digest: Digest,
    pub media_type: String,
    pub bytes: Vec<u8>,
}

/// Is what a client wants written.
#[derive(Clone, Debug)]
pub struct PutManifest {
    pub reference: Reference,
    pub content_type: Option<String>,
    /// Tags beside a digest.
    pub tags: Vec<String>,
    pub bytes: Vec<u8>,
    /// Whether blobs must be there. Those of a cache come when they are asked for.
    pub is_checked: bool,
    pub adopt: Adopt,
}

/// Is what was written.
#[derive(Clone, Debug)]
pub struct Written {
    pub digest: Digest,
    pub subject: Option<Digest>,
}

impl Store {
    /// Writes a manifest and its tags.
    ///
    /// # Errors
    /// [`Code::DigestInvalid`] where the bytes are not what the reference says, [`Code::ManifestInvalid`],
    /// [`Code::ManifestBlobUnknown`] with all blobs that the repository lacks.
    pub fn put_manifest(&self, name: &Name, put: &PutManifest) -> Result<Written> {
        let algorithm = match &put.reference {
            Reference::Digest(digest) => {
                Algorithm::by_name(digest.algorithm()).unwrap_or(Algorithm::Sha256)
            }
            Reference::Tag(_) => Algorithm::Sha256,
        };
        let digest = digest_of(algorithm, &put.bytes);
        if let Reference::Digest(asked) = &put.reference
            && *asked != digest
        {
            return Err(Error::new(
                Code::DigestInvalid,
                json!({ "digest": asked, "content": digest }),
            ));
        }
        let parsed = Parsed::read(put.content_type.as_deref(), &put.bytes)?;
        let lock = self.repository(name);
        let _shared = lock.read().unwrap_or_else(PoisonError::into_inner);
        if put.is_checked {
            let mut missing: Vec<&Digest> = Vec::new();
            for part in parsed.blobs.iter().filter(|part| part.is_needed) {
                if self.linked_size(name, &part.digest, put.adopt)?.is_none() {
                    missing.push(&part.digest);
                }
            }
            if !missing.is_empty() {
                return Err(Error::new(
                    Code::ManifestBlobUnknown,
                    json!({ "digests": missing }),
                ));
            }
        }
        let _pin = self.pin(&digest);
        self.content.put_as(&digest, &put.bytes, &|| false)?;
        if let Some(subject) = &parsed.subject {
            let descriptor = parsed.descriptor(&digest, put.bytes.len());
            let path = self
                .link(name, Kind::Referrers, subject)
                .join(super::file_name(&digest));
            self.write(&path, descriptor.to_string().as_bytes())?;
        }
        self.write(
            &self.link(name, Kind::Manifests, &digest),
            parsed.media_type.as_bytes(),
        )?;
        let tag = match &put.reference {
            Reference::Tag(tag) => Some(tag),
            Reference::Digest(_) => None,
        };
        for tag in tag.into_iter().chain(&put.tags) {
            let path = self.directory(name, Kind::Tags).join(tag);
            self.write(&path, digest.as_str().as_bytes())?;
        }
        Ok(Written {
            digest,
            subject: parsed.subject,
        })
    }

    /// Finds what a tag stands for.
    ///
    /// # Errors
    /// Fails where the disk does.
    pub fn tag(&self, name: &Name, tag: &str) -> Result<Option<Digest>> {
        let text = read(&self.directory(name, Kind::Tags).join(tag))?;
        Ok(text.and_then(|text| text.parse().ok()))
    }

    /// Gives when a tag was set or last renewed.
    ///
    /// # Errors
    /// Fails where the disk does.
    pub fn tag_time(&self, name: &Name, tag: &str) -> Result<Option<SystemTime>> {
        modified(&self.directory(name, Kind::Tags).join(tag))
    }

    /// Renews a tag's time.
    ///
    /// # Errors
    /// Fails where the disk does.
    pub fn renew_tag(&self, name: &Name, tag: &str) -> Result<()> {
        renew(&self.directory(name, Kind::Tags).join(tag))
    }

    /// Renews the time of a manifest, for the cache's order of use.
    ///
    /// # Errors
    /// Fails where the disk does.
    pub fn renew_manifest(&self, name: &Name, digest: &Digest) -> Result<()> {
        let link = self.link(name, Kind::Manifests, digest);
        match modified(&link)? {
            Some(time) => renew_old(&link, time),
            None => Ok(()),
        }
    }

    /// Reads a manifest.
    ///
    /// # Errors
    /// [`Code::ManifestUnknown`] where the repository has it not.
    pub fn manifest(&self, name: &Name, reference: &Reference) -> Result<StoredManifest> {
        let unknown = || {
            Error::new(
                Code::ManifestUnknown,
                json!({ "name": name.as_str(), "reference": reference.to_string() }),
            )
        };
        let digest = match reference {
            Reference::Digest(digest) => digest.clone(),
            Reference::Tag(tag) => self.tag(name, tag)?.ok_or_else(unknown)?,
        };
        let media_type = read(&self.link(name, Kind::Manifests, &digest))?.ok_or_else(unknown)?;
        let bytes = match self.content.get(&digest) {
            Err(gantry_image::Error::NotFound(_)) => return Err(unknown()),
            bytes => bytes?,
        };
        Ok(StoredManifest {
            digest,
            media_type,
            bytes,
        })
    }

    /// Removes a tag, or a manifest with all its tags.
    ///
    /// # Errors
    /// [`Code::ManifestUnknown`] where the repository has it not.
    pub fn delete_manifest(&self, name: &Name, reference: &Reference) -> Result<()> {
        let lock = self.repository(name);
        let _exclusive = lock.write().unwrap_or_else(PoisonError::into_inner);
        let was_there = match reference {
            Reference::Tag(tag) => self.erase(&self.directory(name, Kind::Tags).join(tag))?,
            Reference::Digest(digest) => self.remove_manifest(name, digest)?,
        };
        if was_there {
            Ok(())
        } else {
            Err(Error::new(
                Code::ManifestUnknown,
                json!({ "name": name.as_str(), "reference": reference.to_string() }),
            ))
        }
    }

    /// Removes a manifest, its tags first and its entry at its subject last; the repository's lock is held.
    pub(super) fn remove_manifest(&self, name: &Name, digest: &Digest) -> Result<bool> {
        let link = self.link(name, Kind::Manifests, digest);
        let Some(media_type) = read(&link)? else {
            return Ok(false);
        };
        for tag in list(&self.directory(name, Kind::Tags))? {
            if self.tag(name, &tag)?.as_ref() == Some(digest) {
                self.erase(&self.directory(name, Kind::Tags).join(tag))?;
            }
        }
        let subject = match self.content.get(digest) {
            Ok(bytes) => Parsed::read(Some(&media_type), &bytes)
                .ok()
                .and_then(|parsed| parsed.subject),
            Err(_) => None,
        };
        let was_there = self.erase(&link)?;
        if let Some(subject) = subject {
            let directory = self.link(name, Kind::Referrers, &subject);
            self.erase(&directory.join(super::file_name(digest)))?;
            let _ = std::fs::remove_dir(directory);
        }
        Ok(was_there)
    }

    /// Lists a repository's tags in the order of their bytes.
    ///
    /// # Errors
    /// [`Code::NameUnknown`] where there is no such repository.
    pub fn tags(&self, name: &Name) -> Result<Vec<String>> {
        let mut tags = list(&self.directory(name, Kind::Tags))?;
        if tags.is_empty() && !self.has_repository(name) {
            return Err(Error::new(
                Code::NameUnknown,
                json!({ "name": name.as_str() }),
            ));
        }
        tags.sort_unstable();
        Ok(tags)
    }

    /// Tells whether a repository has, or had, anything.
    pub fn has_repository(&self, name: &Name) -> bool {
        self.directory(name, Kind::Manifests).is_dir() || self.directory(name, Kind::Blobs).is_dir()
    }

    /// Lists the manifests of a repository.
    pub(super) fn manifests(&self, name: &Name) -> Result<Vec<Digest>> {
        let names = list(&self.directory(name, Kind::Manifests))?;
        Ok(names
            .iter()
            .filter_map(|name| digest_of_file(name))
            .collect())
    }

    /// Gives what a manifest refers to, blobs and manifests; `None` where its content is lost.
    pub(super) fn references(&self, digest: &Digest) -> Result<Option<Arc<[Digest]>>> {
        let cache = || {
            self.references
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
        };
        if let Some(known) = cache().get(digest) {
            return Ok(Some(Arc::clone(known)));
        }
        let bytes = match self.content.get(digest) {
            Err(gantry_image::Error::NotFound(_)) => return Ok(None),
            bytes => bytes?,
        };
        let parsed = Parsed::read(None, &bytes).or_else(|_| {
            // One of an unknown kind, without its own type: whatever it names is kept.
            Parsed::read(Some("application/json"), &bytes)
        })?;
        let references: Arc<[Digest]> = parsed.references().cloned().collect();
        cache().insert(digest.clone(), Arc::clone(&references));
        Ok(Some(references))
    }

    /// Gives the descriptors of the manifests that refer to one, in the order of their digests.
    ///
    /// # Errors
    /// Fails where the disk does.
    pub fn referrers(&self, name: &Name, subject: &Digest) -> Result<Vec<Value>> {
        super::referrers::list(self, name, subject)
    }
}
