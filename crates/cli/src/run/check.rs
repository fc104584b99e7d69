//! Values of flags that are refused as soon as they are read: Docker says which flag is wrong, and does so first.

use super::{devices, limits};
use crate::grammar::values::quote;
use gantry_api::oci::sysctl;
use std::net::IpAddr;

/// Checks a value of a flag of type `list` when it is read.
pub fn check_list(flag: &str, value: &str) -> Result<(), String> {
    match flag {
        "env" => {
            let name = value.split('=').next().unwrap_or_default();
            if name.is_empty() {
                Err(format!("invalid environment variable: {value}"))
            } else {
                Ok(())
            }
        }
        "label" => check_label(value),
        "attach" => {
            let stream = value.to_lowercase();
            let known = matches!(stream.as_str(), "stdin" | "stdout" | "stderr");
            if known {
                Ok(())
            } else {
                Err("valid streams are STDIN, STDOUT and STDERR".to_owned())
            }
        }
        "add-host" => check_host(value),
        "link" => check_link(value),
        "dns" => match value.trim().parse::<IpAddr>() {
            Ok(_) => Ok(()),
            Err(_) => Err(format!("IP address is not correctly formatted: {value}")),
        },
        "dns-search" => check_domain(value),
        "blkio-weight-device" => limits::parse_weight(value).map(drop),
        "device-read-bps" | "device-write-bps" => limits::parse_byte_rate(value).map(drop),
        "device-read-iops" | "device-write-iops" => limits::parse_operation_rate(value).map(drop),
        "device-cgroup-rule" => devices::check_cgroup_rule(value),
        _ => Ok(()),
    }
}

/// Checks a value of a flag of type `map` when it is read.
pub fn check_map(flag: &str, value: &str) -> Result<(), String> {
    if flag != "sysctl" {
        return Ok(());
    }
    let refused = || Err(format!("sysctl '{value}' is not allowed"));
    let Some((name, _)) = value.split_once('=') else {
        return refused();
    };
    if sysctl::is_of_ipc(name) || sysctl::is_of_network(name) {
        Ok(())
    } else {
        refused()
    }
}

fn check_label(value: &str) -> Result<(), String> {
    let key = value
        .split('=')
        .next()
        .unwrap_or_default()
        .trim_start_matches([' ', '\t']);
    if key.is_empty() {
        return Err(format!("invalid label '{value}': empty name"));
    }
    if key.contains([' ', '\t']) {
        return Err(format!("label '{key}' contains whitespaces"));
    }
    Ok(())
}

fn check_host(value: &str) -> Result<(), String> {
    let (name, address) = split_host(value);
    let (Some(address), false) = (address, name.is_empty()) else {
        return Err(format!("bad format for add-host: {}", quote(value)));
    };
    if address == "host-gateway" || unbracketed(address).parse::<IpAddr>().is_ok() {
        return Ok(());
    }
    Err(format!(
        "invalid IP address in add-host: {}",
        quote(address)
    ))
}

fn split_host(value: &str) -> (&str, Option<&str>) {
    match value.split_once('=').or_else(|| value.split_once(':')) {
        Some((name, address)) => (name, Some(address)),
        None => (value, None),
    }
}

fn unbracketed(address: &str) -> &str {
    address
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
        .unwrap_or(address)
}

/// Turns `name=address` and brackets into the form `name:address` that the daemon stores.
pub fn plain_host(value: &str) -> String {
    match split_host(value) {
        (name, Some(address)) => format!("{name}:{}", unbracketed(address)),
        _ => value.to_owned(),
    }
}

fn check_link(value: &str) -> Result<(), String> {
    if value.is_empty() {
        return Err("empty string specified for links".to_owned());
    }
    if value.split(':').count() > 2 {
        Err(format!("bad format for links: {value}"))
    } else {
        Ok(())
    }
}

fn check_domain(value: &str) -> Result<(), String> {
    let domain = value.trim().trim_end_matches('.');
    if value.trim() == "." {
        return Ok(());
    }
    let label = |text: &str| {
        !text.is_empty()
            && text
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_')
            && text.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_')
            && text.ends_with(|c: char| c.is_ascii_alphanumeric() || c == '_')
    };
    let has_letter = domain.chars().any(|c| c.is_ascii_alphabetic());
    if domain.len() < 255 && has_letter && domain.split('.').all(label) {
        Ok(())
    } else {
        Err(format!("{value} is not a valid domain"))
    }
}
