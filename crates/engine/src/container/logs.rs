//! `logs`: the shim writes them, the engine reads the files. Also the log options of a container.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use gantry_shim::log::Position;
use gantry_shim::log::reader::{self, Progress, Reader};
use gantry_shim::protocol::{Attach, LogConfig, LogDriver, LogMode, Reply, Request};
use tokio::sync::mpsc;

use super::Container;
use super::config::HostConfig;
use super::link::Shim;
use super::record::Record;
use crate::{Engine, Error, Result};

/// Bytes of one chunk.
const CHUNK: usize = 256 << 10;
/// Chunks that wait for a slow client.
const CHUNKS_MAX: usize = 16;
/// How often a follower looks whether its container or its client is gone.
const LOOK: Duration = Duration::from_millis(250);
/// Gantry rotates by default: a log without limits fills the disk.
const MAX_SIZE_DEFAULT: u64 = 20 << 20;
const MAX_FILES_DEFAULT: u32 = 5;

/// Which lines to read, and how to write them.
#[derive(Clone, Debug, Default)]
pub struct LogsOptions {
    pub stdout: bool,
    pub stderr: bool,
    pub follow: bool,
    pub timestamps: bool,
    pub details: bool,
    pub since_ns: Option<i64>,
    pub until_ns: Option<i64>,
    /// `None` for all lines.
    pub tail: Option<u64>,
}

/// A log that is being read.
pub struct Logs {
    /// The container has a terminal, so the chunks are raw bytes and not frames.
    pub tty: bool,
    pub stream: mpsc::Receiver<std::io::Result<Vec<u8>>>,
}

impl Engine {
    /// Reads a container's log.
    ///
    /// # Errors
    /// Not found; a driver that keeps nothing.
    pub async fn logs(&self, name: &str, options: LogsOptions) -> Result<Logs> {
        if !options.stdout && !options.stderr {
            return Err(Error::invalid(
                "Bad parameters: you must choose at least one stream",
            ));
        }
        let container = self.container(name)?;
        let record = container.record();
        let driver = driver(&record.host)?;
        if driver == LogDriver::None {
            return Err(Error::new(
                gantry_api::error::ErrorKind::NotImplemented,
                "configured logging driver does not support reading",
            ));
        }
        let tty = record.config.tty;
        let (sender, stream) = mpsc::channel(CHUNKS_MAX);
        let reading = reader::Options {
            stdout: options.stdout,
            stderr: options.stderr,
            since_ns: options.since_ns,
            until_ns: options.until_ns,
            tail: options.tail,
            timestamps: options.timestamps,
            details: options.details,
            multiplexed: !tty,
        };
        let path = PathBuf::from(&record.log_path);
        std::thread::Builder::new()
            .name("log-reader".into())
            .spawn(move || {
                let result = pump(&container, driver, &path, reading, &options, &sender);
                if let Err(error) = result {
                    // The client may be the one who is gone.
                    let _ = sender.blocking_send(Err(error));
                }
            })
            .map_err(|error| Error::io("start a log reader", error))?;
        Ok(Logs { tty, stream })
    }

    /// Sends the log so far to a client that attaches with `logs=1`; returns where its live output goes on.
    pub(crate) async fn replay_to(
        &self,
        container: &Arc<Container>,
        shim: Option<&Arc<Shim>>,
        client: &OwnedFd,
        attach: &Attach,
    ) -> Result<Option<Position>> {
        let record = container.record();
        let driver = driver(&record.host)?;
        if driver == LogDriver::None {
            return Ok(None);
        }
        let end = match shim {
            Some(shim) => match shim.call(Request::SyncLog, Vec::new()).await?.0 {
                Reply::Log(position) => Some(position),
                _ => None,
            },
            None => None,
        };
        let client = client
            .try_clone()
            .map_err(|error| Error::io("duplicate a client's socket", error))?;
        let (stdout, stderr, multiplexed) = (attach.stdout, attach.stderr, attach.multiplexed);
        crate::blocking::run_long(move || {
            let options = reader::Options {
                stdout,
                stderr,
                since_ns: None,
                until_ns: None,
                tail: None,
                timestamps: false,
                details: false,
                multiplexed,
            };
            let mut reader = Reader::open(driver, std::path::Path::new(&record.log_path), options)?;
            loop {
                let mut chunk = Vec::new();
                let progress = reader.read(&mut chunk, CHUNK)?;
                write_all(&client, &chunk)?;
                let reached = end.is_some_and(|end| reader.position() == end);
                if reached || !matches!(progress, Progress::More) {
                    return Ok(Some(reader.position()));
                }
            }
        })
        .await?
        .map_err(|error: std::io::Error| Error::io("replay the log", error))
    }
}

