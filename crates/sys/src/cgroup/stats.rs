//! Counters of a cgroup, in one form for both versions; enough for Docker's `/stats`.
//!
//! Parsing is separate from reading. A file that a kernel lacks counts as zero; only a removed cgroup is an error.

use std::io;

use super::layout::Version;
use super::{Cgroup, Member};

/// A sample.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    pub cpu: CpuStats,
    pub memory: MemoryStats,
    pub blkio: BlkioStats,
    pub pids: PidsStats,
    pub hugetlb: Vec<HugetlbStats>,
    /// True where memory is counted by version 2, whose `/stats` has fewer fields.
    pub unified_memory: bool,
}

/// CPU time in nanoseconds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CpuStats {
    pub usage_ns: u64,
    pub user_ns: u64,
    pub system_ns: u64,
    /// Version 1 only.
    pub per_cpu_ns: Vec<u64>,
    pub periods: u64,
    pub throttled_periods: u64,
    pub throttled_ns: u64,
}

/// Memory in bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MemoryStats {
    pub usage_bytes: u64,
    pub max_usage_bytes: Option<u64>,
    /// `None` is unlimited.
    pub limit_bytes: Option<u64>,
    /// How often the limit was hit (version 1), how often memory ran out (version 2).
    pub failures: u64,
    pub swap_usage_bytes: Option<u64>,
    pub swap_limit_bytes: Option<u64>,
    /// `memory.stat` as the kernel gives it.
    pub stat: Vec<(String, u64)>,
}

/// Block I/O, by device and operation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BlkioStats {
    pub service_bytes: Vec<BlkioEntry>,
    pub serviced: Vec<BlkioEntry>,
}

/// One counter of one device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlkioEntry {
    pub major: u64,
    pub minor: u64,
    /// `Read`, `Write`, `Sync`, `Async`, `Discard`, `Total` on version 1, `read`, `write` on version 2.
    pub operation: String,
    pub value: u64,
}

/// Number of tasks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PidsStats {
    pub current: u64,
    /// `None` is unlimited.
    pub limit: Option<u64>,
}

/// Huge pages of one size.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HugetlbStats {
    pub page_size: String,
    pub usage_bytes: u64,
    pub max_usage_bytes: u64,
    pub failures: u64,
}

/// Length of a tick of `cpuacct.stat` in nanoseconds: USER_HZ is 100 on every architecture served.
const TICK_NS: u64 = 10_000_000;

pub(super) fn read(cgroup: &Cgroup) -> io::Result<Stats> {
    // One file that every cgroup has tells a removed cgroup from a missing controller.
    if let Some(member) = cgroup.members.first() {
        member
            .read("cgroup.procs")
            .map_err(|error| match error.raw_or_kind() {
                io::ErrorKind::NotFound => io::Error::new(io::ErrorKind::NotFound, error),
                _ => error,
            })?;
    }
    let memory = cgroup.member("memory");
    Ok(Stats {
        cpu: cpu(cgroup),
        memory: memory.map(read_memory).unwrap_or_default(),
        blkio: cgroup.member("blkio").map(read_blkio).unwrap_or_default(),
        pids: cgroup.member("pids").map(read_pids).unwrap_or_default(),
        hugetlb: cgroup
            .member("hugetlb")
            .map(read_hugetlb)
            .unwrap_or_default(),
        unified_memory: memory.is_some_and(|member| member.version == Version::V2),
    })
}

trait RawOrKind {
    fn raw_or_kind(&self) -> io::ErrorKind;
}

impl RawOrKind for io::Error {
    /// `ENODEV` is what reading a file of a removed cgroup gives.
    fn raw_or_kind(&self) -> io::ErrorKind {
        let inner = self
            .get_ref()
            .and_then(|inner| inner.source())
            .and_then(|source| source.downcast_ref::<Self>());
        match inner.and_then(Self::raw_os_error) {
            Some(libc::ENODEV) => io::ErrorKind::NotFound,
            _ => self.kind(),
        }
    }
}

fn number(member: &Member, name: &str) -> Option<u64> {
    member.read(name).ok()?.trim().parse().ok()
}

/// A limit; the largest numbers of version 1 and `max` are unlimited.
fn limit(member: &Member, name: &str) -> Option<u64> {
    number(member, name).filter(|bytes| *bytes < 1 << 62)
}

/// The number behind `key` in lines of `key number`.
pub(super) fn keyed(text: &str, key: &str) -> Option<u64> {
    text.lines().find_map(|line| {
        line.strip_prefix(key)?
            .strip_prefix(' ')?
            .trim()
            .parse()
            .ok()
    })
}

