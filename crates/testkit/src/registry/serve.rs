//! The protocol: what a request is answered, and how the answer goes wrong.

use std::io::{Read, Result, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

use base64::Engine as _;
use serde_json::json;

use super::exchange::{Answer, Recorded, parameter, read_body, read_head};
use super::store::digest_of;
use super::{Access, Fault, Shared, State, TokenServer};

/// So long does a stalled connection stay open.
const STALL: Duration = Duration::from_secs(120);

/// Serves requests until the connection ends.
pub(crate) fn connection(shared: &Shared, mut stream: impl Read + Write, socket: &TcpStream) {
    loop {
        match read_head(&mut stream) {
            Ok(Some(request)) => match exchange(shared, &mut stream, request) {
                Ok(true) => {}
                Ok(false) | Err(_) => break,
            },
            Ok(None) => break,
            Err(_) => {
                // What servers of HTTP say to a client of HTTPS.
                let _ = stream.write_all(b"HTTP/1.0 400 Bad Request\r\n\r\n");
                break;
            }
        }
    }
    let _ = socket.shutdown(Shutdown::Both);
}

/// Serves one request. Tells whether the connection goes on.
fn exchange(
    shared: &Shared,
    stream: &mut (impl Read + Write),
    mut request: Recorded,
) -> Result<bool> {
    let fault = shared.state().fault(&request);
    let limit = match fault {
        Some(Fault::DieAfter(limit) | Fault::HangAfter(limit)) => limit,
        _ => usize::MAX,
    };
    let is_complete = read_body(stream, &mut request, limit)?;
    if let Some(Fault::HangAfter(_)) = fault {
        shared.state().requests.push(request);
        std::thread::sleep(STALL);
        return Ok(false);
    }
    if let Some(Fault::DieAfter(_)) = fault {
        let mut state = shared.state();
        if request.method == "PATCH" || request.method == "PUT" {
            keep(&mut state, &request);
        }
        state.requests.push(request);
        return Ok(false);
    }
    if !is_complete {
        shared.state().requests.push(request);
        return Ok(false);
    }
    let ranges = !matches!(fault, Some(Fault::NoRange));
    let mut answer = match &fault {
        Some(Fault::Answer {
            status,
            headers,
            body,
        }) => {
            let mut answer = Answer::new(*status).body(body.as_bytes());
            answer.headers.clone_from(headers);
            answer
        }
        _ => respond(shared, &request, ranges),
    };
    let mut sent = answer.body.len();
    let mut goes_on = true;
    match &fault {
        Some(Fault::CutAfter(count) | Fault::StallAfter(count)) => {
            sent = sent.min(*count);
            goes_on = false;
        }
        Some(Fault::EndAfter(count)) => {
            sent = sent.min(*count);
            answer.set("Content-Length", "");
            answer.set("Transfer-Encoding", "chunked");
        }
        Some(Fault::ContentLength(length)) => {
            answer.set("Content-Length", &length.to_string());
            sent = sent.min(*length);
            goes_on = false;
        }
        Some(Fault::WrongBytes) => answer.body.iter_mut().for_each(|byte| *byte ^= 0x55),
        Some(Fault::ContentRange(range)) => answer.set("Content-Range", range),
        Some(Fault::Headers(headers)) => {
            headers
                .iter()
                .for_each(|(name, value)| answer.set(name, value));
        }
        _ => {}
    }
    if request.method == "HEAD" {
        sent = 0;
    }
    request.status = answer.status;
    request.sent = sent;
    let is_head = request.method == "HEAD";
    shared.state().requests.push(request);
    if matches!(fault, Some(Fault::Mute)) {
        return Ok(false);
    }
    answer.write_head(stream)?;
    if is_head {
        return Ok(goes_on);
    }
    let body = &answer.body[..sent];
    match fault {
        Some(Fault::Slow(rate)) => {
            // Ten pieces a second.
            for piece in body.chunks((rate / 10).max(1)) {
                stream.write_all(piece)?;
                stream.flush()?;
                std::thread::sleep(Duration::from_millis(100));
            }
        }
        Some(Fault::EndAfter(_)) => {
            if !body.is_empty() {
                write!(stream, "{:x}\r\n", body.len())?;
                stream.write_all(body)?;
                stream.write_all(b"\r\n")?;
            }
            stream.write_all(b"0\r\n\r\n")?;
        }
        _ => stream.write_all(body)?,
    }
    stream.flush()?;
    if let Some(Fault::StallAfter(_)) = fault {
        std::thread::sleep(STALL);
    }
    Ok(goes_on)
}

/// Keeps the part of an upload's body that came before the connection died.
fn keep(state: &mut State, request: &Recorded) {
    let id = request.path_only().rsplit('/').next().unwrap_or_default();
    if let Some(upload) = state.store.upload(id) {
        upload.extend(&request.body);
    }
}

fn respond(shared: &Shared, request: &Recorded, ranges: bool) -> Answer {
    let mut state = shared.state();
    let path = request.path_only().to_owned();
    if path == "/token" {
        return token(&mut state, request);
    }
    if let Some(refusal) = refusal(shared, &state, request) {
        return refusal;
    }
    match path.strip_prefix("/v2/") {
        Some("") => Answer::json(200, &json!({})),
        Some("_catalog") => listed(request, "repositories", &state.store.repositories()),
        Some(rest) => repository(&mut state, request, rest, ranges),
        None => Answer::new(404).body(b"404 page not found\n"),
    }
}

/// Checks the authorization.
fn refusal(shared: &Shared, state: &State, request: &Recorded) -> Option<Answer> {
    let given = request.header("authorization").unwrap_or_default();
    let challenge = match &state.access {
        Access::Everyone => return None,
        Access::Basic { user, password } => {
            if given == basic(user, password) {
                return None;
            }
            "Basic realm=\"test\"".to_owned()
        }
        Access::Bearer(_) => {
            let token = given.strip_prefix("Bearer ").unwrap_or_default();
            if state.tokens.contains(token) {
                return None;
            }
            let error = if token.is_empty() {
                ""
            } else {
                ",error=\"invalid_token\""
            };
            format!(
                "Bearer realm=\"{}/token\",service=\"test\"{error}",
                shared.url()
            )
        }
    };
    Some(
        Answer::error(401, "UNAUTHORIZED", "authentication required")
            .with("WWW-Authenticate", &challenge),
    )
}

fn basic(user: &str, password: &str) -> String {
    let pair = format!("{user}:{password}");
    format!(
        "Basic {}",
        base64::engine::general_purpose::STANDARD.encode(pair)
    )
}

fn token(state: &mut State, request: &Recorded) -> Answer {
    let Access::Bearer(server) = state.access.clone() else {
        return Answer::new(404);
    };
    if !server.methods.contains(&request.method.as_str()) {
        return Answer::new(405);
    }
    if !is_granted(&server, request) {
        return Answer::json(401, &json!({"details": "incorrect username or password"}));
    }
    state.tokens_given += 1;
    let token = format!("token-{}", state.tokens_given);
    state.tokens.insert(token.clone());
    let mut body = json!({"token": token});
    if let Some(seconds) = server.expires_in {
        body["expires_in"] = json!(seconds);
    }
    if request.query("offline_token").as_deref() == Some("true") {
        body["refresh_token"] = json!(server.refresh_token);
    }
    Answer::json(200, &body)
}

fn is_granted(server: &TokenServer, request: &Recorded) -> bool {
    if request.method == "POST" {
        let form = String::from_utf8_lossy(&request.body).into_owned();
        let field = |name: &str| parameter(&form, name).unwrap_or_default();
        return match field("grant_type").as_str() {
            "password" => field("username") == server.user && field("password") == server.password,
            "refresh_token" => field("refresh_token") == server.refresh_token,
            _ => false,
        };
    }
    match request.header("authorization") {
        None => server.anonymous,
        Some(given) => given == basic(&server.user, &server.password),
    }
}

/// A page of a list, with `n` and `last`.
fn listed(request: &Recorded, member: &str, all: &[String]) -> Answer {
    let last = request.query("last").unwrap_or_default();
    let rest: Vec<&String> = all.iter().filter(|item| **item > last).collect();
    let count = request.query("n").and_then(|count| count.parse().ok());
    let count: usize = count.unwrap_or(rest.len());
    let page = &rest[..count.min(rest.len())];
    let answer = Answer::json(200, &json!({"name": "x", member: page}));
    match page.last() {
        Some(last) if page.len() < rest.len() => {
            let next = format!(
                "<{}?n={count}&last={last}>; rel=\"next\"",
                request.path_only()
            );
            answer.with("Link", &next)
        }
        _ => answer,
    }
}

fn repository(state: &mut State, request: &Recorded, rest: &str, ranges: bool) -> Answer {
    if let Some((name, reference)) = rest.split_once("/manifests/") {
        return manifest(state, request, name, reference);
    }
    if let Some((name, id)) = rest.split_once("/blobs/uploads/") {
        return upload(state, request, name, id);
    }
    if let Some((_, digest)) = rest.split_once("/blobs/") {
        return blob(state, request, digest, ranges);
    }
    if let Some(name) = rest.strip_suffix("/tags/list") {
        return listed(request, "tags", &state.store.tags(name));
    }
    if let Some((name, digest)) = rest.split_once("/referrers/") {
        let manifests = state.store.referrers(name, digest);
        let index = json!({
            "schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": manifests,
        });
        return Answer::json(200, &index)
            .with("Content-Type", "application/vnd.oci.image.index.v1+json");
    }
    Answer::new(404).body(b"404 page not found\n")
}

fn manifest(state: &mut State, request: &Recorded, name: &str, reference: &str) -> Answer {
    match request.method.as_str() {
        "PUT" => {
            let kind = request.header("content-type").unwrap_or_default();
            let digest = state
                .store
                .add_manifest(name, reference, kind, &request.body);
            Answer::new(201)
                .with("Docker-Content-Digest", &digest)
                .with("Location", &format!("/v2/{name}/manifests/{digest}"))
        }
        "DELETE" => match state.store.remove_manifest(name, reference) {
            true => Answer::new(202),
            false => Answer::error(404, "MANIFEST_UNKNOWN", "manifest unknown"),
        },
        _ => match state.store.described(name, reference) {
            Some((digest, kind, bytes)) => Answer::new(200)
                .with("Content-Type", &kind)
                .with("Docker-Content-Digest", &digest)
                .body(&bytes),
            None => Answer::error(404, "MANIFEST_UNKNOWN", "manifest unknown"),
        },
    }
}

fn blob(state: &mut State, request: &Recorded, digest: &str, ranges: bool) -> Answer {
    if request.method == "DELETE" {
        return match state.store.remove_blob(digest) {
            true => Answer::new(202),
            false => Answer::error(404, "BLOB_UNKNOWN", "blob unknown to registry"),
        };
    }
    let Some(bytes) = state.store.blob(digest) else {
        return Answer::error(404, "BLOB_UNKNOWN", "blob unknown to registry");
    };
    let start = request
        .header("range")
        .filter(|_| ranges)
        .and_then(|range| {
            range
                .strip_prefix("bytes=")?
                .split('-')
                .next()?
                .parse()
                .ok()
        });
    let answer = match start {
        None => Answer::new(200).body(&bytes),
        Some(start) if start >= bytes.len() => Answer::new(416),
        Some(start) => Answer::new(206).body(&bytes[start..]).with(
            "Content-Range",
            &format!("bytes {start}-{}/{}", bytes.len() - 1, bytes.len()),
        ),
    };
    answer
        .with("Content-Type", "application/octet-stream")
        .with("Docker-Content-Digest", digest)
}

fn upload(state: &mut State, request: &Recorded, name: &str, id: &str) -> Answer {
    if request.method == "POST" {
        if let Some(digest) = request.query("mount")
            && state.store.blob(&digest).is_some()
        {
            return Answer::new(201).with("Location", &format!("/v2/{name}/blobs/{digest}"));
        }
        let id = state.store.open_upload();
        return progress(202, name, &id, 0);
    }
    let Some(upload) = state.store.upload(id) else {
        return Answer::error(
            404,
            "BLOB_UPLOAD_UNKNOWN",
            "blob upload unknown to registry",
        );
    };
    match request.method.as_str() {
        "PATCH" => {
            let start = request
                .header("content-range")
                .and_then(|range| range.split('-').next()?.parse().ok());
            if start.is_some_and(|start: usize| start != upload.len()) {
                return progress(416, name, id, upload.len());
            }
            upload.extend(&request.body);
            progress(202, name, id, upload.len())
        }
        "PUT" => {
            upload.extend(&request.body);
            let bytes = state.store.close_upload(id).unwrap_or_default();
            let digest = request.query("digest").unwrap_or_default();
            if digest_of(&bytes) != digest {
                let message = "provided digest did not match uploaded content";
                return Answer::error(400, "DIGEST_INVALID", message);
            }
            state.store.add_blob(&bytes);
            Answer::new(201)
                .with("Docker-Content-Digest", &digest)
                .with("Location", &format!("/v2/{name}/blobs/{digest}"))
        }
        "DELETE" => {
            state.store.close_upload(id);
            Answer::new(204)
        }
        _ => progress(204, name, id, upload.len()),
    }
}

/// Where an upload is and how far it came.
fn progress(status: u16, name: &str, id: &str, length: usize) -> Answer {
    Answer::new(status)
        .with(
            "Location",
            &format!("/v2/{name}/blobs/uploads/{id}?state=s"),
        )
        .with("Range", &format!("0-{}", length.saturating_sub(1)))
        .with("Docker-Upload-UUID", id)
}
