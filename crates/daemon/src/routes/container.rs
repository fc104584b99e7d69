//! Containers: one function per operation that has a plain answer. Streams are in [`super::stream`].

use gantry_api::container::{
    ContainerCreateRequest, ContainersPruneReport, CreateResponse, TopResponse, UpdateRequest,
    UpdateResponse,
};
use gantry_api::error::{ApiError, ErrorKind};
use gantry_engine::Changed;
use gantry_engine::container::{ListOptions, RemoveOptions, StartOptions, StopOptions};
use hyper::StatusCode;

use super::done;
use crate::convert;
use crate::server::query::quoted;
use crate::server::request::Request;
use crate::server::respond::{self, Failure, Reply};

pub async fn list(request: Request) -> Reply {
    let query = &request.query;
    let limit = query.integer("limit").map_err(as_system)?;
    let options = ListOptions {
        all: query.flag("all"),
        limit: limit
            .and_then(|limit| usize::try_from(limit).ok())
            .filter(|limit| *limit > 0),
        size: query.flag("size"),
        filters: convert::filters(&request.filters(gantry_engine::container::LIST_FILTER_KEYS)?),
    };
    let listed = request.daemon.engine.list(options).await?;
    let now = std::time::SystemTime::now().into();
    let summaries: Vec<_> = listed
        .iter()
        .map(|one| convert::container::summary(one, now))
        .collect();
    respond::ok(&summaries)
}

pub async fn create(mut request: Request) -> Reply {
    let body = request.json::<ContainerCreateRequest>().await?;
    let Some(mut body) = body else {
        return Err(ApiError::invalid("invalid JSON: got EOF while reading request body").into());
    };
    let moved_sysctls = convert::endpoint::move_sysctls(&mut body, request.version)?;
    // Docker asks for it in the network's settings since 1.44.
    let deprecated_mac = !body.config.mac_address.is_empty() && !request.version.is_before(44);
    let options = convert::create::options(
        body,
        request.query.non_empty("name"),
        request.query.non_empty("platform"),
        request.version,
    )?;
    let mut created = request.daemon.engine.create(options).await?;
    created.warnings.extend(moved_sysctls);
    if deprecated_mac {
        created.warnings.push(
            "The container-wide MacAddress field is now deprecated. It should be specified in EndpointsConfig instead."
                .to_owned(),
        );
    }
    respond::json(
        StatusCode::CREATED,
        &CreateResponse {
            id: created.id,
            warnings: created.warnings,
        },
    )
}

pub async fn prune(request: Request) -> Reply {
    let filters = request.filters(&["label", "label!", "until"])?;
    let pruned = request
        .daemon
        .engine
        .prune_containers(&convert::filters(&filters))
        .await?;
    let deleted = (!pruned.deleted.is_empty()).then_some(pruned.deleted);
    respond::ok(&ContainersPruneReport {
        containers_deleted: deleted,
        space_reclaimed: pruned.reclaimed_bytes,
    })
}

pub async fn inspect(request: Request, name: &str) -> Reply {
    let found = request
        .daemon
        .engine
        .inspect(name, request.query.flag("size"))
        .await?;
    respond::ok(&convert::container::inspect(&found, request.version))
}

pub async fn top(request: Request, name: &str) -> Reply {
    let top = request
        .daemon
        .engine
        .top(name, request.query.text("ps_args"))
        .await?;
    respond::ok(&TopResponse {
        processes: Some(top.processes),
        titles: Some(top.titles),
    })
}

pub async fn start(mut request: Request, name: &str) -> Reply {
    // Seven bytes are what old clients send for an empty body.
    if request.bytes(64 << 10).await?.len() > 7 {
        return Err(ApiError::invalid(
            "starting container with non-empty request body was deprecated since API v1.22 and removed in v1.24",
        )
        .into());
    }
    if request.query.contains("checkpoint") || request.query.contains("checkpoint-dir") {
        return Err(ApiError::not_implemented(
            "container checkpoint is not supported by this engine",
        )
        .into());
    }
    let options = StartOptions {
        detach_keys: request.query.non_empty("detachKeys").map(str::to_owned),
    };
    changed(request.daemon.engine.start(name, options).await?)
}

pub async fn stop(request: Request, name: &str) -> Reply {
    let options = stop_options(&request)?;
    changed(request.daemon.engine.stop(name, options).await?)
}

pub async fn restart(request: Request, name: &str) -> Reply {
    let options = stop_options(&request)?;
    request.daemon.engine.restart(name, options).await?;
    respond::no_content()
}

fn stop_options(request: &Request) -> Result<StopOptions, Failure> {
    let signal = request.query.non_empty("signal").map(str::to_owned);
    Ok(StopOptions {
        signal: signal.filter(|_| !request.version.is_before(42)),
        timeout_s: request.query.integer("t").map_err(as_system)?,
    })
}

pub async fn kill(request: Request, name: &str) -> Reply {
    request
        .daemon
        .engine
        .kill(name, request.query.non_empty("signal").map(str::to_owned))
        .await?;
    respond::no_content()
}

pub async fn pause(request: Request, name: &str) -> Reply {
    request.daemon.engine.pause(name).await?;
    respond::no_content()
}

pub async fn unpause(request: Request, name: &str) -> Reply {
    request.daemon.engine.unpause(name).await?;
    respond::no_content()
}

pub async fn rename(request: Request, name: &str) -> Reply {
    request
        .daemon
        .engine
        .rename(name, request.query.text("name"))
        .await?;
    respond::no_content()
}

pub async fn update(mut request: Request, name: &str) -> Reply {
    let body = request.json_or_default::<UpdateRequest>().await?;
    let options = convert::create::update_options(body)?;
    let warnings = request.daemon.engine.update(name, options).await?;
    respond::ok(&UpdateResponse {
        warnings: (!warnings.is_empty()).then_some(warnings),
    })
}

pub async fn resize(request: Request, name: &str) -> Reply {
    let (rows, columns) = size(&request)?;
    request.daemon.engine.resize(name, rows, columns).await?;
    done()
}

/// Reads the parameters `h` and `w`.
pub fn size(request: &Request) -> Result<(u16, u16), Failure> {
    let read = |name: &str, what: &str| {
        let text = request.query.text(name);
        match text.parse::<u32>() {
            Ok(number) => Ok(u16::try_from(number).unwrap_or(u16::MAX)),
            Err(_) => {
                let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
                let why = if digits {
                    "value out of range"
                } else {
                    "invalid syntax"
                };
                Err(ApiError::invalid(format!(
                    "invalid resize {what} {}: {why}",
                    quoted(text)
                )))
            }
        }
    };
    Ok((read("h", "height")?, read("w", "width")?))
}

pub async fn remove(request: Request, name: &str) -> Reply {
    let options = RemoveOptions {
        force: request.query.flag("force"),
        volumes: request.query.flag("v"),
        link: request.query.flag("link"),
    };
    request.daemon.engine.remove(name, options).await?;
    respond::no_content()
}

fn changed(changed: Changed) -> Reply {
    match changed {
        Changed::Yes => respond::no_content(),
        Changed::No => respond::status(StatusCode::NOT_MODIFIED),
    }
}

/// Docker answers a malformed number in these places with 500.
pub fn as_system(error: ApiError) -> ApiError {
    ApiError {
        kind: ErrorKind::System,
        ..error
    }
}
