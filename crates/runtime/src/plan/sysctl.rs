//! Kernel parameters: only those that belong to a namespace of the container's own.

use std::collections::BTreeMap;

use gantry_api::oci::sysctl;
use gantry_sys::process::{CLONE_NEWIPC, CLONE_NEWNET, CLONE_NEWUTS};

use super::namespaces::Namespaces;
use crate::error::Error;

/// Plans paths beneath `/proc/sys` and their values.
///
/// # Errors
/// A parameter that is the host's, or whose namespace the container does not have.
pub fn plan(
    sysctls: &BTreeMap<String, String>,
    namespaces: &Namespaces,
) -> Result<Vec<(String, String)>, Error> {
    sysctls
        .iter()
        .map(|(key, value)| {
            let name = dotted(key);
            let needed = if sysctl::is_of_ipc(&name) {
                CLONE_NEWIPC
            } else if sysctl::is_of_network(&name) {
                CLONE_NEWNET
            } else if name == "kernel.domainname" {
                CLONE_NEWUTS
            } else {
                return Err(Error::invalid(format!(
                    "sysctl \"{key}\" is not in a separate kernel namespace"
                )));
            };
            if !namespaces.contains(needed) {
                return Err(Error::invalid(format!(
                    "sysctl \"{key}\" is not allowed in the hosts namespace"
                )));
            }
            let path = path(key);
            if path
                .split('/')
                .any(|part| part.is_empty() || part == "." || part == "..")
            {
                return Err(Error::invalid(format!("sysctl \"{key}\"")));
            }
            Ok((path, value.clone()))
        })
        .collect()
}

/// The name with dots between its parts, whichever of the two spellings of sysctl.d(5) it came in.
fn dotted(key: &str) -> String {
    path(key).replace('/', ".")
}

/// If the first separator is a slash, slashes separate and dots are literal; else each is the other.
fn path(key: &str) -> String {
    match key.find(['.', '/']) {
        Some(at) if key.as_bytes()[at] == b'/' => key.to_owned(),
        _ => key
            .chars()
            .map(|c| match c {
                '.' => '/',
                '/' => '.',
                other => other,
            })
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_parameter_needs_its_namespace() {
        let all = Namespaces {
            new: CLONE_NEWIPC | CLONE_NEWNET | CLONE_NEWUTS,
            join: Vec::new(),
        };
        let one = |key: &str, namespaces: &Namespaces| {
            plan(
                &BTreeMap::from([(key.to_owned(), "1".to_owned())]),
                namespaces,
            )
            .map(|mut list| list.remove(0).0)
        };
        assert_eq!(
            one("net.ipv4.ip_forward", &all).expect("net"),
            "net/ipv4/ip_forward"
        );
        assert_eq!(
            one("net/ipv4/conf/eth0.1/forwarding", &all).expect("net"),
            "net/ipv4/conf/eth0.1/forwarding"
        );
        assert_eq!(
            one("net.ipv4.conf.eth0/1.forwarding", &all).expect("net"),
            "net/ipv4/conf/eth0.1/forwarding"
        );
        assert_eq!(one("kernel.shmmax", &all).expect("ipc"), "kernel/shmmax");
        one("net.ipv4.ip_forward", &Namespaces::default()).expect_err("the host's");
        one("kernel.panic", &all).expect_err("global");
        one("net.ipv4/../../../kernel/panic", &all).expect_err("dots");
        one("net/../kernel/panic", &all).expect_err("dots");
    }
}
