//! The registry role: from the flags of `gantry registry serve` to a serving socket, and its end; and the commands that
//! work on the registry's files.

use gantry_cli::failure::{Failure, Outcome};
use gantry_cli::grammar::Matches;
use gantry_cli::output;
use gantry_registry::{Limits, Options, Policy, Registry, Tls, Tokens, Upstream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

const ROOT: &str = "/var/lib/gantry-registry";
const ADDRESS: &str = "127.0.0.1:5000";
const SERVICE: &str = "gantry-registry";
const HOUR: Duration = Duration::from_secs(3600);
const TAG_TTL: Duration = Duration::from_secs(300);
/// A thread of the blocking pool that has had nothing to do for so long ends: each keeps a stack.
const THREAD_KEEP_ALIVE: Duration = Duration::from_secs(5);

/// Runs a command of the registry that needs the server's crate; `None` if `path` is not one.
pub fn run(path: &str, global: &Matches, matches: &Matches) -> Option<Outcome> {
    match path {
        "registry serve" => Some(serve(global, matches)),
        "registry passwd" => Some(passwd(&matches.arguments[0])),
        "registry collect" => match (matches.get("root"), matches.arguments.first()) {
            (Some(root), None) => Some(collect(Path::new(root), matches)),
            (None, Some(_)) => None,
            _ => Some(Err(Failure::new(
                "either HOST or --root must be given, and not both",
            ))),
        },
        _ => None,
    }
}

/// Prints the line of an htpasswd file.
fn passwd(user: &str) -> Outcome {
    let mut password = String::new();
    std::io::stdin().read_line(&mut password)?;
    let password = password.trim_end_matches(['\r', '\n']);
    if password.is_empty() {
        return Err(Failure::new("the password on stdin is empty"));
    }
    output::line(&gantry_registry::auth::htpasswd::line(user, password)?);
    Ok(())
}

fn collect(root: &Path, matches: &Matches) -> Outcome {
    if !root.join("repositories").is_dir() {
        return Err(Failure::new(format!(
            "`{}` is no directory of a registry",
            root.display()
        )));
    }
    let policy = Policy {
        grace: duration(matches, "grace").unwrap_or(HOUR),
        is_dry_run: matches.on("dry-run"),
        ..policy(matches)
    };
    let collected = gantry_registry::collect_offline(root, &policy).map_err(failure)?;
    output::line(&gantry_cli::command::registry::collected_text(
        &serde_json::json!(collected),
        policy.is_dry_run,
    ));
    Ok(())
}

/// Serves until SIGTERM or SIGINT.
fn serve(global: &Matches, matches: &Matches) -> Outcome {
    let json = match matches.get("log-format") {
        None | Some("text") => false,
        Some("json") => true,
        Some(other) => return Err(Failure::new(format!("invalid log format: {other}"))),
    };
    let level = match global.get("log-level") {
        _ if global.on("debug") => tracing::Level::DEBUG,
        Some("debug" | "trace") => tracing::Level::DEBUG,
        Some("warn" | "warning") => tracing::Level::WARN,
        Some("error" | "fatal" | "panic") => tracing::Level::ERROR,
        _ => tracing::Level::INFO,
    };
    let options = options(matches)?;
    let tls = match (matches.get("tls-cert"), matches.get("tls-key")) {
        (None, None) => None,
        (Some(certificate), Some(key)) => {
            Some(Arc::new(Tls::open(Path::new(certificate), Path::new(key))?))
        }
        _ => {
            return Err(Failure::new(
                "--tls-cert and --tls-key must be given together",
            ));
        }
    };
    let _ = gantry_sys::process::set_name(c"gantry-registry");
    crate::boot::raise_descriptor_limit();
    gantry_daemon::log::start(gantry_daemon::LogSettings { level, json });
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .thread_name("gantry-registry")
        .thread_keep_alive(THREAD_KEEP_ALIVE)
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let (mut terminate, mut interrupt) = (
            signal(SignalKind::terminate())?,
            signal(SignalKind::interrupt())?,
        );
        let registry = Registry::open(options).map_err(failure)?;
        let listener = listen(matches.get("addr").unwrap_or(ADDRESS)).await?;
        if let Some(address) = matches.get("metrics-addr") {
            let listener = listen(address).await?;
            tokio::spawn(gantry_registry::serve_metrics(
                Arc::clone(&registry),
                listener,
            ));
        }
        tracing::info!(
            tls = tls.is_some(),
            "registry listens on {}",
            listener.local_addr()?
        );
        gantry_registry::serve(registry, listener, tls, async {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            tracing::info!("shutting down");
        })
        .await;
        Ok(())
    })
}

async fn listen(address: &str) -> Outcome<TcpListener> {
    TcpListener::bind(address)
        .await
        .map_err(|error| Failure::new(format!("listen on `{address}`: {error}")))
}

