//! The line between the caller and a process that is being set up: a pair of sequenced-packet sockets.
//!
//! A message is a letter and, for errors, JSON; descriptors ride along. Both ends are close-on-exec: the end of the line
//! *is* the news that execve succeeded.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType,
};

use crate::error::{Error, Wire};

/// Longest message; an error with a file system's words is far below it.
const MESSAGE_BYTES_MAX: usize = 32 * 1024;

/// What a child says.
#[derive(Debug)]
pub(crate) enum Message {
    /// Waits for its id maps.
    Maps,
    /// Namespaces and mounts are there, the root is not yet changed: hooks may run.
    Hooks,
    /// Set up; the next word starts it.
    Ready,
    /// The master of its terminal.
    Console(OwnedFd),
    /// The process that a helper made: its pid as the caller sees it, and pidfd.
    Process(i32, OwnedFd),
    Failed(Error),
    /// The program runs, or the process is gone.
    End,
}

/// One end.
#[derive(Debug)]
pub(crate) struct Channel(OwnedFd);

impl Channel {
    pub fn pair() -> io::Result<(Self, Self)> {
        let (one, other) = rustix::net::socketpair(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC,
            None,
        )?;
        Ok((Self(one), Self(other)))
    }

    pub fn fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }

    pub fn send(&self, letter: u8) -> io::Result<()> {
        self.send_with(&[letter], None)
    }

    pub fn send_console(&self, master: BorrowedFd<'_>) -> io::Result<()> {
        self.send_with(b"C", Some(master))
    }

    pub fn send_process(&self, pid: i32, pidfd: BorrowedFd<'_>) -> io::Result<()> {
        let mut message = vec![b'P'];
        message.extend(pid.to_ne_bytes());
        self.send_with(&message, Some(pidfd))
    }

    /// Sends an error, if the other end still listens; nothing more can be done about it.
    pub fn send_error(&self, error: Error) {
        let mut message = vec![b'E'];
        if serde_json::to_writer(&mut message, &Wire::from(error)).is_ok() {
            let _ = self.send_with(&message, None);
        }
    }

    fn send_with(&self, bytes: &[u8], fd: Option<BorrowedFd<'_>>) -> io::Result<()> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        let fds = fd.map(|fd| [fd]);
        if let Some(fds) = &fds {
            control.push(SendAncillaryMessage::ScmRights(fds));
        }
        rustix::io::retry_on_intr(|| {
            rustix::net::sendmsg(
                &self.0,
                &[io::IoSlice::new(bytes)],
                &mut control,
                SendFlags::NOSIGNAL,
            )
        })?;
        Ok(())
    }

    /// Waits for a message of the child.
    pub fn receive(&self) -> io::Result<Message> {
        let mut buffer = vec![0; MESSAGE_BYTES_MAX];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let received = match rustix::io::retry_on_intr(|| {
            let mut parts = [io::IoSliceMut::new(&mut buffer)];
            rustix::net::recvmsg(&self.0, &mut parts, &mut control, RecvFlags::CMSG_CLOEXEC)
        }) {
            Ok(received) => received,
            Err(rustix::io::Errno::CONNRESET) => return Ok(Message::End),
            Err(error) => return Err(error.into()),
        };
        let mut fd = None;
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(rights) = message {
                fd = rights.into_iter().next();
            }
        }
        let malformed = || {
            io::Error::new(
                io::ErrorKind::InvalidData,
                "malformed message of the container's init",
            )
        };
        let message = &buffer[..received.bytes];
        Ok(match (message.first(), fd) {
            (None, _) => Message::End,
            (Some(b'M'), _) => Message::Maps,
            (Some(b'H'), _) => Message::Hooks,
            (Some(b'R'), _) => Message::Ready,
            (Some(b'C'), Some(fd)) => Message::Console(fd),
            (Some(b'P'), Some(fd)) => {
                let pid = message[1..].try_into().map_err(|_| malformed())?;
                Message::Process(i32::from_ne_bytes(pid), fd)
            }
            (Some(b'E'), _) => Message::Failed(
                serde_json::from_slice::<Wire>(&message[1..])
                    .map_err(|_| malformed())?
                    .into(),
            ),
            _ => return Err(malformed()),
        })
    }

    /// Waits, in the child, for the caller's word; false if the caller is gone.
    pub fn wait(&self) -> bool {
        let mut byte = [0_u8; 1];
        matches!(
            rustix::io::retry_on_intr(|| rustix::io::read(&self.0, &mut byte)),
            Ok(1)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_arrive_whole_and_the_end_is_seen() {
        let (caller, child) = Channel::pair().expect("pair");
        child.send(b'R').expect("send");
        child.send_process(77, child.fd()).expect("send");
        child.send_error(Error::unsupported("`x`"));
        assert!(matches!(caller.receive().expect("receive"), Message::Ready));
        // The descriptor sent is the child's own end: the line ends only when this one is closed too.
        let Message::Process(77, fd) = caller.receive().expect("receive") else {
            panic!("process")
        };
        let Message::Failed(error) = caller.receive().expect("receive") else {
            panic!("error")
        };
        assert_eq!(error.to_string(), "`x` is not supported");
        caller.send(b'S').expect("send");
        assert!(child.wait());
        drop((child, fd));
        assert!(matches!(caller.receive().expect("receive"), Message::End));
    }
}
