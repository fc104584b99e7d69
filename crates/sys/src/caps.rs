//! Capabilities: names, and the sets of the calling thread (capabilities(7)).
//!
//! Which sets a container gets is decided elsewhere.
#![allow(unsafe_code)]

use std::fmt;
use std::io;
use std::str::FromStr;

/// Names by number, up to Linux 6.18 (uapi/linux/capability.h).
const NAMES: [&str; 41] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_DAC_READ_SEARCH",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETPCAP",
    "CAP_LINUX_IMMUTABLE",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_BROADCAST",
    "CAP_NET_ADMIN",
    "CAP_NET_RAW",
    "CAP_IPC_LOCK",
    "CAP_IPC_OWNER",
    "CAP_SYS_MODULE",
    "CAP_SYS_RAWIO",
    "CAP_SYS_CHROOT",
    "CAP_SYS_PTRACE",
    "CAP_SYS_PACCT",
    "CAP_SYS_ADMIN",
    "CAP_SYS_BOOT",
    "CAP_SYS_NICE",
    "CAP_SYS_RESOURCE",
    "CAP_SYS_TIME",
    "CAP_SYS_TTY_CONFIG",
    "CAP_MKNOD",
    "CAP_LEASE",
    "CAP_AUDIT_WRITE",
    "CAP_AUDIT_CONTROL",
    "CAP_SETFCAP",
    "CAP_MAC_OVERRIDE",
    "CAP_MAC_ADMIN",
    "CAP_SYSLOG",
    "CAP_WAKE_ALARM",
    "CAP_BLOCK_SUSPEND",
    "CAP_AUDIT_READ",
    "CAP_PERFMON",
    "CAP_BPF",
    "CAP_CHECKPOINT_RESTORE",
];

/// One capability, by number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Capability(u8);

impl Capability {
    /// All that have a name here, whether or not the kernel knows them.
    pub fn all() -> impl Iterator<Item = Self> {
        (0..NAMES.len()).filter_map(|number| u8::try_from(number).ok().map(Self))
    }

    /// The capability of this number, if it has a name here.
    pub fn from_number(number: u8) -> Option<Self> {
        (usize::from(number) < NAMES.len()).then_some(Self(number))
    }

    /// The number of uapi/linux/capability.h.
    pub fn number(self) -> u8 {
        self.0
    }

    /// The name with `CAP_`.
    pub fn name(self) -> &'static str {
        NAMES[usize::from(self.0)]
    }
}

impl fmt::Display for Capability {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

/// No capability has this name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnknownCapability;

impl fmt::Display for UnknownCapability {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("unknown capability")
    }
}

impl std::error::Error for UnknownCapability {}

impl FromStr for Capability {
    type Err = UnknownCapability;

    /// Takes the full name in capitals, as OCI specifications spell it.
    fn from_str(name: &str) -> Result<Self, UnknownCapability> {
        let number = NAMES
            .iter()
            .position(|one| *one == name)
            .ok_or(UnknownCapability)?;
        u8::try_from(number)
            .map(Self)
            .map_err(|_| UnknownCapability)
    }
}

/// A set, as the kernel's 64 bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Set(pub u64);

impl Set {
    /// The empty set.
    pub const EMPTY: Self = Self(0);

    /// Says whether `capability` is in the set.
    pub fn contains(self, capability: Capability) -> bool {
        self.0 & (1 << capability.0) != 0
    }

    /// What is in both sets.
    #[must_use]
    pub fn intersection(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// The members in ascending order of numbers.
    pub fn iter(self) -> impl Iterator<Item = Capability> {
        Capability::all().filter(move |one| self.contains(*one))
    }
}

impl FromIterator<Capability> for Set {
    fn from_iter<Iter: IntoIterator<Item = Capability>>(capabilities: Iter) -> Self {
        Self(
            capabilities
                .into_iter()
                .fold(0, |bits, one| bits | 1 << one.0),
        )
    }
}

/// The three sets of capget(2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sets {
    pub effective: Set,
    pub permitted: Set,
    pub inheritable: Set,
}

