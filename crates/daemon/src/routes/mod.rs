//! From a request to its handler: one table for all operations.
//!
//! A path or method that is not in the table is 404 "page not found", never 405. Operations of Docker that this engine
//! does not have are in [`refused`] and answered by name.

mod archive;
mod container;
mod exec;
mod image;
mod network;
mod refused;
mod stream;
mod system;
mod transfer;
mod upkeep;
mod volume;

use std::sync::Arc;

use gantry_api::error::ApiError;
use hyper::body::Incoming;
use hyper::{Method, Response, StatusCode};
use percent_encoding::percent_decode_str;

use crate::Daemon;
use crate::server::body::Body;
use crate::server::connection::Handle;
use crate::server::query::Query;
use crate::server::request::Request;
use crate::server::respond::{self, Reply};
use crate::server::version;

/// Answers one request.
pub async fn answer(
    daemon: Arc<Daemon>,
    connection: Handle,
    request: hyper::Request<Incoming>,
) -> Response<Body> {
    let (head, body) = request.into_parts();
    let path = percent_decode_str(head.uri.path())
        .decode_utf8_lossy()
        .into_owned();
    if head.method == Method::OPTIONS {
        let mut response = Response::new(Body::empty());
        respond::add_common_headers(&mut response);
        return response;
    }
    let clean = clean(&path);
    if clean != path {
        return respond::moved(&clean, head.uri.query());
    }
    let (api_version, rest) = match version::split(&path) {
        Ok(split) => split,
        Err(error) => {
            let mut response = respond::refused_version(&error);
            respond::add_common_headers(&mut response);
            return response;
        }
    };
    let segments: Vec<&str> = rest.split('/').skip(1).collect();
    let mut name = String::new();
    let segments = join_name(&head.method, segments, &mut name);
    tracing::debug!(method = %head.method, path, "Calling");
    let request = Request {
        daemon,
        version: api_version,
        query: Query::parse(head.uri.query().unwrap_or("")),
        headers: head.headers,
        body,
        connection,
    };
    let Some(reply) = dispatch(&head.method, &segments, request).await else {
        return respond::error(&ApiError::not_found("page not found"));
    };
    let mut response = match reply {
        Ok(response) => response,
        Err(failure) => {
            let status = failure.error.kind.status();
            if status >= 500 {
                tracing::error!(
                    "Handler for {} {path} returned error: {}{}",
                    head.method,
                    failure.error,
                    failure.causes
                );
            } else {
                tracing::debug!(
                    "Handler for {} {path} returned error: {}{}",
                    head.method,
                    failure.error,
                    failure.causes
                );
            }
            respond::error(&failure.error)
        }
    };
    respond::add_common_headers(&mut response);
    response
}

/// Finds the operation and runs it; `None` if there is none.
async fn dispatch(method: &Method, segments: &[&str], request: Request) -> Option<Reply> {
    // `docker` asks for HEAD in two places only; elsewhere Docker has no such route.
    let reply = match (method.as_str(), segments) {
        ("GET" | "HEAD", ["_ping"]) => system::ping(method),
        ("GET", ["version"]) => system::version(request).await,
        ("GET", ["info"]) => system::info(request).await,
        ("GET", ["events"]) => system::events(request).await,
        ("GET", ["system", "df"]) => system::disk_usage(request).await,

        ("GET", ["containers", "json"]) => container::list(request).await,
        ("POST", ["containers", "create"]) => container::create(request).await,
        ("POST", ["containers", "prune"]) => container::prune(request).await,
        ("GET", ["containers", name, "json"]) => container::inspect(request, name).await,
        ("GET", ["containers", name, "top"]) => container::top(request, name).await,
        ("GET", ["containers", name, "logs"]) => stream::logs(request, name).await,
        ("GET", ["containers", name, "stats"]) => stream::stats(request, name).await,
        ("POST", ["containers", name, "start"]) => container::start(request, name).await,
        ("POST", ["containers", name, "stop"]) => container::stop(request, name).await,
        ("POST", ["containers", name, "restart"]) => container::restart(request, name).await,
        ("POST", ["containers", name, "kill"]) => container::kill(request, name).await,
        ("POST", ["containers", name, "pause"]) => container::pause(request, name).await,
        ("POST", ["containers", name, "unpause"]) => container::unpause(request, name).await,
        ("POST", ["containers", name, "rename"]) => container::rename(request, name).await,
        ("POST", ["containers", name, "update"]) => container::update(request, name).await,
        ("POST", ["containers", name, "resize"]) => container::resize(request, name).await,
        ("POST", ["containers", name, "attach"]) => stream::attach(request, name).await,
        ("POST", ["containers", name, "wait"]) => stream::wait(request, name).await,
        ("POST", ["containers", name, "exec"]) => exec::create(request, name).await,
        ("DELETE", ["containers", name]) => container::remove(request, name).await,

        ("POST", ["exec", id, "start"]) => exec::start(request, id).await,
        ("POST", ["exec", id, "resize"]) => exec::resize(request, id).await,
        ("GET", ["exec", id, "json"]) => exec::inspect(request, id).await,

        ("GET", ["volumes"]) => volume::list(request).await,
        ("POST", ["volumes", "create"]) => volume::create(request).await,
        ("POST", ["volumes", "prune"]) => volume::prune(request).await,
        ("GET", ["volumes", name]) => volume::inspect(request, name).await,
        ("DELETE", ["volumes", name]) => volume::remove(request, name).await,

        ("GET", ["networks"] | ["networks", ""]) => network::list(request).await,
        ("POST", ["networks", "create"]) => network::create(request).await,
        ("POST", ["networks", "prune"]) => network::prune(request).await,
        ("GET", ["networks", name]) => network::inspect(request, name).await,
        ("DELETE", ["networks", name]) => network::remove(request, name).await,
        ("POST", ["networks", name, "connect"]) => network::connect(request, name).await,
        ("POST", ["networks", name, "disconnect"]) => network::disconnect(request, name).await,

        ("GET", ["images", "json"]) => image::list(request).await,
        ("POST", ["images", "create"]) => transfer::create(request).await,
        ("POST", ["images", "load"]) => archive::load(request).await,
        ("POST", ["images", "prune"]) => image::prune(request).await,
        ("GET", ["images", "get"]) => archive::save(request, None).await,
        ("GET", ["images", name @ .., "get"]) if !name.is_empty() => {
            archive::save(request, Some(name.join("/"))).await
        }
        ("GET", ["images", "search"]) => transfer::search(request).await,
        ("GET", ["images", "gc"]) => upkeep::policy(&request),
        ("POST", ["images", "gc"]) => upkeep::collect(request).await,
        ("POST", ["system", "check"]) => upkeep::check(request).await,
        ("POST", ["auth"]) => transfer::login(request).await,
        ("GET", ["distribution", name @ .., "json"]) if !name.is_empty() => {
            transfer::distribution(request, &name.join("/")).await
        }
        ("POST", ["images", name @ .., "push"]) if !name.is_empty() => {
            transfer::push(request, &name.join("/")).await
        }
        ("GET", ["images", name @ .., "json"]) if !name.is_empty() => {
            image::inspect(request, &name.join("/")).await
        }
        ("GET", ["images", name @ .., "history"]) if !name.is_empty() => {
            image::history(request, &name.join("/")).await
        }
        ("POST", ["images", name @ .., "tag"]) if !name.is_empty() => {
            image::tag(request, &name.join("/")).await
        }
        ("DELETE", ["images", name @ ..]) if !name.is_empty() => {
            image::remove(request, &name.join("/")).await
        }

        ("GET", ["plugins"]) => system::plugins(&request),
        ("POST", ["build", "prune"]) => system::prune_build_cache(),
        // That there is no such container is told before that the operation is not supported.
        ("GET", ["containers", name, "changes" | "export"]) => {
            match request.daemon.engine.inspect(name, false).await {
                Ok(_) => return refused::answer(method.as_str(), segments),
                Err(error) => Err(error.into()),
            }
        }
        (method, segments) => {
            let answer = refused::answer(method, segments);
            if answer.is_some() {
                request.discard_body().await;
            }
            return answer;
        }
    };
    Some(reply)
}

