//! From a request to its handler: one table for all operations.
//!
//! A path or method that is not in the table is 404 "page not found", never 405. Operations of Docker that this engine
//! does not have are in [`refused`] and answered by name.

mod container;
mod exec;
mod image;
mod network;
mod refused;
mod stream;
mod system;
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
    let (api_version, rest) = match version::split(&path) {
        Ok(split) => split,
        Err(error) => {
            let mut response = respond::refused_version(&error);
            respond::add_common_headers(&mut response);
            return response;
        }
    };
    let segments: Vec<&str> = rest.split('/').skip(1).collect();
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
        // A link of old is a name with a slash in it.
        ("GET", ["containers", parent, alias, "json"]) => {
            container::inspect(request, &format!("{parent}/{alias}")).await
        }
        ("DELETE", ["containers", parent, alias]) => {
            container::remove(request, &format!("{parent}/{alias}")).await
        }

        ("POST", ["exec", id, "start"]) => exec::start(request, id).await,
        ("POST", ["exec", id, "resize"]) => exec::resize(request, id).await,
        ("GET", ["exec", id, "json"]) => exec::inspect(request, id).await,

        ("GET", ["volumes"]) => volume::list(request).await,
        ("POST", ["volumes", "create"]) => volume::create(request).await,
        ("POST", ["volumes", "prune"]) => volume::prune(request).await,
        ("GET", ["volumes", name]) => volume::inspect(request, name).await,
        ("DELETE", ["volumes", name]) => volume::remove(request, name).await,

        ("GET", ["networks"] | ["networks", ""]) => network::list(request).await,
        ("POST", ["networks", "prune"]) => network::prune(request),
        ("GET", ["networks", name]) => network::inspect(request, name).await,
        ("DELETE", ["networks", name]) => network::remove(request, name).await,

        ("GET", ["images", "json"]) => image::list(request).await,
        ("POST", ["images", "create"]) => image::create(request).await,
        ("POST", ["images", "load"]) => image::load(request).await,
        ("POST", ["images", "prune"]) => image::prune(request).await,
        ("GET", ["images", "get"]) => image::save(request, None).await,
        ("GET", ["images", name @ .., "get"]) if !name.is_empty() => {
            image::save(request, Some(name.join("/"))).await
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

        ("GET", ["plugins"]) => respond::ok::<[(); 0]>(&[]),
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

/// Answers 200 without a body.
fn done() -> Reply {
    respond::status(StatusCode::OK)
}
