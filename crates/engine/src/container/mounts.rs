//! From the ways to ask for a mount to the list of mounts a container has. A plan on plain data: nothing is looked up
//! or made here, so a bind's source may not exist and an anonymous volume has no name yet.
//!
//! Later sources of the same destination win in this order: another container's (`--volumes-from`), `-v`, `--mount`,
//! `--tmpfs`, the image's `VOLUME`s. Two wishes of the user for one destination are an error.

use std::collections::BTreeMap;
use std::path::Path;

use super::config::{Config, HostConfig, MountKind, MountSpec};
use super::record::MountPoint;
use crate::{Error, Result};

/// A mount that was asked for, and what must be done for it before a start.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Planned {
    pub point: MountPoint,
    /// Makes a missing host directory (`-v`), instead of refusing the mount (`--mount`).
    pub create_source: bool,
    pub volume_labels: BTreeMap<String, String>,
    pub volume_options: BTreeMap<String, String>,
}

/// Parses one `-v` value.
///
/// # Errors
/// Docker's texts for a malformed specification, mode or path.
pub(crate) fn parse_bind(raw: &str, volume_driver: &str) -> Result<Planned> {
    let invalid = || Error::invalid(format!("invalid volume specification: '{raw}'"));
    let mut parts = raw.split(':');
    let (first, second, third) = (parts.next().unwrap_or(""), parts.next(), parts.next());
    if parts.next().is_some() || first.is_empty() || second == Some("") {
        return Err(invalid());
    }
    let (source, destination, mode) = match (second, third) {
        (None, _) => ("", first, ""),
        // `name:ro` would be read as a mode only if it is no path; Docker takes it for a destination all the same.
        (Some(second), None) => (first, second, ""),
        (Some(second), Some(third)) => (first, second, third),
    };
    let mut point = MountPoint {
        destination: clean(destination),
        mode: mode.to_owned(),
        rw: true,
        explicit: true,
        ..MountPoint::default()
    };
    point.propagation = String::new();
    if source.starts_with('/') {
        point.kind = MountKind::Bind;
        point.source = clean(source);
    } else {
        point.kind = MountKind::Volume;
        point.name = source.to_owned();
        point.anonymous = source.is_empty();
        point.driver = if volume_driver.is_empty() {
            "local".into()
        } else {
            volume_driver.to_owned()
        };
    }
    let foreign = apply_mode(&mut point, mode)?;
    if let Some(field) = foreign {
        return Err(Error::invalid(format!(
            "invalid volume specification: '{raw}': invalid mount config for type \"{}\": field {field} must not be \
             specified",
            point.kind.as_str()
        )));
    }
    if mode.is_empty() && !point.name.is_empty() {
        // Docker shows a named volume as shared between labels, which is its default.
        point.mode = "z".into();
    }
    check_destination(&point, destination).map_err(|error| {
        Error::invalid(format!(
            "invalid volume specification: '{raw}': invalid mount config for type \"{}\": {error}",
            point.kind.as_str()
        ))
    })?;
    Ok(Planned {
        point,
        create_source: true,
        volume_labels: BTreeMap::new(),
        volume_options: BTreeMap::new(),
    })
}

/// Applies the comma-separated modes of a `-v` value, of which each may be there once. Returns the field of a mount that
/// such a mode means and that this kind of mount does not have.
fn apply_mode(point: &mut MountPoint, mode: &str) -> Result<Option<&'static str>> {
    let mut foreign = None;
    let mut seen = [false; 5];
    for word in mode.split(',').filter(|_| !mode.is_empty()) {
        let sort = match word {
            "ro" | "rw" => {
                point.rw = word == "rw";
                0
            }
            // SELinux relabelling: without SELinux there is nothing to relabel.
            "z" | "Z" => 1,
            "nocopy" => {
                if point.kind != MountKind::Volume {
                    foreign = Some("VolumeOptions");
                }
                point.no_copy = true;
                2
            }
            // How soon a change is seen, where the engine runs in a virtual machine.
            "consistent" | "cached" | "delegated" => 3,
            "private" | "rprivate" | "shared" | "rshared" | "slave" | "rslave" => {
                if point.kind != MountKind::Bind {
                    foreign = Some("BindOptions");
                }
                point.propagation = word.to_owned();
                point.propagation_given = true;
                4
            }
            _ => return Err(Error::invalid(format!("invalid mode: {mode}"))),
        };
        if std::mem::replace(&mut seen[sort], true) {
            return Err(Error::invalid(format!("invalid mode: {mode}")));
        }
    }
    Ok(foreign)
}

