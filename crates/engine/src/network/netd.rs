//! netd, the process that holds host ports and answers names: started when it is first needed, and again after its death.

use std::collections::HashMap;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use gantry_api::port::{PortReserver, Reservation, ReserveError};
use gantry_netd::client::{self, Client, HostPorts, KeptPort, Sockets, SpawnOptions};
use gantry_shim::protocol::{Reply as ShimReply, Request as ShimRequest};
use gantry_sys::unix;
use tokio::sync::{Notify, oneshot};

use crate::{Engine, Result};

/// netd, as the network's holder of host ports. It is started when the first port is wanted.
pub(crate) struct Netd {
    options: SpawnOptions,
    client: std::sync::Mutex<Option<Arc<Client>>>,
    /// Told when netd is first needed.
    opened: Notify,
    /// Sockets of host ports that are held beside netd, by owner: who connects while netd is dead waits in their queues.
    /// Locked while they are fetched, so that a port that is given back is held by nobody.
    kept: std::sync::Mutex<HashMap<String, Vec<KeptPort>>>,
    /// Owners whose sockets are not fetched yet. Apart, because a start must not wait for what is fetched for others.
    waiting: std::sync::Mutex<Vec<String>>,
    /// Told when a port was reserved.
    reserved: Notify,
    /// It was ended for good. Held while it is looked after, so that nobody starts it again in between.
    ended: std::sync::Mutex<bool>,
}

impl Netd {
    pub(crate) fn open(exec_root: &Path) -> std::io::Result<Netd> {
        let options = SpawnOptions::this_binary(exec_root);
        Ok(Netd {
            options,
            client: std::sync::Mutex::new(None),
            opened: Notify::new(),
            kept: std::sync::Mutex::default(),
            waiting: std::sync::Mutex::default(),
            reserved: Notify::new(),
            ended: std::sync::Mutex::new(false),
        })
    }

    /// Returns a descriptor of netd's process, readable once it has ended; starts it if it is dead. `None`: it is not
    /// needed yet, or was ended for good.
    fn process(&self) -> std::io::Result<Option<OwnedFd>> {
        let ended = self.ended.lock().expect("no holder panics");
        if *ended || !self.is_needed() {
            return Ok(None);
        }
        let client = self.client().map_err(std::io::Error::other)?;
        client.pidfd().map(Some)
    }

    /// Tells whether netd may live or own anything: without a state it need not be started to say so.
    pub(super) fn is_needed(&self) -> bool {
        client::has_state(&self.options.exec_root)
            || self.client.lock().expect("no holder panics").is_some()
    }

    /// Ends netd for good.
    pub(super) fn end(&self) -> std::io::Result<()> {
        let mut ended = self.ended.lock().expect("no holder panics");
        *ended = true;
        if !self.is_needed() {
            return Ok(());
        }
        self.client().map_err(std::io::Error::other)?.shutdown()
    }

    /// Returns the way to netd, starting it if it does not live.
    pub(crate) fn client(&self) -> Result<Arc<Client>, ReserveError> {
        let mut slot = self.client.lock().expect("no holder panics");
        if let Some(client) = &*slot {
            return Ok(client.clone());
        }
        let client = Client::open(self.options.clone()).map_err(ReserveError::Unavailable)?;
        self.opened.notify_one();
        Ok(slot.insert(Arc::new(client)).clone())
    }
}

impl Netd {
    /// Gives a netd that was just started, or found, the sockets that it lacks, and fetches those that are not held here.
    fn share_ports(&self) -> std::io::Result<()> {
        let client = self.client().map_err(std::io::Error::other)?;
        let mut kept = self.kept.lock().expect("no holder panics");
        for (owner, ports) in &*kept {
            client.adopt_ports(owner, ports)?;
        }
        self.waiting.lock().expect("no holder panics").clear();
        kept.clear();
        for port in client.ports(None)? {
            let owner = port.owner().to_owned();
            kept.entry(owner).or_default().push(port);
        }
        Ok(())
    }

    /// Fetches the sockets of ports that were reserved since the last time. Nobody waits for it.
    fn keep_new_ports(&self) -> std::io::Result<()> {
        let client = self.client().map_err(std::io::Error::other)?;
        let mut kept = self.kept.lock().expect("no holder panics");
        loop {
            let next = self
                .waiting
                .lock()
                .expect("no holder panics")
                .last()
                .cloned();
            let Some(owner) = next else { break };
            let ports = client.ports(Some(&owner))?;
            let mut waiting = self.waiting.lock().expect("no holder panics");
            waiting.retain(|waiting| *waiting != owner);
            drop(waiting);
            kept.insert(owner, ports);
        }
        Ok(())
    }
}

