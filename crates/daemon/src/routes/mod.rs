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

use std::pin::Pin;
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
    let (version, rest) = version::split(&path);
    // A path that there is not is told of before a version that is not served.
    let (api_version, unserved) = match version {
        Ok(version) => (version, None),
        Err(unserved) => (version::MAX, Some(unserved)),
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
    let Some(operation) = find(&head.method, &segments, request) else {
        return respond::error(&ApiError::not_found("page not found"));
    };
    if let Some(unserved) = unserved {
        let mut response = respond::refused_version(&unserved);
        respond::add_common_headers(&mut response);
        return response;
    }
    let mut response = match operation.await {
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

/// An operation that was found and is not begun.
type Operation<'a> = Pin<Box<dyn Future<Output = Reply> + Send + 'a>>;

fn run<'a>(operation: impl Future<Output = Reply> + Send + 'a) -> Operation<'a> {
    Box::pin(operation)
}

fn reply<'a>(reply: Reply) -> Operation<'a> {
    run(std::future::ready(reply))
}

/// Finds the operation; `None` if there is none.
fn find<'a>(method: &Method, segments: &'a [&'a str], request: Request) -> Option<Operation<'a>> {
    // `docker` asks for HEAD in two places only; elsewhere Docker has no such route.
    let operation = match (method.as_str(), segments) {
        ("GET" | "HEAD", ["_ping"]) => reply(system::ping(method)),
        ("GET", ["version"]) => run(system::version(request)),
        ("GET", ["info"]) => run(system::info(request)),
        ("GET", ["events"]) => run(system::events(request)),
        ("GET", ["system", "df"]) => run(system::disk_usage(request)),

        ("GET", ["containers", "json"]) => run(container::list(request)),
        ("POST", ["containers", "create"]) => run(container::create(request)),
        ("POST", ["containers", "prune"]) => run(container::prune(request)),
        ("GET", ["containers", name, "json"]) => run(container::inspect(request, name)),
        ("GET", ["containers", name, "top"]) => run(container::top(request, name)),
        ("GET", ["containers", name, "logs"]) => run(stream::logs(request, name)),
        ("GET", ["containers", name, "stats"]) => run(stream::stats(request, name)),
        ("POST", ["containers", name, "start"]) => run(container::start(request, name)),
        ("POST", ["containers", name, "stop"]) => run(container::stop(request, name)),
        ("POST", ["containers", name, "restart"]) => run(container::restart(request, name)),
        ("POST", ["containers", name, "kill"]) => run(container::kill(request, name)),
        ("POST", ["containers", name, "pause"]) => run(container::pause(request, name)),
        ("POST", ["containers", name, "unpause"]) => run(container::unpause(request, name)),
        ("POST", ["containers", name, "rename"]) => run(container::rename(request, name)),
        ("POST", ["containers", name, "update"]) => run(container::update(request, name)),
        ("POST", ["containers", name, "resize"]) => run(container::resize(request, name)),
        ("POST", ["containers", name, "attach"]) => run(stream::attach(request, name)),
        ("POST", ["containers", name, "wait"]) => run(stream::wait(request, name)),
        ("POST", ["containers", name, "exec"]) => run(exec::create(request, name)),
        ("DELETE", ["containers", name]) => run(container::remove(request, name)),

        ("POST", ["exec", id, "start"]) => run(exec::start(request, id)),
        ("POST", ["exec", id, "resize"]) => run(exec::resize(request, id)),
        ("GET", ["exec", id, "json"]) => run(exec::inspect(request, id)),

        ("GET", ["volumes"]) => run(volume::list(request)),
        ("POST", ["volumes", "create"]) => run(volume::create(request)),
        ("POST", ["volumes", "prune"]) => run(volume::prune(request)),
        ("GET", ["volumes", name]) => run(volume::inspect(request, name)),
        ("DELETE", ["volumes", name]) => run(volume::remove(request, name)),

        ("GET", ["networks"] | ["networks", ""]) => run(network::list(request)),
        ("POST", ["networks", "create"]) => run(network::create(request)),
        ("POST", ["networks", "prune"]) => run(network::prune(request)),
        ("GET", ["networks", name]) => run(network::inspect(request, name)),
        ("DELETE", ["networks", name]) => run(network::remove(request, name)),
        ("POST", ["networks", name, "connect"]) => run(network::connect(request, name)),
        ("POST", ["networks", name, "disconnect"]) => run(network::disconnect(request, name)),

        ("GET", ["images", "json"]) => run(image::list(request)),
        ("POST", ["images", "create"]) => run(transfer::create(request)),
        ("POST", ["images", "load"]) => run(archive::load(request)),
        ("POST", ["images", "prune"]) => run(image::prune(request)),
        ("GET", ["images", "get"]) => run(archive::save(request, None)),
        ("GET", ["images", name @ .., "get"]) if !name.is_empty() => {
            run(archive::save(request, Some(name.join("/"))))
        }
        ("GET", ["images", "search"]) => run(transfer::search(request)),
        ("GET", ["images", "gc"]) => reply(upkeep::policy(&request)),
        ("POST", ["images", "gc"]) => run(upkeep::collect(request)),
        ("POST", ["system", "check"]) => run(upkeep::check(request)),
        ("POST", ["auth"]) => run(transfer::login(request)),
        ("GET", ["distribution", name @ .., "json"]) if !name.is_empty() => {
            run(async move { transfer::distribution(request, &name.join("/")).await })
        }
        ("POST", ["images", name @ .., "push"]) if !name.is_empty() => {
            run(async move { transfer::push(request, &name.join("/")).await })
        }
        ("GET", ["images", name @ .., "json"]) if !name.is_empty() => {
            run(async move { image::inspect(request, &name.join("/")).await })
        }
        ("GET", ["images", name @ .., "history"]) if !name.is_empty() => {
            run(async move { image::history(request, &name.join("/")).await })
        }
        ("POST", ["images", name @ .., "tag"]) if !name.is_empty() => {
            run(async move { image::tag(request, &name.join("/")).await })
        }
        ("DELETE", ["images", name @ ..]) if !name.is_empty() => {
            run(async move { image::remove(request, &name.join("/")).await })
        }

        ("GET", ["plugins"]) => reply(system::plugins(&request)),
        ("POST", ["build", "prune"]) => reply(system::prune_build_cache()),
        // That there is no such container is told before that the operation is not supported.
        ("GET", ["containers", name, "changes" | "export"]) => {
            let refusal = refused::answer(method.as_str(), segments)?;
            run(async move {
                match request.daemon.engine.inspect(name, false).await {
                    Ok(_) => refusal,
                    Err(error) => Err(error.into()),
                }
            })
        }
        (method, segments) => {
            let refusal = refused::answer(method, segments)?;
            run(async move {
                request.discard_body().await;
                refusal
            })
        }
    };
    Some(operation)
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
