//! What is carried: connections taken and passed on, datagrams and their answers, idle flows given up.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use gantry_sys::epoll::EventFlags;
use gantry_sys::net;

use super::{Server, Thing};
use crate::slab::Key;
use crate::socket::Targets;
use crate::tcp::Pair;
use crate::udp;

/// How many connections and UDP clients are carried at a time.
pub(super) const FORWARDS_MAX: usize = 16 * 1024;
/// How many datagrams of one socket are taken before others get their turn.
const DATAGRAMS_MAX: usize = 64;
/// How often idle UDP flows are looked for, while there are any.
const SWEEP: Duration = Duration::from_secs(15);

impl Server {
    pub(super) fn accept_client(&mut self, port: Key, listener: &OwnedFd, targets: Targets) {
        for _ in 0..DATAGRAMS_MAX {
            let client = match net::accept(listener.as_fd()) {
                Ok(client) => client,
                Err(error) if matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE)) => {
                    if self.refuse(listener) {
                        continue;
                    }
                    return;
                }
                Err(error)
                    if matches!(error.raw_os_error(), Some(libc::ECONNABORTED | libc::EINTR)) =>
                {
                    continue;
                }
                Err(_) => return,
            };
            if self.forwards >= FORWARDS_MAX || self.start_pair(port, client, targets).is_err() {
                self.forwards_refused += 1;
            }
        }
    }

    pub(super) fn start_pair(
        &mut self,
        port: Key,
        client: OwnedFd,
        targets: Targets,
    ) -> io::Result<()> {
        let target = targets.of_connection(client.as_fd()).inspect_err(|_| {
            let _ = net::set_abort_on_close(client.as_fd());
        })?;
        let mut pair = Pair::start(&mut self.carrier, port, client, target)?;
        let key = self.slab.reserve();
        match pair.update_interest(&self.epoll, key) {
            Ok(()) => {
                self.forwards += 1;
                self.forwards_total += 1;
                self.slab.put(key, Thing::Pair(Box::new(pair)));
                Ok(())
            }
            Err(error) => {
                self.slab.remove(key);
                pair.abort(&self.carrier);
                pair.close(&mut self.carrier, &self.epoll);
                Err(error)
            }
        }
    }

    /// Takes a connection for which there is no descriptor and closes it, or epoll would report it without end; false:
    /// none waits, which the kernel says only where there is a descriptor.
    pub(super) fn refuse(&mut self, listener: &OwnedFd) -> bool {
        self.spare = None;
        let client = net::accept(listener.as_fd());
        let is_refused = client.is_ok();
        if let Ok(client) = client {
            let _ = net::set_abort_on_close(client.as_fd());
            self.forwards_refused += 1;
        }
        self.spare = File::open("/dev/null").ok();
        is_refused
    }

    pub(super) fn take_datagrams(&mut self, key: Key, port: &mut udp::Port) {
        for _ in 0..DATAGRAMS_MAX {
            let Ok((length, sender, local)) =
                net::receive_datagram(port.fd.as_fd(), &mut self.buffer)
            else {
                return;
            };
            let client = (sender, local);
            if let Some(&flow) = port.clients.get(&client)
                && let Some(Thing::Flow(flow)) = self.slab.get_mut(flow)
            {
                flow.send(&self.buffer[..length]);
                continue;
            }
            if port.clients.len() >= udp::CLIENTS_MAX || self.forwards >= FORWARDS_MAX {
                self.forwards_refused += 1;
                continue;
            }
            let target = port.targets.of(sender.ip());
            let flow = target.and_then(|target| udp::Flow::start(key, client, target));
            let Ok(mut flow) = flow else {
                self.forwards_refused += 1;
                continue;
            };
            let flow_key = self.slab.reserve();
            if self
                .epoll
                .add(flow.fd().as_fd(), flow_key.token(0), EventFlags::IN)
                .is_err()
            {
                self.slab.remove(flow_key);
                self.forwards_refused += 1;
                continue;
            }
            flow.send(&self.buffer[..length]);
            port.clients.insert(client, flow_key);
            self.slab.put(flow_key, Thing::Flow(flow));
            self.forwards += 1;
            self.flows += 1;
            self.forwards_total += 1;
            self.next_sweep
                .get_or_insert_with(|| Instant::now() + SWEEP);
        }
    }

    pub(super) fn return_answers(&mut self, flow: &mut udp::Flow) {
        for _ in 0..DATAGRAMS_MAX {
            let Some(length) = flow.receive(&mut self.buffer) else {
                return;
            };
            if let Some(Thing::Udp(port)) = self.slab.get_mut(flow.port) {
                port.answer(flow.client, &self.buffer[..length]);
            }
        }
    }

    /// Gives up UDP flows that have been silent for long.
    pub(super) fn sweep(&mut self) {
        let now = Instant::now();
        let idle = self
            .slab
            .keys(|thing| matches!(thing, Thing::Flow(flow) if now.duration_since(flow.last) >= udp::IDLE));
        for key in idle {
            self.close(key);
        }
        self.next_sweep = (self.flows > 0).then(|| now + SWEEP);
    }
}
