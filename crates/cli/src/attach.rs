//! Copying between the user's standard streams and a hijacked connection.
//!
//! Two plain threads with large buffers: output may be hundreds of megabytes, and the frames of one read that go to
//! the same stream are written by one call.

use crate::output;
use gantry_api::stream::{Decoder, StreamKind};
use gantry_client::Hijacked;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use tokio::sync::oneshot;

const BUFFER_BYTES: usize = 256 * 1024;

/// Which streams are copied.
pub struct Streams {
    pub stdin: bool,
    pub stdout: bool,
    pub stderr: bool,
    /// The process has a terminal: one raw stream, and detach keys are looked for.
    pub tty: bool,
    /// Docker's notation, such as `ctrl-p,ctrl-q`; empty for the default.
    pub detach_keys: String,
}

/// How copying ended.
#[derive(Debug, PartialEq, Eq)]
pub enum Ended {
    /// The daemon closed the stream.
    Output,
    /// The user typed the detach keys.
    Detached,
    /// The daemon reported an error inside the stream, or the stream was broken.
    Failed(String),
}

/// A running copy.
pub struct Copy {
    output: oneshot::Receiver<Ended>,
    detached: Option<oneshot::Receiver<()>>,
}

impl Copy {
    /// Starts copying.
    pub fn start(connection: Hijacked, streams: Streams) -> io::Result<Copy> {
        let Hijacked { stream, early, .. } = connection;
        let stream = Arc::new(stream);
        let (done, output) = oneshot::channel();
        let reader = stream.clone();
        let (tty, stdout, stderr) = (streams.tty, streams.stdout, streams.stderr);
        std::thread::Builder::new()
            .name("output".to_owned())
            .spawn(move || {
                let ended = copy_output(&reader, early, tty, stdout, stderr);
                // The receiver is gone if the command ended for another reason.
                let _ = done.send(ended);
            })?;
        let mut detached = None;
        if streams.stdin {
            let (done, receiver) = oneshot::channel();
            let keys = streams.tty.then(|| detach_sequence(&streams.detach_keys));
            std::thread::Builder::new()
                .name("input".to_owned())
                .spawn(move || {
                    if copy_input(&stream, keys) {
                        let _ = done.send(());
                    } else {
                        // Keeps the channel open: an end of input is no detach.
                        std::mem::forget(done);
                    }
                })?;
            detached = Some(receiver);
        }
        Ok(Copy { output, detached })
    }

    /// Waits until copying ends.
    pub async fn ended(&mut self) -> Ended {
        let lost = || Ended::Failed("the output thread ended".to_owned());
        match &mut self.detached {
            None => (&mut self.output).await.unwrap_or_else(|_| lost()),
            Some(detached) => tokio::select! {
                ended = &mut self.output => ended.unwrap_or_else(|_| lost()),
                Ok(()) = detached => Ended::Detached,
            },
        }
    }
}

fn copy_output(stream: &OwnedFd, early: Vec<u8>, raw: bool, stdout: bool, stderr: bool) -> Ended {
    let mut sink = Sink {
        raw,
        stdout,
        stderr,
        decoder: Decoder::new(),
        joined: Vec::new(),
    };
    if let Err(ended) = sink.take(&early) {
        return ended;
    }
    let mut buffer = vec![0u8; BUFFER_BYTES];
    loop {
        match rustix::io::read(stream, &mut buffer) {
            Ok(0) => return Ended::Output,
            Ok(length) => {
                if let Err(ended) = sink.take(&buffer[..length]) {
                    return ended;
                }
            }
            Err(rustix::io::Errno::INTR) => {}
            // The daemon may close the socket with input unread.
            Err(rustix::io::Errno::CONNRESET) => return Ended::Output,
            Err(error) => return Ended::Failed(error.to_string()),
        }
    }
}

/// Writes a stream, multiplexed or raw, to the standard streams.
pub struct Sink {
    raw: bool,
    stdout: bool,
    stderr: bool,
    decoder: Decoder,
    joined: Vec<u8>,
}

impl Sink {
    /// Makes a sink for both streams; `raw` for a terminal's single stream.
    pub fn new(raw: bool) -> Sink {
        Sink {
            raw,
            stdout: true,
            stderr: true,
            decoder: Decoder::new(),
            joined: Vec::new(),
        }
    }

    /// Takes a piece of the stream.
    pub fn take(&mut self, bytes: &[u8]) -> Result<(), Ended> {
        if self.raw {
            if self.stdout {
                write(StreamKind::Stdout, bytes);
            }
            return Ok(());
        }
        let mut input = bytes;
        let mut current: Option<StreamKind> = None;
        loop {
            match self.decoder.next(&mut input) {
                Ok(Some((StreamKind::SystemError, payload))) => {
                    let text = String::from_utf8_lossy(payload).into_owned();
                    return Err(Ended::Failed(format!(
                        "error from daemon in stream: {text}"
                    )));
                }
                Ok(Some((kind, payload))) => {
                    if current != Some(kind) {
                        self.flush(current);
                        current = Some(kind);
                    }
                    self.joined.extend_from_slice(payload);
                }
                Ok(None) => {
                    self.flush(current);
                    return Ok(());
                }
                Err(error) => {
                    self.flush(current);
                    return Err(Ended::Failed(error.to_string()));
                }
            }
        }
    }

