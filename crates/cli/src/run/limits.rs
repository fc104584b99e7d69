//! What a container may use: `--ulimit`, `--restart`, the block-I/O limits of devices, and all of them in a request.

use super::options::list_or_null;
use crate::grammar::Matches;
use crate::grammar::values::{parse_bytes, parse_nano_cpus, parse_swap_bytes};
use serde_json::{Value, json};

const ULIMITS: [&str; 15] = [
    "core",
    "cpu",
    "data",
    "fsize",
    "locks",
    "memlock",
    "msgqueue",
    "nice",
    "nofile",
    "nproc",
    "rss",
    "rtprio",
    "rttime",
    "sigpending",
    "stack",
];

/// Parses `NAME=SOFT[:HARD]`.
pub fn parse_ulimit(value: &str) -> Result<(String, i64, i64), String> {
    let (name, limits) = value
        .split_once('=')
        .ok_or_else(|| format!("invalid ulimit argument: {value}"))?;
    if !ULIMITS.contains(&name) {
        return Err(format!("invalid ulimit type: {name}"));
    }
    let number = |text: &str| {
        text.parse::<i64>().map_err(|_| {
            format!(
                "strconv.ParseInt: parsing {}: invalid syntax",
                crate::grammar::values::quote(text)
            )
        })
    };
    let parts: Vec<_> = limits.split(':').collect();
    let (soft, hard) = match parts.as_slice() {
        [both] => (number(both)?, None),
        [soft, hard] => (number(soft)?, Some(number(hard)?)),
        _ => {
            return Err(format!(
                "too many limit value arguments - {limits}, can only have up to two, `soft[:hard]`"
            ));
        }
    };
    let hard = hard.unwrap_or(soft);
    if hard != -1 && (soft == -1 || soft > hard) {
        return Err(match soft {
            -1 => format!(
                "ulimit soft limit must be less than or equal to hard limit: soft: -1 (unlimited), hard: {hard}"
            ),
            _ => format!(
                "ulimit soft limit must be less than or equal to hard limit: {soft} > {hard}"
            ),
        });
    }
    Ok((name.to_owned(), soft, hard))
}

/// Parses the values of `--ulimit`; the last of a name wins, and they are sorted by name.
pub fn ulimits(values: &[String]) -> Result<Vec<Value>, String> {
    let mut limits: Vec<(String, i64, i64)> = Vec::new();
    for value in values {
        let limit = parse_ulimit(value)?;
        limits.retain(|(name, _, _)| *name != limit.0);
        limits.push(limit);
    }
    limits.sort();
    Ok(limits
        .into_iter()
        .map(|(name, soft, hard)| json!({"Name": name, "Hard": hard, "Soft": soft}))
        .collect())
}

/// Parses `--restart`.
pub fn parse_restart(policy: &str) -> Result<Value, String> {
    let (name, count) = policy.split_once(':').unwrap_or((policy, ""));
    if policy.contains(':') && name.is_empty() {
        return Err("invalid restart policy format: no policy provided before colon".to_owned());
    }
    let count: i64 = match count {
        "" => 0,
        text => text.parse().map_err(|_| {
            "invalid restart policy format: maximum retry count must be an integer".to_owned()
        })?,
    };
    Ok(json!({"Name": name, "MaximumRetryCount": count}))
}

/// Parses `/dev/x:WEIGHT`.
pub fn parse_weight(value: &str) -> Result<Value, String> {
    let (path, weight) = device_pair(value)?;
    let wrong = || format!("invalid weight for device: {value}");
    let weight: u16 = weight.parse().map_err(|_| wrong())?;
    if weight > 0 && !(10..=1000).contains(&weight) {
        return Err(wrong());
    }
    Ok(json!({"Path": path, "Weight": weight}))
}

/// Parses `/dev/x:RATE` with a size as the rate.
pub fn parse_byte_rate(value: &str) -> Result<Value, String> {
    let (path, rate) = device_pair(value)?;
    let rate = parse_bytes(rate).map_err(|_| {
        format!(
            "invalid rate for device: {value}. The correct format is <device-path>:<number>[<unit>]. Number must be a positive integer. Unit is optional and can be kb, mb, or gb"
        )
    })?;
    Ok(json!({"Path": path, "Rate": rate}))
}

/// Parses `/dev/x:RATE` with operations per second as the rate.
pub fn parse_operation_rate(value: &str) -> Result<Value, String> {
    let (path, rate) = device_pair(value)?;
    let rate: u64 = rate.parse().map_err(|_| {
        format!(
            "invalid rate for device: {value}. The correct format is <device-path>:<number>. Number must be a positive integer"
        )
    })?;
    Ok(json!({"Path": path, "Rate": rate}))
}

fn device_pair(value: &str) -> Result<(&str, &str), String> {
    let (path, number) = value
        .split_once(':')
        .filter(|(path, _)| !path.is_empty())
        .ok_or_else(|| format!("bad format: {value}"))?;
    if !path.starts_with("/dev/") {
        return Err(format!("bad format for device path: {value}"));
    }
    Ok((path, number))
}

