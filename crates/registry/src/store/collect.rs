//! Garbage collection, while pushes and pulls go on.
//!
//! In each repository, under its lock, links are removed that no manifest of the repository needs and that were not asked
//! for within the grace; then content is removed that no repository links. What a push may still rely on is safe: a blob
//! that was uploaded, mounted or found by HEAD is younger than the grace, and content on its way to a link is pinned.
//! With a limit of age or size, repositories that are caches lose what was used least recently first.

use super::{Kind, Store, digest_of_file, list, modified};
use crate::error::Result;
use crate::name::Name;
use gantry_api::digest::Digest;
use std::collections::HashSet;
use std::sync::PoisonError;
use std::time::{Duration, SystemTime};

/// Says what a collection may take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// How long a blob that nobody needs stays after somebody asked for it.
    pub grace: Duration,
    /// How long a manifest without a tag stays that nothing refers to; `None` is for ever.
    pub untagged: Option<Duration>,
    /// How long an upload may rest.
    pub uploads: Duration,
    /// Repositories below these names are caches.
    pub caches: Vec<String>,
    /// How long a cache keeps what nobody asks for; `None` is for ever.
    pub cache_age: Option<Duration>,
    /// How many bytes all caches may keep; `None` is without limit.
    pub cache_bytes: Option<u64>,
    /// Counts and removes nothing.
    pub is_dry_run: bool,
}

/// Is what a collection took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Collected {
    pub manifests: u64,
    pub links: u64,
    pub blobs: u64,
    pub bytes: u64,
    pub uploads: u64,
}

/// Ends the noting of what is pinned.
struct Noting<'a>(&'a Store);

impl Drop for Noting<'_> {
    fn drop(&mut self) {
        self.0.gate().recent = None;
    }
}

impl Store {
    /// Collects once. Callers see to it that there is one at a time.
    ///
    /// # Errors
    /// Fails where the disk does; what was removed until then was garbage.
    pub fn collect(&self, policy: &Policy) -> Result<Collected> {
        let mut collected = Collected::default();
        if !policy.is_dry_run {
            collected.uploads = self.expire_uploads(policy.uploads)? as u64;
        }
        {
            let mut gate = self.gate();
            gate.recent = Some(gate.pinned.keys().cloned().collect());
        }
        let _noting = Noting(self);
        let names = self.all_repositories()?;
        let evicted = self.over_size(&names, policy)?;
        let mut linked = HashSet::new();
        for name in &names {
            let done = self.collect_repository(name, policy, &evicted, &mut linked, &mut collected);
            if let Err(error) = done {
                tracing::error!(
                    name = name.as_str(),
                    error = crate::server::causes(&error),
                    "collect a repository; all it has is kept"
                );
                self.keep_all(name, &mut linked)?;
            }
        }
        self.references
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .retain(|digest, _| linked.contains(digest));
        let crowded: HashSet<&Digest> = evicted.iter().map(|(_, digest)| digest).collect();
        for stored in self.content.list()? {
            // What made way for other content of a cache does so at once; pins still hold it.
            let is_young =
                !crowded.contains(&stored.digest) && !is_older(stored.modified, policy.grace);
            if linked.contains(&stored.digest) || is_young {
                continue;
            }
            if !policy.is_dry_run && !self.remove_unlinked(&stored.digest)? {
                continue;
            }
            collected.blobs += 1;
            collected.bytes += stored.bytes;
        }
        Ok(collected)
    }

    /// Removes content unless somebody is about to link it, or did since the collection began.
    fn remove_unlinked(&self, digest: &Digest) -> Result<bool> {
        let gate = self.gate();
        let is_recent = gate
            .recent
            .as_ref()
            .is_some_and(|recent| recent.contains(digest));
        if is_recent || gate.pinned.contains_key(digest) {
            return Ok(false);
        }
        self.content.remove(digest)?;
        Ok(true)
    }

    /// Notes all that a repository links as needed.
    fn keep_all(&self, name: &Name, linked: &mut HashSet<Digest>) -> Result<()> {
        for kind in [Kind::Blobs, Kind::Manifests] {
            let files = list(&self.directory(name, kind))?;
            linked.extend(files.iter().filter_map(|file| digest_of_file(file)));
        }
        Ok(())
    }

