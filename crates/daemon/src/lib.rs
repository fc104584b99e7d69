//! The daemon role: the Docker Engine API over the engine, and the composition root.
//!
//! | module | what it owns |
//! |---|---|
//! | `config` | dockerd's flags and `daemon.json` |
//! | `boot` | start, signals, shutdown |
//! | `listen`, `notify`, `log` | sockets, the service manager, the daemon's own log |
//! | `server` | HTTP: connections, versions, queries, bodies |
//! | `routes` | one function per operation: parse, call one engine verb, encode |
//! | `convert` | wire types to the engine's and back, nowhere else |
//!
//! Containers run under their shims: nothing here stops them when the daemon ends.

mod boot;
mod config;
mod convert;
mod listen;
pub mod log;
mod notify;
mod routes;
mod server;

use std::ffi::OsString;
use std::os::fd::OwnedFd;
use std::process::ExitCode;
use std::sync::{PoisonError, RwLock};

use anyhow::Context as _;
pub use config::LogSettings;
use gantry_engine::Engine;
use gantry_engine::image::SignaturePolicy;

/// What every request can get at.
pub(crate) struct Daemon {
    pub engine: Engine,
    pub settings: config::Settings,
    /// The part of the settings that can change while the daemon runs.
    registries: RwLock<config::Registries>,
}

impl Daemon {
    /// Takes the engine and tells it of registries.
    fn new(engine: Engine, settings: config::Settings) -> anyhow::Result<Self> {
        let daemon = Self {
            engine,
            registries: RwLock::new(settings.registries.clone()),
            settings,
        };
        daemon.configure(daemon.registries())?;
        Ok(daemon)
    }

    /// Gives what holds now of registries.
    pub fn registries(&self) -> config::Registries {
        let registries = self.registries.read();
        registries.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Tells the engine of registries, at the start and after a change.
    fn configure(&self, registries: config::Registries) -> anyhow::Result<()> {
        let (config, concurrency) = convert::registry::config(&registries);
        let signatures = registries.signature_policy.as_deref();
        let signatures = signatures.map(SignaturePolicy::load).transpose()?;
        self.engine
            .configure_registries(config, concurrency, signatures)
            .context("configure registries")?;
        self.engine.set_image_gc_policy(registries.image_gc.clone());
        *self
            .registries
            .write()
            .unwrap_or_else(PoisonError::into_inner) = registries;
        Ok(())
    }
}

/// Runs the role until a signal ends it: `args` is what follows `daemon` on the command line, `sockets` what the
/// service manager passed, by name.
pub fn run(args: &[OsString], sockets: Vec<(String, OwnedFd)>) -> ExitCode {
    let settings = match config::load(args) {
        Ok(config::Task::Help) => {
            print(&config::help());
            return ExitCode::SUCCESS;
        }
        Ok(config::Task::Version) => {
            print(&format!(
                "Gantry version {}, API {} (Docker {})\n",
                env!("CARGO_PKG_VERSION"),
                server::version::MAX,
                server::version::ENGINE_VERSION
            ));
            return ExitCode::SUCCESS;
        }
        Ok(config::Task::Validate) => {
            print("configuration OK\n");
            return ExitCode::SUCCESS;
        }
        Ok(config::Task::Run(settings)) => *settings,
        Err(error) => {
            complain(&error.to_string());
            return ExitCode::FAILURE;
        }
    };
    log::start(settings.log);
    match boot::run(settings, args, sockets) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(&format!("failed to start daemon: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn print(text: &str) {
    use std::io::Write as _;
    let _ = std::io::stdout().write_all(text.as_bytes());
}

fn complain(text: &str) {
    use std::io::Write as _;
    let _ = writeln!(std::io::stderr(), "{text}");
}