// struct __user_cap_header_struct and __user_cap_data_struct; version 3 takes two of the latter.
#[repr(C)]
struct Header {
    version: u32,
    pid: i32,
}

#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Data {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

const VERSION_3: u32 = 0x2008_0522;

/// Reads the calling thread's sets. Async-signal-safe, as all that follows but [`last_cap`].
///
/// # Errors
/// None known for the calling thread.
pub fn capget() -> io::Result<Sets> {
    let mut header = Header {
        version: VERSION_3,
        pid: 0,
    };
    let mut data = [Data::default(); 2];
    // SAFETY: version 3 makes the kernel write two `Data`, which is what the array has.
    let result = unsafe { libc::syscall(libc::SYS_capget, &raw mut header, data.as_mut_ptr()) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    let join = |low: u32, high: u32| Set(u64::from(low) | u64::from(high) << 32);
    Ok(Sets {
        effective: join(data[0].effective, data[1].effective),
        permitted: join(data[0].permitted, data[1].permitted),
        inheritable: join(data[0].inheritable, data[1].inheritable),
    })
}

/// Sets the calling thread's sets.
///
/// # Errors
/// `EPERM` for a permitted capability that the thread has not, an effective one that is not permitted, or an inheritable
/// one outside the bounding set.
pub fn capset(sets: Sets) -> io::Result<()> {
    let mut header = Header {
        version: VERSION_3,
        pid: 0,
    };
    #[expect(
        clippy::cast_possible_truncation,
        reason = "the halves are what is wanted"
    )]
    let half = |shift: u32| Data {
        effective: (sets.effective.0 >> shift) as u32,
        permitted: (sets.permitted.0 >> shift) as u32,
        inheritable: (sets.inheritable.0 >> shift) as u32,
    };
    let data = [half(0), half(32)];
    // SAFETY: version 3 makes the kernel read two `Data`, which is what the array has.
    let result = unsafe { libc::syscall(libc::SYS_capset, &raw mut header, data.as_ptr()) };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

fn prctl(
    operation: libc::c_int,
    second: libc::c_ulong,
    third: libc::c_ulong,
) -> io::Result<libc::c_int> {
    let zero: libc::c_ulong = 0;
    // SAFETY: the operations used here take numbers, never addresses.
    let result = unsafe { libc::prctl(operation, second, third, zero, zero) };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result)
    }
}

/// Says whether the calling thread's bounding set has `capability`; `false` too for one that the kernel does not know.
pub fn bounding_has(capability: Capability) -> bool {
    prctl(libc::PR_CAPBSET_READ, capability.0.into(), 0).is_ok_and(|result| result == 1)
}

/// Reads the bounding set.
pub fn bounding() -> Set {
    Capability::all().filter(|one| bounding_has(*one)).collect()
}

/// Drops everything from the bounding set that `keep` does not have, as far as the kernel's last capability `last`, also
/// those that have no name here. It cannot be undone.
///
/// # Errors
/// `EPERM` without CAP_SETPCAP.
pub fn drop_bounding(keep: Set, last: u8) -> io::Result<()> {
    for number in (0..=last.min(63)).filter(|number| keep.0 & (1 << number) == 0) {
        prctl(libc::PR_CAPBSET_DROP, number.into(), 0)?;
    }
    Ok(())
}

/// Makes `set` the ambient set.
///
/// # Errors
/// `EPERM` for one that is not both permitted and inheritable.
pub fn set_ambient(set: Set) -> io::Result<()> {
    prctl(libc::PR_CAP_AMBIENT, clear_all(), 0)?;
    for capability in set.iter() {
        prctl(libc::PR_CAP_AMBIENT, raise(), capability.0.into())?;
    }
    Ok(())
}

fn clear_all() -> libc::c_ulong {
    libc::PR_CAP_AMBIENT_CLEAR_ALL.unsigned_abs().into()
}

