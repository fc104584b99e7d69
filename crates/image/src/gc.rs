//! Garbage: what a policy finds, and its removal.
//!
//! What nothing names goes at once, without a policy (`garbage`). A policy is for what is named, or kept on purpose, and
//! has not been used for long: broken-off downloads, compressed blobs, images. [`plan`] decides on plain data; each
//! removal looks again, under the lock under which it happens, so that what was taken into use meanwhile stays.

use crate::error::{Error, Result};
use crate::remove::{InUseBy, Removed};
use crate::store::{Images, now};
use gantry_api::digest::Digest;
use gantry_api::id::ImageId;
use gantry_api::reference::Reference;
use gantry_api::time::Timestamp;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Duration;

const DAY: u64 = 24 * 60 * 60;

/// Says what is removed by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GcPolicy {
    pub enabled: bool,
    /// Whether images with a name go, too; else only those without one, idle partials and kept blobs.
    pub tagged: bool,
    /// How long something must not have been used.
    pub unused_for: Duration,
    /// From this use of the file system on, what was not used for longest goes first, whatever its age.
    pub high_watermark_percent: Option<u8>,
    /// Where that ends; the high mark itself, if it is not given.
    pub low_watermark_percent: Option<u8>,
    /// How often the policy is applied.
    pub interval: Duration,
    /// How many bytes of compressed layers are kept for pushes elsewhere.
    pub keep_blobs_bytes: u64,
    /// How long an interrupted download is kept.
    pub partials_for: Duration,
}

impl Default for GcPolicy {
    fn default() -> Self {
        Self {
            enabled: false,
            tagged: false,
            unused_for: Duration::from_secs(14 * DAY),
            high_watermark_percent: None,
            low_watermark_percent: None,
            interval: Duration::from_secs(60 * 60),
            keep_blobs_bytes: 0,
            partials_for: Duration::from_secs(7 * DAY),
        }
    }
}

/// Is one thing that went, or would go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GcItem {
    /// `image`, `layer`, `blob` or `partial`.
    pub kind: &'static str,
    pub name: String,
    pub reason: String,
    pub bytes: u64,
}

/// Is what a collection did, or would do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GcReport {
    pub items: Vec<GcItem>,
    pub reclaimed_bytes: u64,
    pub dry_run: bool,
}

/// Is something that a policy may take.
#[derive(Clone, Debug)]
struct Candidate {
    what: What,
    used: Timestamp,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum What {
    Image {
        id: ImageId,
        shown: String,
        /// What it is named by; a name that comes later keeps it.
        references: Vec<Reference>,
        is_tagged: bool,
        diff_ids: Vec<Digest>,
    },
    Layer(Digest),
    Blob(Digest, u64),
    Partial(String, u64),
}

/// Is everything that a plan is made of.
struct State {
    candidates: Vec<Candidate>,
    /// How many images, containers and leases need a layer, and what it occupies.
    layers: BTreeMap<Digest, (usize, u64)>,
    /// Bytes used and bytes in all of the file system.
    disk: (u64, u64),
    now: Timestamp,
}

impl Images {
    /// Removes what a policy says, or tells what it would.
    pub fn collect_by(
        &self,
        policy: &GcPolicy,
        in_use: InUseBy<'_>,
        dry_run: bool,
    ) -> Result<(GcReport, Vec<Removed>)> {
        self.write_uses()?;
        let planned = plan(policy, self.state(in_use)?);
        let mut report = GcReport {
            dry_run,
            ..GcReport::default()
        };
        let mut removed = Vec::new();
        for (candidate, item) in planned {
            if dry_run || self.take(&candidate, in_use, &mut removed)? {
                report.reclaimed_bytes += item.bytes;
                report.items.push(item);
            }
        }
        Ok((report, removed))
    }

    /// Removes what broken-off pulls left: partials, and layers that no image names.
    pub(crate) fn drop_left_behind(&self) -> Result<()> {
        for (name, ..) in self.0.content.idle_partials()? {
            let candidate = Candidate {
                what: What::Partial(name, 0),
                used: Timestamp::default(),
            };
            self.take(&candidate, &|_| Vec::new(), &mut Vec::new())?;
        }
        let kept: Vec<Digest> = {
            let mirror = self.lock();
            let kept = mirror
                .layers
                .values()
                .filter(|layer| layer.kept_until.is_some());
            kept.map(|layer| layer.diff_id.clone()).collect()
        };
        self.let_go(&kept)
    }

