//! Opening an engine: what the last daemon left is found, adopted or finished.
//!
//! 1. One engine at a time: a lock on the data root.
//! 2. Records are read; half-made containers are removed, removals finished.
//! 3. Every container with a process is found again through its shim's socket, or its exit is read, or what is left of
//!    it is killed and told as 255.
//! 4. Kernel objects that bear this engine's id and belong to nobody go.
//! 5. Restart policies go on.
//!
//! The list can be answered after the second step.

use std::fs::{File, OpenOptions};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use gantry_network::{Endpoint, PublishedPort};
use gantry_shim::protocol::{Reply, Request};

use crate::container::{self, CallError, Container, Owner, Record, Shim, Status, restart_policy};
use crate::network::{Backward, Netd, NetworkRecord};
use crate::store::Store;
use crate::{Engine, EngineConfig, Error, Inner, Result, event, exec, volume};

impl Engine {
    /// Opens the engine of a data root.
    ///
    /// # Errors
    /// Another daemon has it; a record of a newer version; a data root that cannot serve.
    pub async fn open(config: EngineConfig) -> Result<Engine> {
        let engine = crate::blocking::run(move || open_blocking(config)).await??;
        engine.adopt().await;
        engine.watch_netd();
        engine.start_image_gc();
        Ok(engine)
    }

    /// Finds the containers of the last daemon again.
    async fn adopt(&self) {
        let mut waiting = Vec::new();
        for container in self.inner.containers.all() {
            let engine = self.clone();
            waiting.push(tokio::spawn(
                async move { engine.adopt_one(container).await },
            ));
        }
        for task in waiting {
            if let Err(error) = task.await {
                tracing::error!(%error, "adopt a container");
            }
        }
        let engine = self.clone();
        let reconciled = crate::blocking::run(move || engine.reconcile()).await;
        if let Err(error) = reconciled {
            tracing::error!(%error, "reconcile with the kernel");
        }
        self.restore_names().await;
        self.start_by_policy().await;
    }

    async fn adopt_one(&self, container: Arc<Container>) {
        let id = &container.id;
        // Held until the record is right: an exit that the shim tells meanwhile waits for it.
        let mut owner = container.owner.clone().lock_owned().await;
        let record = container.record();
        let ended = matches!(record.state.status, Status::Exited | Status::Dead);
        match record.state.status {
            status
                if status == Status::Removing
                    || ended && record.host.auto_remove && record.acquired.is_nothing() =>
            {
                let volumes = record.host.auto_remove || record.remove_volumes;
                if let Err(error) = self.remove_owned(&container, &mut owner, volumes).await {
                    tracing::error!(container = id, %error, "finish a removal");
                }
                return;
            }
            _ if record.acquired.is_nothing() => return,
            _ if record.acquired.over => {
                // The run is known to be over; a removal that waited for this goes on afterwards.
                return self.tear_down_later(&container, &mut owner);
            }
            _ => {}
        }
        let mut reached = self.reconnect(&container).await;
        if let Reached::Shim(shim) = &reached {
            reached = self.adopt_running(&container, shim, &mut owner).await;
        }
        match reached {
            Reached::Shim(_) => return,
            Reached::Silent => {
                tracing::error!(
                    container = id,
                    "the container's shim does not answer; it is left alone"
                );
                return;
            }
            Reached::Gone => {}
        }
        let exit = if record.state.status.has_process() {
            Some(self.lost_exit(&container).await)
        } else {
            // Killed in the middle of a start: the process may have come and gone.
            self.kill_leftovers(&container).await;
            let exit = self.read_exit(&record).await;
            if let Some(exit) = &exit
                && !self.inner.events.last_is_start(id)
            {
                // Nobody was told of the start; when it was is not known any more, only that it came before the end.
                self.container_event("start", &record, &[], Some(exit.at_unix_ns));
            }
            exit
        };
        match exit {
            Some(exit) => {
                if !self.finish_run(&container, &mut owner, None, exit).await {
                    return;
                }
            }
            None => self.tear_down(&container, &mut owner).await,
        }
        self.after_exit(container.clone(), owner).await;
    }

    /// Connects to a container's shim. Only a socket that nobody listens on means that the shim is gone: anything else
    /// may pass, and a container must not die of a daemon's shortage.
    async fn reconnect(&self, container: &Arc<Container>) -> Reached {
        for attempt in 0..5 {
            let socket = self.shim_socket(&container.id);
            match crate::blocking::run(move || connect(&socket)).await {
                Ok(Ok(stream)) => {
                    if let Ok(shim) = Shim::open(stream) {
                        self.follow(container, &shim, None);
                        if shim.hello().await.is_ok() {
                            return Reached::Shim(shim);
                        }
                        container.link.lock().expect("no holder panics").shim = None;
                    }
                }
                Ok(Err(error))
                    if matches!(
                        error.kind(),
                        std::io::ErrorKind::NotFound | std::io::ErrorKind::ConnectionRefused
                    ) =>
                {
                    return Reached::Gone;
                }
                _ => {}
            }
            tokio::time::sleep(Duration::from_millis(200 << attempt)).await;
        }
        Reached::Silent
    }

