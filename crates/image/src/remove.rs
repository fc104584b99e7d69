//! Removes names and images by Docker's rules.
//!
//! A name goes first; the image goes with its last name. What a running container uses stays whatever is asked; what
//! a stopped one uses, or what has several names and was named by id, needs force. Layers go when neither an image nor
//! a container's snapshot needs them.

use crate::error::{Error, Result};
use crate::hash::chain_ids;
use crate::index::{Change, Mirror};
use crate::resolve::{lookup_key, resolve};
use crate::store::Images;
use gantry_api::digest::Digest;
use gantry_api::id::ImageId;
use gantry_api::reference::Reference;
use gantry_api::time::Timestamp;
use std::collections::HashSet;

/// Is a container that was made from an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InUse {
    pub container_id: String,
    pub running: bool,
}

/// Tells which containers use an image.
pub type InUseBy<'a> = &'a dyn Fn(&ImageId) -> Vec<InUse>;

/// Says how to remove.
#[derive(Clone, Copy)]
pub struct RemoveOptions<'a> {
    pub force: bool,
    /// Keeps unnamed parents.
    pub no_prune: bool,
    pub in_use: InUseBy<'a>,
}

/// Is one thing that went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Removed {
    Untagged(Reference),
    /// An image's id, or a layer's chainID.
    Deleted(Digest),
}

/// Is a reason to keep an image.
struct Obstacle {
    text: String,
    forceable: bool,
    used: bool,
}

impl Images {
    /// Removes a name, or an image.
    ///
    /// # Errors
    /// Gives Docker's texts of conflicts.
    pub fn remove(&self, name: &str, options: RemoveOptions<'_>) -> Result<Vec<Removed>> {
        let mut mirror = self.lock();
        let id = resolve(&mirror, name)?;
        let mut removed = Vec::new();
        let references = mirror.references_of(&id);
        let by_id = is_id_prefix(&id, name);
        if by_id {
            if is_single(&references) {
                let obstacle = self.obstacle(&mirror, &id, options, true);
                if let Some(obstacle) = obstacle {
                    return Err(conflict(&id, &obstacle));
                }
                self.untag(&mut mirror, references, &mut removed)?;
            }
        } else {
            if !options.force
                && is_single(&references)
                && let Some(container) = (options.in_use)(&id).first()
            {
                return Err(Error::Conflict(format!(
                    "conflict: unable to remove repository reference {name:?} (must force) - container {} is using its \
                     referenced image {}",
                    short(&container.container_id),
                    id.short()
                )));
            }
            let parsed: Reference =
                name.parse()
                    .map_err(|error: gantry_api::reference::ReferenceError| {
                        Error::invalid(error.to_string())
                    })?;
            let key = lookup_key(&parsed);
            let target = mirror
                .references
                .get(&key)
                .map(|(reference, _)| reference.clone());
            let target = target.ok_or_else(|| crate::store::no_such_image(name))?;
            let was_tag = target.digest().is_none();
            let repository = target.name();
            self.untag(&mut mirror, vec![target], &mut removed)?;
            let left = mirror.references_of(&id);
            if was_tag
                && !left
                    .iter()
                    .any(|other| other.digest().is_none() && other.name() == repository)
            {
                let digests = left
                    .into_iter()
                    .filter(|other| other.name() == repository)
                    .collect();
                self.untag(&mut mirror, digests, &mut removed)?;
            }
            if !mirror.references_of(&id).is_empty() {
                return Ok(removed);
            }
        }
        self.delete(&mut mirror, id, options, !by_id, &mut removed)?;
        Ok(removed)
    }

    /// Removes an image with its names, if nobody has used it since, it has no others by now, and nothing stands on it.
    /// Gives nothing where it stays.
    pub(crate) fn remove_unused(
        &self,
        id: &ImageId,
        names: &[Reference],
        since: Timestamp,
        in_use: InUseBy<'_>,
    ) -> Result<Vec<Removed>> {
        let mut mirror = self.lock();
        let references = mirror.references_of(id);
        let is_unused = mirror
            .images
            .get(id)
            .is_some_and(|image| mirror.last_use_of(image) <= since)
            && references.iter().all(|reference| names.contains(reference))
            && mirror.children(id).is_empty()
            && in_use(id).is_empty();
        let mut removed = Vec::new();
        if is_unused {
            let options = RemoveOptions {
                force: false,
                no_prune: false,
                in_use,
            };
            self.untag(&mut mirror, references, &mut removed)?;
            self.delete(&mut mirror, id.clone(), options, true, &mut removed)?;
        }
        Ok(removed)
    }

    fn untag(
        &self,
        mirror: &mut Mirror,
        references: Vec<Reference>,
        removed: &mut Vec<Removed>,
    ) -> Result<()> {
        if references.is_empty() {
            return Ok(());
        }
        let change = Change {
            removed_references: references.clone(),
            ..Change::default()
        };
        self.write(&change, mirror)?;
        removed.extend(references.into_iter().map(Removed::Untagged));
        Ok(())
    }

