//! Mount options: words of fstab(5) and of the specification become attributes, propagation and file system options.

use std::path::{Component, Path, PathBuf};

use gantry_api::oci::runtime::{LinuxIdMapping, Mount};
use gantry_sys::mount::{
    ATTR_ATIME, ATTR_NOATIME, ATTR_NODEV, ATTR_NODIRATIME, ATTR_NOEXEC, ATTR_NOSUID,
    ATTR_NOSYMFOLLOW, ATTR_RDONLY, ATTR_STRICTATIME, Propagation,
};

use crate::error::Error;

/// What is mounted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A copy of a mount of the host.
    Bind { source: PathBuf, recursive: bool },
    /// A new file system with its own options.
    New {
        filesystem: String,
        source: String,
        options: Vec<(String, Option<String>)>,
    },
    /// The container's own cgroups, of whatever version the machine has.
    Cgroup,
}

/// Whose ids the files of a bind bear.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdMap {
    pub uids: Vec<LinuxIdMapping>,
    pub gids: Vec<LinuxIdMapping>,
    pub recursive: bool,
}

/// One mount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MountPlan {
    /// Absolute and free of `.` and `..`.
    pub destination: PathBuf,
    pub kind: Kind,
    /// `ATTR_*` of the mount itself.
    pub set: u64,
    pub clear: u64,
    /// `ATTR_*` of everything beneath it too.
    pub recursive_set: u64,
    pub recursive_clear: u64,
    pub propagation: Option<(Propagation, bool)>,
    /// Fills a new tmpfs with what the image has at its place.
    pub copy_up: bool,
    pub id_map: Option<IdMap>,
}

impl MountPlan {
    /// Says whether it is a bind.
    pub fn is_bind(&self) -> bool {
        matches!(self.kind, Kind::Bind { .. })
    }

    /// What errors name as the source.
    pub fn source_name(&self) -> String {
        match &self.kind {
            Kind::Bind { source, .. } => source.display().to_string(),
            Kind::New {
                filesystem, source, ..
            } if source.is_empty() => filesystem.clone(),
            Kind::New { source, .. } => source.clone(),
            Kind::Cgroup => "cgroup".to_owned(),
        }
    }
}

/// Plans one mount; a bind without propagation of its own gets `default_propagation`.
pub fn plan(mount: &Mount, default_propagation: Propagation) -> Result<MountPlan, Error> {
    let destination = normal(&mount.destination)?;
    let mut plan = MountPlan {
        destination,
        kind: Kind::Cgroup,
        set: 0,
        clear: 0,
        recursive_set: 0,
        recursive_clear: 0,
        propagation: None,
        copy_up: false,
        id_map: None,
    };
    let mut bind = None;
    let mut map = None;
    let mut options = Vec::new();
    for option in &mount.options {
        let word = option.as_str();
        if let Some(attribute) = attribute(word) {
            attribute.apply(&mut plan.set, &mut plan.clear);
        } else if let Some(attribute) = word
            .strip_prefix('r')
            .and_then(self::attribute)
            .filter(|_| word != "relatime")
        {
            attribute.apply(&mut plan.recursive_set, &mut plan.recursive_clear);
        } else if let Some(propagation) = propagation(word) {
            plan.propagation = Some(propagation);
        } else {
            match word {
                "bind" => bind = Some(bind.unwrap_or(false)),
                "rbind" => bind = Some(true),
                "idmap" => map = Some(false),
                "ridmap" => map = Some(true),
                "tmpcopyup" => plan.copy_up = true,
                // What a new mount is anyway, and how fsconfig(2) works: it writes no kernel messages to be silenced.
                "defaults" | "async" | "nomand" | "noiversion" | "norelatime" | "loud"
                | "silent" | "" => {}
                // The calls of today that make mounts have no such thing.
                "remount" | "iversion" => {
                    return Err(Error::unsupported(format!(
                        "mount option `{word}` of `{}`",
                        mount.destination.display()
                    )));
                }
                _ => options.push(match word.split_once('=') {
                    Some((key, value)) => (key.to_owned(), Some(value.to_owned())),
                    None => (word.to_owned(), None),
                }),
            }
        }
    }
    if bind.is_none() && mount.kind == "bind" {
        bind = Some(false);
    }
    plan.kind = match bind {
        Some(recursive) => {
            // All of them belong to the file system: a bind changes nothing of it.
            if let Some((key, _)) = options.first() {
                return Err(Error::invalid(format!(
                    "option `{key}` of the bind mount at `{}`",
                    mount.destination.display()
                )));
            }
            if plan.propagation.is_none() {
                plan.propagation = Some((default_propagation, recursive));
            }
            Kind::Bind {
                source: mount.source.clone(),
                recursive,
            }
        }
        None if mount.kind == "cgroup" || mount.kind == "cgroup2" => Kind::Cgroup,
        None if mount.kind.is_empty() => {
            return Err(Error::invalid(format!(
                "mount at `{}`: neither a type nor `bind`",
                mount.destination.display()
            )));
        }
        None => Kind::New {
            filesystem: mount.kind.clone(),
            source: mount.source.to_string_lossy().into_owned(),
            options,
        },
    };
    if !mount.uid_mappings.is_empty() || !mount.gid_mappings.is_empty() || map.is_some() {
        if !plan.is_bind() || mount.uid_mappings.is_empty() || mount.gid_mappings.is_empty() {
            return Err(Error::invalid(format!(
                "id-mapped mount at `{}`: needs a bind with `uidMappings` and `gidMappings`",
                mount.destination.display()
            )));
        }
        plan.id_map = Some(IdMap {
            uids: mount.uid_mappings.clone(),
            gids: mount.gid_mappings.clone(),
            recursive: map.unwrap_or(false),
        });
    }
    if plan.copy_up && !matches!(&plan.kind, Kind::New { filesystem, .. } if filesystem == "tmpfs")
    {
        return Err(Error::invalid(format!(
            "option `tmpcopyup` at `{}`: only of a tmpfs",
            mount.destination.display()
        )));
    }
    Ok(plan)
}