    /// Takes over a container whose shim answers. An exit that happened meanwhile is told by the shim as an event. The
    /// answer is what to make of the shim: one may go just now, because the start that it was made for failed.
    async fn adopt_running(
        &self,
        container: &Arc<Container>,
        shim: &Arc<Shim>,
        owner: &mut Owner,
    ) -> Reached {
        let state = match shim.call(Request::State, Vec::new()).await {
            Ok((Reply::State(state), _)) => state,
            Err(CallError::Gone) => return self.forget_shim(container),
            _ => return Reached::Silent,
        };
        let record = container.record();
        if state.pid == 0 && !record.state.status.has_process() {
            return self.forget_shim(container);
        }
        if !record.state.status.has_process() && state.pid != 0 {
            // The last daemon died between the start and its record.
            let started_at_ns = state.started_at_ns;
            self.note(container, owner, move |record| {
                record.state.status = Status::Running;
                record.state.pid = state.pid;
                record.state.pid_start_ticks = state.start_time_ticks;
                record.state.started_at_ns = Some(started_at_ns);
                record.state.error = String::new();
            })
            .await;
            if !self
                .inner
                .events
                .was_told("start", &container.id, started_at_ns)
            {
                self.container_event("start", &record, &[], Some(started_at_ns));
            }
            container.life.send_modify(|life| life.running = true);
        }
        if record.acquired.subpaths && self.subpaths_are_taken(container).await {
            self.note(container, owner, |record| record.acquired.subpaths = false)
                .await;
        }
        self.adopt_freezer(container, owner).await;
        if let Ok((Reply::Execs(execs), _)) = shim.call(Request::ExecList, Vec::new()).await {
            self.adopt_execs(container, execs);
        }
        Reached::Shim(shim.clone())
    }

    fn forget_shim(&self, container: &Container) -> Reached {
        container.link.lock().expect("no holder panics").shim = None;
        Reached::Gone
    }

    /// Takes the kernel's word for whether the container is paused: the last daemon may have died before its own.
    async fn adopt_freezer(&self, container: &Arc<Container>, owner: &mut Owner) {
        let Some(path) = container.record().acquired.cgroup.clone() else {
            return;
        };
        let layout = self.inner.cgroups.clone();
        let frozen = crate::blocking::run(move || {
            gantry_sys::cgroup::Cgroup::open(&layout, &path)?.is_frozen()
        })
        .await;
        let status = match (frozen, container.record().state.status) {
            (Ok(Ok(true)), Status::Running) => Status::Paused,
            (Ok(Ok(false)), Status::Paused) => Status::Running,
            _ => return,
        };
        self.note(container, owner, move |record| record.state.status = status)
            .await;
    }

    /// Kills whatever is in the container's control group.
    pub(crate) async fn kill_leftovers(&self, container: &Arc<Container>) {
        let Some(path) = container.record().acquired.cgroup.clone() else {
            return;
        };
        let layout = self.inner.cgroups.clone();
        let killed =
            crate::blocking::run(
                move || match gantry_sys::cgroup::Cgroup::open(&layout, &path) {
                    Ok(cgroup) => cgroup.kill(),
                    Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
                    Err(error) => Err(error),
                },
            )
            .await;
        if let Ok(Err(error)) = killed {
            tracing::error!(container = container.id, %error, "kill what a cut-off start left");
        }
    }

    /// Compares the kernel with the records and mends the difference.
    fn reconcile(&self) {
        match self.inner.network.reconcile() {
            Ok(report) => {
                for object in &report.removed {
                    tracing::warn!(object, "removed a network object without an owner");
                }
                for warning in &report.warnings {
                    tracing::warn!("{warning}");
                }
            }
            Err(error) => tracing::error!(%error, "reconcile the network"),
        }
        let known = |id: &str| {
            self.inner
                .containers
                .find(id)
                .is_ok_and(|found| found.id == id)
        };
        sweep(&self.inner.config.exec_root.join("shims"), |name| {
            name.strip_suffix(".sock").is_some_and(|id| !known(id))
        });
        sweep(&self.runtime_root(), |name| !known(name));
        for entry in std::fs::read_dir(self.inner.config.data_root.join("containers"))
            .into_iter()
            .flatten()
            .flatten()
        {
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.starts_with(".trash-") {
                crate::reaper::delete(entry.path());
            } else if !known(&name) {
                tracing::warn!(directory = %entry.path().display(), "a container's directory without a record is left alone");
            }
        }
        if let Err(error) = self.inner.volumes.sweep() {
            tracing::error!(%error, "sweep removed volumes");
        }
    }

