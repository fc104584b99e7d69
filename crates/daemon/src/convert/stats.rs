//! Samples of a container's use of the machine.

use gantry_api::container::stats::{
    BlkioEntry, BlkioStats, CpuStats, CpuUsage, MemoryStats, NetworkStats, PidsStats,
    StatsResponse, StorageStats, ThrottlingData,
};
use gantry_engine::container::StatsSample;

use super::instant;

/// Writes one sample, with the processor's part of the one before it.
pub fn response(sample: &StatsSample, before: Option<&StatsSample>) -> StatsResponse {
    let head = StatsResponse {
        name: format!("/{}", sample.name),
        id: sample.id.clone(),
        ..StatsResponse::default()
    };
    if !sample.running {
        // Docker sends an empty sample for a container that does not run.
        return head;
    }
    let group = &sample.cgroup;
    macro_rules! blkio {
        ($entries:expr) => {
            Some(
                $entries
                    .iter()
                    .map(|entry| BlkioEntry {
                        major: entry.major,
                        minor: entry.minor,
                        op: entry.operation.clone(),
                        value: entry.value,
                    })
                    .collect(),
            )
        };
    }
    let unified = group.unified_memory;
    // Version 2 of cgroups does not count these.
    let uncounted = || if unified { None } else { Some(Vec::new()) };
    StatsResponse {
        read: instant(sample.read_at_ns),
        preread: before
            .map(|before| instant(before.read_at_ns))
            .unwrap_or_default(),
        pids_stats: PidsStats {
            current: group.pids.current,
            limit: group.pids.limit.unwrap_or(0),
        },
        blkio_stats: BlkioStats {
            io_service_bytes_recursive: blkio!(group.blkio.service_bytes),
            io_serviced_recursive: if unified {
                None
            } else {
                blkio!(group.blkio.serviced)
            },
            io_queue_recursive: uncounted(),
            io_service_time_recursive: uncounted(),
            io_wait_time_recursive: uncounted(),
            io_merged_recursive: uncounted(),
            io_time_recursive: uncounted(),
            sectors_recursive: uncounted(),
        },
        num_procs: 0,
        storage_stats: StorageStats {},
        cpu_stats: cpu(sample),
        precpu_stats: before.map(cpu).unwrap_or_default(),
        memory_stats: MemoryStats {
            usage: group.memory.usage_bytes,
            max_usage: if unified {
                0
            } else {
                group.memory.max_usage_bytes.unwrap_or(0)
            },
            stats: group.memory.stat.iter().cloned().collect(),
            failcnt: group.memory.failures,
            // A container without a limit has the machine's.
            limit: group
                .memory
                .limit_bytes
                .map_or(sample.memory_total_bytes, |limit| {
                    limit.min(sample.memory_total_bytes)
                }),
        },
        networks: sample
            .networks
            .iter()
            .map(|(name, counters)| {
                let counters = NetworkStats {
                    rx_bytes: counters.rx_bytes,
                    rx_packets: counters.rx_packets,
                    rx_errors: counters.rx_errors,
                    rx_dropped: counters.rx_dropped,
                    tx_bytes: counters.tx_bytes,
                    tx_packets: counters.tx_packets,
                    tx_errors: counters.tx_errors,
                    tx_dropped: counters.tx_dropped,
                };
                (name.clone(), counters)
            })
            .collect(),
        ..head
    }
}

fn cpu(sample: &StatsSample) -> CpuStats {
    if !sample.running {
        return CpuStats::default();
    }
    let cpu = &sample.cgroup.cpu;
    CpuStats {
        cpu_usage: CpuUsage {
            total_usage: cpu.usage_ns,
            percpu_usage: cpu.per_cpu_ns.clone(),
            usage_in_kernelmode: cpu.system_ns,
            usage_in_usermode: cpu.user_ns,
        },
        system_cpu_usage: sample.system_cpu_ns,
        online_cpus: sample.online_cpus,
        throttling_data: ThrottlingData {
            periods: cpu.periods,
            throttled_periods: cpu.throttled_periods,
            throttled_time: cpu.throttled_ns,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_container_without_a_limit_has_the_machines_memory() {
        let mut sample = StatsSample {
            running: true,
            name: "web".to_owned(),
            memory_total_bytes: 1 << 30,
            read_at_ns: 5,
            ..StatsSample::default()
        };
        assert_eq!(response(&sample, None).memory_stats.limit, 1 << 30);
        sample.cgroup.memory.limit_bytes = Some(1 << 20);
        assert_eq!(response(&sample, None).memory_stats.limit, 1 << 20);
        let next = StatsSample {
            read_at_ns: 9,
            ..sample.clone()
        };
        let answer = response(&next, Some(&sample));
        assert_eq!(answer.preread, instant(5));
        assert_eq!(answer.name, "/web");
    }

    #[test]
    fn a_stopped_container_has_an_empty_sample() {
        let answer = response(&StatsSample::default(), None);
        assert!(answer.read.is_zero() && answer.networks.is_empty());
    }
}
