//! What every command needs: the configuration, the daemon's address, the client.

use crate::Hooks;
use crate::failure::{Failure, Outcome};
use crate::grammar::Matches;
use crate::grammar::values::parse_csv;
use gantry_api::image::AuthConfig;
use gantry_client::config::{self, ConfigFile, StoredAuth};
use gantry_client::credentials::{self, ENVIRONMENT};
use gantry_client::{Client, Endpoint, Options, Version, context};
use std::cell::OnceCell;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The surroundings of one command.
pub struct Cli {
    /// The program's name as invoked.
    pub program: String,
    /// The words by which the command was called, with the program's name.
    pub words: String,
    pub global: Matches,
    pub directory: PathBuf,
    config: OnceCell<ConfigFile>,
    client: OnceCell<Client>,
    /// The credentials of `DOCKER_AUTH_CONFIG`.
    registry_environment: OnceCell<BTreeMap<String, StoredAuth>>,
    hooks: Hooks,
}

/// The daemon that a command speaks to and how it was chosen.
pub struct Target {
    /// The context's name; `default` when none was chosen.
    pub context: String,
    /// The address; `None` is Gantry's own socket.
    pub host: Option<String>,
}

impl Cli {
    /// Gathers the surroundings. Reads nothing yet.
    pub fn new(program: String, words: String, global: Matches, hooks: Hooks) -> Outcome<Cli> {
        let directory = global
            .get("config")
            .map_or_else(config::directory, PathBuf::from);
        Ok(Cli {
            program,
            words,
            global,
            directory,
            config: OnceCell::new(),
            client: OnceCell::new(),
            registry_environment: OnceCell::new(),
            hooks,
        })
    }

    /// Returns config.json, read at the first call.
    pub fn config(&self) -> &ConfigFile {
        self.config.get_or_init(|| {
            config::load(&self.directory).unwrap_or_else(|error| {
                crate::output::error_line(&format!("WARNING: Error {error}"));
                ConfigFile::default()
            })
        })
    }

    /// Returns the credentials for a registry's server, empty if there are none.
    pub fn credentials(&self, server: &str) -> Outcome<AuthConfig> {
        let environment = self.registry_environment.get_or_init(|| {
            let text = std::env::var(ENVIRONMENT).unwrap_or_default();
            if text.is_empty() {
                return BTreeMap::new();
            }
            credentials::parse_environment(&text).unwrap_or_else(|error| {
                crate::output::error_line(&format!(
                    "Failed to create credential store from {ENVIRONMENT}:  {error}"
                ));
                BTreeMap::new()
            })
        });
        Ok(credentials::get(self.config(), environment, server)?)
    }

    /// Returns the header with the credentials for a server. Where they cannot be had, the request goes without them and
    /// the registry says what it needs.
    pub fn registry_auth(&self, server: &str) -> String {
        credentials::header(&self.credentials(server).unwrap_or_default())
    }

    /// Chooses the daemon by flags, environment and configuration, in Docker's order.
    pub fn target(&self) -> Outcome<Target> {
        let environment = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let named = |context: &str| Target {
            context: context.to_owned(),
            host: None,
        };
        let hosts = self.global.all("host");
        if !hosts.is_empty() {
            if self.global.given("context") {
                return Err(Failure::new(
                    "conflicting options: cannot specify both --host and --context",
                ));
            }
            if hosts.len() > 1 {
                return Err(initialize(
                    "unable to resolve docker endpoint: Specify only one -H",
                ));
            }
            return Ok(Target {
                context: "default".to_owned(),
                host: hosts.into_iter().next(),
            });
        }
        let target = if let Some(context) = self.global.get("context") {
            named(context)
        } else if let Some(host) = environment("DOCKER_HOST") {
            Target {
                context: "default".to_owned(),
                host: Some(host),
            }
        } else if let Some(context) = environment("DOCKER_CONTEXT") {
            named(&context)
        } else if !self.config().current_context.is_empty() {
            named(&self.config().current_context)
        } else {
            named("default")
        };
        if target.context == "default" {
            return Ok(target);
        }
        let found = context::load(&self.directory, &target.context, &digest(&target.context))
            .map_err(|error| initialize(&format!("unable to resolve docker endpoint: {error}")))?;
        Ok(Target {
            host: Some(found.host().to_owned()),
            ..target
        })
    }

    /// Returns the client of the chosen daemon.
    pub fn client(&self) -> Outcome<&Client> {
        if let Some(client) = self.client.get() {
            return Ok(client);
        }
        let client = self.make_client()?;
        Ok(self.client.get_or_init(|| client))
    }