    /// Deletes an image and then its unnamed parents. With `quiet` an image that is still wanted is simply kept.
    fn delete(
        &self,
        mirror: &mut Mirror,
        id: ImageId,
        options: RemoveOptions<'_>,
        mut quiet: bool,
        removed: &mut Vec<Removed>,
    ) -> Result<()> {
        let mut current = Some(id);
        let mut options = options;
        while let Some(id) = current.take() {
            if let Some(obstacle) = self.obstacle(mirror, &id, options, false) {
                let dangling =
                    mirror.references_of(&id).is_empty() && mirror.children(&id).is_empty();
                if quiet && (!dangling || obstacle.used) {
                    return Ok(());
                }
                return Err(conflict(&id, &obstacle));
            }
            let parent = mirror
                .images
                .get(&id)
                .and_then(|image| image.parent.clone());
            let references = mirror.references_of(&id);
            let layers = self.layers_to_go(mirror, &id);
            let change = Change {
                removed_references: references.clone(),
                removed_images: vec![id.clone()],
                ..Change::default()
            };
            self.collect(mirror, change)?;
            removed.extend(references.into_iter().map(Removed::Untagged));
            removed.push(Removed::Deleted(Digest::from(&id)));
            removed.extend(layers.into_iter().map(Removed::Deleted));
            if options.no_prune {
                return Ok(());
            }
            current = parent.filter(|parent| mirror.images.contains_key(parent));
            options.force = false;
            quiet = true;
        }
        Ok(())
    }

    /// Finds the first reason to keep an image. `by_id_single` leaves out the count of names, as Docker does where
    /// all of an image's names go with it.
    fn obstacle(
        &self,
        mirror: &Mirror,
        id: &ImageId,
        options: RemoveOptions<'_>,
        by_id_single: bool,
    ) -> Option<Obstacle> {
        if !mirror.children(id).is_empty() {
            let text = "image has dependent child images".to_owned();
            return Some(Obstacle {
                text,
                forceable: false,
                used: false,
            });
        }
        let users = (options.in_use)(id);
        if let Some(user) = users.iter().find(|user| user.running) {
            let text = format!(
                "image is being used by running container {}",
                short(&user.container_id)
            );
            return Some(Obstacle {
                text,
                forceable: false,
                used: true,
            });
        }
        if options.force {
            return None;
        }
        if !by_id_single && !mirror.references_of(id).is_empty() {
            let text = "image is referenced in multiple repositories".to_owned();
            return Some(Obstacle {
                text,
                forceable: true,
                used: false,
            });
        }
        users
            .iter()
            .find(|user| !user.running)
            .map(|user| Obstacle {
                text: format!(
                    "image is being used by stopped container {}",
                    short(&user.container_id)
                ),
                forceable: true,
                used: true,
            })
    }

    /// Gives the chainIDs, topmost first, that no other image and no container stands on.
    fn layers_to_go(&self, mirror: &Mirror, id: &ImageId) -> Vec<Digest> {
        let Some(image) = mirror.images.get(id) else {
            return Vec::new();
        };
        let common = |other: &[Digest]| {
            other
                .iter()
                .zip(&image.diff_ids)
                .take_while(|(a, b)| a == b)
                .count()
        };
        let others = mirror
            .images
            .values()
            .filter(|other| other.id != *id)
            .map(|other| common(&other.diff_ids));
        let mut kept = others.max().unwrap_or(0);
        let in_use: HashSet<u64> = self.0.snapshots.layers_in_use();
        for (level, diff_id) in image.diff_ids.iter().enumerate() {
            if mirror
                .layers
                .get(diff_id)
                .is_some_and(|layer| in_use.contains(&layer.snapshot))
            {
                kept = kept.max(level + 1);
            }
        }
        chain_ids(&image.diff_ids)
            .into_iter()
            .skip(kept)
            .rev()
            .collect()
    }
}

fn conflict(id: &ImageId, obstacle: &Obstacle) -> Error {
    let force = if obstacle.forceable {
        "must be forced"
    } else {
        "cannot be forced"
    };
    Error::Conflict(format!(
        "conflict: unable to delete {} ({force}) - {}",
        id.short(),
        obstacle.text
    ))
}

fn short(id: &str) -> &str {
    gantry_api::id::short(id)
}

fn is_id_prefix(id: &ImageId, name: &str) -> bool {
    id.to_digest().starts_with(name) || id.as_str().starts_with(name)
}

/// Tells whether an image has at most one tag, its digests, if any, being of that tag's repository.
fn is_single(references: &[Reference]) -> bool {
    if references.len() <= 1 {
        return true;
    }
    let mut tags = references
        .iter()
        .filter(|reference| reference.digest().is_none());
    let repositories: HashSet<String> = references
        .iter()
        .filter(|reference| reference.digest().is_some())
        .map(Reference::name)
        .collect();
    let first = tags.next().unwrap_or(&references[0]);
    tags.next().is_none() && repositories.len() == 1 && repositories.contains(&first.name())
}