    fn flush(&mut self, kind: Option<StreamKind>) {
        if let Some(kind) = kind {
            let wanted = if kind == StreamKind::Stderr {
                self.stderr
            } else {
                self.stdout
            };
            if wanted && !self.joined.is_empty() {
                write(kind, &self.joined);
            }
        }
        self.joined.clear();
    }
}

fn write(kind: StreamKind, bytes: &[u8]) {
    if kind == StreamKind::Stderr {
        // Nowhere is left to report a failure to.
        let _ = io::stderr().lock().write_all(bytes);
        return;
    }
    // Past std's line buffer: it would search every piece for newlines.
    let mut rest = bytes;
    while !rest.is_empty() {
        match rustix::io::write(io::stdout(), rest) {
            Ok(length) => rest = &rest[length..],
            Err(rustix::io::Errno::INTR) => {}
            Err(rustix::io::Errno::AGAIN) => {
                let mut poll = [rustix::event::PollFd::from_borrowed_fd(
                    rustix::stdio::stdout(),
                    rustix::event::PollFlags::OUT,
                )];
                let _ = rustix::event::poll(&mut poll, None);
            }
            Err(rustix::io::Errno::PIPE) => output::broken_pipe(),
            Err(_) => return,
        }
    }
}

/// Copies standard input to the connection. Returns true when the detach keys were typed.
fn copy_input(stream: &OwnedFd, keys: Option<Vec<u8>>) -> bool {
    let mut stdin = io::stdin().lock();
    let mut buffer = vec![0u8; 64 * 1024];
    let mut matcher = keys.map(Matcher::new);
    loop {
        let length = match stdin.read(&mut buffer) {
            Ok(0) => break,
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(_) => break,
        };
        let typed = &buffer[..length];
        let (bytes, detached) = match &mut matcher {
            None => (typed.to_vec(), false),
            Some(matcher) => matcher.feed(typed),
        };
        if write_all(stream, &bytes).is_err() {
            return false;
        }
        if detached {
            return true;
        }
    }
    if let Some(matcher) = matcher
        && write_all(stream, &matcher.keys[..matcher.matched]).is_err()
    {
        return false;
    }
    Hijacked::close_write(stream.as_fd());
    false
}

fn write_all(stream: &OwnedFd, mut bytes: &[u8]) -> rustix::io::Result<()> {
    while !bytes.is_empty() {
        match rustix::io::write(stream, bytes) {
            Ok(length) => bytes = &bytes[length..],
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Finds the detach sequence in what is typed; a beginning of it is held back until it is decided.
struct Matcher {
    keys: Vec<u8>,
    matched: usize,
}

impl Matcher {
    fn new(keys: Vec<u8>) -> Matcher {
        Matcher { keys, matched: 0 }
    }

    /// Returns what to pass on, and whether the sequence is complete.
    fn feed(&mut self, typed: &[u8]) -> (Vec<u8>, bool) {
        let mut out = Vec::with_capacity(typed.len());
        for byte in typed {
            if self.keys.get(self.matched) == Some(byte) {
                self.matched += 1;
                if self.matched == self.keys.len() {
                    return (out, true);
                }
                continue;
            }
            out.extend_from_slice(&self.keys[..self.matched]);
            self.matched = 0;
            if self.keys.first() == Some(byte) {
                self.matched = 1;
                if self.keys.len() == 1 {
                    return (out, true);
                }
            } else {
                out.push(*byte);
            }
        }
        (out, false)
    }
}

/// Turns `ctrl-p,ctrl-q` into bytes; an unknown notation gives the default.
fn detach_sequence(keys: &str) -> Vec<u8> {
    const DEFAULT: [u8; 2] = [16, 17];
    if keys.is_empty() {
        return DEFAULT.to_vec();
    }
    parse_keys(keys).unwrap_or_else(|| {
        output::error_line(&format!(
            "WARNING: invalid detach escape keys, using default: {keys}"
        ));
        DEFAULT.to_vec()
    })
}

fn parse_keys(keys: &str) -> Option<Vec<u8>> {
    keys.split(',')
        .map(|key| match key.as_bytes() {
            [byte] => Some(*byte),
            _ => match key.strip_prefix("ctrl-")?.as_bytes() {
                [letter @ b'a'..=b'z'] => Some(letter - b'a' + 1),
                b"@" => Some(0),
                b"[" => Some(27),
                b"\\" => Some(28),
                b"]" => Some(29),
                b"^" => Some(30),
                b"_" => Some(31),
                _ => None,
            },
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn detach_keys_are_parsed() {
        assert_eq!(parse_keys("ctrl-p,ctrl-q"), Some(vec![16, 17]));
        assert_eq!(parse_keys("a,ctrl-@,ctrl-["), Some(vec![b'a', 0, 27]));
        assert_eq!(parse_keys("ctrl-1"), None);
        assert_eq!(parse_keys("alt-x"), None);
    }

    #[test]
    fn a_beginning_of_the_sequence_is_passed_on_when_it_breaks_off() {
        let mut matcher = Matcher::new(vec![16, 17]);
        assert_eq!(matcher.feed(b"a\x10"), (b"a".to_vec(), false));
        assert_eq!(matcher.feed(b"b"), (b"\x10b".to_vec(), false));
        assert_eq!(matcher.feed(b"\x10\x10"), (b"\x10".to_vec(), false));
        assert_eq!(matcher.feed(b"\x11rest"), (Vec::new(), true));
    }
}