fn cpu(cgroup: &Cgroup) -> CpuStats {
    let mut stats = CpuStats::default();
    if let Some(member) = cgroup.member("cpu") {
        let text = member.read("cpu.stat").unwrap_or_default();
        let value = |key| keyed(&text, key).unwrap_or(0);
        stats.periods = value("nr_periods");
        stats.throttled_periods = value("nr_throttled");
        stats.throttled_ns = match member.version {
            Version::V1 => value("throttled_time"),
            Version::V2 => value("throttled_usec").saturating_mul(1000),
        };
    }
    match cgroup.member("cpuacct") {
        Some(member) if member.version == Version::V1 => {
            stats.usage_ns = number(member, "cpuacct.usage").unwrap_or(0);
            stats.per_cpu_ns = member
                .read("cpuacct.usage_percpu")
                .map(|text| {
                    text.split_ascii_whitespace()
                        .filter_map(|one| one.parse().ok())
                        .collect()
                })
                .unwrap_or_default();
            match (
                number(member, "cpuacct.usage_user"),
                number(member, "cpuacct.usage_sys"),
            ) {
                (Some(user), Some(system)) => (stats.user_ns, stats.system_ns) = (user, system),
                _ => {
                    let text = member.read("cpuacct.stat").unwrap_or_default();
                    stats.user_ns = keyed(&text, "user").unwrap_or(0).saturating_mul(TICK_NS);
                    stats.system_ns = keyed(&text, "system").unwrap_or(0).saturating_mul(TICK_NS);
                }
            }
        }
        // Every version 2 cgroup counts its time, with or without the controller.
        _ => {
            if let Some(text) = cgroup
                .unified()
                .and_then(|member| member.read("cpu.stat").ok())
            {
                let value = |key| keyed(&text, key).unwrap_or(0).saturating_mul(1000);
                stats.usage_ns = value("usage_usec");
                stats.user_ns = value("user_usec");
                stats.system_ns = value("system_usec");
            }
        }
    }
    stats
}

fn read_memory(member: &Member) -> MemoryStats {
    let stat = member
        .read("memory.stat")
        .map(|text| parse_stat(&text))
        .unwrap_or_default();
    match member.version {
        Version::V1 => MemoryStats {
            usage_bytes: number(member, "memory.usage_in_bytes").unwrap_or(0),
            max_usage_bytes: number(member, "memory.max_usage_in_bytes"),
            limit_bytes: limit(member, "memory.limit_in_bytes"),
            failures: number(member, "memory.failcnt").unwrap_or(0),
            swap_usage_bytes: number(member, "memory.memsw.usage_in_bytes"),
            swap_limit_bytes: limit(member, "memory.memsw.limit_in_bytes"),
            stat,
        },
        Version::V2 => MemoryStats {
            usage_bytes: number(member, "memory.current").unwrap_or(0),
            max_usage_bytes: number(member, "memory.peak"),
            limit_bytes: limit(member, "memory.max"),
            failures: member
                .read("memory.events")
                .ok()
                .and_then(|text| keyed(&text, "oom"))
                .unwrap_or(0),
            swap_usage_bytes: number(member, "memory.swap.current"),
            swap_limit_bytes: limit(member, "memory.swap.max"),
            stat,
        },
    }
}

fn parse_stat(text: &str) -> Vec<(String, u64)> {
    text.lines()
        .filter_map(|line| {
            let (key, value) = line.split_once(' ')?;
            Some((key.to_owned(), value.trim().parse().ok()?))
        })
        .collect()
}

fn read_blkio(member: &Member) -> BlkioStats {
    match member.version {
        Version::V1 => {
            // The throttling layer counts whatever the scheduler; a scheduler's own files count only what passed it.
            let entries = |names: [&str; 2]| {
                names
                    .iter()
                    .find_map(|name| member.read(name).ok())
                    .map(|text| parse_blkio(&text))
                    .unwrap_or_default()
            };
            BlkioStats {
                service_bytes: entries([
                    "blkio.throttle.io_service_bytes_recursive",
                    "blkio.throttle.io_service_bytes",
                ]),
                serviced: entries([
                    "blkio.throttle.io_serviced_recursive",
                    "blkio.throttle.io_serviced",
                ]),
            }
        }
        Version::V2 => member
            .read("io.stat")
            .map(|text| parse_io_stat(&text))
            .unwrap_or_default(),
    }
}

