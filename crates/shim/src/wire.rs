//! Frames on a socket: cutting the stream, sending with descriptors, a blocking client. What they say is
//! [`crate::protocol`]'s.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use gantry_sys::unix;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::protocol::{Envelope, Event, FRAME_BYTES_MAX, FromShim, Reply, Request};

/// A connection that cannot be read any further.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("frame of {length} bytes, at most {FRAME_BYTES_MAX} are allowed")]
    TooLong { length: usize },
    #[error("frame is not an envelope")]
    Envelope(#[source] serde_json::Error),
    #[error("encode frame")]
    Encode(#[source] serde_json::Error),
    #[error("frame names {named} descriptors, {arrived} arrived")]
    Descriptors { named: u32, arrived: usize },
    #[error("shim answered with an unexpected frame")]
    Unexpected,
    #[error("shim closed the connection")]
    Closed,
    #[error("shim did not answer in time")]
    TimedOut,
    #[error("socket of the shim")]
    Io(#[from] io::Error),
}

/// Encodes one frame that bears `fds` descriptors.
pub fn encode<T: Serialize>(id: u64, fds: u32, body: &T) -> Result<Vec<u8>, Error> {
    let mut frame = vec![0; 4];
    serde_json::to_writer(&mut frame, &Envelope { id, fds, body }).map_err(Error::Encode)?;
    let length = frame.len() - 4;
    if length > FRAME_BYTES_MAX {
        return Err(Error::TooLong { length });
    }
    frame[..4].copy_from_slice(&(length as u32).to_le_bytes());
    Ok(frame)
}

/// Frames that wait to be sent; call [`Outbox::flush`] whenever the socket is writable.
#[derive(Debug, Default)]
pub struct Outbox {
    frames: VecDeque<(Vec<u8>, Vec<OwnedFd>)>,
    sent: usize,
    bytes: usize,
}

impl Outbox {
    /// Queues one frame with its descriptors.
    pub fn push<T: Serialize>(
        &mut self,
        id: u64,
        body: &T,
        fds: Vec<OwnedFd>,
    ) -> Result<(), Error> {
        let frame = encode(id, fds.len() as u32, body)?;
        self.bytes += frame.len();
        self.frames.push_back((frame, fds));
        Ok(())
    }

    /// Returns the bytes not yet sent.
    pub fn bytes(&self) -> usize {
        self.bytes - self.sent
    }

    /// Tells whether all is sent.
    pub fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    /// Sends what the socket takes without blocking; `true` if nothing is left.
    pub fn flush(&mut self, socket: BorrowedFd<'_>) -> io::Result<bool> {
        while let Some((frame, fds)) = self.frames.front_mut() {
            match send_frame(socket, &frame[self.sent..], fds) {
                Ok(count) => {
                    // The descriptors went with the first byte; ours may be closed.
                    fds.clear();
                    self.sent += count;
                    if self.sent == frame.len() {
                        self.bytes -= frame.len();
                        self.sent = 0;
                        self.frames.pop_front();
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }
}

/// Sends bytes of a frame, with descriptors on the first; never blocks, never raises SIGPIPE. Returns how many bytes
/// were taken (if any were, the descriptors were too).
pub fn send_frame(socket: BorrowedFd<'_>, bytes: &[u8], fds: &[OwnedFd]) -> io::Result<usize> {
    let borrowed: Vec<BorrowedFd<'_>> = fds.iter().map(AsFd::as_fd).collect();
    unix::send_with_fds(socket, bytes, &borrowed)
}

/// Receives bytes into `buffer` and descriptors into `fds`; never blocks. 0 is the end of the stream.
pub fn recv(
    socket: BorrowedFd<'_>,
    buffer: &mut [u8],
    fds: &mut Vec<OwnedFd>,
) -> io::Result<usize> {
    unix::recv_with_fds(socket, buffer, fds)
}

/// What [`Decoder::next`] found.
#[derive(Debug)]
pub enum Incoming<T> {
    Frame {
        id: u64,
        body: T,
        fds: Vec<OwnedFd>,
    },
    /// An envelope whose verb this side does not know; its descriptors are closed.
    Unknown {
        id: u64,
        verb: String,
    },
    /// An envelope with a known verb whose fields do not fit.
    Invalid {
        id: u64,
        verb: String,
        message: String,
    },
}

/// Cuts the stream into frames.
#[derive(Debug, Default)]
pub struct Decoder {
    buffer: Vec<u8>,
    start: usize,
    fds: VecDeque<OwnedFd>,
}

impl Decoder {
    /// Takes what one [`recv`] gave.
    pub fn push(&mut self, bytes: &[u8], fds: impl IntoIterator<Item = OwnedFd>) {
        self.buffer.extend_from_slice(bytes);
        self.fds.extend(fds);
    }

    /// Returns the next whole frame, `None` if more bytes are needed. An error ends the connection.
    // It is not an Iterator: the item's type is chosen per call.
    #[expect(clippy::should_implement_trait, reason = "generic in the body's type")]
    pub fn next<T: DeserializeOwned>(&mut self) -> Result<Option<Incoming<T>>, Error> {
        let waiting = &self.buffer[self.start..];
        let Some(head) = waiting.first_chunk::<4>() else {
            return Ok(None);
        };
        let length = u32::from_le_bytes(*head) as usize;
        if length > FRAME_BYTES_MAX {
            return Err(Error::TooLong { length });
        }
        let Some(json) = waiting.get(4..4 + length) else {
            return Ok(None);
        };
        let parsed = serde_json::from_slice::<Envelope<T>>(json);
        let incoming = match parsed {
            Ok(envelope) => {
                let count = envelope.fds as usize;
                if count > self.fds.len() {
                    return Err(Error::Descriptors {
                        named: envelope.fds,
                        arrived: self.fds.len(),
                    });
                }
                Incoming::Frame {
                    id: envelope.id,
                    body: envelope.body,
                    fds: self.fds.drain(..count).collect(),
                }
            }
            Err(error) => {
                // The slow way, for a peer of another age: find out whose fault it is.
                let envelope: Envelope<serde_json::Value> =
                    serde_json::from_slice(json).map_err(Error::Envelope)?;
                let count = (envelope.fds as usize).min(self.fds.len());
                self.fds.drain(..count);
                let verb = verb_of(&envelope.body);
                let text = error.to_string();
                if text.starts_with("unknown variant") && text.contains(&format!("`{verb}`")) {
                    Incoming::Unknown {
                        id: envelope.id,
                        verb,
                    }
                } else {
                    Incoming::Invalid {
                        id: envelope.id,
                        verb,
                        message: text,
                    }
                }
            }
        };
        self.start += 4 + length;
        if self.start == self.buffer.len() {
            // A large frame's memory is given back: frames are rare.
            self.buffer = Vec::new();
            self.start = 0;
        }
        Ok(Some(incoming))
    }
}

/// Returns the verb's name; of a frame from the shim, that of the reply or event in it.
fn verb_of(body: &serde_json::Value) -> String {
    match body {
        serde_json::Value::String(verb) => verb.clone(),
        serde_json::Value::Object(map) => match map.iter().next() {
            Some((name, inner)) if name == "Reply" || name == "Event" => verb_of(inner),
            Some((name, _)) => name.clone(),
            None => String::new(),
        },
        _ => String::new(),
    }
}

/// A blocking client: one request at a time, events kept aside.
#[derive(Debug)]
pub struct Client {
    socket: OwnedFd,
    decoder: Decoder,
    events: VecDeque<Event>,
    last_id: u64,
    timeout: Duration,
}

impl Client {
    /// Wraps a connected socket; each call waits at most `timeout`.
    pub fn new(socket: OwnedFd, timeout: Duration) -> Self {
        Client {
            socket,
            decoder: Decoder::default(),
            events: VecDeque::new(),
            last_id: 0,
            timeout,
        }
    }

    /// Sends a request and returns its reply with the reply's descriptors.
    pub fn call(
        &mut self,
        request: &Request,
        fds: Vec<OwnedFd>,
    ) -> Result<(Reply, Vec<OwnedFd>), Error> {
        let deadline = Instant::now() + self.timeout;
        self.last_id += 1;
        let mut outbox = Outbox::default();
        outbox.push(self.last_id, request, fds)?;
        while !outbox.flush(self.socket.as_fd())? {
            unix::wait_writable(self.socket.as_fd(), remaining(deadline)?)?;
        }
        loop {
            if let Some((id, FromShim::Reply(reply), fds)) = self.receive(deadline)?
                && id == self.last_id
            {
                return Ok((reply, fds));
            }
        }
    }

    /// Waits for the next event.
    pub fn event(&mut self) -> Result<Event, Error> {
        let deadline = Instant::now() + self.timeout;
        loop {
            if let Some(event) = self.events.pop_front() {
                return Ok(event);
            }
            self.receive(deadline)?;
        }
    }

    /// Receives one frame; an event is queued and `None` returned.
    fn receive(
        &mut self,
        deadline: Instant,
    ) -> Result<Option<(u64, FromShim, Vec<OwnedFd>)>, Error> {
        loop {
            match self.decoder.next::<FromShim>()? {
                Some(Incoming::Frame {
                    body: FromShim::Event(event),
                    ..
                }) => {
                    self.events.push_back(event);
                    return Ok(None);
                }
                Some(Incoming::Frame { id, body, fds }) => return Ok(Some((id, body, fds))),
                Some(_) => return Err(Error::Unexpected),
                None => {}
            }
            unix::wait_readable(self.socket.as_fd(), remaining(deadline)?)?;
            let mut buffer = [0; 4096];
            let mut fds = Vec::new();
            match recv(self.socket.as_fd(), &mut buffer, &mut fds) {
                Ok(0) => return Err(Error::Closed),
                Ok(count) => self.decoder.push(&buffer[..count], fds),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

fn remaining(deadline: Instant) -> Result<Duration, Error> {
    deadline
        .checked_duration_since(Instant::now())
        .ok_or(Error::TimedOut)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::{Attach, HoldWait};

    fn decode_all<T: DeserializeOwned + std::fmt::Debug>(bytes: &[u8], step: usize) -> Vec<String> {
        let mut decoder = Decoder::default();
        let mut found = Vec::new();
        for piece in bytes.chunks(step) {
            decoder.push(piece, []);
            while let Some(incoming) = decoder.next::<T>().unwrap() {
                found.push(format!("{incoming:?}"));
            }
        }
        found
    }

    fn raw(json: &str) -> Vec<u8> {
        let mut frame = (json.len() as u32).to_le_bytes().to_vec();
        frame.extend_from_slice(json.as_bytes());
        frame
    }

    #[test]
    fn frames_survive_any_cut() {
        let mut stream = encode(1, 0, &Request::Hello { version: 1 }).unwrap();
        stream.extend(encode(2, 0, &Request::CloseStdin).unwrap());
        stream.extend(
            encode(
                3,
                0,
                &Request::Attach(Attach {
                    early: vec![0, 255, 10],
                    stdin: true,
                    ..Attach::default()
                }),
            )
            .unwrap(),
        );
        let whole = decode_all::<Request>(&stream, stream.len());
        assert_eq!(whole.len(), 3);
        assert!(whole[2].contains("early: [0, 255, 10]"), "{}", whole[2]);
        for step in [1, 3, 7] {
            assert_eq!(decode_all::<Request>(&stream, step), whole);
        }
    }

    #[test]
    fn an_unknown_verb_is_told_from_a_wrong_field() {
        for (json, expected) in [
            (
                r#"{"id":7,"body":{"Freeze":{"deep":true}}}"#,
                r#"Unknown { id: 7, verb: "Freeze" }"#,
            ),
            (
                r#"{"id":8,"body":"Thaw"}"#,
                r#"Unknown { id: 8, verb: "Thaw" }"#,
            ),
            (
                r#"{"id":9,"body":{"Signal":{"signal":9,"later":1}},"more":[]}"#,
                "Frame { id: 9, body: Signal",
            ),
            (
                r#"{"id":10,"body":{"Signal":{}}}"#,
                r#"Invalid { id: 10, verb: "Signal""#,
            ),
        ] {
            let found = decode_all::<Request>(&raw(json), 1000);
            assert!(found[0].starts_with(expected), "{json}: {}", found[0]);
        }
    }

    #[test]
    fn an_unknown_event_of_a_newer_shim_is_told_so() {
        let found =
            decode_all::<FromShim>(&raw(r#"{"id":0,"body":{"Event":{"Frozen":{}}}}"#), 1000);
        assert_eq!(found[0], r#"Unknown { id: 0, verb: "Frozen" }"#);
    }

    #[test]
    fn broken_streams_are_errors() {
        let mut decoder = Decoder::default();
        decoder.push(&u32::MAX.to_le_bytes(), []);
        assert!(matches!(
            decoder.next::<Request>(),
            Err(Error::TooLong { .. })
        ));
        let mut decoder = Decoder::default();
        decoder.push(&raw("[]"), []);
        assert!(matches!(decoder.next::<Request>(), Err(Error::Envelope(_))));
        let mut decoder = Decoder::default();
        decoder.push(&raw(r#"{"id":1,"fds":1,"body":"RootFd"}"#), []);
        assert!(matches!(
            decoder.next::<Request>(),
            Err(Error::Descriptors {
                named: 1,
                arrived: 0
            })
        ));
    }

    #[test]
    fn descriptors_reach_the_frame_that_names_them() {
        let (near, far) = unix::socketpair().unwrap();
        let (left, right) = unix::socketpair().unwrap();
        let mut outbox = Outbox::default();
        outbox.push(1, &Request::State, vec![]).unwrap();
        outbox
            .push(2, &Request::HoldWait(HoldWait::default()), vec![left])
            .unwrap();
        outbox
            .push(3, &Request::HoldWait(HoldWait::default()), vec![right])
            .unwrap();
        assert!(outbox.flush(near.as_fd()).unwrap());
        let mut decoder = Decoder::default();
        let mut counts = Vec::new();
        while counts.len() < 3 {
            let (mut buffer, mut fds) = ([0; 64], Vec::new());
            let count = recv(far.as_fd(), &mut buffer, &mut fds).unwrap();
            decoder.push(&buffer[..count], fds);
            while let Some(Incoming::Frame { id, fds, .. }) = decoder.next::<Request>().unwrap() {
                counts.push((id, fds.len()));
            }
        }
        assert_eq!(counts, [(1, 0), (2, 1), (3, 1)]);
    }
}
