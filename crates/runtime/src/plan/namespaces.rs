//! Which namespaces are new and which are joined.

use std::path::PathBuf;

use gantry_api::oci::runtime::LinuxNamespace;
use gantry_sys::process::{
    CLONE_NEWCGROUP, CLONE_NEWIPC, CLONE_NEWNET, CLONE_NEWNS, CLONE_NEWPID, CLONE_NEWTIME,
    CLONE_NEWUSER, CLONE_NEWUTS,
};

use crate::error::Error;

/// Flags of the new ones, paths of the others.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Namespaces {
    pub new: u64,
    pub join: Vec<(u64, PathBuf)>,
}

impl Namespaces {
    /// Says whether the container has a namespace of that kind beside the caller's, new or joined.
    pub fn contains(&self, flag: u64) -> bool {
        self.is_new(flag) || self.join.iter().any(|(kind, _)| *kind == flag)
    }

    /// Says whether a namespace of that kind is made.
    pub fn is_new(&self, flag: u64) -> bool {
        self.new & flag != 0
    }
}

/// The kinds by the specification's names.
pub const KINDS: [(&str, u64); 8] = [
    ("user", CLONE_NEWUSER),
    ("pid", CLONE_NEWPID),
    ("mount", CLONE_NEWNS),
    ("network", CLONE_NEWNET),
    ("ipc", CLONE_NEWIPC),
    ("uts", CLONE_NEWUTS),
    ("cgroup", CLONE_NEWCGROUP),
    ("time", CLONE_NEWTIME),
];

/// Plans the list of the specification.
///
/// # Errors
/// An unknown or repeated kind, and no new mount namespace: the root could not be changed for the container alone.
pub fn plan(list: &[LinuxNamespace]) -> Result<Namespaces, Error> {
    let mut namespaces = Namespaces::default();
    for namespace in list {
        let (name, flag) = KINDS
            .into_iter()
            .find(|(name, _)| *name == namespace.kind)
            .ok_or_else(|| Error::invalid(format!("namespace type `{}`", namespace.kind)))?;
        if namespaces.contains(flag) {
            return Err(Error::invalid(format!(
                "namespaces: malformed spec file: duplicated ns `{name}`"
            )));
        }
        if namespace.path.as_os_str().is_empty() {
            namespaces.new |= flag;
        } else {
            namespaces.join.push((flag, namespace.path.clone()));
        }
    }
    if !namespaces.is_new(CLONE_NEWNS) {
        return Err(Error::unsupported(
            "a container without a new mount namespace",
        ));
    }
    Ok(namespaces)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(kinds: &[(&str, &str)]) -> Vec<LinuxNamespace> {
        kinds
            .iter()
            .map(|(kind, path)| LinuxNamespace {
                kind: (*kind).to_owned(),
                path: PathBuf::from(path),
            })
            .collect()
    }

    #[test]
    fn new_and_joined_are_told_apart() {
        let namespaces =
            plan(&list(&[("mount", ""), ("pid", ""), ("network", "/run/n")])).expect("plan");
        assert_eq!(namespaces.new, CLONE_NEWNS | CLONE_NEWPID);
        assert_eq!(namespaces.join, [(CLONE_NEWNET, PathBuf::from("/run/n"))]);
        assert!(namespaces.contains(CLONE_NEWNET) && !namespaces.is_new(CLONE_NEWNET));
    }

    #[test]
    fn contradictions_are_refused() {
        for bad in [
            &[("mount", ""), ("mount", "")][..],
            &[("pid", "")],
            &[("mount", ""), ("disk", "")],
            &[("mount", "/x")],
        ] {
            plan(&list(bad)).expect_err("refused");
        }
    }
}