fn check_destination(point: &MountPoint, given: &str) -> Result<(), String> {
    if !given.starts_with('/') {
        return Err(format!(
            "invalid mount path: '{given}' mount path must be absolute"
        ));
    }
    if point.destination == "/" {
        return Err("invalid specification: destination can't be '/'".into());
    }
    Ok(())
}

/// Turns one `--mount` value into a mount.
pub(crate) fn from_spec(spec: &MountSpec) -> Result<Planned> {
    let kind = spec.kind.as_str();
    let invalid =
        |what: &str| Error::invalid(format!("invalid mount config for type \"{kind}\": {what}"));
    let mut point = MountPoint {
        kind: spec.kind,
        destination: clean(&spec.target),
        rw: !spec.read_only,
        explicit: true,
        ..MountPoint::default()
    };
    if spec.target.is_empty() {
        return Err(invalid("field Target must not be empty"));
    }
    check_destination(&point, &spec.target).map_err(|error| invalid(&error))?;
    match spec.kind {
        MountKind::Bind => {
            if spec.source.is_empty() {
                return Err(invalid("field Source must not be empty"));
            }
            if !spec.source.starts_with('/') {
                return Err(invalid(&format!(
                    "invalid mount path: '{}' mount path must be absolute",
                    spec.source
                )));
            }
            point.source = clean(&spec.source);
            point.propagation.clone_from(&spec.bind_propagation);
            point.propagation_given = !point.propagation.is_empty();
            if ![
                "", "private", "rprivate", "shared", "rshared", "slave", "rslave",
            ]
            .contains(&point.propagation.as_str())
            {
                return Err(invalid(&format!(
                    "invalid propagation mode: {}",
                    point.propagation
                )));
            }
            point.non_recursive = spec.bind_non_recursive;
            point.read_only_non_recursive = spec.bind_read_only_non_recursive;
            point.read_only_force_recursive = spec.bind_read_only_force_recursive;
            if point.read_only_force_recursive && point.rw {
                return Err(invalid(
                    "BindOptions.ReadOnlyForceRecursive requires ReadOnly to be set",
                ));
            }
        }
        MountKind::Volume => {
            if spec.source.starts_with('/') {
                return Err(invalid(&format!(
                    "invalid mount path: '{}' is a path, not a volume name",
                    spec.source
                )));
            }
            point.name = spec.source.clone();
            point.anonymous = spec.source.is_empty();
            point.driver = if spec.volume_driver.is_empty() {
                "local".into()
            } else {
                spec.volume_driver.clone()
            };
            point.no_copy = spec.volume_no_copy;
            point.subpath = spec.volume_subpath.clone();
            if !point.subpath.is_empty() {
                if point.anonymous {
                    return Err(invalid("must not set Subpath when using anonymous volumes"));
                }
                let cleaned = clean(&point.subpath);
                if cleaned.starts_with('/') || cleaned.split('/').next() == Some("..") {
                    return Err(invalid("subpath must be a relative path within the volume"));
                }
            }
        }
        MountKind::Tmpfs => {
            if !spec.source.is_empty() {
                return Err(invalid("field Source must not be specified"));
            }
            let mut options = vec!["noexec".to_owned(), "nosuid".into(), "nodev".into()];
            if spec.tmpfs_size_bytes != 0 {
                options.push(format!("size={}", spec.tmpfs_size_bytes));
            }
            if spec.tmpfs_mode != 0 {
                options.push(format!("mode={:o}", spec.tmpfs_mode));
            }
            for option in &spec.tmpfs_options {
                let option = option.join("=");
                if option == "exec" {
                    options.retain(|known| known != "noexec");
                }
                options.push(option);
            }
            if spec.read_only {
                options.push("ro".into());
            }
            point.tmpfs_options = options;
        }
    }
    Ok(Planned {
        point,
        create_source: spec.bind_create_mountpoint,
        volume_labels: spec.volume_labels.clone(),
        volume_options: spec.volume_driver_options.clone(),
    })
}

