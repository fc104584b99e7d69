//! Moves bytes: from the process to its log and its clients, and from clients to the process.
//!
//! The log comes first. A client that is [`LAG_BYTES_MAX`](crate::client::LAG_BYTES_MAX) behind stalls the pipe it
//! listens to, until the process has ended: then everything is read, at most what the pipes hold.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use gantry_sys::epoll::EventFlags;
use gantry_sys::unix;

use crate::client::{Client, Ending};
use crate::exit;
use crate::log::Stream;
use crate::log::reader::{Options, Reader};
use crate::protocol::{Attach, Event};
use crate::supervisor::{Kind, Phase, Supervisor};
use crate::task::{CONTAINER, Input, Ours, Output, Task};

/// How much is read at once.
const READ_BYTES: usize = 128 << 10;
/// How many reads one stream gets before the others have their turn.
const READS_MAX: usize = 8;
/// What is read at most, whoever lags, once a process has ended: twice what its pipe can hold.
const LEFT_BYTES_MAX: usize = 2 << 20;

/// What a new task is made of.
pub struct NewTask {
    pub id: u64,
    pub exec: Option<String>,
    pub pid: i32,
    pub pidfd: OwnedFd,
    pub tty: bool,
    pub stdin_once: bool,
    pub console: Option<OwnedFd>,
    pub ours: Ours,
}

fn output_kind(stream: Stream) -> Kind {
    match stream {
        Stream::Stdout => Kind::Stdout,
        Stream::Stderr => Kind::Stderr,
    }
}

impl Supervisor {
    /// Takes a started process under supervision.
    pub fn add_task(&mut self, new: NewTask) -> io::Result<()> {
        let NewTask {
            id,
            exec,
            pid,
            pidfd,
            tty,
            stdin_once,
            console,
            ours,
        } = new;
        self.epoll
            .add(pidfd.as_fd(), Kind::Process.token(id), EventFlags::IN)?;
        let mut task = Task {
            id,
            exec,
            pid,
            pidfd,
            tty,
            stdin_once,
            stdin: ours.stdin.map(|fd| Input {
                fd,
                queue: Default::default(),
                closing: false,
                registered: false,
            }),
            stdout: Output {
                fd: ours.stdout,
                registered: false,
            },
            stderr: Output {
                fd: ours.stderr,
                registered: false,
            },
            console,
            exit_code: None,
            exited_at_ns: 0,
            drain_until: None,
            finished: false,
        };
        for stream in [Stream::Stdout, Stream::Stderr] {
            let output = task.output(stream);
            if let Some(fd) = &output.fd {
                self.epoll
                    .add(fd.as_fd(), output_kind(stream).token(id), EventFlags::IN)?;
                output.registered = true;
            }
        }
        self.tasks.push(task);
        Ok(())
    }

    pub fn task(&mut self, id: u64) -> Option<&mut Task> {
        self.tasks.iter_mut().find(|task| task.id == id)
    }

    /// Reads one output stream. `all`: what an ended process has left in it, whoever lags.
    pub fn pump(&mut self, id: u64, stream: Stream, all: bool) {
        let mut buffer = std::mem::take(&mut self.buffer);
        if buffer.is_empty() {
            buffer.resize(READ_BYTES, 0);
        }
        let (mut reads, mut bytes) = (0, 0);
        loop {
            if if all {
                bytes >= LEFT_BYTES_MAX
            } else {
                reads == READS_MAX || self.stalled(id, stream)
            } {
                break;
            }
            reads += 1;
            let Some(task) = self.task(id) else { break };
            let ended = task.exit_code.is_some();
            let Some(fd) = &task.output(stream).fd else {
                break;
            };
            match rustix::io::read(fd, &mut buffer[..]) {
                Ok(count) if count > 0 => {
                    bytes += count;
                    self.deliver(id, stream, &buffer[..count]);
                    // A short read has emptied the pipe; the process's end is still to be seen.
                    if count < buffer.len() / 2 && !ended {
                        break;
                    }
                }
                Err(rustix::io::Errno::INTR) => {}
                Err(rustix::io::Errno::AGAIN) => break,
                // The end; a terminal whose last user is gone says EIO.
                Ok(_) | Err(_) => {
                    self.end_output(id, stream);
                    break;
                }
            }
        }
        self.buffer = buffer;
    }

    /// Hands output to the log, then to the clients.
    fn deliver(&mut self, id: u64, stream: Stream, bytes: &[u8]) {
        if id == CONTAINER {
            self.log.write(stream, bytes, exit::realtime_ns());
        }
        if self.tasks.iter().any(|task| task.id == id && task.finished) {
            return;
        }
        for client in self.clients.iter_mut().filter(|client| client.task == id) {
            client.deliver(stream, bytes);
        }
    }

    fn end_output(&mut self, id: u64, stream: Stream) {
        self.close_output(id, stream);
        if id == CONTAINER {
            self.log.finish(stream, exit::realtime_ns());
        }
        let done = self
            .task(id)
            .is_some_and(|task| task.exit_code.is_some() && !task.outputs_open());
        if done {
            self.finish_task(id);
            self.drop_finished_tasks();
        }
    }