/// Writes to a socket that may be nonblocking.
fn write_all(socket: &OwnedFd, mut bytes: &[u8]) -> std::io::Result<()> {
    while !bytes.is_empty() {
        match gantry_sys::unix::send(socket.as_fd(), bytes) {
            Ok(count) => bytes = &bytes[count..],
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                gantry_sys::unix::wait_writable(socket.as_fd(), Duration::from_secs(60))?;
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn pump(
    container: &Container,
    driver: LogDriver,
    path: &std::path::Path,
    reading: reader::Options,
    options: &LogsOptions,
    sender: &mpsc::Sender<std::io::Result<Vec<u8>>>,
) -> std::io::Result<()> {
    let mut reader = Reader::open(driver, path, reading)?;
    let watch = if options.follow {
        Some(watch(path)?)
    } else {
        None
    };
    let life = container.life.subscribe();
    loop {
        // Looked at before reading: what was written before the end is then read.
        let over = !life.borrow().running;
        let mut chunk = Vec::with_capacity(CHUNK + (32 << 10));
        let progress = reader.read(&mut chunk, CHUNK)?;
        if !chunk.is_empty() && sender.blocking_send(Ok(chunk)).is_err() {
            return Ok(());
        }
        match (progress, &watch) {
            (Progress::More, _) => {}
            (Progress::Done, _) | (_, None) => return Ok(()),
            (_, Some(_)) if over || sender.is_closed() => return Ok(()),
            (_, Some(watch)) => {
                if options
                    .until_ns
                    .is_some_and(|until| crate::now_ns() > until)
                {
                    return Ok(());
                }
                wait_for_change(watch)?;
            }
        }
    }
}

/// Watches the log's directory: writes, rotations and the first file's coming.
fn watch(path: &std::path::Path) -> std::io::Result<OwnedFd> {
    use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
    let watch = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
    let directory = path.parent().unwrap_or(path);
    inotify::add_watch(
        &watch,
        directory,
        WatchFlags::MODIFY | WatchFlags::CREATE | WatchFlags::MOVED_TO,
    )?;
    Ok(watch)
}

fn wait_for_change(watch: &OwnedFd) -> std::io::Result<()> {
    match gantry_sys::unix::wait_readable(watch.as_fd(), LOOK) {
        Ok(()) => {
            let mut buffer = [0; 4096];
            while rustix::io::read(watch, &mut buffer).is_ok_and(|count| count > 0) {}
            Ok(())
        }
        Err(error) if error.kind() == std::io::ErrorKind::TimedOut => Ok(()),
        Err(error) => Err(error),
    }
}

fn driver(host: &HostConfig) -> Result<LogDriver> {
    match host.log_driver.as_str() {
        "json-file" | "" => Ok(LogDriver::JsonFile),
        "local" => Ok(LogDriver::Local),
        "none" => Ok(LogDriver::None),
        "journald" | "syslog" | "gelf" | "fluentd" | "awslogs" | "splunk" | "gcplogs" => {
            Err(Error::new(
                gantry_api::error::ErrorKind::NotImplemented,
                format!(
                    "the log driver \"{}\" is not supported yet: use json-file, local or none",
                    host.log_driver
                ),
            ))
        }
        other => Err(Error::invalid(format!(
            "error looking up logging plugin {other}: plugin \"{other}\" not found"
        ))),
    }
}

/// Returns the name of the log file in the container's directory.
pub(crate) fn file_name(record: &Record) -> Option<String> {
    match driver(&record.host).ok()? {
        LogDriver::JsonFile => Some(format!("{}-json.log", record.id)),
        LogDriver::Local => Some("local-logs/container.log".into()),
        LogDriver::None => None,
    }
}

/// Checks the driver and its options.
pub(crate) fn check(host: &HostConfig) -> Result<()> {
    let driver = driver(host)?;
    let known: &[&str] = match driver {
        LogDriver::JsonFile => &[
            "max-size",
            "max-file",
            "compress",
            "labels",
            "labels-regex",
            "env",
            "env-regex",
            "tag",
            "mode",
            "max-buffer-size",
        ],
        LogDriver::Local => &[
            "max-size",
            "max-file",
            "compress",
            "mode",
            "max-buffer-size",
        ],
        LogDriver::None => &["mode", "max-buffer-size"],
    };
    if let Some(key) = host
        .log_options
        .keys()
        .find(|key| !known.contains(&key.as_str()))
    {
        return Err(Error::invalid(format!(
            "unknown log opt '{key}' for {} log driver",
            host.log_driver
        )));
    }
    for key in ["labels-regex", "env-regex"] {
        if host.log_options.contains_key(key) {
            return Err(Error::new(
                gantry_api::error::ErrorKind::NotImplemented,
                format!("the log option {key} is not supported yet"),
            ));
        }
    }
    if let Some(tag) = host.log_options.get("tag").filter(|tag| tag.contains("{{")) {
        tag_text(tag, &Record::default())?;
    }
    options(host, driver).map(|_| ())
}

struct Parsed {
    max_size_bytes: u64,
    max_files: u32,
    compress: bool,
    mode: LogMode,
}

fn options(host: &HostConfig, driver: LogDriver) -> Result<Parsed> {
    let get = |key: &str| host.log_options.get(key).map(String::as_str);
    // Docker says it at the start, when its driver opens; nothing is gained by a container that can never start.
    let invalid = |text: String| {
        Error::invalid(format!(
            "failed to create task for container: failed to initialize logging driver: {text}"
        ))
    };
    let max_size_bytes = match get("max-size").map(|text| (text, parse_size(text))) {
        None => MAX_SIZE_DEFAULT,
        Some((_, Some(0))) => return Err(invalid("max-size must be a positive number".into())),
        Some((_, Some(size))) => size,
        Some((text, None)) => return Err(invalid(format!("invalid size: '{text}'"))),
    };
    let max_files = match get("max-file") {
        // As in Docker, a size alone means one file; no option at all is Gantry's default.
        None if get("max-size").is_some() && driver == LogDriver::JsonFile => 1,
        None => MAX_FILES_DEFAULT,
        Some(text) => text
            .parse::<i64>()
            .map_err(|_| invalid(format!("strconv.Atoi: parsing \"{text}\": invalid syntax")))
            .and_then(|count| {
                u32::try_from(count)
                    .ok()
                    .filter(|count| *count >= 1)
                    .ok_or_else(|| invalid("max-file cannot be less than 1".into()))
            })?,
    };
    let compress = match get("compress") {
        None => driver == LogDriver::Local,
        Some("true") => true,
        Some("false") => false,
        Some(text) => {
            return Err(invalid(format!(
                "strconv.ParseBool: parsing \"{text}\": invalid syntax"
            )));
        }
    };
    if compress && driver == LogDriver::JsonFile && max_files < 2 {
        return Err(invalid(
            "compress cannot be true when max-file is less than 2 or max-size is not set".into(),
        ));
    }
    let mode = match get("mode") {
        None | Some("blocking") => {
            if get("max-buffer-size").is_some() {
                return Err(Error::invalid(
                    "logger: max-buffer-size option is only supported with 'mode=non-blocking'",
                ));
            }
            LogMode::Blocking
        }
        Some("non-blocking") => LogMode::NonBlocking {
            buffer_bytes: match get("max-buffer-size") {
                None => 1 << 20,
                Some(text) => {
                    parse_size(text).ok_or_else(|| invalid(format!("invalid size: '{text}'")))?
                }
            },
        },
        Some(text) => {
            return Err(Error::invalid(format!(
                "logger: logging mode not supported: {text}"
            )));
        }
    };
    Ok(Parsed {
        max_size_bytes,
        max_files,
        compress,
        mode,
    })
}

/// Parses `10m`, `1.5g`, `100k`, `5`.
pub(crate) fn parse_size(text: &str) -> Option<u64> {
    let lower = text.trim().to_ascii_lowercase();
    let digits = lower
        .trim_end_matches(|letter: char| letter.is_ascii_alphabetic())
        .trim_end();
    let factor: u64 = match lower[digits.len()..].trim() {
        "" | "b" => 1,
        "k" | "kb" | "kib" => 1 << 10,
        "m" | "mb" | "mib" => 1 << 20,
        "g" | "gb" | "gib" => 1 << 30,
        "t" | "tb" | "tib" => 1 << 40,
        _ => return None,
    };
    let number: f64 = digits.parse().ok().filter(|number: &f64| *number >= 0.0)?;
    Some((number * factor as f64) as u64)
}

/// Builds the shim's log configuration.
pub(crate) fn config(record: &Record) -> Result<LogConfig> {
    let driver = driver(&record.host)?;
    let parsed = options(&record.host, driver)?;
    let path = PathBuf::from(&record.log_path);
    if driver == LogDriver::Local
        && let Some(directory) = path.parent()
    {
        std::fs::create_dir_all(directory)
            .map_err(|error| Error::io("make the log's directory", error))?;
    }
    Ok(LogConfig {
        driver,
        path,
        max_size_bytes: Some(parsed.max_size_bytes),
        max_files: parsed.max_files,
        compress: parsed.compress,
        attrs: attributes(record)?,
        mode: parsed.mode,
    })
}

/// Collects what `labels`, `env` and `tag` select.
fn attributes(record: &Record) -> Result<BTreeMap<String, String>> {
    let get = |key: &str| record.host.log_options.get(key).map_or("", String::as_str);
    let mut attributes = BTreeMap::new();
    for name in get("labels").split(',').filter(|name| !name.is_empty()) {
        if let Some(value) = record.config.labels.get(name) {
            attributes.insert(name.to_owned(), value.clone());
        }
    }
    for name in get("env").split(',').filter(|name| !name.is_empty()) {
        let value = record
            .config
            .env
            .iter()
            .find_map(|entry| entry.split_once('=').filter(|(own, _)| *own == name));
        if let Some((_, value)) = value {
            attributes.insert(name.to_owned(), value.to_owned());
        }
    }
    let tag = get("tag");
    if !tag.is_empty() {
        attributes.insert("tag".into(), tag_text(tag, record)?);
    }
    Ok(attributes)
}

/// Fills in the fields of a tag's template.
fn tag_text(template: &str, record: &Record) -> Result<String> {
    let mut text = String::new();
    let mut rest = template;
    while let Some((before, after)) = rest.split_once("{{") {
        let (field, after) = after
            .split_once("}}")
            .ok_or_else(|| Error::invalid(format!("invalid log tag: {template}")))?;
        text.push_str(before);
        let short = |id: &str| {
            id.trim_start_matches("sha256:")
                .chars()
                .take(12)
                .collect::<String>()
        };
        text.push_str(&match field.trim() {
            ".ID" => short(&record.id),
            ".FullID" => record.id.clone(),
            ".Name" => record.name.clone(),
            ".ImageID" => short(&record.image_id),
            ".ImageFullID" => record.image_id.clone(),
            ".ImageName" => record.config.image.clone(),
            ".DaemonName" => "gantry".into(),
            other => {
                return Err(Error::invalid(format!(
                    "the field {other} of a log tag is not known"
                )));
            }
        });
        rest = after;
    }
    text.push_str(rest);
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(driver: &str, pairs: &[(&str, &str)]) -> HostConfig {
        HostConfig {
            log_driver: driver.into(),
            log_options: pairs
                .iter()
                .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
                .collect(),
            ..HostConfig::default()
        }
    }

    #[test]
    fn options_are_understood_or_refused() {
        check(&host(
            "json-file",
            &[("max-size", "10m"), ("max-file", "3"), ("compress", "true")],
        ))
        .unwrap();
        check(&host("local", &[])).unwrap();
        for (driver, pairs) in [
            ("json-file", &[("max-size", "x")][..]),
            ("json-file", &[("max-size", "-1")]),
            ("json-file", &[("max-size", "0")]),
            ("json-file", &[("max-file", "x")]),
            ("json-file", &[("max-file", "0")]),
            ("json-file", &[("bogus", "1")]),
            ("json-file", &[("max-size", "1m"), ("compress", "true")]),
            ("json-file", &[("mode", "sometimes")]),
            ("local", &[("labels", "a")]),
            ("fluentd", &[]),
            ("nothing-like-it", &[]),
        ] {
            assert!(check(&host(driver, pairs)).is_err(), "{driver} {pairs:?}");
        }
    }

    #[test]
    fn a_log_is_rotated_unless_a_size_says_otherwise() {
        let parsed = |pairs: &[(&str, &str)]| {
            options(&host("json-file", pairs), LogDriver::JsonFile).unwrap()
        };
        let plain = parsed(&[]);
        assert_eq!((plain.max_size_bytes, plain.max_files), (20 << 20, 5));
        let sized = parsed(&[("max-size", "1.5m")]);
        assert_eq!((sized.max_size_bytes, sized.max_files), (3 << 19, 1));
    }

    #[test]
    fn tags_are_filled_in() {
        let record = Record {
            id: "a".repeat(64),
            name: "web".into(),
            ..Record::default()
        };
        assert_eq!(
            tag_text("x-{{.Name}}-{{ .ID }}", &record).unwrap(),
            format!("x-web-{}", "a".repeat(12))
        );
        assert!(tag_text("{{.Nope}}", &record).is_err());
    }
}