impl Netd {
    /// Says whether a netd of an earlier version lives on.
    fn is_outdated(&self) -> bool {
        let client = self.client.lock().expect("no holder panics");
        client.as_ref().is_some_and(|client| client.is_outdated())
    }

    /// Replaces a netd of an earlier version if it carries nothing at the moment.
    fn replace_outdated(&self) -> std::io::Result<()> {
        // Not after its end for good.
        let ended = self.ended.lock().expect("no holder panics");
        if *ended {
            return Ok(());
        }
        let client = self.client().map_err(std::io::Error::other)?;
        client.replace_outdated()
    }
}

impl PortReserver for Netd {
    fn reserve(&self, owner: &str, reservations: &[Reservation]) -> Result<(), ReserveError> {
        self.client()?.reserve(owner, reservations)?;
        let mut waiting = self.waiting.lock().expect("no holder panics");
        waiting.push(owner.to_owned());
        drop(waiting);
        self.reserved.notify_one();
        Ok(())
    }

    fn transfer(
        &self,
        from: &str,
        to: &str,
        reservations: &[Reservation],
    ) -> Result<(), ReserveError> {
        let client = self.client()?;
        let ports = HostPorts::of(reservations);
        // Nobody fetches or hands over sockets while it is open whose they are.
        let mut kept = self.kept.lock().expect("no holder panics");
        client.transfer(from, to, reservations)?;
        let mut sockets = kept.remove(from).unwrap_or_default();
        sockets.retain_mut(|socket| socket.transfer(to, &ports));
        kept.entry(to.to_owned()).or_default().extend(sockets);
        let mut waiting = self.waiting.lock().expect("no holder panics");
        waiting.retain(|waiting| waiting != from);
        waiting.push(to.to_owned());
        drop(waiting);
        drop(kept);
        self.reserved.notify_one();
        Ok(())
    }

    fn release(&self, owner: &str) -> Result<(), ReserveError> {
        {
            let mut kept = self.kept.lock().expect("no holder panics");
            kept.remove(owner);
            let mut waiting = self.waiting.lock().expect("no holder panics");
            waiting.retain(|waiting| waiting != owner);
        }
        self.client()?.release(owner)
    }

    fn owners(&self) -> Result<Vec<String>, ReserveError> {
        if !self.is_needed() {
            return Ok(Vec::new());
        }
        self.client()?.owners()
    }

    fn guard(&self, table: &str, interfaces: &[String]) -> Result<(), ReserveError> {
        self.client()?.guard(table, interfaces)
    }
}

/// The pause before netd is started once more when it has ended right after its start. It doubles where it cannot be
/// started at all.
const PAUSE: Duration = Duration::from_millis(100);
/// One that has lived so long has not ended right after its start.
const LIVED: Duration = Duration::from_secs(1);
/// How often the watching thread looks whether anybody still listens.
const WATCH: Duration = Duration::from_secs(10);
/// How often sockets are asked for that a shim does not give at once, because the container is just being started.
const HAND_OVER_TRIES: u32 = 100;

impl Engine {
    /// Looks after netd for as long as the engine lives: a dead one is started again and is given what the shims keep.
    pub(crate) fn watch_netd(&self) {
        let inner = Arc::downgrade(&self.inner);
        let netd = self.inner.netd.clone();
        tokio::spawn(async move {
            let mut pause = PAUSE;
            loop {
                // An engine that is gone starts nothing any more.
                if inner.strong_count() == 0 {
                    return;
                }
                let look = netd.clone();
                let process = crate::blocking::run(move || look.process()).await;
                let process = match process {
                    Ok(Ok(Some(process))) => process,
                    Ok(Ok(None)) => {
                        netd.opened.notified().await;
                        continue;
                    }
                    Ok(Err(error)) => {
                        tracing::error!(%error, "start netd");
                        tokio::time::sleep(pause).await;
                        pause = (pause * 2).min(LIVED);
                        continue;
                    }
                    // The runtime ends.
                    Err(_) => return,
                };
                pause = PAUSE;
                let since = Instant::now();
                let share = netd.clone();
                match crate::blocking::run(move || share.share_ports()).await {
                    Ok(Err(error)) => tracing::warn!(%error, "share the sockets of host ports"),
                    Ok(Ok(())) => {}
                    Err(_) => return,
                }
                let Some(inner) = inner.upgrade() else { return };
                tokio::spawn(Engine { inner }.hand_over_sockets());
                let mut is_outdated = netd.is_outdated();
                if is_outdated {
                    tracing::warn!(
                        "the netd that was found is of an earlier version and carries connections, which would end with it: \
                         it is replaced as soon as it carries none"
                    );
                }
                let mut ended = std::pin::pin!(end_of(process));
                loop {
                    tokio::select! {
                        ended = &mut ended => {
                            if let Err(error) = ended {
                                tracing::error!(%error, "watch netd");
                            }
                            break;
                        }
                        () = tokio::time::sleep(WATCH), if is_outdated => {
                            let replace = netd.clone();
                            let replaced = crate::blocking::run(move || replace.replace_outdated());
                            match replaced.await {
                                Ok(Ok(())) => is_outdated = netd.is_outdated(),
                                Ok(Err(error)) => {
                                    tracing::warn!(%error, "replace a netd of an earlier version");
                                }
                                Err(_) => return,
                            }
                        }
                        () = netd.reserved.notified() => {
                            let keep = netd.clone();
                            let kept = crate::blocking::run(move || keep.keep_new_ports()).await;
                            if let Ok(Err(error)) = kept {
                                tracing::warn!(%error, "hold the sockets of host ports");
                            }
                        }
                    }
                }
                if since.elapsed() < LIVED {
                    tokio::time::sleep(PAUSE).await;
                }
            }
        });
    }

