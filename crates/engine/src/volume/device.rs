//! What the options of a volume ask the kernel for: `type`, `device` and `o` as mount(8) has them, and `size`.
//!
//! A device is mounted on the volume's directory when the first container uses it and unmounted after the last
//! ([`super::mounted`]). Texts are Docker's, which names a mount's flags by their bits.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::io;
use std::net::{IpAddr, ToSocketAddrs};
use std::path::Path;

use gantry_api::error::errno_text;
use rustix::mount::{MountFlags, MountPropagationFlags};

use super::Volume;
use crate::{Error, Result};

/// Refuses options that no volume can have.
pub(super) fn check(options: &BTreeMap<String, String>) -> Result<()> {
    const KNOWN: [&str; 4] = ["type", "o", "device", "size"];
    if let Some(key) = options.keys().find(|key| !KNOWN.contains(&key.as_str())) {
        return Err(Error::invalid(format!("invalid option: \"{key}\"")));
    }
    if let Some(text) = options.get("size") {
        let bytes = crate::container::parse_size(text)
            .ok_or_else(|| Error::invalid(format!("invalid size: '{text}'")))?;
        if bytes > 0 {
            return Err(Error::invalid("quota size requested but no quota support"));
        }
    }
    for (key, needed) in [
        ("device", &["type"][..]),
        ("o", &["device", "type"]),
        ("type", &["device"]),
    ] {
        if options.contains_key(key)
            && let Some(missing) = needed.iter().find(|other| !options.contains_key(**other))
        {
            return Err(Error::invalid(format!(
                "missing required option: \"{missing}\""
            )));
        }
    }
    Ok(())
}

/// One mount(2) of a volume's own file system.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Device {
    source: String,
    kind: String,
    flags: u32,
    data: String,
    /// A password that no error may show.
    password: Option<String>,
}

const PROPAGATION: u32 = MountPropagationFlags::PRIVATE.bits()
    | MountPropagationFlags::SHARED.bits()
    | MountPropagationFlags::DOWNSTREAM.bits()
    | MountPropagationFlags::UNBINDABLE.bits();

impl Device {
    /// Reads a volume's options; `None` for a plain directory.
    ///
    /// # Errors
    /// A server whose name has no address.
    pub(super) fn of(volume: &Volume) -> Result<Option<Device>> {
        if !volume.has_device() {
            return Ok(None);
        }
        let get = |key: &str| volume.options.get(key).cloned().unwrap_or_default();
        let (mut source, kind, mut options) = (get("device"), get("type"), get("o"));
        if source.is_empty() {
            return Err(Error::system("missing device in volume options"));
        }
        if matches!(kind.as_str(), "nfs" | "cifs") {
            resolve_server(&kind, &mut source, &mut options)?;
        }
        let (flags, data) = flags(&options);
        Ok(Some(Device {
            source,
            kind,
            flags,
            data,
            password: value_of(&options, "password").map(str::to_owned),
        }))
    }

    /// Mounts it on `target`: the flags of propagation and a bind's `ro` take calls of their own.
    pub(super) fn mount(&self, target: &Path) -> Result<()> {
        let own = self.flags & !PROPAGATION;
        let flags = MountFlags::from_bits_retain(own);
        let data = CString::new(self.data.as_str()).unwrap_or_default();
        rustix::mount::mount(
            self.source.as_str(),
            target,
            self.kind.as_str(),
            flags,
            data.as_c_str(),
        )
        .map_err(|errno| self.failed("mount", target, own, errno.into()))?;
        let rest = self.settle(target, own);
        if rest.is_err() {
            // What is half mounted is not used.
            let _ = gantry_sys::mount::umount_detach(target);
        }
        rest
    }

    fn settle(&self, target: &Path, own: u32) -> Result<()> {
        let recursive = MountPropagationFlags::REC.bits();
        if self.flags & PROPAGATION != 0 {
            let change = self.flags & (PROPAGATION | recursive);
            rustix::mount::mount_change(target, MountPropagationFlags::from_bits_retain(change))
                .map_err(|errno| self.failed("remount", target, change, errno.into()))?;
        }
        let read_only_bind = (MountFlags::BIND | MountFlags::RDONLY).bits();
        if own & read_only_bind == read_only_bind {
            rustix::mount::mount_remount(target, MountFlags::from_bits_retain(own), c"")
                .map_err(|errno| self.failed("remount-ro", target, own, errno.into()))?;
        }
        Ok(())
    }

