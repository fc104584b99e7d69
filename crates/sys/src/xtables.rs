//! The old iptables, of which the kernel tells nothing by netlink: what a built-in chain does with what no rule is for.
#![expect(
    unsafe_code,
    reason = "the table is read by getsockopt(2) into memory of the caller's"
)]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// A chain's policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Policy {
    Accept,
    Drop,
}

/// The policies of the filter table's built-in chains.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policies {
    pub input: Policy,
    pub forward: Policy,
}

/// The layout of a family's table (`linux/netfilter_ipv4/ip_tables.h`, `ip6_tables.h`).
struct Layout {
    family: libc::c_int,
    level: libc::c_int,
    /// Where in an entry the offset of its target stands.
    target_offset: usize,
}

const IPV4: Layout = Layout {
    family: libc::AF_INET,
    level: libc::IPPROTO_IP,
    target_offset: 88,
};
const IPV6: Layout = Layout {
    family: libc::AF_INET6,
    level: libc::IPPROTO_IPV6,
    target_offset: 140,
};

/// `IPT_SO_GET_INFO` and `IPT_SO_GET_ENTRIES`, the same in both families.
const GET_INFO: libc::c_int = 64;
const GET_ENTRIES: libc::c_int = 65;
const NAME_BYTES: usize = 32;
/// The name, the valid hooks, five hook entries, five underflows, the number of entries and their size.
const INFO_BYTES: usize = NAME_BYTES + 4 * (1 + 5 + 5 + 1 + 1);
const UNDERFLOW: usize = NAME_BYTES + 4 * 6;
const SIZE: usize = NAME_BYTES + 4 * 12;
/// The name, the size, and padding to the alignment of the entries.
const ENTRIES_HEADER: usize = NAME_BYTES + 8;
const HOOK_INPUT: usize = 1;
const HOOK_FORWARD: usize = 2;
/// The verdict of a standard target stands behind its header.
const VERDICT: usize = 32;
/// A verdict is written as its number, negated, less one.
const VERDICT_DROP: i32 = -1;

/// Gives the IPv4 policies. Ask only where `/proc/net/ip_tables_names` names the filter table: the question would make
/// one.
pub fn policies() -> io::Result<Policies> {
    read(&IPV4)
}

/// Gives the IPv6 policies, with the same caution about `/proc/net/ip6_tables_names`.
pub fn policies_v6() -> io::Result<Policies> {
    read(&IPV6)
}

fn read(layout: &Layout) -> io::Result<Policies> {
    // SAFETY: takes numbers and gives a new descriptor.
    let fd = unsafe {
        libc::socket(
            layout.family,
            libc::SOCK_RAW | libc::SOCK_CLOEXEC,
            libc::IPPROTO_RAW,
        )
    };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor is new and nobody else's.
    let socket = unsafe { OwnedFd::from_raw_fd(fd) };
    let fd = std::os::fd::AsFd::as_fd(&socket);
    let mut info = vec![0; INFO_BYTES];
    info[..6].copy_from_slice(b"filter");
    get(fd, layout.level, GET_INFO, &mut info)?;
    let size = number(&info, SIZE)? as usize;
    let mut entries = vec![0; ENTRIES_HEADER + size];
    entries[..6].copy_from_slice(b"filter");
    entries[NAME_BYTES..NAME_BYTES + 4].copy_from_slice(&(size as u32).to_ne_bytes());
    get(fd, layout.level, GET_ENTRIES, &mut entries)?;
    let table = &entries[ENTRIES_HEADER..];
    let policy = |hook: usize| -> io::Result<Policy> {
        let entry = number(&info, UNDERFLOW + 4 * hook)? as usize;
        let at = table
            .get(entry + layout.target_offset..)
            .and_then(|bytes| bytes.first_chunk::<2>())
            .map(|bytes| usize::from(u16::from_ne_bytes(*bytes)))
            .ok_or(io::ErrorKind::InvalidData)?;
        let verdict = number(table, entry + at + VERDICT)?.cast_signed();
        Ok(match verdict {
            VERDICT_DROP => Policy::Drop,
            _ => Policy::Accept,
        })
    };
    Ok(Policies {
        input: policy(HOOK_INPUT)?,
        forward: policy(HOOK_FORWARD)?,
    })
}

fn number(bytes: &[u8], at: usize) -> io::Result<u32> {
    bytes
        .get(at..)
        .and_then(|bytes| bytes.first_chunk::<4>())
        .map(|bytes| u32::from_ne_bytes(*bytes))
        .ok_or_else(|| io::ErrorKind::InvalidData.into())
}

/// getsockopt(2) into the whole of a buffer.
fn get(
    fd: BorrowedFd<'_>,
    level: libc::c_int,
    name: libc::c_int,
    buffer: &mut [u8],
) -> io::Result<()> {
    let mut length = buffer.len() as libc::socklen_t;
    // SAFETY: buffer and length live until the call returns, and the length is the buffer's, beyond which the kernel
    // does not write.
    let result = unsafe {
        libc::getsockopt(
            fd.as_raw_fd(),
            level,
            name,
            buffer.as_mut_ptr().cast(),
            &raw mut length,
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}
