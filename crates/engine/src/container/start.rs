//! `start`: record → network namespace ∥ files → shim → endpoint and ports → process.
//!
//! Every step's resource is in the record before the step. A start that fails at any step ends in the same teardown
//! that an exit does.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::sync::Arc;

use gantry_network::Netns;
use gantry_shim::protocol::{self, LogConfig, Reply, Request, Rootfs, StartRequest};
use tokio::sync::OwnedMutexGuard;

use super::link::Shim;
use super::record::Record;
use super::start_failure::{StartExit, exit_code, network_error, start_error};
use super::{Container, Owner, Status, devices, files, limits, oci, seccomp, sources};
use crate::failpoint::{around, around_async};
use crate::shutdown::GoingDown;
use crate::{Changed, Engine, Error, Result};

/// How to start.
#[derive(Clone, Debug, Default)]
pub struct StartOptions {
    pub detach_keys: Option<String>,
}

/// What the blocking half of a start hands to the other half.
struct Prepared {
    control: OwnedFd,
    listener: OwnedFd,
    /// The network namespace, the joined ones, and what the shim keeps for names, as the request counts them.
    namespaces: Vec<OwnedFd>,
    request: StartRequest,
    shim: Unfollowed,
}

/// A shim that nobody follows yet: if its start fails first, it is ended, and waited for so that no zombie stays.
struct Unfollowed(Option<gantry_shim::Spawned>);

impl Unfollowed {
    /// Hands it to whoever waits for it from now on.
    fn follow(mut self) -> Option<gantry_shim::Spawned> {
        self.0.take()
    }
}

impl Unfollowed {
    fn pidfd(&self) -> Option<OwnedFd> {
        self.0.as_ref()?.pidfd.try_clone().ok()
    }
}

impl Drop for Unfollowed {
    fn drop(&mut self) {
        if let Some(spawned) = self.0.take() {
            spawned.end();
        }
    }
}

impl Engine {
    /// Starts a container.
    ///
    /// # Errors
    /// Not found; paused or being removed (conflict); Docker's texts for a process that cannot be started.
    pub async fn start(&self, name: &str, options: StartOptions) -> Result<Changed> {
        super::attach::detach_keys(options.detach_keys.as_deref())?;
        let container = self.container(name)?;
        self.own(container, move |engine, container, mut owner| async move {
            match container.record().state.status {
                Status::Running => return Ok(Changed::No),
                Status::Paused => {
                    return Err(Error::conflict(
                        "cannot start a paused container, try unpause instead",
                    ));
                }
                Status::Removing | Status::Dead => {
                    return Err(Error::conflict(
                        "container is marked for removal and cannot be started",
                    ));
                }
                Status::Restarting => {
                    // The pause before the restart ends now.
                    owner.generation += 1;
                }
                Status::Created | Status::Exited => {}
            }
            owner.last_pause = None;
            let state = &container.record().state;
            if state.manually_stopped || state.restart_count != 0 {
                engine
                    .save(&container, &mut owner, |record| {
                        record.state.manually_stopped = false;
                        record.state.restart_count = 0;
                    })
                    .await?;
            }
            let started = engine.start_owned(&container, &mut owner).await;
            if let Err(error) = &started {
                engine.start_failed(container, owner, error).await;
            }
            started.map(|()| Changed::Yes)
        })
        .await
    }

    /// A start or restart by hand that failed is the end for `--rm`, and nobody waits for it any longer. One that the
    /// ending daemon refused is none: nothing was tried.
    pub(super) async fn start_failed(
        &self,
        container: Arc<Container>,
        mut owner: OwnedMutexGuard<Owner>,
        error: &Error,
    ) {
        if GoingDown::caused(error) {
            return;
        }
        let record = container.record();
        if record.host.auto_remove
            && let Err(error) = self.remove_owned(&container, &mut owner, true).await
        {
            tracing::error!(container = container.id, %error, "remove a container that did not start");
        }
        // The error is the answer of the start itself; a waiting client is told the exit code alone.
        let mut record = (*record).clone();
        record.state.error = String::new();
        self.announce_exit(&container, &record);
    }

