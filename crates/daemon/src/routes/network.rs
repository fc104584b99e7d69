//! Networks: the three that every engine has.

use gantry_api::error::ApiError;
use gantry_api::network::NetworksPruneReport;

use crate::convert;
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

pub async fn inspect(request: Request, name: &str) -> Reply {
    let scope = request.query.text("scope");
    let network = request.daemon.engine.network(name).await?;
    if !matches!(scope, "" | "local") {
        return Err(ApiError::not_found(format!("network {name} not found")).into());
    }
    respond::ok(&convert::network::network(&network))
}

pub async fn remove(request: Request, name: &str) -> Reply {
    let network = request.daemon.engine.network(name).await?;
    Err(ApiError::new(
        gantry_api::error::ErrorKind::Forbidden,
        format!(
            "{} is a pre-defined network and cannot be removed",
            network.name
        ),
    )
    .into())
}

/// Removes nothing: the networks that exist are never unused.
pub fn prune(request: Request) -> Reply {
    request.filters(&["label", "label!", "until"])?;
    respond::ok(&NetworksPruneReport {
        networks_deleted: None,
    })
}
