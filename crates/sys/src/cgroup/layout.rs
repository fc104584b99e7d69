//! Where each controller lives on this machine. A controller belongs to exactly one hierarchy: a version 1 mount (which
//! may carry several, such as `cpu,cpuacct`), or the one version 2 tree; both may be there at once.
//!
//! Parsing is separate from reading, so that foreign layouts are tested as text.

use std::io;
use std::path::{Path, PathBuf};

/// Version of a hierarchy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    V1,
    V2,
}

/// One mounted hierarchy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hierarchy {
    pub version: Version,
    pub mount_point: PathBuf,
    /// Controllers by the kernel's names (`cpu`, `blkio`; `io` on version 2).
    pub controllers: Vec<String>,
    /// `name=` of a version 1 hierarchy without controllers.
    pub name: Option<String>,
    /// Path of the reading process beneath the mount point.
    pub own_path: String,
}

impl Hierarchy {
    /// Says whether the hierarchy carries `controller`.
    pub fn has(&self, controller: &str) -> bool {
        self.controllers.iter().any(|name| name == controller)
    }
}

/// All hierarchies of the machine. Detect once and keep: mounts of cgroups do not change under an engine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    pub hierarchies: Vec<Hierarchy>,
}

/// What the kernel offers, in the terms of Docker's `GET /info`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Support {
    pub memory_limit: bool,
    pub swap_limit: bool,
    pub memory_reservation: bool,
    pub memory_swappiness: bool,
    pub kernel_memory_tcp: bool,
    pub oom_kill_disable: bool,
    pub cpu_shares: bool,
    pub cpu_quota: bool,
    pub cpu_realtime: bool,
    pub cpuset: bool,
    pub pids_limit: bool,
    pub blkio_weight: bool,
    pub blkio_throttle: bool,
    pub hugetlb: bool,
    pub devices: bool,
}

impl Layout {
    /// Reads the layout of the calling process's mount namespace.
    ///
    /// # Errors
    /// `/proc` cannot be read, or no cgroup hierarchy is mounted (`NotFound`).
    pub fn detect() -> io::Result<Self> {
        let mountinfo = std::fs::read_to_string("/proc/self/mountinfo")?;
        let membership = std::fs::read_to_string("/proc/self/cgroup")?;
        let mut layout = Self::parse(&mountinfo, &membership);
        for hierarchy in &mut layout.hierarchies {
            if hierarchy.version == Version::V2 {
                let names =
                    std::fs::read_to_string(hierarchy.mount_point.join("cgroup.controllers"))?;
                hierarchy.controllers = names.split_ascii_whitespace().map(str::to_owned).collect();
            }
        }
        if layout.hierarchies.is_empty() {
            return Err(io::Error::new(
                io::ErrorKind::NotFound,
                "no cgroup hierarchy is mounted",
            ));
        }
        Ok(layout)
    }

    /// Makes a layout of the texts of `/proc/self/mountinfo` and `/proc/self/cgroup`. The controllers of version 2 are
    /// not in them: the caller fills them in.
    pub fn parse(mountinfo: &str, membership: &str) -> Self {
        let memberships: Vec<Membership> =
            membership.lines().filter_map(Membership::parse).collect();
        let mut hierarchies: Vec<Hierarchy> = Vec::new();
        for mount in mountinfo.lines().filter_map(Mount::parse) {
            let member = memberships
                .iter()
                .find(|member| member.is_mounted_by(&mount));
            let own_path = member.map_or_else(
                || "/".to_owned(),
                |member| {
                    let beneath = member
                        .path
                        .strip_prefix(mount.root.trim_end_matches('/'))
                        .unwrap_or(&member.path);
                    if beneath.is_empty() {
                        "/".to_owned()
                    } else {
                        beneath.to_owned()
                    }
                },
            );
            let hierarchy = match mount.version {
                Version::V2 => Hierarchy {
                    version: Version::V2,
                    mount_point: mount.point,
                    controllers: Vec::new(),
                    name: None,
                    own_path,
                },
                Version::V1 => {
                    // Without a membership line the options cannot be told from the controllers: not a live hierarchy.
                    let Some(member) = member else { continue };
                    Hierarchy {
                        version: Version::V1,
                        mount_point: mount.point,
                        controllers: member.controllers.clone(),
                        name: member.name.clone(),
                        own_path,
                    }
                }
            };
            let twin = hierarchies.iter().position(|other| {
                other.version == hierarchy.version
                    && other.controllers == hierarchy.controllers
                    && other.name == hierarchy.name
            });
            match twin {
                // The same hierarchy may be mounted in several places, e.g. beneath a test's root: the usual place, and
                // of two mounts on one place the later, upper one.
                Some(index) => {
                    if rank(&hierarchy.mount_point) <= rank(&hierarchies[index].mount_point) {
                        hierarchies[index] = hierarchy;
                    }
                }
                None => hierarchies.push(hierarchy),
            }
        }
        Self { hierarchies }
    }

