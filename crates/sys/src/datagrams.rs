//! Datagrams by the batch: recvmmsg(2) into memory that outlives the process, and sendmmsg(2).
//!
//! A system call for each datagram costs more than answering it. But a batch that is taken is a batch that a killed
//! process has lost, so it lies in a shared mapping of a file: the kernel itself writes the datagrams, their senders and
//! their lengths there, and whoever opens the file afterwards finds what was taken and not yet [done](Inbox::done).
#![expect(
    unsafe_code,
    reason = "a shared mapping and the arrays of recvmmsg and sendmmsg have no safe wrapper"
)]

use std::fs::File;
use std::io;
use std::mem::offset_of;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::fs::FallocateFlags;
use rustix::mm::{MapFlags, ProtFlags};

use crate::net::{RawAddress, raw_address, socket_address};

/// How many datagrams one call takes or sends.
pub const BATCH_MAX: usize = 32;
/// How many bytes of a datagram are kept.
pub const BYTES_MAX: usize = 4096;
/// The longest name of an owner.
const OWNER_BYTES_MAX: usize = 252;
/// What the file begins with: whose layout this is.
const MAGIC: u64 = u64::from_be_bytes(*b"gantry-1");

/// The file's contents.
#[repr(C)]
struct Shared {
    magic: u64,
    /// Whose datagrams lie here; 0 bytes: nobody's. Written after everything else of a batch is prepared.
    owner_length: AtomicU32,
    owner: [u8; OWNER_BYTES_MAX],
    headers: [libc::mmsghdr; BATCH_MAX],
    senders: [libc::sockaddr_storage; BATCH_MAX],
    bytes: [[u8; BYTES_MAX]; BATCH_MAX],
}

/// A datagram that came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Datagram<'a> {
    pub bytes: &'a [u8],
    pub sender: SocketAddr,
    /// It was longer than [`BYTES_MAX`]; the rest is lost.
    pub is_cut: bool,
}

/// What was taken and not done.
#[derive(Debug, PartialEq, Eq)]
pub struct LeftBehind {
    pub owner: String,
    /// Each with its sender.
    pub datagrams: Vec<(SocketAddr, Vec<u8>)>,
}

/// A batch of datagrams that came.
#[derive(Debug)]
pub struct Inbox {
    shared: NonNull<Shared>,
    count: usize,
}

impl Inbox {
    /// Maps `file`, which nobody else may change meanwhile, and gives it the size that is needed and the memory for it,
    /// so that writing never fails. One that holds something else is emptied.
    ///
    /// # Errors
    /// Those of ftruncate(2), fallocate(2) (`ENOSPC`) and mmap(2).
    pub fn open(file: &File) -> io::Result<Self> {
        let size = size_of::<Shared>();
        let mut magic = [0; size_of::<u64>()];
        let found = std::os::unix::fs::FileExt::read_at(file, &mut magic, 0)?;
        let is_ours = found == magic.len()
            && u64::from_ne_bytes(magic) == MAGIC
            && file.metadata()?.len() == size as u64;
        if !is_ours {
            file.set_len(0)?;
        }
        rustix::fs::fallocate(file, FallocateFlags::empty(), 0, size as u64)?;
        // SAFETY: a new mapping, wherever the kernel likes; nothing of this process lies there.
        let place = unsafe {
            rustix::mm::mmap(
                std::ptr::null_mut(),
                size,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::SHARED,
                file,
                0,
            )?
        };
        let mut shared = NonNull::new(place.cast::<Shared>())
            .ok_or_else(|| io::Error::from(io::ErrorKind::OutOfMemory))?;
        // SAFETY: the mapping is as large as the structure, aligned to a page, and this value alone refers to it. Any
        // bytes are a valid `Shared`: its pointers are only written, never followed.
        unsafe { shared.as_mut() }.magic = MAGIC;
        Ok(Self { shared, count: 0 })
    }

    fn shared(&self) -> &Shared {
        // SAFETY: the mapping lives as long as this value, which alone refers to it; the file is nobody else's.
        unsafe { self.shared.as_ref() }
    }

