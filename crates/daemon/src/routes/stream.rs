//! Operations whose answer lasts: logs, stats, and those that take the connection over, attach and wait.

use std::time::Duration;

use bytes::Bytes;
use gantry_api::container::{WaitError, WaitResponse};
use gantry_api::error::ApiError;
use gantry_engine::container::{AttachIo, AttachOptions, LogsOptions, WaitCondition};
use tokio::io::AsyncWriteExt as _;
use tokio::sync::mpsc;

use crate::convert;
use crate::server::body::Body;
use crate::server::connection::Taken;
use crate::server::query::quoted;
use crate::server::request::Request;
use crate::server::respond::{self, Failure, Reply};
use crate::server::version::ApiVersion;

pub const RAW_STREAM: &str = "application/vnd.docker.raw-stream";
pub const MULTIPLEXED_STREAM: &str = "application/vnd.docker.multiplexed-stream";
/// The longest body that an attach may have before its stream; it counts as standard input.
const ATTACH_BODY_BYTES_MAX: usize = 1 << 20;
/// The collector's tick.
const STATS_PERIOD: Duration = Duration::from_secs(1);

/// Names the content type of a container's stream. Framed streams have a name of their own since 1.42.
pub fn stream_type(version: ApiVersion, tty: bool) -> &'static str {
    if tty || version.is_before(42) {
        RAW_STREAM
    } else {
        MULTIPLEXED_STREAM
    }
}

pub async fn logs(request: Request, name: &str) -> Reply {
    let query = &request.query;
    let time = |name: &str| match query.non_empty(name) {
        None | Some("0") => Ok(None),
        Some(text) => unix_nanos(text).map(Some),
    };
    let options = LogsOptions {
        stdout: query.flag("stdout"),
        stderr: query.flag("stderr"),
        follow: query.flag("follow"),
        timestamps: query.flag("timestamps"),
        details: query.flag("details"),
        since_ns: time("since")?,
        until_ns: time("until")?,
        // Whatever is no number means all, as for Docker.
        tail: query.text("tail").parse().ok(),
    };
    let mut logs = request.daemon.engine.logs(name, options).await?;
    let body = Body::stream(move |cx| {
        logs.stream
            .poll_recv(cx)
            .map(|chunk| chunk.map(|chunk| chunk.map(Bytes::from)))
    });
    respond::stream(stream_type(request.version, logs.tty), body)
}

/// Reads `since` and `until`; Docker answers another text with 500.
pub fn unix_nanos(text: &str) -> Result<i64, ApiError> {
    let instant = gantry_api::time::parse_unix(text).ok_or_else(|| {
        let number = text.split('.').next().unwrap_or(text);
        ApiError::system(format!(
            "strconv.ParseInt: parsing {}: invalid syntax",
            quoted(number)
        ))
    })?;
    Ok(
        i64::try_from(instant.unix_nanos()).unwrap_or(if instant.unix_seconds() < 0 {
            i64::MIN
        } else {
            i64::MAX
        }),
    )
}

pub async fn stats(request: Request, name: &str) -> Reply {
    let streams = request.query.flag_or("stream", true);
    let one_shot = request.query.flag("one-shot") && !request.version.is_before(41);
    if streams && one_shot {
        return Err(ApiError::invalid("cannot have stream=true and one-shot=true").into());
    }
    let engine = request.daemon.engine.clone();
    let name = name.to_owned();
    let first = engine.stats(&name).await?;
    if !streams {
        if one_shot || !first.running {
            let mut answer = convert::stats::response(&first, None);
            if one_shot {
                // One sample without the one before is not named.
                answer.name = String::new();
                answer.id = String::new();
            }
            return respond::ok(&answer);
        }
        tokio::time::sleep(STATS_PERIOD).await;
        let second = engine.stats(&name).await?;
        return respond::ok(&convert::stats::response(&second, Some(&first)));
    }
    let (sender, receiver) = mpsc::channel(1);
    tokio::spawn(async move {
        let mut before = None;
        let mut sample = first;
        let mut ticks = tokio::time::interval(STATS_PERIOD);
        ticks.tick().await;
        loop {
            let line =
                respond::json_line(&convert::stats::response(&sample, before.as_ref()), "\n");
            if sender.send(Ok(line)).await.is_err() {
                return;
            }
            tokio::select! {
                _ = ticks.tick() => {}
                () = sender.closed() => return,
            }
            // Docker's stream ends when the container is removed.
            let Ok(next) = engine.stats(&name).await else {
                return;
            };
            before = Some(std::mem::replace(&mut sample, next));
        }
    });
    respond::stream("application/json", Body::channel(receiver))
}

pub async fn attach(mut request: Request, name: &str) -> Reply {
    let query = &request.query;
    let options = AttachOptions {
        stdin: query.flag("stdin"),
        stdout: query.flag("stdout"),
        stderr: query.flag("stderr"),
        logs: query.flag("logs"),
        stream: query.flag("stream"),
        detach_keys: query.non_empty("detachKeys").map(str::to_owned),
    };
    let upgrade = request.wants_upgrade();
    let attachment = match request.daemon.engine.attach(name, options).await {
        Ok(attachment) => attachment,
        Err(error) => return refuse_raw(&request, error.into()).await,
    };
    let body = request.bytes(ATTACH_BODY_BYTES_MAX).await?;
    let tty = attachment.tty;
    let head = hijack_head(upgrade, stream_type(request.version, tty), "");
    let never = request
        .connection
        .take_over(move |taken| async move {
            if let Some(io) = hijacked(taken, &body, head, !tty)
                && let Err(error) = attachment.give(io).await
            {
                tracing::error!("attach: {error}");
            }
            None
        })
        .await;
    match never {}
}

