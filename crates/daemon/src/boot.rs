//! From settings to a serving daemon, and its end.
//!
//! ```text
//! pid file ──▶ engine (recovery) ──▶ sockets ──▶ READY=1 ──▶ serve ──SIGTERM──▶ close sockets ──▶ requests end or time out
//!                                                              └─SIGHUP: log level, registries, image-gc
//! ```
//! The sockets open after recovery, so that the first answer is already true. Containers run on over the end.

use std::ffi::OsString;
use std::io::Write as _;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use gantry_engine::{Engine, EngineConfig, RuntimePath, SeccompDefault};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Notify;
use tokio::task::JoinSet;

use crate::config::{self, Seccomp, Settings};
use crate::listen::{self, Listener, SocketGroup};
use crate::server::connection;
use crate::{Daemon, log, notify, routes};

/// Requests are short and the kernel's work goes to threads of its own: more workers only cost memory.
const WORKERS: usize = 2;

/// A thread of the blocking pool that has had nothing to do for so long ends: each keeps a stack.
const THREAD_KEEP_ALIVE: Duration = Duration::from_secs(1);
/// After so long without a new connection the heap's free memory goes back to the kernel.
const QUIET: Duration = Duration::from_secs(1);

/// Runs the daemon until SIGTERM or SIGINT.
pub fn run(
    settings: Settings,
    args: &[OsString],
    sockets: Vec<(String, OwnedFd)>,
) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(WORKERS)
        .thread_name("gantry-worker")
        .thread_keep_alive(THREAD_KEEP_ALIVE)
        .enable_all()
        .build()
        .context("start the async runtime")?;
    runtime.block_on(serve(settings, args, sockets))
}

