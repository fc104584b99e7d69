//! What a container may: capabilities, security options, and whose namespaces it shares.

use crate::grammar::Matches;
use crate::grammar::values::quote;
use serde_json::Value;
use std::collections::BTreeSet;

/// Replaces the name of a seccomp profile by its contents and checks the form of the others.
pub fn security(options: &[String]) -> Result<Vec<String>, String> {
    let mut out = Vec::new();
    for option in options {
        let mut pair = option.split_once('=');
        if pair.is_none() && option != "no-new-privileges" {
            pair = option.split_once(':');
        }
        let (key, value) = pair.unwrap_or((option.as_str(), ""));
        if value.is_empty() && key != "no-new-privileges" {
            return Err(format!("Invalid --security-opt: {}", quote(option)));
        }
        if key == "seccomp" && !matches!(value, "builtin" | "unconfined") {
            let text = std::fs::read(value).map_err(|error| {
                format!(
                    "opening seccomp profile ({value}) failed: {}",
                    crate::failure::open_error(value, &error)
                )
            })?;
            let profile: Value = serde_json::from_slice(&text).map_err(|error| {
                format!("compacting json for seccomp profile ({value}) failed: {error}")
            })?;
            out.push(format!("seccomp={profile}"));
        } else {
            out.push(option.clone());
        }
    }
    Ok(out)
}

/// Gives capabilities their full names, sorted and once each; what is added is not dropped, and `ALL` stands for every
/// other one.
pub fn capabilities(add: &[String], drop: &[String]) -> (Vec<String>, Vec<String>) {
    let normal = |list: &[String]| {
        let names = list
            .iter()
            .map(|name| name.trim().to_uppercase())
            .map(|name| match name.as_str() {
                "ALL" => name,
                _ if name.starts_with("CAP_") => name,
                _ => format!("CAP_{name}"),
            });
        let names: BTreeSet<String> = names.collect();
        if names.contains("ALL") {
            BTreeSet::from(["ALL".to_owned()])
        } else {
            names
        }
    };
    let (add, mut drop) = (normal(add), normal(drop));
    drop.retain(|name| !add.contains(name));
    (add.into_iter().collect(), drop.into_iter().collect())
}

/// Checks whose namespaces are asked for.
pub fn check_modes(matches: &Matches) -> Result<(), String> {
    let container = |text: &str| {
        text.strip_prefix("container:")
            .is_some_and(|name| !name.is_empty())
    };
    let pid = matches.text("pid");
    if !(matches!(pid.as_str(), "" | "host" | "private") && pid != "private" || container(&pid)) {
        return Err("--pid: invalid PID mode".to_owned());
    }
    if !matches!(matches.text("uts").as_str(), "" | "host") {
        return Err("--uts: invalid UTS mode".to_owned());
    }
    if !matches!(matches.text("userns").as_str(), "" | "host") {
        return Err("--userns: invalid USER mode".to_owned());
    }
    if !matches!(matches.text("cgroupns").as_str(), "" | "host" | "private") {
        return Err("--cgroupns: invalid CGROUP mode".to_owned());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capabilities_get_their_full_names() {
        let words = |list: &[&str]| {
            list.iter()
                .map(|word| (*word).to_owned())
                .collect::<Vec<_>>()
        };
        let got = capabilities(
            &words(&["net_admin", "CAP_SYS_ADMIN", "NET_ADMIN"]),
            &words(&["ALL", "x"]),
        );
        assert_eq!(
            got,
            (words(&["CAP_NET_ADMIN", "CAP_SYS_ADMIN"]), words(&["ALL"]))
        );
        assert_eq!(
            capabilities(&words(&["x"]), &words(&["x", "y"])).1,
            words(&["CAP_Y"])
        );
    }
}