    /// Starts what the restart policies say.
    async fn start_by_policy(&self) {
        for container in self.inner.containers.all() {
            let record = container.record();
            let state = &record.state;
            let interrupted = state.status == Status::Restarting;
            let wanted = state.status == Status::Exited
                && restart_policy::starts_with_daemon(
                    &record.host.restart_policy,
                    state.manually_stopped,
                );
            if !interrupted && !wanted {
                continue;
            }
            let engine = self.clone();
            tokio::spawn(async move {
                let mut owner = container.owner.clone().lock_owned().await;
                if container.record().state.status.has_process() {
                    return;
                }
                // From now on it is the policy's again, whoever stopped it before.
                if container.record().state.manually_stopped {
                    engine
                        .note(&container, &mut owner, |record| {
                            record.state.manually_stopped = false;
                        })
                        .await;
                }
                if let Some(pause) = engine.start_for_policy(&container, &mut owner).await {
                    engine.start_after(container.clone(), pause, owner.generation);
                }
            });
        }
    }
}

/// What became of a connection to a shim of the last daemon.
enum Reached {
    Shim(Arc<Shim>),
    /// Nobody listens.
    Gone,
    /// Somebody may listen and does not answer.
    Silent,
}

fn open_blocking(config: EngineConfig) -> Result<Engine> {
    let failed = |what: &'static str| move |error: std::io::Error| Error::io(what, error);
    make_directories(&config).map_err(failed("make the engine's directories"))?;
    let lock = lock(&config.data_root)?;
    check_version(&config.data_root)?;
    let id = engine_id(&config.data_root).map_err(failed("read the engine's id"))?;
    let images = gantry_image::Images::open(&config.data_root).map_err(crate::image::error)?;
    let network_records =
        Store::open(&config.data_root, "network").map_err(failed("open the network records"))?;
    let records = Store::open(&config.data_root, "container")
        .map_err(failed("open the container records"))?;
    let (mut all, set_aside) = records
        .load_all::<Record>()
        .map_err(failed("read the container records"))?;
    for record in &set_aside {
        tracing::error!(path = %record.path.display(), reason = record.reason, "container record set aside");
    }
    all.iter_mut().for_each(Record::migrate);
    let volumes = volume::Volumes::open(&config.data_root).map_err(failed("open the volumes"))?;
    let netd = Arc::new(Netd::open(&config.exec_root).map_err(failed("start netd"))?);
    let live = live(all.iter().map(|record| Arc::new(record.clone())));
    let (known, set_aside) = network_records
        .load_all::<NetworkRecord>()
        .map_err(failed("read the network records"))?;
    for record in &set_aside {
        tracing::error!(path = %record.path.display(), reason = record.reason, "network record set aside");
    }
    let backward = Backward::new(&all);
    let network = crate::network::open(&config, &id, netd.clone(), &known, &live, &backward)?;
    let networks = crate::network::Networks::default();
    let predefined = crate::network::predefined(&id, network.bridge(), crate::now_ns());
    for record in known.into_iter().chain(predefined) {
        networks.insert(record);
    }
    let cgroups =
        gantry_sys::cgroup::Layout::detect().map_err(failed("detect the cgroup hierarchies"))?;
    let seccomp = container::seccomp::Filters::open(&config.exec_root)
        .map_err(failed("open the seccomp filters"))?;
    let events = event::Events::open(&config.exec_root).map_err(failed("open the event ring"))?;
    let engine = Engine {
        inner: Arc::new(Inner {
            id,
            records,
            containers: container::Containers::default(),
            execs: exec::Execs::default(),
            volumes,
            reservations: Default::default(),
            transfers: gantry_image::Transfers::new(images.clone()),
            images,
            networks,
            network_records,
            network: Arc::new(network),
            events,
            cgroups,
            seccomp,
            going_down: std::sync::atomic::AtomicBool::new(false),
            starting: std::sync::atomic::AtomicUsize::new(0),
            netd,
            _lock: lock,
            config,
        }),
    };
    backward.lead_to(&engine);
    let mut owned = std::collections::HashSet::new();
    for record in all {
        let half = Engine::is_half_made(&record);
        let container = Container::new(record);
        if half {
            engine.unmake(&container);
        } else {
            let record = container.record();
            if record.acquired.is_nothing() {
                // The last daemon may have died between the record and this.
                engine.remove_socket(&container.id);
            }
            owned.extend(record.snapshot);
            for volume in &record.acquired.volumes {
                engine.inner.volumes.adopt(volume, &record.id);
            }
            engine.inner.containers.insert(container);
        }
    }
    // A writable layer whose container has no valid record is kept aside, never deleted.
    for path in engine
        .inner
        .images
        .quarantine_unowned(&owned)
        .map_err(crate::image::error)?
    {
        tracing::error!(path = %path.display(), "a writable layer without a record is set aside");
    }
    Ok(engine)
}