    /// Gives a restarted netd the sockets that it lacks, from the shims that keep them.
    async fn hand_over_sockets(self) {
        let netd = self.inner.netd.clone();
        let lacking = crate::blocking::run(move || {
            let client = netd.client().map_err(std::io::Error::other)?;
            client.resolvers()
        });
        match lacking.await {
            Ok(Ok(containers)) => {
                for id in containers {
                    tokio::spawn(self.clone().hand_over_sockets_of(id));
                }
            }
            Ok(Err(error)) => tracing::error!(%error, "ask netd which sockets it lacks"),
            Err(_) => {}
        }
    }

    async fn hand_over_sockets_of(self, id: String) {
        let mut error = String::new();
        for _ in 0..HAND_OVER_TRIES {
            let container = self.inner.containers.get(&id);
            let shim = container.as_ref().and_then(|container| {
                let link = container.link.lock().expect("no holder panics");
                link.shim.clone()
            });
            if let Some(shim) = shim {
                match shim.call(ShimRequest::TakeNames, Vec::new()).await {
                    Ok((ShimReply::Names, fds)) => {
                        self.give_sockets(id, fds).await;
                        return;
                    }
                    Ok((ShimReply::Error { message }, _)) => error = message,
                    Ok(_) => "the shim answered another request".clone_into(&mut error),
                    Err(cause) => error = cause.to_string(),
                }
            } else if container.is_none_or(|container| container.owner.try_lock().is_ok()) {
                // Nobody is about to start it: it ended while nobody said so to netd.
                let netd = self.inner.netd.clone();
                let dropped = crate::blocking::run(move || {
                    let client = netd.client().map_err(std::io::Error::other)?;
                    client.drop_resolver(&id)
                });
                if let Ok(Err(error)) = dropped.await {
                    tracing::error!(%error, "drop the resolver of a container that has ended");
                }
                return;
            }
            tokio::time::sleep(PAUSE).await;
        }
        tracing::error!(
            container = id,
            error,
            "the container's names are not answered: take its sockets"
        );
    }

    async fn give_sockets(&self, id: String, fds: Vec<OwnedFd>) {
        let netd = self.inner.netd.clone();
        let container = id.clone();
        let given = crate::blocking::run(move || {
            let sockets = Sockets::from_fds(fds)
                .ok_or_else(|| std::io::Error::other("the shim gave other descriptors"))?;
            let client = netd.client().map_err(std::io::Error::other)?;
            client.sockets(&container, &sockets)
        });
        if let Ok(Err(error)) = given.await {
            tracing::error!(container = id, %error, "the container's names are not answered: give netd its sockets");
        }
    }
}

/// Waits for a process's end on a thread of its own: a pidfd is nothing that the runtime can wait for.
async fn end_of(process: OwnedFd) -> std::io::Result<()> {
    let (tell, told) = oneshot::channel();
    std::thread::Builder::new()
        .name("netd-watch".to_owned())
        .stack_size(64 * 1024)
        .spawn(move || {
            while matches!(
                unix::wait_readable(process.as_fd(), WATCH),
                Err(error) if error.kind() == std::io::ErrorKind::TimedOut
            ) {
                // Nobody listens any more.
                if tell.is_closed() {
                    return;
                }
            }
            // The listener may have gone meanwhile.
            let _ = tell.send(());
        })?;
    // A thread that ended without a word is as good as the word.
    let _ = told.await;
    Ok(())
}
