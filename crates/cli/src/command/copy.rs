//! `cp` between a container and this machine.
//!
//! The plan (what is called what at the other end) is [`place`]: plain data in, plain data out.

use crate::cli::Cli;
use crate::command::{container_path, text};
use crate::failure::{Failure, Outcome};
use crate::grammar::Matches;
use crate::run::volume::clean;
use crate::{output, terminal, units};
use base64::Engine;
use bytes::Bytes;
use gantry_client::{Body, Client, Error, Query, Request};
use hyper::Method;
use serde_json::Value;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use tokio::sync::mpsc;

const DIRECTORY_BIT: u64 = 1 << 31;
const LINK_BIT: u64 = 1 << 27;

/// Runs `cp`.
pub async fn copy(cli: &Cli, matches: &Matches) -> Outcome {
    let (source, target) = (&matches.arguments[0], &matches.arguments[1]);
    if source.is_empty() {
        return Err(Failure::new("source can not be empty"));
    }
    if target.is_empty() {
        return Err(Failure::new("destination can not be empty"));
    }
    let client = cli.client()?;
    let quiet = if matches.given("quiet") {
        matches.on("quiet")
    } else {
        !terminal::output_is_terminal()
    };
    match (split(source), split(target)) {
        ((Some(_), _), (Some(_), _)) => {
            Err(Failure::new("copying between containers is not supported"))
        }
        ((None, _), (None, _)) => Err(Failure::new("must specify at least one container source")),
        ((Some(container), path), (None, local)) => {
            from_container(
                client,
                &container,
                &path,
                &local,
                matches.on("follow-link"),
                quiet,
            )
            .await
        }
        ((None, local), (Some(container), path)) => {
            to_container(client, &container, &path, &local, matches, quiet).await
        }
    }
}

/// Splits `CONTAINER:PATH`; a path that begins with `.` or `/` is local even with a colon in it.
fn split(argument: &str) -> (Option<String>, String) {
    if argument.starts_with(['/', '.']) {
        return (None, argument.to_owned());
    }
    match argument.split_once(':') {
        Some((container, path)) if !container.is_empty() => {
            (Some(container.to_owned()), path.to_owned())
        }
        _ => (None, argument.to_owned()),
    }
}

/// What is at a path: nothing, a directory or something else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum There {
    Nothing,
    Directory,
    File,
}

/// Where the tree goes and under which name: `None` means that its contents go into the directory.
#[derive(Debug, PartialEq, Eq)]
struct Place {
    directory: String,
    name: Option<String>,
}

/// Decides where a copy lands, with the rules of `cp -a`.
fn place(
    source: &str,
    source_is_directory: bool,
    target: &str,
    there: There,
) -> Result<Place, String> {
    let contents = source_is_directory && (source.ends_with("/.") || source == ".");
    let wants_directory = target.ends_with('/') || target.ends_with("/.") || target == ".";
    let base = base_name(source);
    let target_clean = clean(target);
    let parent = |path: &str| match path.rsplit_once('/') {
        Some(("", _)) => "/".to_owned(),
        Some((parent, _)) => parent.to_owned(),
        None => ".".to_owned(),
    };
    match there {
        There::Directory if contents => Ok(Place {
            directory: target_clean,
            name: None,
        }),
        There::Directory => Ok(Place {
            directory: target_clean,
            name: Some(base),
        }),
        There::File if source_is_directory => Err("cannot copy directory".to_owned()),
        There::File if wants_directory => Err("not a directory".to_owned()),
        There::Nothing if wants_directory && !source_is_directory => {
            Err("no such directory".to_owned())
        }
        There::File | There::Nothing => Ok(Place {
            directory: parent(&target_clean),
            name: Some(base_name(&target_clean)),
        }),
    }
}

fn base_name(path: &str) -> String {
    let clean = clean(path);
    match clean.rsplit('/').next() {
        Some("") | None => "/".to_owned(),
        Some(name) => name.to_owned(),
    }
}

/// Replaces the first component of an archive's entry by the name at the target.
fn renamed(entry: &Path, name: Option<&str>, contents: bool) -> Option<PathBuf> {
    let mut components = entry.strip_prefix(".").unwrap_or(entry).components();
    // The archive of `DIRECTORY/.` has the root `.`, which the line above took off.
    if !contents {
        components.next();
    }
    let rest = components.as_path();
    match name {
        Some(name) if rest.as_os_str().is_empty() => Some(PathBuf::from(name)),
        Some(name) => Some(Path::new(name).join(rest)),
        None if rest.as_os_str().is_empty() => None,
        None => Some(rest.to_owned()),
    }
}