    /// Starts a container whose owner lock is held; used by `start`, `restart` and the restart policies.
    pub(crate) async fn start_owned(
        &self,
        container: &Arc<Container>,
        owner: &mut Owner,
    ) -> Result<()> {
        if container.record().state.status.has_process() {
            return Err(Error::conflict(format!(
                "container {} is running already",
                container.id
            )));
        }
        let _starting = self.begin_start()?;
        owner.generation += 1;
        let started = self.try_start(container, owner).await;
        if let Err(error) = &started {
            // Whatever stage it came to, no process of it may live on without a record that says so.
            let process = container
                .link
                .lock()
                .expect("no holder panics")
                .process
                .take();
            if let Some(process) = process {
                let _ = rustix::process::pidfd_send_signal(&process, rustix::process::Signal::KILL);
            }
            self.kill_leftovers(container).await;
            let (text, code) = (error.to_string(), exit_code(error));
            if self.inner.events.last_is_start(&container.id) {
                // The start was told and only then failed to be recorded: its end is told as well.
                let record = container.record();
                let code = code.unwrap_or(record.state.exit_code);
                self.tell_end(&record, code, crate::now_ns(), 0);
            }
            self.tear_down(container, owner).await;
            {
                let mut link = container.link.lock().expect("no holder panics");
                link.shim = None;
                link.attaches.clear();
            }
            self.note(container, owner, move |record| {
                record.state.pid = 0;
                record.state.error = text;
                if let Some(code) = code {
                    record.state.exit_code = code;
                }
                if record.state.status != Status::Created {
                    record.state.status = Status::Exited;
                    record.state.finished_at_ns = Some(crate::now_ns());
                }
            })
            .await;
        }
        started
    }

    async fn try_start(&self, container: &Arc<Container>, owner: &mut Owner) -> Result<()> {
        self.tear_down_wholly(container, owner).await?;
        let (engine, own) = (self.clone(), container.clone());
        // The owner lock is held by our caller for the whole start; the blocking half works under it.
        let prepared = {
            let mut lent = owner.lend();
            crate::blocking::run(move || engine.prepare_start(&own, &mut lent)).await??
        };
        let Prepared {
            control,
            listener,
            namespaces,
            mut request,
            shim: spawned,
        } = prepared;
        let shim = Shim::open(control).map_err(|error| Error::io("speak to a shim", error))?;
        let spawned = spawned.follow();
        container.link.lock().expect("no holder panics").process = spawned
            .as_ref()
            .and_then(|spawned| spawned.pidfd.try_clone().ok());
        self.follow(container, &shim, spawned);
        let mut fds = vec![listener];
        fds.extend(namespaces);
        let (attaches, waits) = {
            let mut link = container.link.lock().expect("no holder panics");
            (
                std::mem::take(&mut link.attaches),
                std::mem::take(&mut link.waits),
            )
        };
        for (attach, fd) in attaches {
            request.attaches.push(attach);
            fds.push(fd);
        }
        for (_, wait, fd) in waits {
            request.waits.push(wait);
            fds.push(fd);
        }
        // Requests are answered in order: the greeting's answer need not be waited for.
        let start = async { shim.call(Request::Start(Box::new(request)), fds).await };
        let (_, answer) =
            around_async("start.shim", async { tokio::join!(shim.hello(), start) }).await;
        let (pid, ticks, started_at_ns) = match answer?.0 {
            Reply::Started {
                pid,
                start_time_ticks,
                started_at_ns,
            } => (pid, start_time_ticks, started_at_ns),
            Reply::StartFailed(failure) => return Err(start_error(&failure)),
            Reply::Error { message } => return Err(Error::system(message)),
            _ => {
                return Err(Error::system(
                    "the container's shim does not understand its start",
                ));
            }
        };
        let subpaths = !self.subpaths_are_taken(container).await;
        let (engine, own, mut lent) = (self.clone(), container.clone(), owner.lend());
        let commit = move || {
            let record = own.record();
            engine.volume_use_events("mount", &record, started_at_ns);
            engine.network_event("connect", &record, started_at_ns);
            engine.container_event("start", &record, &[], Some(started_at_ns));
            engine.refresh_links_to(&record);
            engine.save_blocking(&own, &mut lent, |record| {
                record.state.status = Status::Running;
                record.state.pid = pid;
                record.state.pid_start_ticks = ticks;
                record.state.started_at_ns = Some(started_at_ns);
                record.state.finished_at_ns = None;
                record.state.exit_code = 0;
                record.state.error = String::new();
                record.state.oom_killed = false;
                record.acquired.subpaths = subpaths;
            })
        };
        crate::blocking::run(move || around("start.commit", commit)).await??;
        container.life.send_modify(|life| life.running = true);
        Ok(())
    }