async fn serve(
    settings: Settings,
    args: &[OsString],
    sockets: Vec<(String, OwnedFd)>,
) -> anyhow::Result<()> {
    tracing::info!("Starting up");
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hangup = signal(SignalKind::hangup())?;
    // Their default actions would end the daemon.
    let _ignored = (
        signal(SignalKind::user_defined1())?,
        signal(SignalKind::pipe())?,
    );

    std::fs::create_dir_all(&settings.exec_root)
        .with_context(|| format!("create the exec root `{}`", settings.exec_root.display()))?;
    let pidfile = PidFile::create(&settings.pidfile).await?;
    let engine = Engine::open(engine_config(&settings))
        .await
        .map_err(|error| anyhow::anyhow!("{error}"))?;
    let group = SocketGroup {
        name: settings.socket_group.clone(),
        is_required: settings.socket_group_is_explicit,
    };
    let listeners = listen::open(
        &settings.hosts,
        settings.docker_socket.as_deref(),
        &group,
        sockets,
    )
    .await?;
    let shutdown_timeout = Duration::from_secs(settings.shutdown_timeout_s);
    let daemon = Arc::new(Daemon::new(engine, settings)?);
    let activity = Arc::new(Notify::new());
    tokio::spawn(give_memory_back(Arc::clone(&activity)));

    let mut accepting = JoinSet::new();
    let (finished, mut all_finished) = tokio::sync::mpsc::channel::<std::convert::Infallible>(1);
    for (name, listener) in listeners {
        tracing::info!("API listen on {name}");
        accepting.spawn(accept(
            listener,
            Arc::clone(&daemon),
            Arc::clone(&activity),
            finished.clone(),
        ));
    }
    drop(finished);
    tracing::info!("Daemon has completed initialization");
    notify::send("READY=1");

    loop {
        tokio::select! {
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            _ = hangup.recv() => reload(&daemon, args),
        }
    }
    tracing::info!("Processing signal: shutting down; containers run on");
    notify::send("STOPPING=1");
    accepting.shutdown().await;
    daemon.engine.shutdown().await;
    // Streams such as events and waits end only with their clients: they are given a moment, a second signal none.
    tokio::select! {
        _ = all_finished.recv() => {}
        () = tokio::time::sleep(shutdown_timeout.min(Duration::from_millis(500))) => {}
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    remove_sockets(&daemon.settings);
    drop(pidfile);
    tracing::info!("Daemon shutdown complete");
    Ok(())
}

async fn accept(
    listener: Listener,
    daemon: Arc<Daemon>,
    activity: Arc<Notify>,
    finished: tokio::sync::mpsc::Sender<std::convert::Infallible>,
) {
    loop {
        match listener.accept().await {
            Ok(stream) => {
                activity.notify_one();
                let (daemon, finished) = (Arc::clone(&daemon), finished.clone());
                tokio::spawn(async move {
                    connection::serve(stream, |handle, request| {
                        routes::answer(Arc::clone(&daemon), handle, request)
                    })
                    .await;
                    drop(finished);
                });
            }
            Err(error) => {
                // Out of descriptors or memory: clients wait in the socket's queue until some are free again.
                tracing::error!(error = %error, "accept a connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

/// Gives the heap's free memory back each time that clients have come and gone; sleeps while none comes.
async fn give_memory_back(activity: Arc<Notify>) {
    loop {
        activity.notified().await;
        while tokio::time::timeout(QUIET, activity.notified())
            .await
            .is_ok()
        {}
        // A failed spawn leaves the memory for the next time.
        let _ = tokio::task::spawn_blocking(gantry_engine::trim_heap).await;
    }
}

/// Reads the configuration again and applies what can change in a running daemon: the level of its log, what it knows
/// of registries, and which images it removes.
fn reload(daemon: &Daemon, args: &[OsString]) {
    notify::send("RELOADING=1");
    match config::load(args) {
        Ok(config::Task::Run(settings)) => {
            log::set_level(settings.log.level);
            match daemon.configure(settings.registries) {
                Ok(()) => tracing::info!("Reloaded configuration"),
                Err(error) => tracing::error!("reload the configuration: {error:#}"),
            }
        }
        Ok(_) => {}
        Err(error) => tracing::error!(error = %error, "reload the configuration"),
    }
    notify::send("READY=1");
}

fn remove_sockets(settings: &Settings) {
    let own = settings.hosts.iter().filter_map(|host| match host {
        config::Host::Unix(path) => Some(path.as_path()),
        _ => None,
    });
    for path in own.chain(settings.docker_socket.as_deref()) {
        // Ours if nobody answers there: the listeners are closed.
        if std::os::unix::net::UnixStream::connect(path)
            .is_err_and(|error| error.kind() == std::io::ErrorKind::ConnectionRefused)
        {
            let _ = std::fs::remove_file(path);
        }
    }
}

/// How long the daemon of an old pid file may take to end.
const END_WAIT: Duration = Duration::from_secs(3);

/// The file with the daemon's process id; removed when dropped.
struct PidFile(PathBuf);

impl PidFile {
    async fn create(path: &Path) -> anyhow::Result<Self> {
        if let Ok(text) = std::fs::read_to_string(path)
            && let Ok(pid) = text.trim().parse::<u32>()
            && pid != std::process::id()
        {
            let begin = Instant::now();
            // It may have been killed a moment ago.
            while is_gantry(pid) {
                if begin.elapsed() > END_WAIT {
                    bail!("process with PID {pid} is still running");
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
        let written =
            std::fs::File::create(path).and_then(|mut file| write!(file, "{}", std::process::id()));
        written.with_context(|| format!("write the pid file `{}`", path.display()))?;
        Ok(Self(path.to_owned()))
    }
}

impl Drop for PidFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Tells whether a process is a daemon of ours: after a crash its number may belong to somebody else.
fn is_gantry(pid: u32) -> bool {
    // A zombie keeps its name until somebody waits for it; it runs no more.
    std::fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| stat.contains(" (gantry-daemon) ") && !stat.contains(") Z "))
}

fn engine_config(settings: &Settings) -> EngineConfig {
    let network = &settings.network;
    EngineConfig {
        data_root: settings.data_root.clone(),
        exec_root: settings.exec_root.clone(),
        bridge: network.bridge.clone(),
        firewall: network.firewall,
        ip_forward: network.ip_forward,
        ip_forward_no_drop: network.ip_forward_no_drop,
        allow_direct_routing: network.allow_direct_routing,
        obey_host_firewall: network.obey_host_firewall,
        host_binding_ip: network.host_binding,
        host_gateway_ips: network.host_gateway_ips.clone(),
        address_pools: network.address_pools.clone(),
        default_network_options: network.default_options.clone(),
        dns: network.dns.clone(),
        dns_search: network.dns_search.clone(),
        dns_options: network.dns_options.clone(),
        default_log_driver: settings.log_driver.clone(),
        default_log_options: settings.log_options.clone(),
        default_shm_size_bytes: settings.shm_size_bytes,
        default_ulimits: settings
            .ulimits
            .iter()
            .map(
                |(name, (soft, hard))| gantry_engine::container::config::Ulimit {
                    name: name.clone(),
                    soft: *soft,
                    hard: *hard,
                },
            )
            .collect(),
        default_init: settings.init,
        cgroup_parent: settings
            .cgroup_parent
            .clone()
            .unwrap_or_else(|| "gantry".to_owned()),
        default_runtime: settings
            .default_runtime
            .clone()
            .unwrap_or_else(|| "gantry".to_owned()),
        runtimes: settings
            .runtimes
            .iter()
            .map(|(name, (path, args))| {
                (
                    name.clone(),
                    RuntimePath {
                        path: path.into(),
                        args: args.clone(),
                    },
                )
            })
            .collect(),
        seccomp_profile: match &settings.seccomp {
            Seccomp::BuiltIn => SeccompDefault::BuiltIn,
            Seccomp::Unconfined => SeccompDefault::Unconfined,
            Seccomp::File(path) => SeccompDefault::File(path.clone()),
        },
        no_new_privileges: settings.no_new_privileges,
        labels: settings.labels.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_pid_file_of_a_dead_or_foreign_process_is_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("gantry.pid");
        // Process 1 lives and is no daemon of ours.
        std::fs::write(&path, "1").unwrap();
        let file = PidFile::create(&path).await.unwrap();
        assert_eq!(
            std::fs::read_to_string(&path).unwrap(),
            std::process::id().to_string()
        );
        drop(file);
        assert!(!path.exists());
    }
}
