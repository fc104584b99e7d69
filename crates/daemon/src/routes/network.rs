//! Networks.

use gantry_api::error::ApiError;
use gantry_api::network::{
    NetworkConnectRequest, NetworkCreateRequest, NetworkCreateResponse, NetworkDisconnectRequest,
    NetworksPruneReport,
};
use hyper::StatusCode;

use super::done;
use crate::convert;
use crate::server::query::quoted;
use crate::server::request::Request;
use crate::server::respond::{self, Reply};

pub async fn list(request: Request) -> Reply {
    let filters =
        request.filters(&["dangling", "driver", "id", "label", "name", "scope", "type"])?;
    let networks = request
        .daemon
        .engine
        .networks(&convert::filters(&filters))
        .await?;
    // The list names containers for clients of old alone, inspect does for all.
    let with_containers = request.version.is_before(28);
    let networks: Vec<_> = networks
        .into_iter()
        .map(|network| {
            convert::network::network(&gantry_engine::network::Network {
                containers: if with_containers {
                    network.containers
                } else {
                    Vec::new()
                },
                ..network
            })
        })
        .collect();
    respond::ok(&networks)
}

pub async fn create(mut request: Request) -> Reply {
    let body = request.json_or_default::<NetworkCreateRequest>().await?;
    let created = request
        .daemon
        .engine
        .create_network(convert::network::create(body))
        .await?;
    respond::json(
        StatusCode::CREATED,
        &NetworkCreateResponse {
            id: created.id,
            warning: created.warning,
        },
    )
}

pub async fn inspect(request: Request, name: &str) -> Reply {
    // Nothing more is known of networks on one machine.
    let verbose = request.query.text("verbose");
    if !verbose.is_empty() && crate::config::parse_bool(verbose).is_none() {
        return Err(ApiError::invalid(format!(
            "invalid value for verbose: {verbose}: strconv.ParseBool: parsing {}: invalid syntax",
            quoted(verbose)
        ))
        .into());
    }
    let scope = request.query.text("scope");
    let network = request.daemon.engine.network(name).await?;
    if !scope.is_empty() && scope != network.scope {
        return Err(ApiError::not_found(format!("network {name} not found")).into());
    }
    respond::ok(&convert::network::network(&network))
}

pub async fn remove(request: Request, name: &str) -> Reply {
    request.daemon.engine.remove_network(name).await?;
    respond::no_content()
}

pub async fn connect(mut request: Request, name: &str) -> Reply {
    let body = request.json_or_default::<NetworkConnectRequest>().await?;
    let wished = body.endpoint_config.unwrap_or_default();
    let settings = convert::endpoint::settings(wished, request.version);
    request
        .daemon
        .engine
        .connect_network(name, &body.container, settings)
        .await?;
    done()
}

pub async fn disconnect(mut request: Request, name: &str) -> Reply {
    let body = request
        .json_or_default::<NetworkDisconnectRequest>()
        .await?;
    request
        .daemon
        .engine
        .disconnect_network(name, &body.container, body.force)
        .await?;
    done()
}

pub async fn prune(request: Request) -> Reply {
    let filters = request.filters(&["label", "label!", "until"])?;
    let deleted = request
        .daemon
        .engine
        .prune_networks(&convert::filters(&filters))
        .await?;
    respond::ok(&NetworksPruneReport {
        networks_deleted: Some(deleted).filter(|names| !names.is_empty()),
    })
}