    /// Tells what an earlier process had not done, without what was cut. It stays in the file until the next
    /// [`Self::receive`] or [`Self::done`].
    pub fn left_behind(&self) -> Option<LeftBehind> {
        let shared = self.shared();
        let length = shared.owner_length.load(Ordering::Acquire) as usize;
        let owner = shared
            .owner
            .get(..length)
            .filter(|owner| !owner.is_empty())?;
        let datagrams = (0..BATCH_MAX)
            .filter_map(|index| self.datagram(index))
            .filter(|datagram| !datagram.is_cut)
            .map(|datagram| (datagram.sender, datagram.bytes.to_vec()));
        Some(LeftBehind {
            owner: std::str::from_utf8(owner).ok()?.to_owned(),
            datagrams: datagrams.collect(),
        })
    }

    /// Takes the datagrams that wait in a non-blocking socket, [`BATCH_MAX`] at most, in the name of `owner`; gives their
    /// number. The batch before is forgotten.
    ///
    /// # Errors
    /// Those of recvmmsg(2): `EAGAIN` if none waits. An owner whose name is too long is `EINVAL`.
    pub fn receive(&mut self, fd: BorrowedFd<'_>, owner: &str) -> io::Result<usize> {
        self.done();
        if owner.len() > OWNER_BYTES_MAX {
            return Err(io::Error::from_raw_os_error(libc::EINVAL));
        }
        let mut vectors = [libc::iovec {
            iov_base: std::ptr::null_mut(),
            iov_len: BYTES_MAX,
        }; BATCH_MAX];
        let base = self.shared.as_ptr();
        // SAFETY: the places that `vectors` and `headers` name are parts of the mapping, which outlives the call, with
        // their sizes; the vectors live until the call returns. No reference into the mapping exists meanwhile.
        let count = unsafe {
            for (index, vector) in vectors.iter_mut().enumerate() {
                let header = &raw mut (*base).headers[index];
                let mut message: libc::msghdr = std::mem::zeroed();
                message.msg_name = (&raw mut (*base).senders[index]).cast();
                message.msg_namelen = size_of::<libc::sockaddr_storage>() as libc::socklen_t;
                vector.iov_base = (&raw mut (*base).bytes[index]).cast();
                message.msg_iov = vector;
                message.msg_iovlen = 1;
                header.write(libc::mmsghdr {
                    msg_hdr: message,
                    msg_len: 0,
                });
            }
            (&raw mut (*base).owner)
                .cast::<u8>()
                .copy_from_nonoverlapping(owner.as_ptr(), owner.len());
            (*base)
                .owner_length
                .store(owner.len() as u32, Ordering::Release);
            libc::recvmmsg(
                fd.as_raw_fd(),
                (&raw mut (*base).headers).cast(),
                BATCH_MAX as libc::c_uint,
                libc::MSG_DONTWAIT,
                std::ptr::null_mut(),
            )
        };
        match usize::try_from(count) {
            Ok(count) => {
                self.count = count.min(BATCH_MAX);
                Ok(self.count)
            }
            Err(_) => {
                let error = io::Error::last_os_error();
                self.done();
                Err(error)
            }
        }
    }

    /// Gives a datagram of the batch; none if it has no bytes, or its sender no address.
    pub fn get(&self, index: usize) -> Option<Datagram<'_>> {
        (index < self.count).then(|| self.datagram(index)).flatten()
    }

    fn datagram(&self, index: usize) -> Option<Datagram<'_>> {
        let shared = self.shared();
        let header = &shared.headers[index];
        let bytes = shared.bytes[index].get(..header.msg_len as usize)?;
        // In what was left behind, one without bytes is a place that was not used.
        let sender = socket_address(&shared.senders[index]).filter(|_| !bytes.is_empty())?;
        let is_cut = header.msg_hdr.msg_flags & libc::MSG_TRUNC != 0;
        Some(Datagram {
            bytes,
            sender,
            is_cut,
        })
    }

    /// The batch is done with: nobody need look at it again.
    pub fn done(&mut self) {
        self.count = 0;
        self.shared().owner_length.store(0, Ordering::Release);
    }
}

impl Drop for Inbox {
    fn drop(&mut self) {
        // SAFETY: the mapping is this value's own, made with this size.
        let _ = unsafe { rustix::mm::munmap(self.shared.as_ptr().cast(), size_of::<Shared>()) };
    }
}