/// Turns one `--tmpfs` value into a mount.
fn from_tmpfs(target: &str, options: &str) -> Result<Planned> {
    let mut point = MountPoint {
        kind: MountKind::Tmpfs,
        destination: clean(target),
        mode: options.to_owned(),
        rw: true,
        explicit: true,
        ..MountPoint::default()
    };
    check_destination(&point, target).map_err(Error::invalid)?;
    let mut list = vec!["noexec".to_owned(), "nosuid".into(), "nodev".into()];
    for option in options.split(',').filter(|option| !option.is_empty()) {
        let name = option.split('=').next().unwrap_or(option);
        match name {
            "exec" => list.retain(|known| known != "noexec"),
            "suid" => list.retain(|known| known != "nosuid"),
            "dev" => list.retain(|known| known != "nodev"),
            "ro" => point.rw = false,
            "rw" | "noexec" | "nosuid" | "nodev" | "size" | "mode" | "uid" | "gid"
            | "nr_inodes" | "nr_blocks" | "mpol" | "huge" | "sync" | "async" | "dirsync"
            | "remount" | "mand" | "nomand" | "atime" | "noatime" | "diratime" | "nodiratime"
            | "relatime" | "norelatime" | "strictatime" | "nostrictatime" | "private"
            | "rprivate" | "slave" | "rslave" | "shared" | "rshared" | "unbindable"
            | "runbindable" | "tmpcopyup" => {}
            _ => {
                return Err(Error::invalid(format!(
                    "invalid tmpfs option [\"{option}\"]"
                )));
            }
        }
        list.push(option.to_owned());
    }
    point.tmpfs_options = list;
    Ok(Planned {
        point,
        create_source: false,
        volume_labels: BTreeMap::new(),
        volume_options: BTreeMap::new(),
    })
}

/// Chooses a bind's propagation where none was given. What is mounted beneath the engine's data must not be held by a
/// container that sees it, so the end of such a mount travels to the container.
///
/// # Errors
/// Docker's text for a mode that would hold it.
pub(crate) fn settle_propagation(point: &mut MountPoint, data_root: &Path) -> Result<()> {
    let near = shows_data_root(Path::new(&point.source), data_root);
    match point.propagation.as_str() {
        "" => point.propagation = if near { "rslave" } else { "rprivate" }.into(),
        "rslave" | "rshared" => {}
        other if near => {
            return Err(Error::invalid(format!(
                "invalid mount config: must use either propagation mode \"rslave\" or \"rshared\" when mount source is \
                 within the daemon root, daemon root: \"{}\", bind mount source: \"{}\", propagation: \"{other}\"",
                data_root.display(),
                point.source
            )));
        }
        _ => {}
    }
    Ok(())
}

/// Tells whether a host path is within the engine's data or holds it.
pub(crate) fn shows_data_root(source: &Path, data_root: &Path) -> bool {
    source.starts_with(data_root) || data_root.starts_with(source)
}