/// Reads the pieces of a channel.
struct ChunkReader {
    chunks: mpsc::Receiver<Bytes>,
    current: Bytes,
}

impl Read for ChunkReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.current.is_empty() {
            match self.chunks.blocking_recv() {
                Some(chunk) => self.current = chunk,
                None => return Ok(0),
            }
        }
        let length = buffer.len().min(self.current.len());
        buffer[..length].copy_from_slice(&self.current.split_to(length));
        Ok(length)
    }
}

async fn from_container(
    client: &Client,
    container: &str,
    path: &str,
    local: &str,
    follow: bool,
    quiet: bool,
) -> Outcome {
    let mut path = path.to_owned();
    if follow && let Some(stat) = stat(client, container, &path).await? {
        path = linked(&stat, &path);
    }
    let request = Request::get(container_path(container, "/archive"))
        .query(Query::new().with("path", absolute_in_container(&path)));
    let mut response = client.send(request).await?;
    if local == "-" {
        if terminal::output_is_terminal() {
            return Err(Failure::new("cowardly refusing to copy to a terminal"));
        }
        while let Some(chunk) = response.chunk().await? {
            output::out_bytes(&chunk);
        }
        return Ok(());
    }
    let header = response
        .header("x-docker-container-path-stat")
        .unwrap_or_default()
        .to_owned();
    let stat = decode_stat(&header).ok_or_else(|| Failure::new("the daemon sent no path stat"))?;
    let is_directory = stat["mode"].as_u64().unwrap_or(0) & DIRECTORY_BIT != 0;
    let there = local_there(local)?;
    let place = place(&path, is_directory, local, there).map_err(Failure::new)?;
    if !Path::new(&place.directory).is_dir() {
        return Err(Failure::new(format!(
            "invalid output path: directory \"{}\" does not exist",
            crate::run::volume::absolute(&place.directory)
        )));
    }
    let (sender, chunks) = mpsc::channel(16);
    let contents = path.ends_with("/.");
    let reader = ChunkReader {
        chunks,
        current: Bytes::new(),
    };
    let unpack = std::thread::spawn(move || unpack(reader, &place, contents));
    let mut total = 0usize;
    while let Some(chunk) = response.chunk().await? {
        total += chunk.len();
        if sender.send(chunk).await.is_err() {
            break;
        }
    }
    drop(sender);
    unpack
        .join()
        .map_err(|_| Failure::new("the unpacking thread failed"))??;
    if !quiet {
        output::error_line(&format!(
            "Successfully copied {} to {local}",
            units::size(total as f64, 3)
        ));
    }
    Ok(())
}

fn unpack(reader: impl Read, place: &Place, contents: bool) -> Outcome {
    let failed = |error: &io::Error| {
        Failure::new(format!(
            "copy to {}: {}",
            place.directory,
            crate::failure::reason(error)
        ))
    };
    let mut archive = tar::Archive::new(reader);
    archive.set_preserve_permissions(true);
    archive.set_preserve_mtime(true);
    archive.set_overwrite(true);
    let root = Path::new(&place.directory);
    for entry in archive.entries().map_err(|error| failed(&error))? {
        let mut entry = entry.map_err(|error| failed(&error))?;
        let path = entry.path().map_err(|error| failed(&error))?.into_owned();
        let Some(target) = renamed(&path, place.name.as_deref(), contents) else {
            continue;
        };
        // An archive comes from a container: it may not name anything outside the directory.
        let outside = target
            .components()
            .any(|part| !matches!(part, std::path::Component::Normal(_)));
        if outside {
            return Err(Failure::new(format!(
                "the archive names a path outside the target: {}",
                path.display()
            )));
        }
        if entry.header().entry_type() == tar::EntryType::Link {
            let link = entry
                .link_name()
                .map_err(|error| failed(&error))?
                .map(|link| link.into_owned());
            let Some(link) = link.and_then(|link| renamed(&link, place.name.as_deref(), contents))
            else {
                continue;
            };
            if link
                .components()
                .any(|part| !matches!(part, std::path::Component::Normal(_)))
            {
                return Err(Failure::new(format!(
                    "the archive links outside the target: {}",
                    path.display()
                )));
            }
            let target = root.join(&target);
            match std::fs::remove_file(&target) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(failed(&error));
                }
                _ => {}
            }
            std::fs::hard_link(root.join(link), target).map_err(|error| failed(&error))?;
            continue;
        }
        inside(root, &target).map_err(|error| failed(&error))?;
        entry
            .unpack(root.join(&target))
            .map_err(|error| failed(&error))?;
    }
    Ok(())
}