    /// The blocking half: everything up to a shim that waits for its start.
    fn prepare_start(&self, container: &Arc<Container>, owner: &mut Owner) -> Result<Prepared> {
        let record = container.record();
        let host = &record.host;
        self.check_network(&record)?;
        let mut joined = self.joined_namespaces(&record)?;
        self.linked(&record)?;
        let own_network =
            host.network_mode != "host" && !host.network_mode.starts_with("container:");
        let (endpoints, networks) = self.take_endpoints(&record)?;
        // A thread makes the namespace while this one writes files.
        let netns =
            own_network.then(|| std::thread::spawn(|| around("start.netns", Netns::create)));
        let named = endpoints.iter().any(|endpoint| self.is_named(endpoint));
        // The beginning of an id is replaced by what it stands for; a name stays.
        let mode = self.inner.networks.find(&host.network_mode).ok();
        let mode = mode.filter(|network| network.name != host.network_mode);
        let mode = mode.map(|network| network.id.clone());
        let cgroup = self.cgroup_path(&record);
        let shm = oci::has_shareable_shm(&record);
        let (volumes, subpaths) = (
            self.volumes_to_mount(&record),
            sources::has_subpaths(&record),
        );
        let saved = around("start.record", || {
            self.save_blocking(container, owner, |record| {
                record.acquired.shim = true;
                record.acquired.cgroup = Some(cgroup.clone());
                record.acquired.shm = shm;
                record.acquired.volumes = volumes;
                record.acquired.subpaths = subpaths;
                record.acquired.endpoints.clone_from(&endpoints);
                record.acquired.names = named;
                if let Some(id) = mode {
                    record.host.network_mode = id;
                }
                record.networks = networks;
            })
        });
        let record = match saved {
            Ok(record) => record,
            Err(error) => {
                self.let_go(&endpoints);
                return Err(error);
            }
        };
        let gateways = self.gateways(&record);
        self.reserve_ports(container, owner, gateways)?;
        let record = container.record();
        if shm {
            around("start.shm", || self.mount_shm(&record))?;
        }
        if !record.acquired.volumes.is_empty() || subpaths {
            around("start.sources", || self.mount_sources(&record))?;
        }
        let request = around("start.files", || self.write_bundle(&record, &cgroup))?;
        let socket = self.shim_socket(&record.id);
        let _ = std::fs::remove_file(&socket);
        let listener = bind(&socket)?;
        let (control, near) = gantry_sys::unix::socketpair()
            .map_err(|error| Error::io("make a socket pair", error))?;
        let spawned = around("start.spawn", || {
            gantry_shim::spawn(self.shim_options(&record, near))
        })
        .map_err(|error| Error::io("start a shim", error))?;
        let spawned = Unfollowed(Some(spawned));
        let mut names = Vec::new();
        let netns = match netns {
            None => joined
                .extract_if(.., |(kind, _)| *kind == "network")
                .map(|(_, namespace)| namespace)
                .next(),
            Some(thread) => {
                let netns = thread
                    .join()
                    .map_err(|_| Error::system("make a network namespace"))?
                    .map_err(|error| Error::io("make a network namespace", error))?;
                around("start.network", || {
                    self.connect_all(&record.acquired.endpoints, gateways, &netns)
                })?;
                if record.acquired.names {
                    let shim = spawned.pidfd();
                    names = around("start.names", || self.prepare_names(&record, &netns, shim))?;
                }
                Some(netns.fd)
            }
        };
        for endpoint in &record.acquired.endpoints {
            let ports = record.acquired.ports_of(endpoint);
            if !ports.is_empty() {
                around("start.ports", || {
                    self.inner.network.publish(endpoint, ports)
                })
                .map_err(network_error)?;
            }
        }
        let request = StartRequest {
            has_netns: netns.is_some(),
            joins: joined.iter().map(|(kind, _)| (*kind).to_owned()).collect(),
            keeps_names: !names.is_empty(),
            ..request
        };
        let joined = joined.into_iter().map(|(_, namespace)| namespace);
        Ok(Prepared {
            control,
            listener: listener.into(),
            namespaces: netns.into_iter().chain(joined).chain(names).collect(),
            request,
            shim: spawned,
        })
    }