    pub fn close_output(&mut self, id: u64, stream: Stream) {
        let Some(task) = self.tasks.iter_mut().find(|task| task.id == id) else {
            return;
        };
        let output = task.output(stream);
        if let Some(fd) = output.fd.take()
            && output.registered
        {
            let _ = self.epoll.delete(fd.as_fd());
        }
        output.registered = false;
    }

    fn stalled(&self, id: u64, stream: Stream) -> bool {
        self.clients
            .iter()
            .any(|client| client.task == id && client.lags(stream))
    }

    /// Stops to wait for output that nobody can take, and begins again.
    pub fn update_outputs(&mut self) {
        for index in 0..self.tasks.len() {
            for stream in [Stream::Stdout, Stream::Stderr] {
                let Some(task) = self.tasks.get(index) else {
                    return;
                };
                let wanted = !self.stalled(task.id, stream);
                let Some(task) = self.tasks.get_mut(index) else {
                    return;
                };
                let token = output_kind(stream).token(task.id);
                let output = task.output(stream);
                let Some(fd) = &output.fd else { continue };
                if output.registered != wanted {
                    let result = if wanted {
                        self.epoll.add(fd.as_fd(), token, EventFlags::IN)
                    } else {
                        self.epoll.delete(fd.as_fd())
                    };
                    if result.is_ok() {
                        output.registered = wanted;
                    }
                }
            }
        }
    }

    /// Takes a handed over connection. `id` is the task's.
    pub fn add_client(&mut self, id: u64, attach: Attach, fd: OwnedFd) -> Result<(), String> {
        let replay = match attach.from {
            Some(position) if id == CONTAINER => {
                let options = Options {
                    stdout: attach.stdout,
                    stderr: attach.stderr,
                    multiplexed: attach.multiplexed,
                    ..Options::everything()
                };
                let reader = Reader::open_at(
                    self.log_config.driver,
                    &self.log_config.path,
                    options,
                    position,
                );
                Some(reader.map_err(|error| format!("open the log: {error}"))?)
            }
            _ => None,
        };
        let client_id = self.id();
        let Some(task) = self.task(id) else {
            return Err("no such process".to_owned());
        };
        let keys = if task.tty {
            attach.detach_keys.clone()
        } else {
            Vec::new()
        };
        let mut client = Client::new(client_id, id, fd, &attach, keys, replay);
        client.flush(&self.log);
        self.clients.push(client);
        if attach.stdin && !attach.early.is_empty() {
            self.client_input(client_id, &attach.early);
        }
        Ok(())
    }

    /// Forwards input of one client.
    fn client_input(&mut self, client_id: u64, bytes: &[u8]) {
        let Some(client) = self
            .clients
            .iter_mut()
            .find(|client| client.id == client_id)
        else {
            return;
        };
        let task_id = client.task;
        let mut forward = Vec::new();
        let detached = client.keys.feed(bytes, &mut forward);
        if detached {
            client.ending = Some(Ending::Detached);
            client.reading = false;
        }
        self.push_stdin(task_id, &forward);
    }

    fn push_stdin(&mut self, id: u64, bytes: &[u8]) {
        let Some(task) = self.tasks.iter_mut().find(|task| task.id == id) else {
            return;
        };
        // Whoever does not read its input any more gets none.
        let Some(input) = task.stdin.as_mut().filter(|input| !input.closing) else {
            return;
        };
        input.queue.push(bytes);
        self.flush_stdin(id);
    }

    /// Writes queued input; closes stdin if that was the last.
    pub fn flush_stdin(&mut self, id: u64) {
        let Some(task) = self.tasks.iter_mut().find(|task| task.id == id) else {
            return;
        };
        let Some(input) = task.stdin.as_mut() else {
            return;
        };
        let mut broken = false;
        while !input.queue.is_empty() {
            match rustix::io::write(&input.fd, input.queue.waiting()) {
                Ok(count) => input.queue.consume(count),
                Err(rustix::io::Errno::INTR) => {}
                Err(rustix::io::Errno::AGAIN) => break,
                Err(_) => {
                    broken = true;
                    break;
                }
            }
        }
        let waits = !input.queue.is_empty() && !broken;
        if waits != input.registered {
            let result = if waits {
                self.epoll
                    .add(input.fd.as_fd(), Kind::Stdin.token(id), EventFlags::OUT)
            } else {
                self.epoll.delete(input.fd.as_fd())
            };
            if result.is_ok() {
                input.registered = waits;
            }
        }
        if broken || (input.closing && input.queue.is_empty()) {
            task.stdin = None;
        }
    }

    pub fn stdin_event(&mut self, id: u64) {
        self.flush_stdin(id);
    }

    /// Closes stdin once what is queued is written.
    pub fn close_stdin(&mut self, id: u64) {
        if let Some(input) = self.task(id).and_then(|task| task.stdin.as_mut()) {
            input.closing = true;
        }
        self.flush_stdin(id);
    }