    fn failed(&self, operation: &str, target: &Path, flags: u32, error: io::Error) -> Error {
        let mut text = format!(
            "failed to mount local volume: {operation} {}:{}",
            self.source,
            target.display()
        );
        if flags != 0 {
            text.push_str(&format!(", flags: {flags:#x}"));
        }
        if !self.data.is_empty() {
            text.push_str(&format!(", data: {}", self.data));
        }
        text.push_str(&format!(": {}", errno_text(&error)));
        if let Some(password) = &self.password {
            text = text.replace(&format!("password={password}"), "password=********");
        }
        Error::system(text).caused_by(error)
    }
}

/// Splits the words of fstab(5) into flags and what is for the file system.
fn flags(options: &str) -> (u32, String) {
    let recursive = MountPropagationFlags::REC.bits();
    let mut flags = 0;
    let mut data = Vec::new();
    for word in options.split(',') {
        let (set, bits) = match word {
            "ro" => (true, MountFlags::RDONLY.bits()),
            "rw" => (false, MountFlags::RDONLY.bits()),
            "nosuid" => (true, MountFlags::NOSUID.bits()),
            "suid" => (false, MountFlags::NOSUID.bits()),
            "nodev" => (true, MountFlags::NODEV.bits()),
            "dev" => (false, MountFlags::NODEV.bits()),
            "noexec" => (true, MountFlags::NOEXEC.bits()),
            "exec" => (false, MountFlags::NOEXEC.bits()),
            "sync" => (true, MountFlags::SYNCHRONOUS.bits()),
            "async" => (false, MountFlags::SYNCHRONOUS.bits()),
            "dirsync" => (true, MountFlags::DIRSYNC.bits()),
            "remount" => (true, MS_REMOUNT),
            "mand" => (true, MountFlags::PERMIT_MANDATORY_FILE_LOCKING.bits()),
            "nomand" => (false, MountFlags::PERMIT_MANDATORY_FILE_LOCKING.bits()),
            "noatime" => (true, MountFlags::NOATIME.bits()),
            "atime" => (false, MountFlags::NOATIME.bits()),
            "nodiratime" => (true, MountFlags::NODIRATIME.bits()),
            "diratime" => (false, MountFlags::NODIRATIME.bits()),
            "relatime" => (true, MountFlags::RELATIME.bits()),
            "norelatime" => (false, MountFlags::RELATIME.bits()),
            "strictatime" => (true, MountFlags::STRICTATIME.bits()),
            "nostrictatime" => (false, MountFlags::STRICTATIME.bits()),
            "bind" => (true, MountFlags::BIND.bits()),
            "rbind" => (true, MountFlags::BIND.bits() | recursive),
            "private" => (true, MountPropagationFlags::PRIVATE.bits()),
            "rprivate" => (true, MountPropagationFlags::PRIVATE.bits() | recursive),
            "shared" => (true, MountPropagationFlags::SHARED.bits()),
            "rshared" => (true, MountPropagationFlags::SHARED.bits() | recursive),
            "slave" => (true, MountPropagationFlags::DOWNSTREAM.bits()),
            "rslave" => (true, MountPropagationFlags::DOWNSTREAM.bits() | recursive),
            "unbindable" => (true, MountPropagationFlags::UNBINDABLE.bits()),
            "runbindable" => (true, MountPropagationFlags::UNBINDABLE.bits() | recursive),
            word => {
                data.push(word);
                continue;
            }
        };
        flags = if set { flags | bits } else { flags & !bits };
    }
    (flags, data.join(","))
}

/// `MS_REMOUNT`, which rustix keeps to itself.
const MS_REMOUNT: u32 = 0x20;

fn value_of<'a>(options: &'a str, key: &str) -> Option<&'a str> {
    options
        .split(',')
        .find_map(|word| word.strip_prefix(key)?.strip_prefix('='))
        .filter(|value| !value.is_empty())
}