    fn state(&self, in_use: InUseBy<'_>) -> Result<State> {
        let occupied = self.occupied_by_layers()?;
        let containers = self.0.snapshots.layers_in_use();
        let mut candidates = Vec::new();
        for (name, bytes, modified) in self.0.content.idle_partials()? {
            candidates.push(Candidate {
                what: What::Partial(name, bytes),
                used: modified.into(),
            });
        }
        let images: Vec<ImageId> = self.lock().images.keys().cloned().collect();
        let users: HashSet<ImageId> = images
            .into_iter()
            .filter(|id| !in_use(id).is_empty())
            .collect();
        let mirror = self.lock();
        let parents: HashSet<&ImageId> = mirror
            .images
            .values()
            .filter_map(|image| image.parent.as_ref())
            .collect();
        for image in mirror.images.values() {
            if users.contains(&image.id) || parents.contains(&image.id) {
                continue;
            }
            let references = mirror.references_of(&image.id);
            let tag = references
                .iter()
                .find(|reference| reference.digest().is_none());
            let shown = tag.map_or_else(|| image.id.short().to_owned(), ToString::to_string);
            candidates.push(Candidate {
                what: What::Image {
                    id: image.id.clone(),
                    shown,
                    is_tagged: tag.is_some(),
                    references,
                    diff_ids: image.diff_ids.clone(),
                },
                used: mirror.last_use_of(image),
            });
        }
        let whole: HashSet<&Digest> = mirror
            .manifests
            .values()
            .flat_map(|manifest| &manifest.blobs)
            .collect();
        for blob in mirror.blobs.values().filter(|blob| blob.kept) {
            // What is no layer here is there because an index was pulled whole, and goes with its image.
            let is_spare = blob
                .diff_id
                .as_ref()
                .is_some_and(|diff_id| mirror.layers.contains_key(diff_id));
            if (is_spare || !whole.contains(&blob.digest))
                && !mirror.leases.contains_key(&blob.digest)
            {
                candidates.push(Candidate {
                    what: What::Blob(blob.digest.clone(), blob.size_bytes),
                    used: blob.last_used.unwrap_or_default(),
                });
            }
        }
        let mut layers = BTreeMap::new();
        for layer in mirror.layers.values() {
            let images = mirror.layer_users.get(&layer.diff_id).copied().unwrap_or(0);
            let leases = mirror.leases.get(&layer.diff_id).copied().unwrap_or(0);
            let containers = usize::from(containers.contains(&layer.snapshot));
            let users = images as usize + leases as usize + containers;
            let bytes = occupied.get(&layer.snapshot).copied().unwrap_or(0);
            layers.insert(layer.diff_id.clone(), (users, bytes));
            if let (0, Some(until)) = (users, layer.kept_until) {
                candidates.push(Candidate {
                    what: What::Layer(layer.diff_id.clone()),
                    used: until,
                });
            }
        }
        drop(mirror);
        Ok(State {
            candidates,
            layers,
            disk: self.0.snapshots.disk()?,
            now: now(),
        })
    }

    /// Takes one thing away; tells whether it went.
    fn take(
        &self,
        candidate: &Candidate,
        in_use: InUseBy<'_>,
        removed: &mut Vec<Removed>,
    ) -> Result<bool> {
        let gone = match &candidate.what {
            What::Partial(name, _) => self.0.content.remove_partial(name),
            What::Layer(diff_id) => self.let_go(std::slice::from_ref(diff_id)).map(|()| true),
            What::Blob(digest, _) => self.drop_kept(digest, candidate.used),
            What::Image { id, references, .. } => {
                let gone = self.remove_unused(id, references, candidate.used, in_use);
                gone.map(|gone| {
                    let is_gone = !gone.is_empty();
                    removed.extend(gone);
                    is_gone
                })
            }
        };
        match gone {
            // Taken into use, or gone, meanwhile.
            Err(Error::Conflict(_) | Error::NotFound(_)) => Ok(false),
            other => other,
        }
    }