    fn collect_repository(
        &self,
        name: &Name,
        policy: &Policy,
        evicted: &HashSet<(Name, Digest)>,
        linked: &mut HashSet<Digest>,
        collected: &mut Collected,
    ) -> Result<()> {
        let lock = self.repository(name);
        let _exclusive = lock.write().unwrap_or_else(PoisonError::into_inner);
        let is_cache = is_below(name, &policy.caches);
        let mut manifests = self.manifests(name)?;
        for digest in self.stale_manifests(name, &manifests, policy, is_cache, evicted)? {
            collected.manifests += 1;
            if !policy.is_dry_run {
                self.remove_manifest(name, &digest)?;
            }
            manifests.retain(|manifest| *manifest != digest);
        }
        let mut needed = HashSet::new();
        for digest in &manifests {
            match self.references(digest)? {
                Some(references) => needed.extend(references.iter().cloned()),
                None => {
                    tracing::warn!(name = name.as_str(), %digest, "the content of a manifest is lost")
                }
            }
        }
        for file in list(&self.directory(name, Kind::Blobs))? {
            let Some(digest) = digest_of_file(&file) else {
                continue;
            };
            let link = self.link(name, Kind::Blobs, &digest);
            let Some(time) = modified(&link)? else {
                continue;
            };
            let is_spent = if is_cache {
                evicted.contains(&(name.clone(), digest.clone()))
                    || policy.cache_age.is_some_and(|age| is_older(time, age))
            } else {
                !needed.contains(&digest) && is_older(time, policy.grace)
            };
            if !is_spent {
                linked.insert(digest);
                continue;
            }
            collected.links += 1;
            if !policy.is_dry_run {
                // Not synced: one that comes back with a loss of power is found by the next collection.
                let _ = std::fs::remove_file(&link);
            }
        }
        linked.extend(manifests);
        if !policy.is_dry_run {
            self.remove_empty(name);
        }
        Ok(())
    }

    /// Chooses the manifests that the policy lets go.
    fn stale_manifests(
        &self,
        name: &Name,
        manifests: &[Digest],
        policy: &Policy,
        is_cache: bool,
        evicted: &HashSet<(Name, Digest)>,
    ) -> Result<Vec<Digest>> {
        let age = if is_cache {
            policy.cache_age
        } else {
            policy.untagged
        };
        let mut kept = HashSet::new();
        if !is_cache {
            for tag in list(&self.directory(name, Kind::Tags))? {
                kept.extend(self.tag(name, &tag)?);
            }
            for digest in manifests {
                if let Some(references) = self.references(digest)? {
                    kept.extend(references.iter().cloned());
                }
            }
            for subject in manifests {
                for referrer in list(&self.link(name, Kind::Referrers, subject))? {
                    kept.extend(digest_of_file(&referrer));
                }
            }
        }
        let mut stale = Vec::new();
        for digest in manifests {
            let time = modified(&self.link(name, Kind::Manifests, digest))?;
            let is_old = match (age, time) {
                (Some(age), Some(time)) => is_older(time, age),
                _ => false,
            };
            let is_evicted = is_cache && evicted.contains(&(name.clone(), digest.clone()));
            if (is_old && !kept.contains(digest)) || is_evicted {
                stale.push(digest.clone());
            }
        }
        Ok(stale)
    }

    /// Chooses what all caches together must lose to fit their limit, the least recently used first.
    fn over_size(&self, names: &[Name], policy: &Policy) -> Result<HashSet<(Name, Digest)>> {
        let Some(limit) = policy.cache_bytes else {
            return Ok(HashSet::new());
        };
        let mut entries: Vec<(SystemTime, u64, Name, Digest)> = Vec::new();
        let mut counted = HashSet::new();
        let mut total = 0;
        for name in names.iter().filter(|name| is_below(name, &policy.caches)) {
            for kind in [Kind::Blobs, Kind::Manifests] {
                for file in list(&self.directory(name, kind))? {
                    let Some(digest) = digest_of_file(&file) else {
                        continue;
                    };
                    let time = modified(&self.link(name, kind, &digest))?;
                    let size = self.content.size(&digest)?;
                    if let (Some(time), Some(size)) = (time, size) {
                        // Content that two repositories link is on the disk once.
                        let share = if counted.insert(digest.clone()) {
                            size
                        } else {
                            0
                        };
                        total += share;
                        entries.push((time, share, name.clone(), digest));
                    }
                }
            }
        }
        entries.sort_unstable();
        let mut evicted = HashSet::new();
        for (_, size, name, digest) in entries {
            if total <= limit {
                break;
            }
            total -= size;
            evicted.insert((name, digest));
        }
        Ok(evicted)
    }

    /// Removes the directories of a repository that has nothing left; its lock is held.
    fn remove_empty(&self, name: &Name) {
        let repositories = self.root.join("repositories");
        let own = [Kind::Referrers, Kind::Tags, Kind::Manifests, Kind::Blobs]
            .map(|kind| self.directory(name, kind));
        if own
            .iter()
            .any(|directory| list(directory).is_ok_and(|names| !names.is_empty()))
        {
            return;
        }
        for directory in own {
            let _ = std::fs::remove_dir(directory);
        }
        let mut path = repositories.join(name.as_str());
        // Fails at the first that has something in it.
        while path != repositories && std::fs::remove_dir(&path).is_ok() {
            path.pop();
        }
    }
}

fn is_older(time: SystemTime, age: Duration) -> bool {
    SystemTime::now()
        .duration_since(time)
        .is_ok_and(|passed| passed >= age)
}

/// Tells whether a repository lies below one of these names.
pub(crate) fn is_below(name: &Name, caches: &[String]) -> bool {
    caches.iter().any(|cache| {
        name.as_str()
            .strip_prefix(cache.as_str())
            .is_some_and(|rest| rest.starts_with('/'))
    })
}