    fn make_client(&self) -> Outcome<Client> {
        let target = self.target()?;
        let tls = ["tls", "tlsverify"].iter().any(|flag| self.global.on(flag))
            || ["tlscacert", "tlscert", "tlskey"]
                .iter()
                .any(|flag| self.global.given(flag))
            || std::env::var_os("DOCKER_TLS_VERIFY").is_some_and(|value| !value.is_empty());
        let host = target.host.filter(|host| !host.is_empty());
        let own = own_socket();
        let endpoint = match &host {
            Some(host) => {
                Endpoint::parse(host).map_err(|error| match host.starts_with("ssh://") {
                    true => initialize(&error.to_string()),
                    false => initialize(&format!("unable to resolve docker endpoint: {error}")),
                })?
            }
            None => Endpoint::Unix {
                path: own.to_string_lossy().into_owned(),
            },
        };
        self.debug(&format!("context {}, daemon {endpoint}", target.context));
        // Of ssh, the remote side's client decides.
        if tls && !matches!(endpoint, Endpoint::Ssh { .. }) {
            return Err(initialize(
                "TLS connections to a daemon are not supported yet; use ssh:// or a unix socket",
            ));
        }
        let version = std::env::var("DOCKER_API_VERSION")
            .ok()
            .filter(|text| !text.is_empty());
        let version = match version {
            None => None,
            Some(text) => Some(
                Version::parse(&text)
                    .ok_or_else(|| initialize(&format!("invalid API version: {text}")))?,
            ),
        };
        let mut headers: Vec<(String, String)> = self
            .config()
            .http_headers
            .iter()
            .filter(|(name, _)| !name.eq_ignore_ascii_case("user-agent"))
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect();
        headers.extend(custom_headers()?);
        let autostart = self.hooks.autostart;
        let socket = own.clone();
        let ours = matches!(&endpoint, Endpoint::Unix { path } if Path::new(path) == own);
        Ok(Client::new(Options {
            endpoint,
            headers,
            version,
            assume_newest: ours,
            autostart: host
                .is_none()
                .then(|| Box::new(move || autostart(&socket)) as Box<dyn Fn() -> _>),
        }))
    }

    /// Writes a line for whoever asked with `--debug` or `--log-level`, in the form that Docker's client has without a
    /// terminal.
    fn debug(&self, text: &str) {
        let level = self.global.get("log-level").unwrap_or_default();
        if self.global.on("debug") || matches!(level, "debug" | "trace") {
            let time = gantry_api::time::Timestamp::from(std::time::SystemTime::now());
            crate::output::error_line(&format!(
                "time=\"{}\" level=debug msg={text:?}",
                time.to_rfc3339_fixed()
            ));
        }
    }

    /// Refuses to work with content trust, which is asked for by a flag or by the environment: no signature is looked at.
    pub fn refuse_content_trust(&self, matches: &Matches) -> Outcome {
        let flag = "disable-content-trust";
        if matches.given(flag) {
            if matches.on(flag) {
                return Ok(());
            }
            return Err(Failure::new(format!(
                "--{flag}=false is not supported: there is no content trust"
            )));
        }
        let on = |value: String| crate::grammar::values::parse_bool(&value) == Ok(true);
        if std::env::var("DOCKER_CONTENT_TRUST").is_ok_and(on) {
            return Err(Failure::new(
                "DOCKER_CONTENT_TRUST is not supported: there is no content trust",
            ));
        }
        Ok(())
    }

    /// Returns the keys that detach, from the flag or the configuration.
    pub fn detach_keys(&self, matches: &Matches) -> String {
        match matches.get("detach-keys") {
            Some(keys) if !keys.is_empty() => keys.to_owned(),
            _ => self.config().detach_keys.clone(),
        }
    }
}

fn initialize(text: &str) -> Failure {
    Failure::new(format!("Failed to initialize: {text}"))
}

/// Parses `DOCKER_CUSTOM_HEADERS`: comma-separated `name=value` pairs.
fn custom_headers() -> Outcome<Vec<(String, String)>> {
    let Ok(text) = std::env::var("DOCKER_CUSTOM_HEADERS") else {
        return Ok(Vec::new());
    };
    let wrong = |what: &str| {
        initialize(&format!(
            "failed to parse custom headers from DOCKER_CUSTOM_HEADERS environment variable: {what}"
        ))
    };
    parse_csv(&text)
        .map_err(|_| wrong("value must be formatted as comma-separated key=value pairs"))?
        .iter()
        .map(|pair| match pair.split_once('=') {
            Some((name, value)) if !name.trim().is_empty() => {
                Ok((name.trim().to_owned(), value.to_owned()))
            }
            _ => Err(wrong(
                "value contains a key=value pair with an empty key or no value",
            )),
        })
        .collect()
}

/// Returns the socket of Gantry's daemon for this user.
pub fn own_socket() -> PathBuf {
    let system = PathBuf::from("/run/gantry/gantry.sock");
    let user = rustix::process::geteuid();
    if user.is_root() {
        return system;
    }
    let runtime = match std::env::var_os("XDG_RUNTIME_DIR") {
        Some(directory) if !directory.is_empty() => PathBuf::from(directory),
        _ => PathBuf::from(format!("/run/user/{}", user.as_raw())),
    };
    let own = runtime.join("gantry/gantry.sock");
    // A member of the system daemon's group uses that one, unless a daemon of the user's own is there.
    if !own.exists() && rustix::fs::access(&system, rustix::fs::Access::WRITE_OK).is_ok() {
        system
    } else {
        own
    }
}

/// Returns the hexadecimal SHA-256 of a context's name.
pub fn digest(name: &str) -> String {
    use sha2::{Digest, Sha256};
    Sha256::digest(name.as_bytes())
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}