/// Writes the head of a raw stream: 101 for clients that ask for an upgrade; 200 for those of old, to whom the stream
/// was never named otherwise than raw.
pub fn hijack_head(upgrade: bool, content_type: &str, more: &str) -> String {
    if upgrade {
        format!(
            "HTTP/1.1 101 UPGRADED\r\nContent-Type: {content_type}\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n{more}\r\n"
        )
    } else {
        format!("HTTP/1.1 200 OK\r\nContent-Type: {RAW_STREAM}\r\n{more}\r\n")
    }
}

/// Takes a connection apart for whoever serves its stream: the engine writes the head when the stream is sure.
pub fn hijacked(taken: Taken, body: &[u8], head: String, multiplexed: bool) -> Option<AttachIo> {
    let early = if body.is_empty() {
        taken.early
    } else {
        [body, &taken.early].concat()
    };
    match taken.stream.into_fd() {
        Ok(fd) => Some(AttachIo {
            fd,
            early,
            multiplexed,
            head: head.into_bytes(),
        }),
        Err(error) => {
            tracing::error!(error = %error, "take a client's socket");
            None
        }
    }
}

/// Refuses an attach as Docker does: it has taken the connection over before it looks for the container, so the answer
/// is no JSON and ends with the connection.
async fn refuse_raw(request: &Request, failure: Failure) -> Reply {
    let status = hyper::StatusCode::from_u16(failure.error.kind.status()).unwrap_or_default();
    let text = format!(
        "HTTP/1.1 {} {}\r\nContent-Type: {RAW_STREAM}\r\n\r\n{}\r\n",
        status.as_u16(),
        status.canonical_reason().unwrap_or(""),
        failure.error
    );
    let never = request
        .connection
        .take_over(move |mut taken| async move {
            let _ = taken.stream.write_all(text.as_bytes()).await;
            let _ = taken.stream.shutdown().await;
            None
        })
        .await;
    match never {}
}

pub async fn wait(request: Request, name: &str) -> Reply {
    let condition = match request.query.text("condition") {
        "" | "not-running" => WaitCondition::NotRunning,
        "next-exit" => WaitCondition::NextExit,
        "removed" => WaitCondition::Removed,
        other => {
            return Err(ApiError::invalid(format!("invalid condition: {}", quoted(other))).into());
        }
    };
    let wait = request.daemon.engine.wait(name, condition).await?;
    let close = request.wants_close();
    let head = format!(
        "HTTP/1.1 200 OK\r\n{}Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n{}\r\n",
        respond::common_header_lines(),
        if close { "Connection: close\r\n" } else { "" }
    );
    // The head is on its way before the shim gets a dup of the connection, so that it can finish the body. The shim
    // does so only if this daemon is gone when the container ends; otherwise the body is written here, once.
    let never = request
        .connection
        .take_over(move |mut taken| async move {
            taken.stream.write_all(head.as_bytes()).await.ok()?;
            match std::os::fd::AsFd::as_fd(&taken.stream).try_clone_to_owned() {
                Ok(held) => wait.hold(held).await,
                Err(error) => tracing::warn!(error = %error, "duplicate a waiting client's socket"),
            }
            let exit = tokio::select! {
                exit = wait.finished() => exit,
                () = taken.stream.closed_by_client(&mut taken.early) => return None,
            };
            let answer = WaitResponse {
                error: exit.error.map(|message| WaitError { message }),
                status_code: exit.code,
            };
            let body = respond::json_line(&answer, "\n");
            let chunk = [
                format!("{:x}\r\n", body.len()).as_bytes(),
                &body,
                b"\r\n0\r\n\r\n",
            ]
            .concat();
            taken.stream.write_all(&chunk).await.ok()?;
            if close {
                // The shim may hold a dup for a moment longer; the client sees the end now.
                let _ = taken.stream.shutdown().await;
                return None;
            }
            Some(taken)
        })
        .await;
    match never {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn framed_streams_have_a_name_since_1_42() {
        assert_eq!(stream_type(ApiVersion::minor(41), false), RAW_STREAM);
        assert_eq!(
            stream_type(ApiVersion::minor(42), false),
            MULTIPLEXED_STREAM
        );
        assert_eq!(stream_type(ApiVersion::minor(51), true), RAW_STREAM);
    }

    #[test]
    fn heads_are_dockers() {
        assert_eq!(
            hijack_head(true, RAW_STREAM, ""),
            "HTTP/1.1 101 UPGRADED\r\nContent-Type: application/vnd.docker.raw-stream\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n"
        );
        assert_eq!(
            hijack_head(false, MULTIPLEXED_STREAM, ""),
            "HTTP/1.1 200 OK\r\nContent-Type: application/vnd.docker.raw-stream\r\n\r\n"
        );
    }

    #[test]
    fn times_are_seconds_with_a_fraction() {
        assert_eq!(unix_nanos("1.5"), Ok(1_500_000_000));
        assert_eq!(
            unix_nanos("x").unwrap_err().message,
            "strconv.ParseInt: parsing \"x\": invalid syntax"
        );
    }
}
