//! Users and groups by name, as the container's own /etc/passwd and /etc/group know them (passwd(5), group(5)).
//!
//! The OCI configuration has numbers only. An engine that does not see the container's root leaves a name to the
//! runtime in two fields of `process.user` that are not in the specification: `username` (`user[:group]`, names or
//! numbers) and `groupNames`. Both files are opened beneath the root's descriptor, so a link in the image leads nowhere
//! else, and at most [`FILE_BYTES_MAX`] of each are read.

use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd};

use gantry_api::oci::runtime::User;
use rustix::fs::{Mode, OFlags};

use crate::error::Error;

/// The most that is read of one file.
const FILE_BYTES_MAX: u64 = 16 << 20;
/// Largest user or group number.
const ID_MAX: u32 = i32::MAX as u32;

/// A name that cannot be resolved; the text is what Docker says.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
enum Unknown {
    #[error("unable to find user {0}: no matching entries in passwd file")]
    User(String),
    #[error("unable to find group {0}: no matching entries in group file")]
    Group(String),
    #[error("uids and gids must be in range 0-{ID_MAX}")]
    Range,
}

/// A user in numbers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Resolved {
    pub uid: u32,
    pub gid: u32,
    pub groups: Vec<u32>,
}

/// Turns the names in `user` into numbers; `None` if it bears none.
///
/// # Errors
/// [`Error::State`] with Docker's words for a name that the container's files do not have.
pub(crate) fn resolve(root: BorrowedFd<'_>, user: &User) -> Result<Option<Resolved>, Error> {
    let Some(name) = user.unknown.get("username") else {
        return Ok(None);
    };
    let groups: Vec<String> = match user.unknown.get("groupNames") {
        None => Vec::new(),
        Some(names) => serde_json::from_value(names.clone())
            .map_err(|_| Error::invalid("process.user.groupNames"))?,
    };
    look_up(
        name.as_str().unwrap_or(""),
        &groups,
        &read(root, "etc/passwd"),
        &read(root, "etc/group"),
    )
    .map(Some)
    .map_err(|unknown| Error::state(unknown.to_string()))
}

/// Checks that the root of a running process knows the names in `user`, without starting anything.
///
/// # Errors
/// As [`resolve`].
pub fn check_user(pid: i32, user: &User) -> Result<(), Error> {
    resolve_in(pid, user).map(|_| ())
}

/// As [`resolve`], in the root of a running process.
pub(crate) fn resolve_in(pid: i32, user: &User) -> Result<Option<Resolved>, Error> {
    if !user.unknown.contains_key("username") {
        return Ok(None);
    }
    let path = format!("/proc/{pid}/root");
    let root = rustix::fs::open(
        path.as_str(),
        OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )
    .map_err(|error| Error::stage("open", path, error))?;
    resolve(root.as_fd(), user)
}

fn read(root: BorrowedFd<'_>, path: &str) -> String {
    // NONBLOCK: an image may have a FIFO under this name.
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let Ok(file) = gantry_sys::fs::openat2_in_root(root, path, flags, Mode::empty()) else {
        return String::new();
    };
    let regular = rustix::fs::fstat(&file)
        .is_ok_and(|stat| rustix::fs::FileType::from_raw_mode(stat.st_mode).is_file());
    let mut text = Vec::new();
    if regular {
        // What cannot be read is as good as not there.
        let _ = File::from(file).take(FILE_BYTES_MAX).read_to_end(&mut text);
    }
    String::from_utf8_lossy(&text).into_owned()
}

struct PasswdEntry<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
}

fn passwd(text: &str) -> impl Iterator<Item = PasswdEntry<'_>> {
    text.lines().filter_map(|line| {
        let mut fields = line.trim().split(':');
        let (name, _, uid, gid) = (
            fields.next()?,
            fields.next()?,
            fields.next()?,
            fields.next()?,
        );
        Some(PasswdEntry {
            name,
            uid: uid.parse().ok()?,
            gid: gid.parse().ok()?,
        })
    })
}

fn groups(text: &str) -> impl Iterator<Item = (&str, u32, &str)> {
    text.lines().filter_map(|line| {
        let mut fields = line.trim().split(':');
        let (name, _, gid) = (fields.next()?, fields.next()?, fields.next()?);
        Some((name, gid.parse().ok()?, fields.next().unwrap_or("")))
    })
}