    /// Writes config.json and the files that are mounted into the container; returns the shim's orders.
    fn write_bundle(&self, record: &Record, cgroup: &str) -> Result<StartRequest> {
        let host = &record.host;
        let directory = self.directory(&record.id);
        let security =
            oci::security_options(&host.security_opt, self.inner.config.no_new_privileges)?;
        let capabilities = crate::container::effective_capabilities(
            &host.cap_add,
            &host.cap_drop,
            host.privileged,
        )?;
        let (devices, device_rules) = devices::plan(host)?;
        let runtime = self.runtime_for(&host.runtime)?;
        let foreign = runtime != protocol::Runtime::BuiltIn;
        let chosen = self.seccomp_for(&security, host.privileged, &capabilities, foreign)?;
        let (seccomp_file, seccomp_profile) = match chosen {
            seccomp::Chosen::Unconfined => (None, None),
            seccomp::Chosen::File(path) => (Some(path), None),
            seccomp::Chosen::Profile(profile) => (None, Some(profile)),
        };
        let links = self.linked(record)?;
        let files = files::write(self, record, &links)?;
        let mounts = self.start_mounts(record)?;
        let spec = oci::spec(oci::Inputs {
            record,
            mounts: &mounts,
            hostname: &files.hostname,
            hostname_path: files.hostname_path.clone(),
            hosts_path: files.hosts_path.clone(),
            resolv_conf_path: files.resolv_conf_path.clone(),
            capabilities,
            devices,
            device_rules,
            resources: limits::oci(&host.resources)?,
            cgroup,
            seccomp: seccomp_profile,
            security: &security,
            default_ulimits: &self.inner.config.default_ulimits,
            default_shm_size_bytes: self.inner.config.default_shm_size_bytes,
            shared_shm: self.shared_shm(record)?,
            env: self.environment(record, &files.hostname, record.config.tty)?,
        });
        let text = serde_json::to_vec(&spec)
            .map_err(|error| Error::system("encode config.json").caused_by(error))?;
        std::fs::write(directory.join("config.json"), text).map_err(|error| {
            Error::io(
                format_args!("write config.json of container {}", record.id),
                error,
            )
        })?;
        let exit_path = self.exit_path(&record.id);
        match std::fs::remove_file(&exit_path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(Error::io("remove the last exit record", error));
            }
            _ => {}
        }
        Ok(StartRequest {
            container_id: record.id.clone(),
            bundle: directory,
            runtime,
            state_root: self.runtime_root(),
            rootfs: Rootfs::Overlay(self.overlay(record)?),
            seccomp_filter: seccomp_file,
            init: host.init.unwrap_or(false),
            tty: record.config.tty,
            open_stdin: record.config.open_stdin,
            stdin_once: record.config.stdin_once,
            console_size: (host.console_size != [0, 0]).then_some(host.console_size),
            log: self.log_config(record)?,
            exit_path,
            cgroup: cgroup.to_owned(),
            ..StartRequest::default()
        })
    }

    fn log_config(&self, record: &Record) -> Result<LogConfig> {
        super::logs::config(record)
    }

    fn shim_options(&self, record: &Record, control: OwnedFd) -> gantry_shim::SpawnOptions {
        gantry_shim::SpawnOptions {
            container_id: record.id.clone(),
            control,
            log: Some(self.directory(&record.id).join("shim.log")),
            program: None,
        }
    }

    /// Returns the cgroup of a container in every hierarchy.
    pub(crate) fn cgroup_path(&self, record: &Record) -> String {
        let parent = match record.host.cgroup_parent.as_str() {
            "" => &self.inner.config.cgroup_parent,
            parent => parent,
        };
        format!("/{}/{}", parent.trim_matches('/'), record.id)
    }

    /// Finds the directory on the host behind /dev/shm when the IPC namespace is shared with anybody.
    fn shared_shm(&self, record: &Record) -> Result<Option<PathBuf>> {
        let own = |record: &Record| record.acquired.shm.then(|| self.shm_path(&record.id));
        let Some(id) = record.host.ipc_mode.strip_prefix("container:") else {
            return Ok(match record.host.ipc_mode.as_str() {
                "host" => Some("/dev/shm".into()),
                _ => own(record),
            });
        };
        let first = self.container(id)?.record();
        let mut other = first.clone();
        // That one may itself have joined another.
        while let Some(id) = other.host.ipc_mode.strip_prefix("container:") {
            other = self.container(id)?.record();
        }
        let path = if other.host.ipc_mode == "host" {
            Some("/dev/shm".into())
        } else {
            own(&other)
        };
        path.map(Some).ok_or_else(|| {
            Error::invalid(format!(
                "failed to join IPC namespace: container {}: non-shareable IPC (hint: use IpcMode:shareable for the donor \
                 container)",
                first.id
            ))
            .caused_by(StartExit(128))
        })
    }

    /// Mounts the /dev/shm of a container whose IPC namespace others may join; the record names it already.
    fn mount_shm(&self, record: &Record) -> Result<()> {
        use rustix::mount::MountFlags;
        let path = self.shm_path(&record.id);
        let size = match record.host.shm_size_bytes {
            size if size > 0 => size,
            _ => self.inner.config.default_shm_size_bytes,
        };
        let options = std::ffi::CString::new(format!("mode=1777,size={size}")).unwrap_or_default();
        let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
        std::fs::create_dir_all(&path)
            .and_then(|()| {
                Ok(rustix::mount::mount(
                    "shm",
                    &path,
                    "tmpfs",
                    flags,
                    options.as_c_str(),
                )?)
            })
            .map_err(|error| {
                Error::io(
                    format_args!("mount /dev/shm of container {}", record.id),
                    error,
                )
            })
    }
}

fn bind(socket: &std::path::Path) -> Result<UnixListener> {
    let failed = |error| Error::io(format_args!("listen on `{}`", socket.display()), error);
    // A socket's address holds 107 bytes; a longer path is reached through its directory's descriptor.
    if socket.as_os_str().len() < 100 {
        return UnixListener::bind(socket).map_err(failed);
    }
    use std::os::fd::AsRawFd;
    let directory = File::open(socket.parent().unwrap_or(socket)).map_err(failed)?;
    let name = socket.file_name().unwrap_or_default();
    UnixListener::bind(PathBuf::from(format!("/proc/self/fd/{}", directory.as_raw_fd())).join(name))
        .map_err(failed)
}
