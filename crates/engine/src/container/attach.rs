//! `attach`: the client's connection is handed to the shim, which serves it without the daemon.

use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::Arc;

use gantry_shim::protocol::{self, Attach, Reply, Request};

use super::{Container, Status};
use crate::{Engine, Error, Result};

/// Detach keys when the client sends none.
const DETACH_KEYS_DEFAULT: &str = "ctrl-p,ctrl-q";

/// What a client wants to be attached to.
#[derive(Clone, Debug, Default)]
pub struct AttachOptions {
    pub stdin: bool,
    pub stdout: bool,
    pub stderr: bool,
    /// Sends the log so far first.
    pub logs: bool,
    /// Follows what comes.
    pub stream: bool,
    pub detach_keys: Option<String>,
}

/// A client's connection after the HTTP upgrade.
#[derive(Debug)]
pub struct AttachIo {
    /// The raw socket; nobody else reads or writes it any more.
    pub fd: OwnedFd,
    /// Bytes of the stream that HTTP parsing had read already.
    pub early: Vec<u8>,
    /// Whether output is framed with eight-byte headers.
    pub multiplexed: bool,
    /// What the client is sent first, the head of the HTTP response. It is written no earlier than the stream is sure
    /// to be served: a client that starts the container as soon as it sees the head finds itself attached.
    pub head: Vec<u8>,
}

impl AttachIo {
    /// Writes the head. Never waits: nothing was sent before it on this response, so it fits into the socket's buffer.
    pub(crate) fn write_head(&mut self) -> Result<()> {
        let head = std::mem::take(&mut self.head);
        if head.is_empty() {
            return Ok(());
        }
        match gantry_sys::unix::send(self.fd.as_fd(), &head) {
            Ok(count) if count == head.len() => Ok(()),
            Ok(_) => Err(Error::system(
                "a client does not read the answer to its attach",
            )),
            Err(error) => Err(Error::io("answer a client that attaches", error)),
        }
    }
}

/// An attach that is checked and waits for the upgrade.
pub struct Attachment {
    engine: Engine,
    container: Arc<Container>,
    options: AttachOptions,
    detach_keys: Vec<u8>,
    /// The container has a terminal, so output is not framed.
    pub tty: bool,
}

impl Engine {
    /// Checks that a client may attach.
    ///
    /// # Errors
    /// Not found; paused or restarting; malformed detach keys.
    pub async fn attach(&self, name: &str, options: AttachOptions) -> Result<Attachment> {
        let container = self.container(name)?;
        let record = container.record();
        match record.state.status {
            Status::Paused => {
                return Err(Error::conflict(format!(
                    "container {name} is paused, unpause the container before attach"
                )));
            }
            Status::Restarting => {
                return Err(Error::conflict(format!(
                    "container {name} is restarting, wait until the container is running"
                )));
            }
            _ => {}
        }
        let detach_keys = detach_keys(options.detach_keys.as_deref())?;
        Ok(Attachment {
            engine: self.clone(),
            container,
            options,
            detach_keys,
            tty: record.config.tty,
        })
    }
}

impl Attachment {
    /// Gives the connection away; it lives as long as the client and the container want.
    pub async fn give(self, mut io: AttachIo) -> Result<()> {
        let record = self.container.record();
        let mut attach = Attach {
            exec: None,
            stdin: self.options.stdin && record.config.open_stdin,
            stdout: self.options.stdout,
            stderr: self.options.stderr,
            multiplexed: io.multiplexed,
            detach_keys: self.detach_keys,
            early: std::mem::take(&mut io.early),
            from: None,
            version: protocol::VERSION,
        };
        let shim = self
            .container
            .link
            .lock()
            .expect("no holder panics")
            .shim
            .clone();
        if self.options.logs {
            io.write_head()?;
            let position = self
                .engine
                .replay_to(&self.container, shim.as_ref(), &io.fd, &attach)
                .await?;
            attach.from = position;
        }
        if !self.options.stream {
            return io.write_head();
        }
        self.engine.container_event("attach", &record, &[], None);
        // A start that came between the check and now has its shim by now; without one the connection goes along with
        // the next start. The head is written under the lock, so that no start comes between the two.
        let shim = {
            let mut link = self.container.link.lock().expect("no holder panics");
            io.write_head()?;
            match link.shim.clone() {
                Some(shim) => shim,
                None => {
                    link.attaches.push((attach, io.fd));
                    return Ok(());
                }
            }
        };
        match shim.call(Request::Attach(attach), vec![io.fd]).await? {
            (Reply::Error { message }, _) => Err(Error::system(message)),
            _ => Ok(()),
        }
    }
}

/// Parses a comma-separated key sequence: letters and `ctrl-` with a letter or one of `@ [ \ ] ^ _`.
pub(crate) fn detach_keys(text: Option<&str>) -> Result<Vec<u8>> {
    let text = text
        .filter(|text| !text.is_empty())
        .unwrap_or(DETACH_KEYS_DEFAULT);
    text.split(',')
        .map(|key| {
            let byte = match key.strip_prefix("ctrl-").map(str::as_bytes) {
                Some([letter @ b'a'..=b'z']) => letter - b'a' + 1,
                Some(b"@") => 0,
                Some(b"[") => 27,
                Some(b"\\") => 28,
                Some(b"]") => 29,
                Some(b"^") => 30,
                Some(b"_") => 31,
                None if key.len() == 1 => key.as_bytes()[0],
                _ => return Err(Error::invalid(format!("Unknown character: '{key}'"))),
            };
            Ok(byte)
        })
        .collect::<Result<Vec<u8>>>()
        .map_err(|error| Error::invalid(format!("Invalid detach keys ({text}) provided: {error}")))
}

#[cfg(test)]
mod tests {
    use super::detach_keys;

    #[test]
    fn key_sequences_become_bytes() {
        assert_eq!(detach_keys(None).unwrap(), [16, 17]);
        assert_eq!(
            detach_keys(Some("ctrl-@,a,ctrl-[,ctrl-_,Z")).unwrap(),
            [0, b'a', 27, 31, b'Z']
        );
        for bad in ["ctrl-1", "ab", "ctrl-", "a,,b"] {
            assert!(detach_keys(Some(bad)).is_err(), "{bad}");
        }
    }
}
