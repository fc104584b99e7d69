//! `update` of a container's limits.

use crate::cli::Cli;
use crate::command::{container_path, each};
use crate::failure::{Failure, Outcome};
use crate::grammar::Matches;
use crate::grammar::values::{parse_nano_cpus, parse_swap_bytes};
use crate::output;
use crate::run::limits::parse_restart;
use gantry_client::Request;
use serde_json::{Value, json};
use std::cell::RefCell;

/// Runs `update`.
pub async fn update(cli: &Cli, matches: &Matches) -> Outcome {
    if matches.values.is_empty() {
        return Err(Failure::new(
            "you must provide one or more flags when using this command",
        ));
    }
    if matches.given("kernel-memory") {
        return Err(Failure::new(
            "--kernel-memory is not supported: no kernel with cgroups of today has such a limit",
        ));
    }
    let integer = |flag: &str| json!(matches.integer(flag).unwrap_or(0));
    let bytes = |flag: &str| json!(matches.bytes(flag).unwrap_or(0));
    let restart = match matches.get("restart").filter(|policy| !policy.is_empty()) {
        Some(policy) => parse_restart(policy)?,
        None => json!({"Name": "", "MaximumRetryCount": 0}),
    };
    let pids = matches
        .integer("pids-limit")
        .filter(|limit| *limit != 0)
        .map_or(Value::Null, |limit| json!(limit));
    let body = json!({
        "CpuShares": integer("cpu-shares"),
        "Memory": bytes("memory"),
        "NanoCpus": matches.get("cpus").map_or(Ok(0), parse_nano_cpus)?,
        "CgroupParent": "",
        "BlkioWeight": integer("blkio-weight"),
        "BlkioWeightDevice": null,
        "BlkioDeviceReadBps": null,
        "BlkioDeviceWriteBps": null,
        "BlkioDeviceReadIOps": null,
        "BlkioDeviceWriteIOps": null,
        "CpuPeriod": integer("cpu-period"),
        "CpuQuota": integer("cpu-quota"),
        "CpuRealtimePeriod": integer("cpu-rt-period"),
        "CpuRealtimeRuntime": integer("cpu-rt-runtime"),
        "CpusetCpus": matches.text("cpuset-cpus"),
        "CpusetMems": matches.text("cpuset-mems"),
        "Devices": null,
        "DeviceCgroupRules": null,
        "DeviceRequests": null,
        "MemoryReservation": bytes("memory-reservation"),
        "MemorySwap": matches.get("memory-swap").map_or(Ok(0), parse_swap_bytes)?,
        "MemorySwappiness": null,
        "OomKillDisable": null,
        "PidsLimit": pids,
        "Ulimits": null,
        "CpuCount": 0,
        "CpuPercent": 0,
        "IOMaximumIOps": 0,
        "IOMaximumBandwidth": 0,
        "RestartPolicy": restart,
    });
    let client = cli.client()?;
    let warnings = RefCell::new(Vec::new());
    let outcome = each(&matches.arguments, |name| {
        let (body, warnings) = (&body, &warnings);
        async move {
            let request = Request::post(container_path(name, "/update")).json(body)?;
            let answer: Value = client.send(request).await?.json().await?;
            let told = answer["Warnings"].as_array().into_iter().flatten();
            let told = told.filter_map(Value::as_str).map(str::to_owned);
            warnings.borrow_mut().extend(told);
            Ok(Some(name.to_owned()))
        }
    })
    .await;
    // After the names and on standard output, as Docker's client does.
    warnings
        .take()
        .iter()
        .for_each(|warning| output::line(warning));
    outcome
}