    /// The hierarchy that carries `controller`, by its name of version 1 (`blkio` finds version 2's `io`, `cpuacct` its
    /// `cpu`; `freezer` and `devices` are part of every version 2 tree).
    pub fn hierarchy(&self, controller: &str) -> Option<&Hierarchy> {
        self.hierarchies
            .iter()
            .find(|one| one.version == Version::V1 && one.has(controller))
            .or_else(|| {
                self.unified().filter(|unified| match controller {
                    "blkio" => unified.has("io"),
                    "cpuacct" => unified.has("cpu"),
                    "freezer" | "devices" => true,
                    name => unified.has(name),
                })
            })
    }

    /// The version 2 tree.
    pub fn unified(&self) -> Option<&Hierarchy> {
        self.hierarchies
            .iter()
            .find(|one| one.version == Version::V2)
    }

    /// Version 2 if it alone is mounted, else version 1: hybrids count as 1, as in Docker's `CgroupVersion`.
    pub fn version(&self) -> Version {
        if self
            .hierarchies
            .iter()
            .all(|one| one.version == Version::V2)
        {
            Version::V2
        } else {
            Version::V1
        }
    }

    /// Asks the mounted hierarchies what they can limit. The root cgroup lacks most files of version 2, so a controller
    /// stands for its files there.
    pub fn support(&self) -> Support {
        let v1_file = |controller: &str, file: &str| {
            self.hierarchy(controller).is_some_and(|one| {
                one.version == Version::V1 && one.mount_point.join(file).exists()
            })
        };
        let v2 = |controller: &str| {
            self.hierarchy(controller)
                .is_some_and(|one| one.version == Version::V2)
        };
        let has = |controller: &str| self.hierarchy(controller).is_some();
        // Version 2 has memory.swap.max in each non-root memory cgroup unless the kernel knows no swap or does not count it.
        let v2_swap = v2("memory") && swap_accounting();
        Support {
            memory_limit: has("memory"),
            swap_limit: v1_file("memory", "memory.memsw.limit_in_bytes") || v2_swap,
            memory_reservation: has("memory"),
            memory_swappiness: v1_file("memory", "memory.swappiness"),
            kernel_memory_tcp: v1_file("memory", "memory.kmem.tcp.limit_in_bytes"),
            oom_kill_disable: v1_file("memory", "memory.oom_control"),
            cpu_shares: has("cpu"),
            cpu_quota: v1_file("cpu", "cpu.cfs_quota_us") || v2("cpu"),
            cpu_realtime: v1_file("cpu", "cpu.rt_runtime_us"),
            cpuset: has("cpuset"),
            pids_limit: has("pids"),
            blkio_weight: v1_file("blkio", "blkio.weight")
                || v1_file("blkio", "blkio.bfq.weight")
                || v2("blkio"),
            blkio_throttle: v1_file("blkio", "blkio.throttle.read_bps_device") || v2("blkio"),
            hugetlb: has("hugetlb"),
            devices: has("devices"),
        }
    }
}

/// False where the kernel was built without swap or started with `swapaccount=0`.
fn swap_accounting() -> bool {
    Path::new("/proc/swaps").exists()
        && std::fs::read_to_string("/proc/cmdline").map_or(true, |line| {
            !line.split_whitespace().any(|word| word == "swapaccount=0")
        })
}

fn rank(point: &Path) -> (bool, usize) {
    (
        !point.starts_with("/sys/fs/cgroup"),
        point.as_os_str().len(),
    )
}

/// A line of `/proc/self/mountinfo` that mounts cgroups.
struct Mount {
    version: Version,
    root: String,
    point: PathBuf,
    options: Vec<String>,
}

impl Mount {
    fn parse(line: &str) -> Option<Self> {
        let (mount, filesystem) = line.split_once(" - ")?;
        let mut fields = filesystem.split(' ');
        let version = match fields.next()? {
            "cgroup" => Version::V1,
            "cgroup2" => Version::V2,
            _ => return None,
        };
        let options = fields
            .nth(1)
            .unwrap_or("")
            .split(',')
            .map(str::to_owned)
            .collect();
        let mut fields = mount.split(' ').skip(3);
        let unescaped = |field: &str| {
            String::from_utf8_lossy(&crate::mount::unescape(field.as_bytes())).into_owned()
        };
        let root = unescaped(fields.next()?);
        let point = PathBuf::from(unescaped(fields.next()?));
        Some(Self {
            version,
            root,
            point,
            options,
        })
    }
}

/// A line of `/proc/self/cgroup`.
struct Membership {
    controllers: Vec<String>,
    name: Option<String>,
    path: String,
}

impl Membership {
    fn parse(line: &str) -> Option<Self> {
        let mut fields = line.splitn(3, ':');
        let _id = fields.next()?;
        let names = fields.next()?;
        let path = fields.next()?.to_owned();
        let name = names
            .split(',')
            .find_map(|one| one.strip_prefix("name="))
            .map(str::to_owned);
        let controllers = names
            .split(',')
            .filter(|one| !one.is_empty() && !one.contains('='))
            .map(str::to_owned)
            .collect();
        Some(Self {
            controllers,
            name,
            path,
        })
    }