/// Datagrams that are to be sent together.
#[derive(Debug, Default)]
pub struct Outbox {
    bytes: Vec<u8>,
    /// Where each one ends in `bytes`, and for whom it is.
    ends: Vec<(usize, SocketAddr)>,
}

impl Outbox {
    /// Adds a datagram.
    pub fn push(&mut self, bytes: &[u8], to: SocketAddr) {
        self.bytes.extend_from_slice(bytes);
        self.ends.push((self.bytes.len(), to));
    }

    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Sends all and is empty. What the socket or the network does not take is lost, as datagrams are.
    pub fn send(&mut self, fd: impl AsFd) {
        let mut start = 0;
        for ends in self.ends.chunks(BATCH_MAX) {
            send_batch(fd.as_fd(), &self.bytes, start, ends);
            start = ends[ends.len() - 1].0;
        }
        self.bytes.clear();
        self.ends.clear();
    }
}

/// Sends at most [`BATCH_MAX`] datagrams, which lie in `bytes` one behind the other from `start` on.
fn send_batch(fd: BorrowedFd<'_>, bytes: &[u8], mut start: usize, ends: &[(usize, SocketAddr)]) {
    // SAFETY: all-zero bytes are valid for each of them.
    let (mut vectors, mut addresses, mut headers): (
        [libc::iovec; BATCH_MAX],
        [RawAddress; BATCH_MAX],
        [libc::mmsghdr; BATCH_MAX],
    ) = unsafe { std::mem::zeroed() };
    for (index, &(end, to)) in ends.iter().enumerate() {
        let part = &bytes[start..end];
        start = end;
        let (address, length) = raw_address(to);
        addresses[index] = address;
        vectors[index] = libc::iovec {
            iov_base: part.as_ptr().cast_mut().cast(),
            iov_len: part.len(),
        };
        let message = &mut headers[index].msg_hdr;
        message.msg_name = (&raw mut addresses[index]).cast();
        message.msg_namelen = length;
        message.msg_iov = &raw mut vectors[index];
        message.msg_iovlen = 1;
    }
    let mut next = 0;
    while next < ends.len() {
        let rest = &mut headers[next..ends.len()];
        // SAFETY: all that the headers point at lives until the call returns, with the sizes given; of it nothing is
        // written but the lengths in the headers.
        let sent = unsafe {
            libc::sendmmsg(
                fd.as_raw_fd(),
                rest.as_mut_ptr(),
                rest.len() as libc::c_uint,
                libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL,
            )
        };
        // An error is the first one's: that one is lost, and those behind it have their turn.
        next += usize::try_from(sent).unwrap_or(0).max(1);
    }
}

