//! The connection to one shim, and what waits for a shim to come.
//!
//! Requests are answered in order of arrival by the shim; a reply finds its caller by its number. An answer that does
//! not come within [`ANSWER_MAX`] makes the call fail as unresponsive; the container runs on.

use std::collections::HashMap;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use gantry_shim::protocol::{
    self, Attach, Event, FromShim, HoldWait, Incoming, Outbox, Reply, Request,
};
use tokio::io::Interest;
use tokio::net::UnixStream;
use tokio::sync::oneshot;

use super::Container;
use crate::{Engine, Error};

/// How long a shim may take for an answer. A start has its own, longer limit: it waits for hooks and mounts.
const ANSWER_MAX: Duration = Duration::from_secs(10);
/// How long a start may take.
const START_MAX: Duration = Duration::from_secs(120);

/// The way to a container's shim.
#[derive(Default)]
pub(crate) struct Link {
    pub shim: Option<Arc<Shim>>,
    /// Clients that attached before the start.
    pub attaches: Vec<(Attach, OwnedFd)>,
    /// Connections of clients that wait; each is the dup of one whose response the daemon means to finish itself.
    pub waits: Vec<(u64, HoldWait, OwnedFd)>,
    /// The last number given to one of them.
    pub wait_number: u64,
    /// The shim's process, if this daemon started it.
    pub process: Option<OwnedFd>,
}

impl Link {
    pub(crate) fn next_wait(&mut self) -> u64 {
        self.wait_number += 1;
        self.wait_number
    }
}

/// An answer and its descriptors.
type Answer = (Reply, Vec<OwnedFd>);

/// An open connection to a shim.
pub(crate) struct Shim {
    socket: UnixStream,
    outbox: Mutex<Outbox>,
    calls: Mutex<HashMap<u64, oneshot::Sender<Answer>>>,
    next_id: AtomicU64,
    closed: AtomicBool,
}

/// Why a call to a shim has no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CallError {
    #[error("the container's shim is gone")]
    Gone,
    #[error("the container's shim is unresponsive")]
    TimedOut,
    #[error("encode a request to the shim")]
    Encode(#[source] protocol::Error),
}

impl From<CallError> for Error {
    fn from(error: CallError) -> Error {
        Error::system(error.to_string()).caused_by(error)
    }
}

impl Shim {
    /// Takes a connected socket over; must be called on the runtime.
    pub(crate) fn open(socket: OwnedFd) -> std::io::Result<Arc<Shim>> {
        let socket = std::os::unix::net::UnixStream::from(socket);
        socket.set_nonblocking(true)?;
        Ok(Arc::new(Shim {
            socket: UnixStream::from_std(socket)?,
            outbox: Mutex::default(),
            calls: Mutex::default(),
            next_id: AtomicU64::new(1),
            closed: AtomicBool::new(false),
        }))
    }

    /// Sends a request and waits for its answer.
    pub(crate) async fn call(
        &self,
        request: Request,
        fds: Vec<OwnedFd>,
    ) -> Result<(Reply, Vec<OwnedFd>), CallError> {
        let limit = if matches!(request, Request::Start(_)) {
            START_MAX
        } else {
            ANSWER_MAX
        };
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let (sender, receiver) = oneshot::channel();
        self.calls
            .lock()
            .expect("no holder panics")
            .insert(id, sender);
        let answer = async {
            self.outbox
                .lock()
                .expect("no holder panics")
                .push(id, &request, fds)
                .map_err(CallError::Encode)?;
            self.flush().await?;
            receiver.await.map_err(|_| CallError::Gone)
        };
        let result = tokio::time::timeout(limit, answer)
            .await
            .unwrap_or(Err(CallError::TimedOut));
        self.calls.lock().expect("no holder panics").remove(&id);
        result
    }

    /// Says the first word on a connection.
    pub(crate) async fn hello(&self) -> Result<(), CallError> {
        match self
            .call(
                Request::Hello {
                    version: protocol::VERSION,
                },
                Vec::new(),
            )
            .await?
        {
            (Reply::Hello { .. }, _) => Ok(()),
            _ => Err(CallError::Gone),
        }
    }