    fn is_mounted_by(&self, mount: &Mount) -> bool {
        let offered = |option: &str| mount.options.iter().any(|one| one == option);
        match (mount.version, &self.name) {
            (Version::V2, name) => self.controllers.is_empty() && name.is_none(),
            (Version::V1, Some(name)) => offered(&format!("name={name}")),
            (Version::V1, None) => {
                !self.controllers.is_empty() && self.controllers.iter().all(|one| offered(one))
            }
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    const HYBRID_MOUNTS: &str = "\
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct
34 31 0:31 / /sys/fs/cgroup/cpuset rw,relatime shared:3 - cgroup cgroup rw,cpuset,clone_children
35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
36 31 0:33 / /sys/fs/cgroup/devices rw,relatime - cgroup cgroup rw,devices
37 31 0:34 / /sys/fs/cgroup/freezer rw,relatime - cgroup cgroup rw,freezer
38 31 0:35 / /sys/fs/cgroup/blkio rw,relatime - cgroup cgroup rw,blkio
39 31 0:36 / /sys/fs/cgroup/pids rw,relatime - cgroup cgroup rw,pids
40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,xattr,name=systemd
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
52 31 0:32 / /var/test/root/sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
";
    const HYBRID_SELF: &str = "\
9:name=systemd:/
8:pids:/
7:blkio:/
6:freezer:/
5:devices:/
4:memory:/job/one
3:cpuset:/
1:cpu,cpuacct:/
0::/
";

    pub(crate) fn hybrid() -> Layout {
        let mut layout = Layout::parse(HYBRID_MOUNTS, HYBRID_SELF);
        fill(&mut layout, &["hugetlb"]);
        layout
    }

    pub(crate) fn v2() -> Layout {
        let mut layout = Layout::parse(
            "29 23 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate",
            "0::/system.slice/engine.service\n",
        );
        fill(
            &mut layout,
            &[
                "cpuset", "cpu", "io", "memory", "hugetlb", "pids", "rdma", "misc",
            ],
        );
        layout
    }

    fn fill(layout: &mut Layout, controllers: &[&str]) {
        for hierarchy in layout
            .hierarchies
            .iter_mut()
            .filter(|one| one.version == Version::V2)
        {
            hierarchy.controllers = controllers.iter().map(|one| (*one).to_owned()).collect();
        }
    }

    #[test]
    fn hybrid_knows_each_controllers_hierarchy() {
        let layout = hybrid();
        assert_eq!(layout.version(), Version::V1);
        assert_eq!(layout.hierarchies.len(), 9);
        for (controller, version, point) in [
            ("cpu", Version::V1, "/sys/fs/cgroup/cpu,cpuacct"),
            ("cpuacct", Version::V1, "/sys/fs/cgroup/cpu,cpuacct"),
            ("cpuset", Version::V1, "/sys/fs/cgroup/cpuset"),
            ("memory", Version::V1, "/sys/fs/cgroup/memory"),
            ("devices", Version::V1, "/sys/fs/cgroup/devices"),
            ("hugetlb", Version::V2, "/sys/fs/cgroup/unified"),
        ] {
            let found = layout.hierarchy(controller).unwrap();
            assert_eq!(
                (found.version, found.mount_point.as_path()),
                (version, Path::new(point)),
                "{controller}"
            );
        }
        assert_eq!(layout.hierarchy("net_cls"), None);
        assert_eq!(layout.hierarchy("memory").unwrap().own_path, "/job/one");
        assert!(
            layout
                .hierarchies
                .iter()
                .any(|one| one.name.as_deref() == Some("systemd"))
        );
    }

    #[test]
    fn version_2_serves_the_names_of_version_1() {
        let layout = v2();
        assert_eq!(layout.version(), Version::V2);
        assert_eq!(layout.hierarchies.len(), 1);
        for controller in [
            "cpu", "cpuacct", "blkio", "devices", "freezer", "memory", "hugetlb",
        ] {
            assert!(layout.hierarchy(controller).is_some(), "{controller}");
        }
        assert!(layout.hierarchy("net_prio").is_none());
        assert_eq!(
            layout.unified().unwrap().own_path,
            "/system.slice/engine.service"
        );
    }

    #[test]
    fn own_path_is_relative_to_the_mounted_root() {
        let layout = Layout::parse(
            "9 8 0:32 /docker/abc /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory",
            "4:memory:/docker/abc/inner\n",
        );
        assert_eq!(layout.hierarchies[0].own_path, "/inner");
    }

    #[test]
    fn this_machine_has_a_layout() {
        let layout = Layout::detect().unwrap();
        assert!(layout.hierarchy("memory").is_some(), "{layout:?}");
        assert!(layout.support().memory_limit);
    }
}