/// Plans all mounts of a container.
///
/// `inherited` are the mounts of the containers named by `--volumes-from`, each with whether it stays writable;
/// `config` is already merged with the image's.
pub(crate) fn plan(
    config: &Config,
    host: &HostConfig,
    inherited: &[(MountPoint, bool)],
) -> Result<Vec<Planned>> {
    let mut wished: Vec<Planned> = Vec::new();
    let mut wish = |planned: Planned| -> Result<()> {
        if wished
            .iter()
            .any(|other| other.point.destination == planned.point.destination)
        {
            return Err(Error::invalid(format!(
                "Duplicate mount point: {}",
                planned.point.destination
            )));
        }
        wished.push(planned);
        Ok(())
    };
    for raw in &host.binds {
        // Docker answers 500 to a malformed `-v`, and 400 to a malformed `--mount`.
        let planned = parse_bind(raw, &host.volume_driver)
            .map_err(|error| Error::system(error.to_string()))?;
        wish(planned)?;
    }
    for spec in &host.mounts {
        wish(from_spec(spec)?)?;
    }
    for (target, options) in &host.tmpfs {
        wish(from_tmpfs(target, options)?)?;
    }
    let mut all: Vec<Planned> = Vec::new();
    for (point, writable) in inherited {
        if wished
            .iter()
            .any(|planned| planned.point.destination == point.destination)
        {
            continue;
        }
        all.retain(|planned| planned.point.destination != point.destination);
        let mut point = point.clone();
        point.rw = point.rw && *writable;
        point.explicit = true;
        // The content belongs to the other container: nothing is copied up, and `rm -v` of this one leaves it.
        point.no_copy = true;
        point.anonymous = false;
        all.push(Planned {
            point,
            create_source: false,
            volume_labels: BTreeMap::new(),
            volume_options: BTreeMap::new(),
        });
    }
    all.extend(wished);
    for destination in &config.volumes {
        let destination = clean(destination);
        if all
            .iter()
            .any(|planned| planned.point.destination == destination)
            || destination == "/"
        {
            continue;
        }
        all.push(Planned {
            point: MountPoint {
                kind: MountKind::Volume,
                destination,
                driver: if host.volume_driver.is_empty() {
                    "local".into()
                } else {
                    host.volume_driver.clone()
                },
                rw: true,
                anonymous: true,
                ..MountPoint::default()
            },
            create_source: false,
            volume_labels: BTreeMap::new(),
            volume_options: BTreeMap::new(),
        });
    }
    Ok(all)
}