fn number(text: &str) -> Option<Result<u32, Unknown>> {
    let value: i64 = text.parse().ok()?;
    Some(
        u32::try_from(value)
            .ok()
            .filter(|id| *id <= ID_MAX)
            .ok_or(Unknown::Range),
    )
}

/// Resolves `user[:group]` and further groups against the texts of both files.
fn look_up(
    user: &str,
    more: &[String],
    passwd_text: &str,
    group_text: &str,
) -> Result<Resolved, Unknown> {
    let (name, group) = user.split_once(':').unwrap_or((user, ""));
    let wanted = if name.is_empty() { "0" } else { name };
    let wanted_number = number(wanted);
    let entry = passwd(passwd_text).find(|entry| {
        entry.name == wanted || matches!(&wanted_number, Some(Ok(uid)) if entry.uid == *uid)
    });
    let mut resolved = match (&entry, wanted_number) {
        (Some(entry), _) => Resolved {
            uid: entry.uid,
            gid: entry.gid,
            ..Resolved::default()
        },
        (None, Some(uid)) => Resolved {
            uid: uid?,
            ..Resolved::default()
        },
        (None, None) => return Err(Unknown::User(name.to_owned())),
    };
    let find_group = |wanted: &str| {
        let wanted_number = number(wanted);
        let found = groups(group_text).find(|(name, gid, _)| {
            *name == wanted || matches!(&wanted_number, Some(Ok(number)) if gid == number)
        });
        match (found, wanted_number) {
            (Some((_, gid, _)), _) => Ok(gid),
            (None, Some(gid)) => gid,
            (None, None) => Err(Unknown::Group(wanted.to_owned())),
        }
    };
    if group.is_empty() {
        // The groups that list the user as a member; an explicit group stands alone.
        if let Some(entry) = &entry {
            resolved.groups = groups(group_text)
                .filter(|(_, _, members)| members.split(',').any(|member| member == entry.name))
                .map(|(_, gid, _)| gid)
                .collect();
        }
    } else {
        resolved.gid = find_group(group)?;
    }
    for name in more {
        resolved.groups.push(find_group(name)?);
    }
    // The main group is among the others: files that forbid something to the group forbid it to this process too
    // (CVE-2022-36109).
    resolved.groups.insert(0, resolved.gid);
    let mut seen = std::collections::BTreeSet::new();
    resolved.groups.retain(|gid| seen.insert(*gid));
    Ok(resolved)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str =
        "root:x:0:0:root:/root:/bin/sh\nbroken\napp:x:1000:1001::/home/app:/bin/sh\n";
    const GROUP: &str = "root:x:0:root\nwheel:x:10:root,app\napp:x:1001:\naudio:x:29:\n";

    #[test]
    fn users_and_groups_are_found_by_name_and_number() {
        for (user, more, uid, gid, groups) in [
            ("", &[][..], 0, 0, &[0, 10][..]),
            ("root", &[], 0, 0, &[0, 10]),
            ("app", &[], 1000, 1001, &[1001, 10]),
            ("1000", &[], 1000, 1001, &[1001, 10]),
            ("app:audio", &[], 1000, 29, &[29]),
            ("4321", &[], 4321, 0, &[0]),
            ("4321:5", &["audio", "77"], 4321, 5, &[5, 29, 77]),
            ("app", &["wheel"], 1000, 1001, &[1001, 10]),
        ] {
            let more: Vec<String> = more.iter().map(|name| (*name).to_owned()).collect();
            let found = look_up(user, &more, PASSWD, GROUP).unwrap();
            assert_eq!(
                (found.uid, found.gid, found.groups.as_slice()),
                (uid, gid, groups),
                "{user}"
            );
        }
    }

    #[test]
    fn what_is_not_there_is_named_in_dockers_words() {
        for (user, text) in [
            (
                "nobodyx",
                "unable to find user nobodyx: no matching entries in passwd file",
            ),
            (
                "app:nogroupx",
                "unable to find group nogroupx: no matching entries in group file",
            ),
            ("-1", "uids and gids must be in range 0-2147483647"),
            ("4294967295", "uids and gids must be in range 0-2147483647"),
        ] {
            assert_eq!(
                look_up(user, &[], PASSWD, GROUP).unwrap_err().to_string(),
                text
            );
        }
    }
}