// The kernel writes lengths and addresses where these are.
const _: () = assert!(
    offset_of!(Shared, headers).is_multiple_of(align_of::<libc::mmsghdr>())
        && offset_of!(Shared, senders).is_multiple_of(align_of::<libc::sockaddr_storage>())
);

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use super::*;

    fn file() -> File {
        let memory =
            rustix::fs::memfd_create(c"inbox", rustix::fs::MemfdFlags::CLOEXEC).expect("memory");
        File::from(memory)
    }

    fn pair() -> (UdpSocket, UdpSocket) {
        let one = UdpSocket::bind("127.0.0.1:0").expect("a socket");
        let other = UdpSocket::bind("127.0.0.1:0").expect("a socket");
        one.connect(other.local_addr().expect("an address"))
            .expect("connect");
        (one, other)
    }

    #[test]
    fn what_waits_is_taken_in_order_and_no_more_than_a_batch() {
        let (one, other) = pair();
        let mut inbox = Inbox::open(&file()).expect("an inbox");
        let none = inbox
            .receive(other.as_fd(), "owner")
            .expect_err("none waits");
        assert_eq!(none.raw_os_error(), Some(libc::EAGAIN));
        assert!(inbox.left_behind().is_none());
        let large = vec![7; BYTES_MAX];
        one.send(&large).expect("send");
        one.send(&[]).expect("send");
        one.send(&vec![8; BYTES_MAX + 1]).expect("send");
        for number in 0..BATCH_MAX as u8 {
            one.send(&[number]).expect("send");
        }
        assert_eq!(
            inbox.receive(other.as_fd(), "owner").expect("take"),
            BATCH_MAX
        );
        let sender = one.local_addr().expect("an address");
        let whole = |bytes| Datagram {
            bytes,
            sender,
            is_cut: false,
        };
        assert_eq!(inbox.get(0), Some(whole(&large)));
        assert_eq!(inbox.get(1), None, "one without bytes");
        let cut = inbox.get(2).expect("a datagram");
        assert_eq!((cut.bytes, cut.is_cut), (&[8; BYTES_MAX][..], true));
        assert_eq!(inbox.get(3), Some(whole(&[0])));
        assert_eq!(inbox.receive(other.as_fd(), "owner").expect("take"), 3);
        assert_eq!(inbox.get(2), Some(whole(&[BATCH_MAX as u8 - 1])));
        assert_eq!(inbox.get(3), None);
        let long = "x".repeat(OWNER_BYTES_MAX + 1);
        assert!(inbox.receive(other.as_fd(), &long).is_err());
    }

    #[test]
    fn what_was_taken_and_not_done_is_found_by_the_next() {
        let (one, other) = pair();
        let file = file();
        let mut inbox = Inbox::open(&file).expect("an inbox");
        one.send(b"first").expect("send");
        one.send(b"second").expect("send");
        assert_eq!(inbox.receive(other.as_fd(), "owner").expect("take"), 2);
        // As after a kill: nobody says that it is done.
        drop(inbox);
        let mut next = Inbox::open(&file).expect("an inbox");
        let sender = one.local_addr().expect("an address");
        let left = LeftBehind {
            owner: "owner".to_owned(),
            datagrams: vec![(sender, b"first".to_vec()), (sender, b"second".to_vec())],
        };
        assert_eq!(next.left_behind(), Some(left));
        next.done();
        assert_eq!(next.left_behind(), None);
        // Fewer than before: the rest of the batch before is not found again.
        one.send(b"third").expect("send");
        assert_eq!(next.receive(other.as_fd(), "other").expect("take"), 1);
        drop(next);
        let last = Inbox::open(&file).expect("an inbox");
        let left = last.left_behind().expect("one is left");
        assert_eq!(left.owner, "other");
        assert_eq!(left.datagrams, [(sender, b"third".to_vec())]);
    }

    #[test]
    fn a_file_of_another_kind_is_emptied_and_lengths_are_not_believed() {
        let file = file();
        std::io::Write::write_all(&mut &file, &[0xff; 5000]).expect("write");
        assert_eq!(Inbox::open(&file).expect("an inbox").left_behind(), None);
        let mut inbox = Inbox::open(&file).expect("an inbox");
        // SAFETY: the mapping is alive and nobody else looks at it.
        let shared = unsafe { inbox.shared.as_mut() };
        shared.headers[0].msg_len = u32::MAX;
        shared.owner_length.store(5, Ordering::Release);
        shared.owner[..5].copy_from_slice(b"owner");
        let left = inbox.left_behind().expect("an owner");
        assert_eq!((left.owner.as_str(), left.datagrams.len()), ("owner", 0));
        inbox
            .shared()
            .owner_length
            .store(u32::MAX, Ordering::Release);
        assert_eq!(inbox.left_behind(), None);
    }

    #[test]
    fn all_are_sent_but_those_that_cannot_be() {
        let (one, other) = pair();
        let to = one.local_addr().expect("an address");
        let mut outbox = Outbox::default();
        for number in 0..2 * BATCH_MAX as u8 + 3 {
            outbox.push(&[number; 3], to);
            if number == 5 {
                outbox.push(b"of another family", "[::1]:9".parse().expect("an address"));
            }
        }
        outbox.send(&other);
        assert!(outbox.is_empty());
        one.set_nonblocking(true).expect("an option");
        let mut buffer = [0; 16];
        for number in 0..2 * BATCH_MAX as u8 + 3 {
            let length = one.recv(&mut buffer).expect("a datagram");
            assert_eq!(buffer[..length], [number; 3]);
        }
    }
}
