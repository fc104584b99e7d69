//! update: other limits for a container that exists.

use std::io::Read;

use gantry_api::oci::runtime::{LinuxBlockIo, LinuxCpu, LinuxMemory, LinuxPids, LinuxResources};

use super::arguments::{Arguments, Flag, value};
use super::{Failure, Global};
use crate::error::Error;
use crate::plan::limits;
use crate::state::State;

const FLAGS: &[Flag] = &[
    value("resources", Some('r')),
    value("blkio-weight", None),
    value("cpu-period", None),
    value("cpu-quota", None),
    value("cpu-burst", None),
    value("cpu-share", None),
    value("cpu-rt-period", None),
    value("cpu-rt-runtime", None),
    value("cpuset-cpus", None),
    value("cpuset-mems", None),
    value("cpu-idle", None),
    value("memory", None),
    value("memory-reservation", None),
    value("memory-swap", None),
    value("pids-limit", None),
];

pub(super) fn update(global: &Global, words: &[String]) -> Result<u8, Failure> {
    let arguments = Arguments::parse(FLAGS, words)?;
    let state = State::load(&global.root, arguments.id("update")?)?;
    let limits = limits::plan(Some(&resources(&arguments)?))?;
    state
        .cgroup()?
        .update(&limits)
        .map_err(|error| Error::stage("update limits of", &state.id, error))?;
    Ok(0)
}

fn resources(arguments: &Arguments) -> Result<LinuxResources, Error> {
    if let Some(path) = arguments.get("resources") {
        let mut bytes = Vec::new();
        let read = if path == "-" {
            std::io::stdin().read_to_end(&mut bytes).map(drop)
        } else {
            std::fs::read(path).map(|content| bytes = content)
        };
        read.map_err(|error| Error::stage("read", path, error))?;
        return serde_json::from_slice(&bytes).map_err(|error| Error::stage("parse", path, error));
    }
    let text = |name: &str| arguments.get(name).unwrap_or_default().to_owned();
    Ok(LinuxResources {
        cpu: Some(LinuxCpu {
            shares: arguments.number("cpu-share")?,
            quota: arguments.number("cpu-quota")?,
            burst: arguments.number("cpu-burst")?,
            period: arguments.number("cpu-period")?,
            realtime_runtime: arguments.number("cpu-rt-runtime")?,
            realtime_period: arguments.number("cpu-rt-period")?,
            cpus: text("cpuset-cpus"),
            mems: text("cpuset-mems"),
            idle: arguments.number("cpu-idle")?,
            ..LinuxCpu::default()
        }),
        memory: Some(LinuxMemory {
            limit: bytes(arguments, "memory")?,
            reservation: bytes(arguments, "memory-reservation")?,
            swap: bytes(arguments, "memory-swap")?,
            ..LinuxMemory::default()
        }),
        pids: arguments
            .number("pids-limit")?
            .map(|limit| LinuxPids { limit }),
        block_io: Some(LinuxBlockIo {
            weight: arguments.number("blkio-weight")?,
            ..LinuxBlockIo::default()
        }),
        ..LinuxResources::default()
    })
}

/// Takes a number with an optional `k`, `m`, `g` or `t`, each with an optional `b`.
fn bytes(arguments: &Arguments, name: &str) -> Result<Option<i64>, Error> {
    let Some(text) = arguments.get(name) else {
        return Ok(None);
    };
    let invalid = || Error::invalid(format!("value for {name}: {text}"));
    let lower = text.to_ascii_lowercase();
    let lower = lower.strip_suffix('b').unwrap_or(&lower);
    let (digits, shift) = match lower.char_indices().last() {
        Some((at, 'k')) => (&lower[..at], 10),
        Some((at, 'm')) => (&lower[..at], 20),
        Some((at, 'g')) => (&lower[..at], 30),
        Some((at, 't')) => (&lower[..at], 40),
        _ => (lower, 0),
    };
    let number: i64 = digits.parse().map_err(|_| invalid())?;
    if number == -1 && shift == 0 {
        return Ok(Some(-1));
    }
    number
        .checked_mul(1 << shift)
        .filter(|bytes| *bytes >= 0)
        .map(Some)
        .ok_or_else(invalid)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_units() {
        let parse = |text: &str| {
            bytes(
                &Arguments::parse(FLAGS, &["--memory".to_owned(), text.to_owned()]).expect("flags"),
                "memory",
            )
        };
        assert_eq!(parse("64m").expect("size"), Some(64 << 20));
        assert_eq!(parse("1GB").expect("size"), Some(1 << 30));
        assert_eq!(parse("-1").expect("size"), Some(-1));
        assert_eq!(parse("7").expect("size"), Some(7));
        parse("x").expect_err("no number");
        parse("-2k").expect_err("negative");
    }
}
