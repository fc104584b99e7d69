//! `stats`: one sample of a container's use of the machine; the daemon makes a stream of them.

use std::collections::BTreeMap;

use super::Status;
use crate::{Engine, Error, Result};

/// One sample.
#[derive(Clone, Debug, Default)]
pub struct StatsSample {
    pub id: String,
    pub name: String,
    /// `false`: the container does not run and every count is zero.
    pub running: bool,
    pub read_at_ns: i64,
    pub cgroup: gantry_sys::cgroup::Stats,
    /// The whole machine's processor time in nanoseconds.
    pub system_cpu_ns: u64,
    pub online_cpus: u32,
    /// The machine's memory, which is the limit of a container without one.
    pub memory_total_bytes: u64,
    /// Counters by interface name; empty on the host's network.
    pub networks: BTreeMap<String, Interface>,
}

/// Counters of one interface, from proc_net_dev.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Interface {
    pub rx_bytes: u64,
    pub rx_packets: u64,
    pub rx_errors: u64,
    pub rx_dropped: u64,
    pub tx_bytes: u64,
    pub tx_packets: u64,
    pub tx_errors: u64,
    pub tx_dropped: u64,
}

impl Engine {
    /// Takes one sample.
    pub async fn stats(&self, name: &str) -> Result<StatsSample> {
        let container = self.container(name)?;
        let record = container.record();
        let layout = self.inner.cgroups.clone();
        crate::blocking::run(move || {
            let mut sample = StatsSample {
                id: record.id.clone(),
                name: record.name.clone(),
                read_at_ns: crate::now_ns(),
                online_cpus: std::thread::available_parallelism()
                    .map_or(1, |count| count.get() as u32),
                ..StatsSample::default()
            };
            if !matches!(record.state.status, Status::Running | Status::Paused) {
                return Ok(sample);
            }
            let path = record.acquired.cgroup.clone().unwrap_or_default();
            let cgroup =
                gantry_sys::cgroup::Cgroup::open(&layout, &path).and_then(|cgroup| cgroup.stats());
            sample.cgroup = match cgroup {
                Ok(stats) => stats,
                // It ended between the look at its state and this.
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(sample),
                Err(error) => return Err(Error::io("read a container's cgroup", error)),
            };
            sample.running = true;
            let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
            sample.system_cpu_ns = system_cpu_ns(&read("/proc/stat"));
            sample.memory_total_bytes = memory_total(&read("/proc/meminfo"));
            if record.host.network_mode != "host" {
                sample.networks = interfaces(&read(&format!("/proc/{}/net/dev", record.state.pid)));
            }
            Ok(sample)
        })
        .await?
    }
}

/// Sums up the first line of proc_stat: user, nice, system, idle, iowait, irq, softirq, steal in ticks of 10 ms.
pub(crate) fn system_cpu_ns(stat: &str) -> u64 {
    let ticks: u64 = stat
        .lines()
        .find_map(|line| line.strip_prefix("cpu "))
        .map_or(0, |line| {
            line.split_whitespace()
                .take(8)
                .filter_map(|word| word.parse::<u64>().ok())
                .sum()
        });
    ticks * 10_000_000
}

pub(crate) fn memory_total(meminfo: &str) -> u64 {
    let kib = meminfo
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"))
        .and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}

fn interfaces(dev: &str) -> BTreeMap<String, Interface> {
    dev.lines()
        .skip(2)
        .filter_map(|line| {
            let (name, counters) = line.split_once(':')?;
            let numbers: Vec<u64> = counters
                .split_whitespace()
                .filter_map(|word| word.parse().ok())
                .collect();
            let at = |index: usize| numbers.get(index).copied().unwrap_or(0);
            let interface = Interface {
                rx_bytes: at(0),
                rx_packets: at(1),
                rx_errors: at(2),
                rx_dropped: at(3),
                tx_bytes: at(8),
                tx_packets: at(9),
                tx_errors: at(10),
                tx_dropped: at(11),
            };
            Some((name.trim().to_owned(), interface))
        })
        .filter(|(name, _)| name != "lo")
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernel_tables_are_read() {
        assert_eq!(
            system_cpu_ns("cpu  1 2 3 4 5 6 7 8 9 9\ncpu0 1 1\n"),
            36 * 10_000_000
        );
        assert_eq!(
            memory_total("MemTotal:       1024 kB\nMemFree: 1 kB\n"),
            1 << 20
        );
        let dev = "Inter-|\n face |\n    lo: 1 1 0 0 0 0 0 0 1 1 0 0 0 0 0 0\n  eth0: 10 2 3 4 0 0 0 0 50 6 7 8 0 0 0 0\n";
        let all = interfaces(dev);
        assert_eq!(all.len(), 1);
        assert_eq!((all["eth0"].rx_bytes, all["eth0"].tx_dropped), (10, 8));
    }
}