/// Refuses a target below a symbolic link that the archive itself may have planted.
fn inside(root: &Path, target: &Path) -> io::Result<()> {
    let mut at = root.to_owned();
    if let Some(parent) = target.parent() {
        for part in parent.components() {
            at.push(part);
            if std::fs::symlink_metadata(&at).is_ok_and(|metadata| metadata.is_symlink()) {
                return Err(io::Error::other(format!(
                    "{} is a symbolic link",
                    at.display()
                )));
            }
        }
    }
    Ok(())
}

fn local_there(path: &str) -> Outcome<There> {
    match std::fs::metadata(path) {
        Ok(metadata) if metadata.is_dir() => Ok(There::Directory),
        Ok(_) => Ok(There::File),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(There::Nothing),
        Err(error) => Err(Failure::new(format!(
            "lstat {path}: {}",
            crate::failure::reason(&error)
        ))),
    }
}

fn decode_stat(header: &str) -> Option<Value> {
    let bytes = base64::engine::general_purpose::STANDARD
        .decode(header)
        .ok()?;
    serde_json::from_slice(&bytes).ok()
}

async fn stat(client: &Client, container: &str, path: &str) -> Outcome<Option<Value>> {
    let query = Query::new().with("path", absolute_in_container(path));
    let request = Request::new(Method::HEAD, container_path(container, "/archive")).query(query);
    match client.send(request).await {
        Ok(response) => {
            let stat = decode_stat(
                response
                    .header("x-docker-container-path-stat")
                    .unwrap_or_default(),
            );
            response.bytes().await?;
            Ok(stat)
        }
        // A HEAD has no body to tell a missing path from a missing container.
        Err(Error::Daemon { status: 404, .. }) => {
            crate::command::inspect_container(client, container).await?;
            Ok(None)
        }
        // The refusal's words come with the answer to the copy itself.
        Err(Error::Daemon { status: 501, .. }) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn absolute_in_container(path: &str) -> String {
    if path.starts_with('/') {
        path.to_owned()
    } else {
        format!("/{path}")
    }
}

/// Returns where a path leads if it is a symbolic link.
fn linked(stat: &Value, path: &str) -> String {
    if stat["mode"].as_u64().unwrap_or(0) & LINK_BIT == 0 {
        return path.to_owned();
    }
    let target = text(stat, "linkTarget");
    if target.starts_with('/') {
        return target.to_owned();
    }
    let parent = path.rsplit_once('/').map_or("", |(parent, _)| parent);
    clean(&format!("/{parent}/{target}"))
}

async fn to_container(
    client: &Client,
    container: &str,
    path: &str,
    local: &str,
    matches: &Matches,
    quiet: bool,
) -> Outcome {
    let path = absolute_in_container(path);
    let mut found = stat(client, container, &path).await?;
    let mut target = path.clone();
    if let Some(stat_value) = &found {
        let led = linked(stat_value, &path);
        if led != path {
            found = stat(client, container, &led).await?;
            target = led;
        }
    }
    let there = match &found {
        None => There::Nothing,
        Some(stat) if stat["mode"].as_u64().unwrap_or(0) & DIRECTORY_BIT != 0 => There::Directory,
        Some(_) => There::File,
    };
    let query = |directory: &str| {
        Query::new()
            .when(matches.on("archive"), "copyUIDGID", "true")
            .with("noOverwriteDirNonDir", "true")
            .with("path", directory)
    };
    let (sender, chunks) = mpsc::channel(8);
    let (directory, reader) = if local == "-" {
        if there != There::Directory {
            return Err(Failure::new(format!(
                "destination \"{container}:{path}\" must be a directory"
            )));
        }
        let reader = std::thread::spawn(move || pump(io::stdin(), &sender));
        (target, reader)
    } else {
        let follow = matches.on("follow-link");
        let metadata = if follow {
            std::fs::metadata(local)
        } else {
            std::fs::symlink_metadata(local)
        }
        .map_err(|error| {
            Failure::new(format!(
                "lstat {}: {}",
                crate::run::volume::absolute(local),
                crate::failure::reason(&error)
            ))
        })?;
        let place = place(local, metadata.is_dir(), &target, there).map_err(Failure::new)?;
        let directory = place.directory.clone();
        let source = PathBuf::from(local);
        let reader = std::thread::spawn(move || {
            let mut out = ChunkWriter {
                sender,
                buffer: Vec::new(),
                total: 0,
            };
            pack(&source, follow, place.name.as_deref(), &mut out)?;
            out.flush()?;
            Ok(out.total)
        });
        (directory, reader)
    };
    let mut request =
        Request::new(Method::PUT, container_path(container, "/archive")).query(query(&directory));
    request.body = Body::Stream {
        content_type: "application/x-tar",
        chunks,
    };
    let answer = client.call(request).await;
    let packed = reader
        .join()
        .map_err(|_| Failure::new("the packing thread failed"))?;
    answer?;
    let total: usize =
        packed.map_err(|error: io::Error| Failure::new(crate::failure::reason(&error)))?;
    if !quiet {
        output::error_line(&format!(
            "Successfully copied {} to {container}:{path}",
            units::size(total as f64, 3)
        ));
    }
    Ok(())
}

fn pump(
    mut reader: impl Read,
    sender: &mpsc::Sender<Result<Bytes, io::Error>>,
) -> io::Result<usize> {
    let mut total = 0;
    loop {
        let mut buffer = vec![0u8; 128 * 1024];
        let length = reader.read(&mut buffer)?;
        if length == 0 {
            return Ok(total);
        }
        total += length;
        buffer.truncate(length);
        if sender.blocking_send(Ok(Bytes::from(buffer))).is_err() {
            return Ok(total);
        }
    }
}

/// Gathers a tar stream into large chunks for the request's body.
struct ChunkWriter {
    sender: mpsc::Sender<Result<Bytes, io::Error>>,
    buffer: Vec<u8>,
    total: usize,
}

impl Write for ChunkWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.total += bytes.len();
        self.buffer.extend_from_slice(bytes);
        if self.buffer.len() >= 128 * 1024 {
            self.flush()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        let chunk = Bytes::from(std::mem::take(&mut self.buffer));
        self.sender
            .blocking_send(Ok(chunk))
            .map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))
    }
}