/// Puts the limits and the devices into the host configuration.
pub fn resources(
    matches: &Matches,
    swappiness: i64,
    mappings: Vec<Value>,
    requests: Vec<Value>,
    put: &mut dyn FnMut(&str, Value),
) -> Result<(), String> {
    let integer = |flag: &str| json!(matches.integer(flag).unwrap_or(0));
    let rates = |flag: &str, parse: fn(&str) -> Result<Value, String>| {
        matches
            .all(flag)
            .iter()
            .map(|value| parse(value))
            .collect::<Result<Vec<_>, _>>()
            .map(Value::Array)
    };
    put("CpuShares", integer("cpu-shares"));
    put("Memory", json!(matches.bytes("memory").unwrap_or(0)));
    put(
        "NanoCpus",
        json!(matches.get("cpus").map_or(Ok(0), parse_nano_cpus)?),
    );
    put("CgroupParent", json!(matches.text("cgroup-parent")));
    put("BlkioWeight", integer("blkio-weight"));
    put(
        "BlkioWeightDevice",
        rates("blkio-weight-device", parse_weight)?,
    );
    put(
        "BlkioDeviceReadBps",
        rates("device-read-bps", parse_byte_rate)?,
    );
    put(
        "BlkioDeviceWriteBps",
        rates("device-write-bps", parse_byte_rate)?,
    );
    put(
        "BlkioDeviceReadIOps",
        rates("device-read-iops", parse_operation_rate)?,
    );
    put(
        "BlkioDeviceWriteIOps",
        rates("device-write-iops", parse_operation_rate)?,
    );
    put("CpuPeriod", integer("cpu-period"));
    put("CpuQuota", integer("cpu-quota"));
    put("CpuRealtimePeriod", integer("cpu-rt-period"));
    put("CpuRealtimeRuntime", integer("cpu-rt-runtime"));
    put("CpusetCpus", json!(matches.text("cpuset-cpus")));
    put("CpusetMems", json!(matches.text("cpuset-mems")));
    put("Devices", Value::Array(mappings));
    put(
        "DeviceCgroupRules",
        list_or_null(matches.all("device-cgroup-rule")),
    );
    put(
        "DeviceRequests",
        if requests.is_empty() {
            Value::Null
        } else {
            Value::Array(requests)
        },
    );
    put(
        "MemoryReservation",
        json!(matches.bytes("memory-reservation").unwrap_or(0)),
    );
    put(
        "MemorySwap",
        json!(matches.get("memory-swap").map_or(Ok(0), parse_swap_bytes)?),
    );
    put("MemorySwappiness", json!(swappiness));
    put("OomKillDisable", json!(matches.on("oom-kill-disable")));
    put("PidsLimit", integer("pids-limit"));
    put("Ulimits", Value::Array(ulimits(&matches.all("ulimit"))?));
    put("CpuCount", integer("cpu-count"));
    put("CpuPercent", integer("cpu-percent"));
    put("IOMaximumIOps", integer("io-maxiops"));
    put(
        "IOMaximumBandwidth",
        json!(matches.bytes("io-maxbandwidth").unwrap_or(0)),
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check<T: std::fmt::Debug>(got: Result<T, String>, expected: &str) {
        assert_eq!(
            got.map_or_else(|error| error, |value| format!("{value:?}")),
            expected
        );
    }

    #[test]
    fn ulimit_values() {
        check(parse_ulimit("nofile=5:7"), r#"("nofile", 5, 7)"#);
        check(parse_ulimit("core=-1"), r#"("core", -1, -1)"#);
        check(parse_ulimit("foo"), "invalid ulimit argument: foo");
        check(parse_ulimit("foo=1"), "invalid ulimit type: foo");
        check(
            parse_ulimit("nofile=5:3"),
            "ulimit soft limit must be less than or equal to hard limit: 5 > 3",
        );
        check(
            parse_ulimit("nofile=x"),
            "strconv.ParseInt: parsing \"x\": invalid syntax",
        );
    }

    #[test]
    fn device_limits() {
        assert_eq!(
            parse_weight("/dev/sda:100"),
            Ok(json!({"Path": "/dev/sda", "Weight": 100}))
        );
        check(
            parse_weight("/dev/sda:5"),
            "invalid weight for device: /dev/sda:5",
        );
        assert_eq!(
            parse_byte_rate("/dev/sda:1mb"),
            Ok(json!({"Path": "/dev/sda", "Rate": 1_048_576}))
        );
        check(parse_byte_rate("x"), "bad format: x");
        check(
            parse_operation_rate("sda:1"),
            "bad format for device path: sda:1",
        );
    }

    #[test]
    fn restart_policies() {
        assert_eq!(
            parse_restart("on-failure:3"),
            Ok(json!({"Name": "on-failure", "MaximumRetryCount": 3}))
        );
        check(
            parse_restart(":3"),
            "invalid restart policy format: no policy provided before colon",
        );
        check(
            parse_restart("a:x"),
            "invalid restart policy format: maximum retry count must be an integer",
        );
    }
}