fn make_directories(config: &EngineConfig) -> std::io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    let make = |path: PathBuf, mode| {
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(mode)
            .create(path)
    };
    make(config.data_root.clone(), 0o710)?;
    make(config.data_root.join("containers"), 0o710)?;
    make(config.exec_root.clone(), 0o711)?;
    make(config.exec_root.join("shims"), 0o700)?;
    make(config.exec_root.join("runtime"), 0o700)
}

/// How long the data root may stay locked. The kernel closes the descriptors of a killed daemon with its last thread, which
/// may be within a system call: nobody else holds the lock, and nothing but waiting lets it go.
const LOCK_WAIT: Duration = Duration::from_secs(3);
/// A wait that is longer than this is told.
const LOCK_SILENCE: Duration = Duration::from_millis(250);

/// Takes the data root for this process, for as long as the file is open.
fn lock(data_root: &Path) -> Result<File> {
    let path = data_root.join("lock");
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .map_err(|error| Error::io(format_args!("open `{}`", path.display()), error))?;
    let begin = Instant::now();
    let mut told = false;
    loop {
        match rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(file),
            Err(rustix::io::Errno::WOULDBLOCK) if begin.elapsed() < LOCK_WAIT => {}
            Err(rustix::io::Errno::WOULDBLOCK) => {
                return Err(Error::conflict(format!(
                    "another daemon uses the data root {}",
                    data_root.display()
                )));
            }
            Err(error) => {
                return Err(Error::io(
                    format_args!("lock `{}`", path.display()),
                    error.into(),
                ));
            }
        }
        if !told && begin.elapsed() > LOCK_SILENCE {
            tracing::warn!(
                "waiting for the end of another daemon, which uses the data root {}",
                data_root.display()
            );
            told = true;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Refuses a data root that a newer daemon has written.
fn check_version(data_root: &Path) -> Result<()> {
    let path = data_root.join("version");
    match std::fs::read_to_string(&path) {
        Ok(text) => match text.trim().parse::<u32>() {
            Ok(version) if version <= crate::store::VERSION => Ok(()),
            _ => Err(Error::conflict(format!(
                "the data root {} is of format {}, this daemon knows up to {}",
                data_root.display(),
                text.trim(),
                crate::store::VERSION
            ))),
        },
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            std::fs::write(&path, format!("{}\n", crate::store::VERSION))
                .map_err(|error| Error::io(format_args!("write `{}`", path.display()), error))
        }
        Err(error) => Err(Error::io(format_args!("read `{}`", path.display()), error)),
    }
}

fn engine_id(data_root: &Path) -> std::io::Result<String> {
    let path = data_root.join("engine-id");
    match std::fs::read_to_string(&path) {
        Ok(text) if text.trim().len() == 64 => Ok(text.trim().to_owned()),
        Ok(_) => Err(std::io::Error::other(format!(
            "`{}` holds no id",
            path.display()
        ))),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let id = crate::random_id();
            let temporary = data_root.join(".engine-id");
            std::fs::write(&temporary, format!("{id}\n"))?;
            File::open(&temporary)?.sync_all()?;
            std::fs::rename(&temporary, &path)?;
            Ok(id)
        }
        Err(error) => Err(error),
    }
}

/// Returns the endpoints that records hold.
fn live(records: impl Iterator<Item = Arc<Record>>) -> Vec<(Endpoint, Vec<PublishedPort>)> {
    records
        .flat_map(|record| {
            let held = &record.acquired;
            let one = |endpoint: &Endpoint| (endpoint.clone(), held.ports_of(endpoint).to_vec());
            held.endpoints.iter().map(one).collect::<Vec<_>>()
        })
        .collect()
}

fn connect(socket: &Path) -> std::io::Result<OwnedFd> {
    use std::os::fd::AsRawFd;
    if socket.as_os_str().len() < 100 {
        return UnixStream::connect(socket).map(OwnedFd::from);
    }
    let directory = File::open(socket.parent().unwrap_or(socket))?;
    let path = PathBuf::from(format!("/proc/self/fd/{}", directory.as_raw_fd()));
    UnixStream::connect(path.join(socket.file_name().unwrap_or_default())).map(OwnedFd::from)
}

fn sweep(directory: &Path, stale: impl Fn(&str) -> bool) {
    for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
        if !stale(&entry.file_name().to_string_lossy()) {
            continue;
        }
        let path = entry.path();
        let removed = if path.is_dir() {
            std::fs::remove_dir_all(&path)
        } else {
            std::fs::remove_file(&path)
        };
        if let Err(error) = removed {
            tracing::warn!(path = %path.display(), %error, "remove a leftover");
        }
    }
}