fn pack(source: &Path, follow: bool, name: Option<&str>, out: &mut ChunkWriter) -> io::Result<()> {
    let mut builder = tar::Builder::new(out);
    builder.follow_symlinks(false);
    let metadata = if follow {
        std::fs::metadata(source)?
    } else {
        std::fs::symlink_metadata(source)?
    };
    let root = name.unwrap_or(".");
    if metadata.is_dir() {
        if name.is_some() {
            builder.append_dir(root, source)?;
        }
        builder.append_dir_all(root, source)?;
    } else if follow {
        builder.append_file(root, &mut std::fs::File::open(source)?)?;
    } else {
        builder.append_path_with_name(source, root)?;
    }
    builder.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(source: &str, is_directory: bool, target: &str, there: There, expected: &str) {
        let got = match place(source, is_directory, target, there) {
            Ok(place) => format!(
                "{} {}",
                place.directory,
                place.name.as_deref().unwrap_or("*")
            ),
            Err(error) => error,
        };
        assert_eq!(got, expected, "{source} {target}");
    }

    #[test]
    fn places_follow_cp() {
        check("./f", false, "/tmp/", There::Directory, "/tmp f");
        check("./f", false, "/tmp/g", There::Nothing, "/tmp g");
        check("./f", false, "/tmp/g", There::File, "/tmp g");
        check("./f", false, "/tmp/g/", There::Nothing, "no such directory");
        check("d", true, "/tmp", There::Directory, "/tmp d");
        check("d/.", true, "/tmp", There::Directory, "/tmp *");
        check("d", true, "/new", There::Nothing, "/ new");
        check("d", true, "/f", There::File, "cannot copy directory");
    }

    #[test]
    fn entries_are_renamed() {
        assert_eq!(
            renamed(Path::new("a/b"), Some("x"), false),
            Some(PathBuf::from("x/b"))
        );
        assert_eq!(
            renamed(Path::new("a/"), Some("x"), false),
            Some(PathBuf::from("x"))
        );
        assert_eq!(
            renamed(Path::new("a/b"), None, false),
            Some(PathBuf::from("b"))
        );
        assert_eq!(renamed(Path::new("./a"), None, false), None);
        assert_eq!(
            renamed(Path::new("./f"), Some("x"), true),
            Some(PathBuf::from("x/f"))
        );
        assert_eq!(
            renamed(Path::new("./"), Some("x"), true),
            Some(PathBuf::from("x"))
        );
    }

    #[test]
    fn containers_are_told_from_paths() {
        assert_eq!(split("c:/x"), (Some("c".to_owned()), "/x".to_owned()));
        assert_eq!(split("./a:b"), (None, "./a:b".to_owned()));
        assert_eq!(split("-"), (None, "-".to_owned()));
    }
}