fn raise() -> libc::c_ulong {
    libc::PR_CAP_AMBIENT_RAISE.unsigned_abs().into()
}

/// Reads the ambient set.
pub fn ambient() -> Set {
    let is_set = libc::PR_CAP_AMBIENT_IS_SET.unsigned_abs().into();
    Capability::all()
        .filter(|one| {
            prctl(libc::PR_CAP_AMBIENT, is_set, one.0.into()).is_ok_and(|result| result == 1)
        })
        .collect()
}

/// Keeps the permitted set over a change of all user ids away from root, until execve(2).
///
/// # Errors
/// `EPERM` when the securebits lock it.
pub fn set_keep(keep: bool) -> io::Result<()> {
    prctl(libc::PR_SET_KEEPCAPS, keep.into(), 0).map(drop)
}

/// The highest number that the kernel knows. Not async-signal-safe: read it before forking.
///
/// # Errors
/// `/proc` cannot be read.
pub fn last_cap() -> io::Result<u8> {
    let text = std::fs::read_to_string("/proc/sys/kernel/cap_last_cap")?;
    text.trim()
        .parse()
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs `body` in a forked child, which it may spoil; true if it returned true.
    fn in_child(body: fn() -> bool) -> bool {
        // SAFETY: the child makes system calls only and ends by `_exit`.
        let pid = unsafe { libc::fork() };
        if pid == 0 {
            let code = i32::from(!body());
            // SAFETY: ends the child without running anything of the parent's.
            unsafe { libc::_exit(code) };
        }
        let mut status = 0;
        // SAFETY: our own child, and a live status.
        unsafe { libc::waitpid(pid, &raw mut status, 0) };
        status == 0
    }

    #[test]
    fn names_and_numbers_are_the_kernels() {
        for (name, number) in [
            ("CAP_CHOWN", 0),
            ("CAP_SYS_ADMIN", 21),
            ("CAP_CHECKPOINT_RESTORE", 40),
        ] {
            let capability: Capability = name.parse().unwrap();
            assert_eq!((capability.number(), capability.name()), (number, name));
        }
        for name in ["CHOWN", "cap_chown", "CAP_X", ""] {
            assert_eq!(name.parse::<Capability>(), Err(UnknownCapability));
        }
        let last = last_cap().unwrap();
        assert!(last >= 40, "{last}");
    }

    #[test]
    fn sets_agree_with_proc() {
        let status = std::fs::read_to_string("/proc/thread-self/status").unwrap();
        let field = |name: &str| {
            let line = status
                .lines()
                .find_map(|line| line.strip_prefix(name))
                .unwrap();
            Set(u64::from_str_radix(line.trim(), 16).unwrap())
        };
        let sets = capget().unwrap();
        assert_eq!(
            [
                sets.inheritable,
                sets.permitted,
                sets.effective,
                bounding(),
                ambient()
            ],
            ["CapInh:", "CapPrm:", "CapEff:", "CapBnd:", "CapAmb:"].map(field)
        );
    }

    #[test]
    fn a_thread_lowers_its_sets_and_cannot_raise_them() {
        assert!(in_child(|| {
            let keep: Set = Capability::all()
                .filter(|one| matches!(one.number(), 0 | 8))
                .collect();
            let held = capget().is_ok_and(|sets| sets.permitted.intersection(keep) == keep);
            held && drop_bounding(keep, 40).is_ok()
                && bounding() == keep
                && capset(Sets {
                    effective: keep,
                    permitted: keep,
                    inheritable: keep,
                })
                .is_ok()
                && set_ambient(keep).is_ok()
                && ambient() == keep
                && capget().is_ok_and(|sets| sets.permitted == keep && sets.inheritable == keep)
                && capset(Sets {
                    permitted: Set(1 << 21),
                    ..Sets::default()
                })
                .is_err()
                && set_ambient(Set(1 << 21)).is_err()
        }));
    }
}