fn options(matches: &Matches) -> Outcome<Options> {
    let path = |name: &str| matches.get(name).map(PathBuf::from);
    let upstreams = upstreams(matches)?;
    let defaults = Limits::default();
    let limits = Limits {
        manifest_bytes: bytes(matches, "max-manifest-size")
            .and_then(|size| usize::try_from(size).ok())
            .unwrap_or(defaults.manifest_bytes),
        blob_bytes: bytes(matches, "max-blob-size"),
        uploads_at_once: count(matches, "max-uploads").unwrap_or(defaults.uploads_at_once),
        fetches_at_once: count(matches, "max-fetches").unwrap_or(defaults.fetches_at_once),
        connections: count(matches, "max-connections").unwrap_or(defaults.connections),
        ..defaults
    };
    Ok(Options {
        root: path("root").unwrap_or_else(|| ROOT.into()),
        engine_root: path("engine-root"),
        htpasswd: path("htpasswd"),
        access: path("access"),
        tokens: tokens(matches)?,
        is_read_only: matches.on("read-only"),
        is_sparse: matches.on("sparse"),
        public_url: matches.get("public-url").map(str::to_owned),
        limits,
        upstream_certs: path("upstream-certs"),
        mirror: matches.get("mirror").map(str::to_owned),
        tag_ttl: duration(matches, "tag-ttl").unwrap_or(TAG_TTL),
        collect_interval: Some(duration(matches, "collect-interval").unwrap_or(HOUR))
            .filter(|interval| !interval.is_zero()),
        policy: Policy {
            grace: duration(matches, "collect-grace").unwrap_or(HOUR),
            caches: upstreams
                .iter()
                .map(|upstream| upstream.name.clone())
                .collect(),
            cache_age: duration(matches, "cache-age"),
            cache_bytes: bytes(matches, "cache-size"),
            ..policy(matches)
        },
        upstreams,
    })
}

/// Reads what both ways of collecting are told.
fn policy(matches: &Matches) -> Policy {
    Policy {
        grace: HOUR,
        untagged: duration(matches, "untagged-after"),
        uploads: duration(matches, "upload-expiry").unwrap_or(24 * HOUR),
        caches: Vec::new(),
        cache_age: None,
        cache_bytes: None,
        is_dry_run: false,
    }
}

fn tokens(matches: &Matches) -> Outcome<Tokens> {
    let service = matches.get("token-service").unwrap_or(SERVICE).to_owned();
    let outside = ["token-realm", "token-issuer", "token-key"].map(|name| matches.get(name));
    match outside {
        [None, None, None] if matches.on("token") && !matches.given("htpasswd") => {
            Err(Failure::new("--token needs users: --htpasswd"))
        }
        [None, None, None] if matches.on("token") => Ok(Tokens::BuiltIn { service }),
        [None, None, None] => Ok(Tokens::None),
        [Some(realm), Some(issuer), Some(key)] if !matches.on("token") => Ok(Tokens::Outside {
            realm: realm.to_owned(),
            service,
            issuer: issuer.to_owned(),
            key: key.into(),
        }),
        _ => Err(Failure::new(
            "--token-realm, --token-issuer and --token-key must be given together, and without --token",
        )),
    }
}

fn upstreams(matches: &Matches) -> Outcome<Vec<Upstream>> {
    let passwords = match matches.get("upstream-passwords") {
        Some(path) => std::fs::read_to_string(path)
            .map_err(|error| Failure::new(gantry_cli::failure::open_error(path, &error)))?,
        None => String::new(),
    };
    let mut upstreams = Vec::new();
    for text in matches.all("upstream") {
        let Some((name, url)) = text.split_once('=') else {
            return Err(Failure::new(format!(
                "invalid upstream `{text}`: must be NAME=URL"
            )));
        };
        let account = passwords.lines().find_map(|line| {
            line.trim()
                .strip_prefix(name)?
                .strip_prefix(':')?
                .split_once(':')
        });
        let (username, password) = account.unwrap_or_default();
        upstreams.push(Upstream {
            name: name.to_owned(),
            url: url.to_owned(),
            username: username.to_owned(),
            password: password.to_owned(),
        });
    }
    Ok(upstreams)
}

/// Reads a duration; its syntax was checked with the flags, and a negative one counts as nothing.
fn duration(matches: &Matches, name: &str) -> Option<Duration> {
    let nanoseconds = gantry_cli::grammar::values::parse_duration(matches.get(name)?).ok()?;
    Some(Duration::from_nanos(
        u64::try_from(nanoseconds).unwrap_or(0),
    ))
}

fn bytes(matches: &Matches, name: &str) -> Option<u64> {
    matches
        .bytes(name)
        .and_then(|size| u64::try_from(size).ok())
}

fn count(matches: &Matches, name: &str) -> Option<usize> {
    matches.get(name)?.parse().ok().filter(|count| *count > 0)
}

/// Writes an error of the registry's with what it comes from.
fn failure(error: gantry_registry::Error) -> Failure {
    let text = match &error.cause {
        Some(cause) => cause.to_string(),
        None => error.to_string(),
    };
    Failure::new(text)
}