/// What one word does to a mount's attributes.
struct Attribute {
    set: u64,
    clear: u64,
}

impl Attribute {
    fn apply(&self, set: &mut u64, clear: &mut u64) {
        *set = (*set & !self.clear) | self.set;
        *clear = (*clear & !self.set) | self.clear;
        // A mode of access times replaces another one as a whole.
        if (self.set | self.clear) & ATTR_ATIME != 0 {
            *clear |= ATTR_ATIME;
        }
    }
}

fn attribute(word: &str) -> Option<Attribute> {
    let (set, clear) = match word {
        "ro" => (ATTR_RDONLY, 0),
        "rw" => (0, ATTR_RDONLY),
        "nosuid" => (ATTR_NOSUID, 0),
        "suid" => (0, ATTR_NOSUID),
        "nodev" => (ATTR_NODEV, 0),
        "dev" => (0, ATTR_NODEV),
        "noexec" => (ATTR_NOEXEC, 0),
        "exec" => (0, ATTR_NOEXEC),
        "noatime" => (ATTR_NOATIME, ATTR_STRICTATIME),
        "strictatime" => (ATTR_STRICTATIME, ATTR_NOATIME),
        "relatime" | "atime" | "nostrictatime" => (0, ATTR_ATIME),
        "nodiratime" => (ATTR_NODIRATIME, 0),
        "diratime" => (0, ATTR_NODIRATIME),
        "nosymfollow" => (ATTR_NOSYMFOLLOW, 0),
        "symfollow" => (0, ATTR_NOSYMFOLLOW),
        _ => return None,
    };
    Some(Attribute { set, clear })
}

/// A word of propagation; true if it holds for everything beneath too.
pub fn propagation(word: &str) -> Option<(Propagation, bool)> {
    Some(match word {
        "private" => (Propagation::Private, false),
        "rprivate" => (Propagation::Private, true),
        "slave" => (Propagation::Slave, false),
        "rslave" => (Propagation::Slave, true),
        "shared" => (Propagation::Shared, false),
        "rshared" => (Propagation::Shared, true),
        "unbindable" => (Propagation::Unbindable, false),
        "runbindable" => (Propagation::Unbindable, true),
        _ => return None,
    })
}