fn device(text: &str) -> Option<(u64, u64)> {
    let (major, minor) = text.split_once(':')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

/// Lines of `8:0 Read 4096`; the last, `Total 4096`, belongs to no device.
fn parse_blkio(text: &str) -> Vec<BlkioEntry> {
    text.lines()
        .filter_map(|line| {
            let mut words = line.split_ascii_whitespace();
            let (major, minor) = device(words.next()?)?;
            let operation = words.next()?.to_owned();
            Some(BlkioEntry {
                major,
                minor,
                operation,
                value: words.next()?.parse().ok()?,
            })
        })
        .collect()
}

/// Lines of `8:0 rbytes=4096 wbytes=0 rios=1 wios=0 dbytes=0 dios=0`.
fn parse_io_stat(text: &str) -> BlkioStats {
    let mut stats = BlkioStats::default();
    for line in text.lines() {
        let mut words = line.split_ascii_whitespace();
        let Some((major, minor)) = words.next().and_then(device) else {
            continue;
        };
        for (key, value) in words.filter_map(|word| word.split_once('=')) {
            let Ok(value) = value.parse() else { continue };
            let (list, operation) = match key {
                "rbytes" => (&mut stats.service_bytes, "read"),
                "wbytes" => (&mut stats.service_bytes, "write"),
                "rios" => (&mut stats.serviced, "read"),
                "wios" => (&mut stats.serviced, "write"),
                _ => continue,
            };
            list.push(BlkioEntry {
                major,
                minor,
                operation: operation.to_owned(),
                value,
            });
        }
    }
    stats
}

fn read_pids(member: &Member) -> PidsStats {
    PidsStats {
        current: number(member, "pids.current").unwrap_or(0),
        limit: limit(member, "pids.max"),
    }
}

fn read_hugetlb(member: &Member) -> Vec<HugetlbStats> {
    let (current, peak) = match member.version {
        Version::V1 => ("usage_in_bytes", "max_usage_in_bytes"),
        Version::V2 => ("current", ""),
    };
    let Ok(entries) = std::fs::read_dir("/sys/kernel/mm/hugepages") else {
        return Vec::new();
    };
    let mut stats: Vec<HugetlbStats> = entries
        .flatten()
        .filter_map(|entry| {
            let page_size = page_size(entry.file_name().to_str()?)?;
            let usage_bytes = number(member, &format!("hugetlb.{page_size}.{current}"))?;
            let (max_usage_bytes, failures) = match member.version {
                Version::V1 => (
                    number(member, &format!("hugetlb.{page_size}.{peak}")).unwrap_or(0),
                    number(member, &format!("hugetlb.{page_size}.failcnt")).unwrap_or(0),
                ),
                Version::V2 => {
                    let events = member
                        .read(&format!("hugetlb.{page_size}.events"))
                        .unwrap_or_default();
                    (0, keyed(&events, "max").unwrap_or(0))
                }
            };
            Some(HugetlbStats {
                page_size,
                usage_bytes,
                max_usage_bytes,
                failures,
            })
        })
        .collect();
    stats.sort_by(|one, other| one.page_size.cmp(&other.page_size));
    stats
}

/// `hugepages-2048kB` -> `2MB`, as the files of the controller are named.
fn page_size(directory: &str) -> Option<String> {
    let kilobytes: u64 = directory
        .strip_prefix("hugepages-")?
        .strip_suffix("kB")?
        .parse()
        .ok()?;
    Some(match kilobytes {
        size if size >= 1 << 20 => format!("{}GB", size >> 20),
        size if size >= 1 << 10 => format!("{}MB", size >> 10),
        size => format!("{size}KB"),
    })
}

/// Page sizes that this machine has, as limits name them (`2MB`, `1GB`).
pub fn huge_page_sizes() -> Vec<String> {
    let Ok(entries) = std::fs::read_dir("/sys/kernel/mm/hugepages") else {
        return Vec::new();
    };
    let mut sizes: Vec<String> = entries
        .flatten()
        .filter_map(|entry| page_size(entry.file_name().to_str()?))
        .collect();
    sizes.sort();
    sizes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blkio_lines_of_both_versions() {
        let entry = |minor, operation: &str, value| BlkioEntry {
            major: 8,
            minor,
            operation: operation.to_owned(),
            value,
        };
        assert_eq!(
            parse_blkio("8:0 Read 4096\n8:0 Write 12\n8:16 Total 7\nTotal 4108\n"),
            [
                entry(0, "Read", 4096),
                entry(0, "Write", 12),
                entry(16, "Total", 7)
            ]
        );
        let stats =
            parse_io_stat("8:0 rbytes=4096 wbytes=12 rios=3 wios=4 dbytes=0 dios=0\n7:0 \n");
        assert_eq!(
            stats.service_bytes,
            [entry(0, "read", 4096), entry(0, "write", 12)]
        );
        assert_eq!(stats.serviced, [entry(0, "read", 3), entry(0, "write", 4)]);
    }

    #[test]
    fn keys_match_whole_words() {
        let text = "oom_kill_disable 0\nunder_oom 0\noom_kill 3\n";
        assert_eq!(keyed(text, "oom_kill"), Some(3));
        assert_eq!(keyed(text, "oom"), None);
        assert_eq!(
            parse_stat("cache 1\nrss 2\n"),
            [("cache".to_owned(), 1), ("rss".to_owned(), 2)]
        );
    }

    #[test]
    fn page_sizes_are_spelled_as_the_controller_does() {
        for (directory, size) in [
            ("hugepages-2048kB", Some("2MB")),
            ("hugepages-1048576kB", Some("1GB")),
            ("hugepages-64kB", Some("64KB")),
            ("free", None),
        ] {
            assert_eq!(page_size(directory).as_deref(), size);
        }
    }
}