    pub fn client_event(&mut self, client_id: u64, flags: EventFlags) {
        let log = &self.log;
        let Some(client) = self
            .clients
            .iter_mut()
            .find(|client| client.id == client_id)
        else {
            return;
        };
        if flags.contains(EventFlags::OUT) {
            client.flush(log);
        }
        if flags.intersects(EventFlags::HUP | EventFlags::ERR) {
            // Both directions are closed: output has no reader, input may still wait to be read.
            client.gone = true;
            client.out.clear();
        }
        if flags.intersects(EventFlags::IN | EventFlags::RDHUP | EventFlags::HUP | EventFlags::ERR)
        {
            self.read_client(client_id);
        }
    }

    /// Tells whether the process's input takes more now. Without input, what clients send is thrown away.
    fn stdin_ready(&self, id: u64) -> bool {
        let task = self.tasks.iter().find(|task| task.id == id);
        task.and_then(|task| task.stdin.as_ref())
            .is_none_or(|input| input.queue.is_empty())
    }

    fn read_client(&mut self, client_id: u64) {
        let mut buffer = std::mem::take(&mut self.buffer);
        if buffer.is_empty() {
            buffer.resize(READ_BYTES, 0);
        }
        for _ in 0..READS_MAX {
            let Some(client) = self.clients.iter().find(|client| client.id == client_id) else {
                break;
            };
            if !client.reading || (client.stdin && !self.stdin_ready(client.task)) {
                break;
            }
            match unix::recv(client.fd.as_fd(), &mut buffer[..]) {
                Ok(count) if count > 0 => {
                    if client.stdin {
                        self.client_input(client_id, &buffer[..count]);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Ok(_) | Err(_) => {
                    self.client_input_ended(client_id);
                    break;
                }
            }
        }
        self.buffer = buffer;
    }

    /// A client will send no more. Docker's rules: with StdinOnce and no terminal stdin ends and output goes on; else
    /// stdin stays open for the next client and this attachment ends.
    fn client_input_ended(&mut self, client_id: u64) {
        let Some(client) = self
            .clients
            .iter_mut()
            .find(|client| client.id == client_id)
        else {
            return;
        };
        client.reading = false;
        let (task_id, had_stdin) = (client.task, client.stdin);
        let mut held_back = Vec::new();
        client.keys.end(&mut held_back);
        if !had_stdin {
            return;
        }
        self.push_stdin(task_id, &held_back);
        let Some(task) = self.task(task_id) else {
            return;
        };
        if task.stdin_once && !task.tty {
            self.close_stdin(task_id);
        } else if task.stdin.is_some()
            && let Some(client) = self
                .clients
                .iter_mut()
                .find(|client| client.id == client_id)
        {
            client.ending.get_or_insert(Ending::Finished);
        }
    }

    /// Closes clients that are done with and waits for the right things of the others.
    pub fn update_clients(&mut self) {
        let over = matches!(self.phase, Phase::Ended(_));
        let mut index = 0;
        while let Some(client) = self.clients.get_mut(index) {
            if client.ending.is_some() {
                client.flush(&self.log);
            }
            // A client that is gone is kept only for input that it sent before.
            let input_waits = client.gone && client.reading && client.stdin && !over;
            let (id, task_id) = (client.id, client.task);
            if input_waits && self.stdin_ready(task_id) {
                self.read_client(id);
                // What it had is forwarded now, or it has ended.
                index += usize::from(
                    self.clients
                        .get(index)
                        .is_some_and(|client| client.id == id && client.reading),
                );
                continue;
            }
            let ready = self.stdin_ready(task_id);
            let Some(client) = self.clients.get_mut(index) else {
                return;
            };
            let finished = client.ending.is_some() && client.is_flushed();
            if finished || (client.gone && !input_waits) {
                let mut client = self.clients.remove(index);
                Self::watch(
                    &self.epoll,
                    client.fd.as_fd(),
                    Kind::Client.token(id),
                    &mut client.registered,
                    None,
                );
                let exec = self
                    .tasks
                    .iter()
                    .find(|task| task.id == task_id)
                    .and_then(|task| task.exec.clone());
                let event = match client.ending {
                    Some(Ending::Detached) => Event::Detached { exec },
                    _ => Event::AttachEnded { exec },
                };
                client.close();
                self.emit(event);
                continue;
            }
            let mut wanted = EventFlags::empty();
            if !client.is_flushed() {
                wanted |= EventFlags::OUT;
            }
            if client.reading && client.ending.is_none() && (!client.stdin || ready) {
                wanted |= EventFlags::IN;
            }
            let wanted = (!client.gone).then_some(wanted);
            let token = Kind::Client.token(id);
            // Fields apart, because the descriptor and the registration are of one structure.
            let mut registered = client.registered;
            Self::watch(&self.epoll, client.borrow(), token, &mut registered, wanted);
            client.registered = registered;
            index += 1;
        }
    }
}