/// Returns `path` without empty and `.` parts and with `..` resolved by name, as Go's path.Clean.
pub(crate) fn clean(path: &str) -> String {
    let absolute = path.starts_with('/');
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." if absolute || parts.last().is_some_and(|last| *last != "..") => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    match (absolute, parts.is_empty()) {
        (true, _) => format!("/{}", parts.join("/")),
        (false, true) => ".".into(),
        (false, false) => parts.join("/"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn bind(raw: &str) -> MountPoint {
        parse_bind(raw, "").unwrap().point
    }

    #[test]
    fn binds_and_volumes_are_told_apart_by_the_first_letter() {
        assert_eq!(
            (bind("/a:/b").kind, bind("/a:/b").source.as_str()),
            (MountKind::Bind, "/a")
        );
        assert_eq!(
            (bind("data:/b").kind, bind("data:/b").name.as_str()),
            (MountKind::Volume, "data")
        );
        assert!(bind("/b").anonymous);
        assert!(!bind("/a:/b:ro").rw);
        assert_eq!(bind("/a:/b:ro,rslave").propagation, "rslave");
        assert!(bind("data:/b:nocopy").no_copy);
        assert_eq!(bind("/a/../x//y:/b/./c/").source, "/x/y");
        assert_eq!(bind("/a:/b/./c/").destination, "/b/c");
    }

    #[test]
    fn malformed_binds_are_refused_in_dockers_words() {
        for (raw, text) in [
            ("a:b:c:d", "invalid volume specification: 'a:b:c:d'"),
            ("/a:", "invalid volume specification: '/a:'"),
            ("/a:/b:foo", "invalid mode: foo"),
            ("/a:/b:ro,rw", "invalid mode: ro,rw"),
            ("v:/b:z,Z", "invalid mode: z,Z"),
            ("v:/b:cached,delegated", "invalid mode: cached,delegated"),
            ("v:/b:nocopy,nocopy", "invalid mode: nocopy,nocopy"),
            ("v:/b:bogus,rshared", "invalid mode: bogus,rshared"),
            (
                "v:/b:rshared",
                "invalid volume specification: 'v:/b:rshared': invalid mount config for type \"volume\": field BindOptions must not be specified",
            ),
            (
                "/a:/b:nocopy",
                "invalid volume specification: '/a:/b:nocopy': invalid mount config for type \"bind\": field VolumeOptions must not be specified",
            ),
            (
                "/a:b",
                "invalid volume specification: '/a:b': invalid mount config for type \"bind\": invalid mount path: 'b' mount path must be absolute",
            ),
            (
                "/a:/",
                "invalid volume specification: '/a:/': invalid mount config for type \"bind\": invalid specification: destination can't be '/'",
            ),
        ] {
            assert_eq!(parse_bind(raw, "").unwrap_err().to_string(), text);
        }
    }

    #[test]
    fn the_engines_own_data_is_not_held_by_a_bind() {
        let settle = |raw: &str| {
            let mut point = bind(raw);
            settle_propagation(&mut point, Path::new("/data/engine"))
                .map(|()| point.propagation)
                .map_err(|error| error.to_string())
        };
        assert_eq!(settle("/a:/b").unwrap(), "rprivate");
        assert_eq!(settle("/data/engine2:/b").unwrap(), "rprivate");
        assert_eq!(settle("/a:/b:slave").unwrap(), "slave");
        assert_eq!(settle("/:/b").unwrap(), "rslave");
        assert_eq!(
            settle("/data/engine/volumes:/b:rshared").unwrap(),
            "rshared"
        );
        assert_eq!(
            settle("/data:/b:private").unwrap_err(),
            "invalid mount config: must use either propagation mode \"rslave\" or \"rshared\" when mount source is \
             within the daemon root, daemon root: \"/data/engine\", bind mount source: \"/data\", propagation: \
             \"private\""
        );
    }

    #[test]
    fn a_tmpfs_has_an_absolute_place_too() {
        let error = |target| from_tmpfs(target, "").unwrap_err().to_string();
        assert_eq!(
            error("relative"),
            "invalid mount path: 'relative' mount path must be absolute"
        );
        assert_eq!(
            error("/"),
            "invalid specification: destination can't be '/'"
        );
    }

    #[test]
    fn one_destination_has_one_wish_and_wishes_beat_what_is_inherited() {
        let host = HostConfig {
            binds: vec!["/a:/x".into(), "/b:/x".into()],
            ..HostConfig::default()
        };
        let error = plan(&Config::default(), &host, &[]).unwrap_err();
        assert_eq!(error.to_string(), "Duplicate mount point: /x");

        let host = HostConfig {
            binds: vec!["/a:/x".into()],
            ..HostConfig::default()
        };
        let config = Config {
            volumes: ["/x".to_owned(), "/y".into()].into(),
            ..Config::default()
        };
        let other = |destination: &str| MountPoint {
            kind: MountKind::Volume,
            name: "v".into(),
            destination: destination.into(),
            rw: true,
            anonymous: true,
            ..MountPoint::default()
        };
        let all = plan(&config, &host, &[(other("/x"), true), (other("/z"), false)]).unwrap();
        let names: Vec<_> = all
            .iter()
            .map(|planned| (planned.point.destination.as_str(), planned.point.rw))
            .collect();
        assert_eq!(names, [("/z", false), ("/x", true), ("/y", true)]);
        assert!(!all[0].point.anonymous && all[2].point.anonymous);
    }

    #[test]
    fn tmpfs_options_override_the_safe_defaults() {
        let host = HostConfig {
            tmpfs: [("/t".to_owned(), "exec,size=1m".to_owned())].into(),
            ..HostConfig::default()
        };
        let all = plan(&Config::default(), &host, &[]).unwrap();
        assert_eq!(
            all[0].point.tmpfs_options,
            ["nosuid", "nodev", "exec", "size=1m"]
        );
        let host = HostConfig {
            tmpfs: [("/t".to_owned(), "bogus".to_owned())].into(),
            ..HostConfig::default()
        };
        assert!(plan(&Config::default(), &host, &[]).is_err());
    }
}