    async fn flush(&self) -> Result<(), CallError> {
        loop {
            if self.closed.load(Ordering::Acquire) {
                return Err(CallError::Gone);
            }
            // Told as an error so that the socket's readiness is known to be used up.
            let flushed = self.socket.try_io(Interest::WRITABLE, || {
                let mut outbox = self.outbox.lock().expect("no holder panics");
                match outbox.flush(self.socket.as_fd())? {
                    true => Ok(()),
                    false => Err(std::io::ErrorKind::WouldBlock.into()),
                }
            });
            match flushed {
                Ok(()) => return Ok(()),
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                    self.socket.writable().await.map_err(|_| CallError::Gone)?;
                }
                Err(_) => return Err(CallError::Gone),
            }
        }
    }

    /// Reads until the shim is gone, then fails every call that still waits.
    async fn read(&self, mut on_event: impl FnMut(Event) + Send) {
        let mut decoder = protocol::Decoder::default();
        let mut buffer = vec![0; 4096];
        'connection: loop {
            if self.socket.readable().await.is_err() {
                break;
            }
            let mut fds = Vec::new();
            let received = self.socket.try_io(Interest::READABLE, || {
                protocol::recv(self.socket.as_fd(), &mut buffer, &mut fds)
            });
            match received {
                Ok(0) => break,
                Ok(count) => decoder.push(&buffer[..count], fds),
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => continue,
                Err(_) => break,
            }
            loop {
                match decoder.next::<FromShim>() {
                    Ok(None) => break,
                    Ok(Some(Incoming::Frame {
                        id,
                        body: FromShim::Reply(reply),
                        fds,
                    })) => {
                        if let Some(caller) =
                            self.calls.lock().expect("no holder panics").remove(&id)
                        {
                            // The caller may have given up; then nobody wants the answer.
                            let _ = caller.send((reply, fds));
                        }
                    }
                    Ok(Some(Incoming::Frame {
                        body: FromShim::Event(event),
                        ..
                    })) => on_event(event),
                    // A newer shim's frame: nothing that this daemon must act on.
                    Ok(Some(_)) => {}
                    Err(error) => {
                        tracing::error!(%error, "a shim's connection cannot be read any further");
                        break 'connection;
                    }
                }
            }
        }
        self.closed.store(true, Ordering::Release);
        self.calls.lock().expect("no holder panics").clear();
    }
}

impl Engine {
    /// Lets `shim` serve `container` from now on: its events are acted on, its end is noticed.
    /// `spawned` is the process if this daemon started it: it is waited for, so that no zombie stays.
    pub(crate) fn follow(
        &self,
        container: &Arc<Container>,
        shim: &Arc<Shim>,
        spawned: Option<gantry_shim::Spawned>,
    ) {
        container.link.lock().expect("no holder panics").shim = Some(shim.clone());
        let (engine, container, shim) = (self.clone(), container.clone(), shim.clone());
        tokio::spawn(async move {
            let mut exit = None;
            shim.read(|event| match event {
                Event::Exited(record) => {
                    // Handled beside the reader: the teardown itself calls the shim.
                    if exit.is_none() {
                        exit = Some(record.clone());
                        let (engine, container, shim) =
                            (engine.clone(), container.clone(), shim.clone());
                        tokio::spawn(async move {
                            engine.exited(&container, Some(&shim), record).await
                        });
                    }
                }
                Event::ExecExited {
                    exec,
                    exit_code,
                    at_unix_ns,
                    ..
                } => {
                    engine.exec_exited(&container, &exec, exit_code, at_unix_ns);
                }
                Event::Oom { .. } => {
                    let (engine, container) = (engine.clone(), container.clone());
                    tokio::spawn(async move { engine.out_of_memory(&container).await });
                }
                Event::Detached { exec: None } => {
                    engine.container_event("detach", &container.record(), &[], None)
                }
                Event::Detached { exec: Some(exec) } => engine.exec_detached(&container, &exec),
                Event::AttachEnded { .. } => {}
            })
            .await;
            if let Some(mut spawned) = spawned {
                // It ends when its connection does; this waits for the moment in between. First, and by itself: what
                // comes next waits for whoever works on the container.
                tokio::task::spawn_blocking(move || spawned.child.wait());
            }
            if exit.is_none() {
                engine.shim_gone(&container, &shim).await;
            }
        });
    }

    /// Returns the connection to the container's shim.
    pub(crate) fn shim(&self, container: &Container) -> Result<Arc<Shim>, Error> {
        let shim = container
            .link
            .lock()
            .expect("no holder panics")
            .shim
            .clone();
        shim.ok_or_else(|| super::not_running(&container.id))
    }
}