/// Takes `//`, `.` and `..` out of a path, as Docker's router does before it looks for an operation. The slash at the
/// end stays.
fn clean(path: &str) -> String {
    let segments = gantry_api::path::segments(path);
    let end = if path.ends_with('/') && !segments.is_empty() {
        "/"
    } else {
        ""
    };
    format!("/{}{end}", segments.join("/"))
}

/// Makes one segment of a name that has slashes in it: a link of old and a network may have such a name, and one that
/// no object can have is still one that is not found.
fn join_name<'a>(method: &Method, segments: Vec<&'a str>, name: &'a mut String) -> Vec<&'a str> {
    let end = match segments[..] {
        ["containers", .., "ws"] => return segments,
        ["containers", ..] if segments.contains(&"checkpoints") => return segments,
        ["containers", ..] if *method == Method::DELETE => segments.len(),
        ["containers", ..] => segments.len() - 1,
        ["networks" | "volumes", ..] if *method == Method::POST => segments.len() - 1,
        ["networks" | "volumes", ..] => segments.len(),
        _ => return segments,
    };
    if end < 3 {
        return segments;
    }
    *name = segments[1..end].join("/");
    let mut joined = vec![segments[0], name.as_str()];
    joined.extend(&segments[end..]);
    joined
}

/// Answers 200 without a body.
fn done() -> Reply {
    respond::status(StatusCode::OK)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_cleaned() {
        for (path, want) in [
            ("/info", "/info"),
            ("//containers//json", "/containers/json"),
            ("/containers/../info", "/info"),
            ("/../info", "/info"),
            ("/containers/./json", "/containers/json"),
            ("/networks/", "/networks/"),
            ("/volumes/a b//", "/volumes/a b/"),
            ("/", "/"),
        ] {
            assert_eq!(clean(path), want, "{path}");
        }
    }

    #[test]
    fn a_name_with_slashes_is_one_segment() {
        let join = |method: Method, path: &str| {
            let mut name = String::new();
            join_name(&method, path.split('/').collect(), &mut name).join("|")
        };
        assert_eq!(join(Method::GET, "containers/a/json"), "containers|a|json");
        assert_eq!(
            join(Method::GET, "containers/a/b/c/json"),
            "containers|a/b/c|json"
        );
        assert_eq!(join(Method::DELETE, "containers/a/b"), "containers|a/b");
        assert_eq!(join(Method::DELETE, "containers/a"), "containers|a");
        assert_eq!(
            join(Method::GET, "containers/a/attach/ws"),
            "containers|a|attach|ws"
        );
        assert_eq!(join(Method::GET, "images/a/b/json"), "images|a|b|json");
        assert_eq!(join(Method::GET, "networks/a/b"), "networks|a/b");
        assert_eq!(join(Method::DELETE, "volumes/a/b/c"), "volumes|a/b/c");
        assert_eq!(
            join(Method::POST, "networks/a/b/connect"),
            "networks|a/b|connect"
        );
        assert_eq!(join(Method::GET, "networks/"), "networks|");
    }
}