/// A destination as an absolute path without `.`, `..` and doubled slashes; a relative one counts from the root.
fn normal(path: &Path) -> Result<PathBuf, Error> {
    let mut normal = PathBuf::from("/");
    for component in path.components() {
        match component {
            Component::Normal(name) => normal.push(name),
            Component::ParentDir => {
                normal.pop();
            }
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    if normal == Path::new("/") {
        return Err(Error::invalid(format!(
            "mount destination `{}`",
            path.display()
        )));
    }
    Ok(normal)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mount(kind: &str, source: &str, options: &[&str]) -> Mount {
        Mount {
            destination: PathBuf::from("/d/../dst/./x"),
            kind: kind.to_owned(),
            source: PathBuf::from(source),
            options: options.iter().map(|option| (*option).to_owned()).collect(),
            ..Mount::default()
        }
    }

    fn planned(kind: &str, options: &[&str]) -> MountPlan {
        plan(&mount(kind, "/src", options), Propagation::Slave).expect("plan")
    }

    #[test]
    fn words_become_attributes() {
        let plan = planned(
            "tmpfs",
            &["nosuid", "noexec", "ro", "rw", "size=64m", "mode=1777", "x"],
        );
        assert_eq!(plan.destination, Path::new("/dst/x"));
        assert_eq!(plan.set, ATTR_NOSUID | ATTR_NOEXEC);
        assert_eq!(plan.clear, ATTR_RDONLY);
        let Kind::New {
            filesystem,
            source,
            options,
        } = plan.kind
        else {
            panic!("new")
        };
        assert_eq!((filesystem.as_str(), source.as_str()), ("tmpfs", "/src"));
        assert_eq!(
            options,
            [
                ("size".to_owned(), Some("64m".to_owned())),
                ("mode".to_owned(), Some("1777".to_owned())),
                ("x".to_owned(), None)
            ]
        );
    }

    #[test]
    fn a_mode_of_access_times_replaces_the_other() {
        let plan = planned("tmpfs", &["noatime", "strictatime"]);
        assert_eq!(
            (plan.set, plan.clear & ATTR_ATIME),
            (ATTR_STRICTATIME, ATTR_ATIME)
        );
        let plan = planned("tmpfs", &["noatime", "relatime"]);
        assert_eq!((plan.set, plan.clear), (0, ATTR_ATIME));
        let plan = planned("bind", &["rbind", "rnoatime"]);
        assert_eq!((plan.set, plan.recursive_set), (0, ATTR_NOATIME));
    }

    #[test]
    fn binds_know_how_deep_they_go() {
        let plan = planned("bind", &["rbind", "rro", "rprivate"]);
        assert_eq!(
            plan.kind,
            Kind::Bind {
                source: PathBuf::from("/src"),
                recursive: true
            }
        );
        assert_eq!((plan.set, plan.recursive_set), (0, ATTR_RDONLY));
        assert_eq!(plan.propagation, Some((Propagation::Private, true)));
        let plan = planned("none", &["bind", "ro"]);
        assert_eq!(
            plan.kind,
            Kind::Bind {
                source: PathBuf::from("/src"),
                recursive: false
            }
        );
        assert_eq!(
            (plan.set, plan.propagation),
            (ATTR_RDONLY, Some((Propagation::Slave, false)))
        );
        assert_eq!(
            planned("bind", &[]).kind,
            Kind::Bind {
                source: PathBuf::from("/src"),
                recursive: false
            }
        );
    }

    #[test]
    fn nonsense_is_refused() {
        for (kind, options) in [
            ("bind", &["size=1"][..]),
            ("bind", &["idmap"]),
            ("bind", &["tmpcopyup"]),
            ("", &["ro"]),
            ("tmpfs", &["remount"]),
            ("tmpfs", &["iversion"]),
            ("bind", &["sync"]),
            ("bind", &["mand"]),
        ] {
            plan(&mount(kind, "/s", options), Propagation::Slave).expect_err(kind);
        }
        let root = Mount {
            destination: PathBuf::from("/.."),
            ..mount("tmpfs", "t", &[])
        };
        plan(&root, Propagation::Slave).expect_err("the root itself");
    }
}