/// The kernel knows no names: the server of a network file system gets its address.
fn resolve_server(kind: &str, source: &mut String, options: &mut String) -> Result<()> {
    if let Some(server) = value_of(options, "addr") {
        if !is_ipv4(server) {
            let (named, address) = (format!("addr={server}"), address_of(server)?);
            *options = options.replacen(&named, &format!("addr={address}"), 1);
        }
        return Ok(());
    }
    if kind == "cifs"
        && let Some(rest) = source.strip_prefix("//")
    {
        let (server, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        if !server.is_empty() && server.parse::<IpAddr>().is_err() {
            *source = format!("//{}{path}", address_of(server)?);
        }
    }
    Ok(())
}

fn is_ipv4(text: &str) -> bool {
    text.parse::<std::net::Ipv4Addr>().is_ok()
}

fn address_of(server: &str) -> Result<IpAddr> {
    let failed = "error resolving passed in network volume address";
    if let Ok(address) = server.parse() {
        return Ok(address);
    }
    let found = (server, 0).to_socket_addrs().map_err(|error| {
        Error::system(format!("{failed}: lookup {server}: no such host")).caused_by(error)
    })?;
    let all: Vec<IpAddr> = found.map(|found| found.ip()).collect();
    // As Docker's resolver, which prefers the older family.
    all.iter()
        .find(|address| address.is_ipv4())
        .or(all.first())
        .copied()
        .ok_or_else(|| Error::system(format!("{failed}: lookup {server}: no such host")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect()
    }

    fn device(pairs: &[(&str, &str)]) -> Option<Device> {
        Device::of(&Volume {
            options: options(pairs),
            ..Volume::default()
        })
        .unwrap()
    }

    #[test]
    fn options_are_refused_in_dockers_words() {
        for (given, text) in [
            (
                &[("size", "1m")][..],
                "quota size requested but no quota support",
            ),
            (&[("size", "abc")], "invalid size: 'abc'"),
            (
                &[("nosuch", "1"), ("size", "1m")],
                "invalid option: \"nosuch\"",
            ),
            (&[("o", "size=1m")], "missing required option: \"device\""),
            (&[("device", "/x")], "missing required option: \"type\""),
            (&[("type", "tmpfs")], "missing required option: \"device\""),
        ] {
            assert_eq!(check(&options(given)).unwrap_err().to_string(), text);
        }
        for given in [
            &[][..],
            &[("size", "0")],
            &[("type", ""), ("device", "")],
            &[("type", "nfs"), ("device", ":/x"), ("o", "addr=127.0.0.1")],
        ] {
            check(&options(given)).unwrap();
        }
    }

    #[test]
    fn flags_and_data_are_told_apart() {
        assert_eq!(flags(""), (0, String::new()));
        assert_eq!(flags("ro,foo=bar,noexec"), (0x9, "foo=bar".to_owned()));
        assert_eq!(flags("bind"), (0x1000, String::new()));
        assert_eq!(flags("ro,rw,rbind,rshared"), (0x10_5000, String::new()));
        assert_eq!(flags("size=10m,uid=1000").1, "size=10m,uid=1000");
    }

    #[test]
    fn a_volume_without_a_device_needs_no_mount() {
        assert_eq!(device(&[]), None);
        assert_eq!(device(&[("size", "0")]), None);
        assert_eq!(device(&[("type", ""), ("device", "")]), None);
        let nfs = device(&[
            ("type", "nfs"),
            ("device", ":/x"),
            ("o", "addr=127.0.0.1,rw"),
        ]);
        assert_eq!(nfs.unwrap().data, "addr=127.0.0.1");
    }

    #[test]
    fn no_error_shows_a_password() {
        let share = device(&[
            ("type", "nosuchfs"),
            ("device", "//127.0.0.1/x"),
            ("o", "username=u,password=secret"),
        ])
        .unwrap();
        let error = share.mount(Path::new("/")).unwrap_err().to_string();
        assert_eq!(
            error,
            "failed to mount local volume: mount //127.0.0.1/x:/, data: username=u,password=********: no such device"
        );
    }
}
