//! What is not about a repository: the base, tokens, health, metrics, collecting.

use super::{Body, Call, header, json, set, status};
use crate::auth::{Caller, Credentials, TokenRequest};
use crate::error::{Code, Result};
use hyper::body::Incoming;
use hyper::header::{AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE};
use hyper::{Method, Response, StatusCode};
use serde_json::json as value;

use super::route::Query;

/// How long the body of a request for a token may be.
const TOKEN_BODY_MAX: usize = 64 << 10;

/// The base: tells that the protocol is served, and makes clients log in that can.
pub fn base(call: &Call) -> Result<Response<Body>> {
    if !call.registry.auth.is_open() && call.caller == Caller::Anonymous {
        return Err(Code::Unauthorized.into());
    }
    Ok(json(StatusCode::OK, &value!({})))
}

/// The token service: GET with Basic, or POST of a form.
pub async fn token(call: &Call, body: &mut Incoming) -> Result<Response<Body>> {
    let request = match call.method {
        Method::GET => {
            let credentials = header(&call.headers, &AUTHORIZATION)
                .and_then(|header| header.split_once(' '))
                .filter(|(kind, _)| kind.eq_ignore_ascii_case("basic"))
                .map_or(Credentials::None, |(_, value)| {
                    Credentials::Basic(value.to_owned())
                });
            TokenRequest {
                credentials,
                scopes: scopes(&call.query),
                is_offline: call.query.get("offline_token") == Some("true"),
            }
        }
        Method::POST => {
            let bytes = super::manifest::collect(call, body, TOKEN_BODY_MAX).await?;
            form(&Query::parse(&String::from_utf8_lossy(&bytes)))?
        }
        _ => return Err(Code::Unsupported.into()),
    };
    let answer = call.registry.auth.token(request).await?;
    let mut response = json(StatusCode::OK, &answer);
    set(&mut response, CACHE_CONTROL, "no-store");
    Ok(response)
}

/// Reads the form of an OAuth 2 request (RFC 6749, sections 4.3 and 6).
fn form(form: &Query) -> Result<TokenRequest> {
    let field = |name: &str| form.get(name).unwrap_or_default().to_owned();
    let credentials = match form.get("grant_type") {
        Some("password") => Credentials::Password(field("username"), field("password")),
        Some("refresh_token") => Credentials::Refresh(field("refresh_token")),
        _ => return Err(Code::Unsupported.into()),
    };
    Ok(TokenRequest {
        credentials,
        scopes: scopes(form),
        is_offline: form.get("access_type") == Some("offline"),
    })
}

/// Scopes come in several parameters, or in one with spaces.
fn scopes(query: &Query) -> Vec<String> {
    query
        .all("scope")
        .flat_map(str::split_whitespace)
        .map(str::to_owned)
        .collect()
}

/// Tells that the registry answers.
pub fn health(_: &Call) -> Result<Response<Body>> {
    Ok(json(StatusCode::OK, &value!({ "status": "ok" })))
}

/// The counters.
pub fn metrics(call: &Call) -> Result<Response<Body>> {
    demand_admin(call)?;
    let mut response = Response::new(Body::whole(call.registry.metrics.text()));
    set(&mut response, CONTENT_TYPE, "text/plain; version=0.0.4");
    Ok(response)
}

/// Collects garbage now.
pub async fn collect(call: &Call) -> Result<Response<Body>> {
    demand_admin(call)?;
    let is_dry_run = call.query.get("dry-run") == Some("true");
    let collected = crate::maintenance::collect(&call.registry, is_dry_run).await?;
    Ok(json(StatusCode::OK, &value!(collected)))
}

fn demand_admin(call: &Call) -> Result<()> {
    if call.registry.auth.may_admin(&call.caller) {
        return Ok(());
    }
    Err(match call.caller {
        Caller::User(_) => Code::Denied.into(),
        _ => Code::Unauthorized.into(),
    })
}

/// Answers on an address of its own that has nothing but the counters and the health.
pub fn metrics_alone(registry: &crate::Registry, path: &str) -> Response<Body> {
    match path {
        "/metrics" => {
            let mut response = Response::new(Body::whole(registry.metrics.text()));
            set(&mut response, CONTENT_TYPE, "text/plain; version=0.0.4");
            response
        }
        "/healthz" => json(StatusCode::OK, &value!({ "status": "ok" })),
        _ => status(StatusCode::NOT_FOUND),
    }
}
