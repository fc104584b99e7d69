//! Which capabilities a container gets: Docker's rules for `--cap-add`, `--cap-drop` and `--privileged`.

use gantry_sys::caps::{self, Capability};

/// What a container has without asking, in Docker's order.
pub const DEFAULT: [&str; 14] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FSETID",
    "CAP_FOWNER",
    "CAP_MKNOD",
    "CAP_NET_RAW",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETFCAP",
    "CAP_SETPCAP",
    "CAP_NET_BIND_SERVICE",
    "CAP_SYS_CHROOT",
    "CAP_KILL",
    "CAP_AUDIT_WRITE",
];

const ALL: &str = "ALL";

/// A name that is no capability, or one that this machine has not. The text is Docker's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("invalid {field}: unknown capability: \"{name}\"")]
    Unknown { field: &'static str, name: String },
    #[error(
        "invalid {field}: capability not supported by your kernel or not available in the current environment: \"{name}\""
    )]
    Unavailable { field: &'static str, name: String },
}

/// Capabilities that can be given away here: those of the bounding set that the kernel knows, by ascending number.
pub fn available() -> Vec<&'static str> {
    caps::bounding().iter().map(Capability::name).collect()
}

/// Brings names into the form `CAP_NAME`; `ALL` stays. `field` is the HostConfig field for the error.
///
/// # Errors
/// The first name that is unknown, or not `available`.
pub fn normalize(
    field: &'static str,
    names: &[String],
    available: &[&str],
) -> Result<Vec<String>, Error> {
    names
        .iter()
        .map(|name| {
            let upper = name.to_ascii_uppercase();
            if upper == ALL {
                return Ok(upper);
            }
            let full = if upper.starts_with("CAP_") {
                upper
            } else {
                format!("CAP_{upper}")
            };
            if full.parse::<Capability>().is_err() {
                return Err(Error::Unknown { field, name: full });
            }
            if !available.iter().any(|one| *one == full) {
                return Err(Error::Unavailable { field, name: full });
            }
            Ok(full)
        })
        .collect()
}

/// Works out a container's capabilities. `ALL` among the added ones means all available without those dropped; `ALL`
/// among the dropped ones means only those added; otherwise the default ones without those dropped, then those added.
///
/// # Errors
/// As [`normalize`].
pub fn resolve(
    add: &[String],
    drop: &[String],
    privileged: bool,
    available: &[&str],
) -> Result<Vec<String>, Error> {
    let owned = |names: &[&str]| {
        names
            .iter()
            .map(|one| (*one).to_owned())
            .collect::<Vec<_>>()
    };
    if privileged {
        return Ok(owned(available));
    }
    if add.is_empty() && drop.is_empty() {
        return Ok(owned(&DEFAULT));
    }
    let drop = normalize("CapDrop", drop, available)?;
    let add = normalize("CapAdd", add, available)?;
    let has = |names: &[String], name: &str| names.iter().any(|one| one == name);
    let mut capabilities: Vec<String> = Vec::new();
    let mut push = |name: &str| {
        if !capabilities.iter().any(|one| one == name) {
            capabilities.push(name.to_owned());
        }
    };
    if has(&add, ALL) {
        available
            .iter()
            .filter(|one| !has(&drop, one))
            .for_each(|one| push(one));
    } else {
        if !has(&drop, ALL) {
            DEFAULT
                .iter()
                .filter(|one| !has(&drop, one))
                .for_each(|one| push(one));
        }
        add.iter().for_each(|one| push(one));
    }
    Ok(capabilities)
}

#[cfg(test)]
mod tests {
    use super::*;

    const AVAILABLE: [&str; 16] = [
        "CAP_CHOWN",
        "CAP_DAC_OVERRIDE",
        "CAP_FOWNER",
        "CAP_FSETID",
        "CAP_KILL",
        "CAP_SETGID",
        "CAP_SETUID",
        "CAP_SETPCAP",
        "CAP_NET_BIND_SERVICE",
        "CAP_NET_ADMIN",
        "CAP_NET_RAW",
        "CAP_SYS_CHROOT",
        "CAP_SYS_ADMIN",
        "CAP_MKNOD",
        "CAP_AUDIT_WRITE",
        "CAP_SETFCAP",
    ];

    fn names(list: &str) -> Vec<String> {
        list.split_whitespace().map(str::to_owned).collect()
    }

    fn check(add: &str, drop: &str) -> Vec<String> {
        resolve(&names(add), &names(drop), false, &AVAILABLE).unwrap()
    }

    #[test]
    fn dockers_rules() {
        assert_eq!(check("", ""), DEFAULT);
        assert_eq!(check("", "all"), Vec::<String>::new());
        assert_eq!(
            check("net_admin CAP_SYS_ADMIN", "ALL"),
            ["CAP_NET_ADMIN", "CAP_SYS_ADMIN"]
        );
        assert_eq!(check("ALL", "ALL"), AVAILABLE);
        assert_eq!(check("all", "").len(), 16);
        assert!(!check("ALL", "cap_mknod").contains(&"CAP_MKNOD".to_owned()));
        assert_eq!(check("ALL", "cap_mknod").len(), 15);
        let changed = check("NET_ADMIN", "mknod");
        assert_eq!(
            (changed.len(), changed.last().map(String::as_str)),
            (14, Some("CAP_NET_ADMIN"))
        );
        assert_eq!(check("CHOWN chown", ""), DEFAULT);
        assert_eq!(
            check("mknod", "MKNOD").last().map(String::as_str),
            Some("CAP_MKNOD")
        );
    }

    #[test]
    fn privileged_has_what_there_is() {
        assert_eq!(
            resolve(&[], &names("ALL"), true, &AVAILABLE).unwrap(),
            AVAILABLE
        );
    }

    #[test]
    fn bad_names_are_told_in_dockers_words() {
        for (add, drop, text) in [
            ("x", "", "invalid CapAdd: unknown capability: \"CAP_X\""),
            (
                "",
                "cap_y",
                "invalid CapDrop: unknown capability: \"CAP_Y\"",
            ),
            (
                "SYS_RESOURCE",
                "",
                "invalid CapAdd: capability not supported by your kernel or not available in the current environment: \"CAP_SYS_RESOURCE\"",
            ),
        ] {
            assert_eq!(
                resolve(&names(add), &names(drop), false, &AVAILABLE)
                    .unwrap_err()
                    .to_string(),
                text
            );
        }
    }

    #[test]
    fn the_bounding_set_is_what_is_available() {
        let available = available();
        assert!(available.contains(&"CAP_CHOWN"), "{available:?}");
    }
}