    /// Lets go of the bytes of a kept blob that nobody has used since; what is known of it stays. Tells whether it did.
    fn drop_kept(&self, digest: &Digest, since: Timestamp) -> Result<bool> {
        let mut mirror = self.lock();
        let blob = mirror.blobs.get(digest).filter(|blob| {
            blob.kept
                && blob.last_used.unwrap_or_default() <= since
                && !mirror.leases.contains_key(digest)
        });
        let Some(blob) = blob else {
            return Ok(false);
        };
        let mut blob = blob.clone();
        blob.kept = false;
        let change = crate::index::Change {
            blobs: vec![blob],
            dropped: vec![digest.clone()],
            ..Default::default()
        };
        self.carry_out(&mut mirror, change, Vec::new())?;
        Ok(true)
    }
}

/// Decides what goes, in order, and why.
fn plan(policy: &GcPolicy, state: State) -> Vec<(Candidate, GcItem)> {
    let State {
        mut candidates,
        mut layers,
        disk: (used, size),
        now,
    } = state;
    candidates.sort_by_key(|candidate| candidate.used);
    let mut planned = Vec::new();
    let mut rest = Vec::new();
    let mut kept_bytes: u64 = candidates
        .iter()
        .map(|candidate| match candidate.what {
            What::Blob(_, bytes) => bytes,
            _ => 0,
        })
        .sum();
    for candidate in candidates {
        let age = now.since(candidate.used);
        let reason = match &candidate.what {
            What::Partial(..) if age >= policy.partials_for => {
                Some(format!("download broken off {} ago", days(age)))
            }
            // Its time is the one until which it is kept.
            What::Layer(_) if candidate.used <= now => {
                Some("brought by a pull that did not go on".to_owned())
            }
            What::Blob(_, bytes) if kept_bytes > policy.keep_blobs_bytes => {
                kept_bytes -= bytes;
                Some(format!(
                    "more than {} bytes of compressed layers are kept",
                    policy.keep_blobs_bytes
                ))
            }
            What::Image { is_tagged, .. }
                if age >= policy.unused_for && (policy.tagged || !is_tagged) =>
            {
                Some(format!("not used for {}", days(age)))
            }
            _ => None,
        };
        match reason {
            Some(reason) => planned.push(item(candidate, reason, &mut layers)),
            None => rest.push(candidate),
        }
    }
    let Some(high) = policy.high_watermark_percent else {
        return planned;
    };
    let percent = |percent: u8| u128::from(size) * u128::from(percent) / 100;
    let mut used = u128::from(used);
    for (_, item) in &planned {
        used = used.saturating_sub(u128::from(item.bytes));
    }
    if used <= percent(high) {
        return planned;
    }
    let low = percent(policy.low_watermark_percent.unwrap_or(high));
    for candidate in rest {
        if used <= low {
            break;
        }
        if let What::Image {
            is_tagged: true, ..
        } = candidate.what
            && !policy.tagged
        {
            continue;
        }
        let reason = format!("the file system is more than {high} % full");
        let (candidate, item) = item(candidate, reason, &mut layers);
        used = used.saturating_sub(u128::from(item.bytes));
        planned.push((candidate, item));
    }
    planned
}

/// Makes the report's line, and takes an image's share off the layers.
fn item(
    candidate: Candidate,
    reason: String,
    layers: &mut BTreeMap<Digest, (usize, u64)>,
) -> (Candidate, GcItem) {
    let (kind, name, bytes) = match &candidate.what {
        What::Partial(name, bytes) => ("partial", name.replacen('-', ":", 1), *bytes),
        What::Blob(digest, bytes) => ("blob", digest.to_string(), *bytes),
        What::Layer(diff_id) => {
            let bytes = layers.get(diff_id).map_or(0, |(_, bytes)| *bytes);
            ("layer", diff_id.to_string(), bytes)
        }
        What::Image {
            shown, diff_ids, ..
        } => {
            let mut freed: HashMap<&Digest, u64> = HashMap::new();
            for diff_id in diff_ids {
                if freed.contains_key(diff_id) {
                    continue;
                }
                if let Some((users, bytes)) = layers.get_mut(diff_id) {
                    *users = users.saturating_sub(1);
                    freed.insert(diff_id, if *users == 0 { *bytes } else { 0 });
                }
            }
            ("image", shown.clone(), freed.values().sum())
        }
    };
    let item = GcItem {
        kind,
        name,
        reason,
        bytes,
    };
    (candidate, item)
}

fn days(age: Duration) -> String {
    match age.as_secs() {
        seconds if seconds >= 2 * DAY => format!("{} days", seconds / DAY),
        seconds if seconds >= 2 * 60 * 60 => format!("{} hours", seconds / 60 / 60),
        seconds => format!("{} minutes", seconds / 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(digit: char) -> Digest {
        format!("sha256:{}", digit.to_string().repeat(64))
            .parse()
            .unwrap()
    }

    fn image(digit: char, is_tagged: bool, days_ago: u64, diff_ids: &[char]) -> Candidate {
        Candidate {
            what: What::Image {
                id: digit.to_string().repeat(64).parse().unwrap(),
                shown: digit.to_string(),
                references: Vec::new(),
                is_tagged,
                diff_ids: diff_ids.iter().map(|digit| digest(*digit)).collect(),
            },
            used: ago(days_ago),
        }
    }

    const NOW: i64 = 1_000_000_000;

    fn ago(days: u64) -> Timestamp {
        Timestamp::from_unix(NOW - (days * DAY) as i64, 0)
    }

    fn state(candidates: Vec<Candidate>, used: u64) -> State {
        let layers = [('1', 1), ('2', 2), ('3', 1)];
        State {
            candidates,
            layers: layers
                .into_iter()
                .map(|(digit, users)| (digest(digit), (users, 10)))
                .collect(),
            disk: (used, 100),
            now: Timestamp::from_unix(NOW, 0),
        }
    }

    fn names(planned: &[(Candidate, GcItem)]) -> Vec<(&str, u64)> {
        let items = planned.iter();
        items
            .map(|(_, item)| (item.name.as_str(), item.bytes))
            .collect()
    }

    #[test]
    fn age_takes_unnamed_images_and_named_ones_only_if_asked() {
        let candidates = || {
            vec![
                image('a', false, 20, &['1', '2']),
                image('b', true, 30, &['2']),
                image('c', false, 1, &['3']),
            ]
        };
        let mut policy = GcPolicy::default();
        assert_eq!(names(&plan(&policy, state(candidates(), 0))), [("a", 10)]);
        policy.tagged = true;
        // The shared layer is freed by the last of its images.
        assert_eq!(
            names(&plan(&policy, state(candidates(), 0))),
            [("b", 0), ("a", 20)]
        );
    }

    #[test]
    fn a_full_disk_takes_the_least_recently_used_until_the_low_mark() {
        let candidates = || {
            vec![
                image('a', false, 3, &['1']),
                image('b', true, 5, &['2']),
                image('c', false, 1, &['3']),
                image('d', false, 2, &['2']),
            ]
        };
        let policy = GcPolicy {
            high_watermark_percent: Some(80),
            low_watermark_percent: Some(75),
            ..GcPolicy::default()
        };
        assert!(plan(&policy, state(candidates(), 80)).is_empty());
        // `b` has a name; `d` shares its layer with it and frees nothing.
        assert_eq!(
            names(&plan(&policy, state(candidates(), 90))),
            [("a", 10), ("d", 0), ("c", 10)]
        );
        assert_eq!(names(&plan(&policy, state(candidates(), 85))), [("a", 10)]);
    }

    #[test]
    fn blobs_and_partials_have_limits_of_their_own() {
        let blob = |digit, bytes, days| Candidate {
            what: What::Blob(digest(digit), bytes),
            used: ago(days),
        };
        let partial = |name: &str, days| Candidate {
            what: What::Partial(name.to_owned(), 5),
            used: ago(days),
        };
        let policy = GcPolicy {
            keep_blobs_bytes: 25,
            ..GcPolicy::default()
        };
        let candidates = vec![
            blob('a', 20, 1),
            blob('b', 10, 3),
            blob('c', 5, 2),
            partial("sha256-old", 8),
            partial("sha256-new", 6),
        ];
        assert_eq!(
            names(&plan(&policy, state(candidates, 0))),
            [("sha256:old", 5), (digest('b').as_str(), 10)]
        );
    }

    #[test]
    fn what_was_named_moved_or_used_after_the_plan_stays() {
        let root = tempfile::tempdir().unwrap();
        let images = Images::open(root.path()).unwrap();
        let add = |name: &str| {
            let raw = format!(
                r#"{{"architecture":"{name}","os":"linux","rootfs":{{"type":"layers","diff_ids":[]}}}}"#
            );
            let raw = raw.into_bytes();
            let config = crate::store::parse_config(&raw).unwrap();
            let record = crate::load::image_record(&raw, &config, None).unwrap();
            let id = record.id.clone();
            let tag: Reference = format!("{name}:1").parse().unwrap();
            let staged = crate::store::Staged {
                images: vec![(record, raw)],
                references: vec![(tag, id.clone())],
                ..Default::default()
            };
            images.commit(staged).unwrap();
            id
        };
        let [named, moved, used, unused] = ["named", "moved", "used", "unused"].map(add);
        let nobody: InUseBy<'_> = &|_| Vec::new();
        let planned = images.state(nobody).unwrap().candidates;
        assert_eq!(planned.len(), 4);
        images.tag("named:1", "keep:1").unwrap();
        images.tag("used:1", "moved:1").unwrap();
        images.touch(&used);
        let mut removed = Vec::new();
        for candidate in &planned {
            images.take(candidate, nobody, &mut removed).unwrap();
        }
        // The plan's name of `moved` is another image's now, and stays that.
        assert_eq!(images.get("moved:1").unwrap().id, used);
        assert_eq!(images.get("used:1").unwrap().id, used);
        assert_eq!(images.get("named:1").unwrap().id, named);
        assert_eq!(images.get("keep:1").unwrap().id, named);
        let ids: Vec<&Digest> = removed
            .iter()
            .filter_map(|removed| match removed {
                Removed::Deleted(digest) => Some(digest),
                Removed::Untagged(_) => None,
            })
            .collect();
        assert_eq!(ids.len(), 2, "{removed:?}");
        assert!(ids.contains(&&Digest::from(&moved)) && ids.contains(&&Digest::from(&unused)));
    }
}
