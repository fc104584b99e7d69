//! Volumes.

use gantry_api::error::ApiError;
use gantry_api::volume::{VolumeCreateRequest, VolumeListResponse, VolumesPruneReport};
use gantry_engine::volume::CreateOptions;
use hyper::StatusCode;

use crate::convert;
use crate::server::request::Request;
use crate::server::respond::{self, Reply};

pub async fn list(request: Request) -> Reply {
    let filters = request.filters(&["dangling", "driver", "label", "name"])?;
    let volumes = request
        .daemon
        .engine
        .volumes(&convert::filters(&filters))
        .await?;
    let volumes = volumes
        .iter()
        .map(|volume| convert::volume::volume(volume))
        .collect();
    respond::ok(&VolumeListResponse {
        volumes: Some(volumes),
        warnings: None,
    })
}

pub async fn create(mut request: Request) -> Reply {
    let body = request.json_or_default::<VolumeCreateRequest>().await?;
    if body.cluster_volume_spec.is_some() {
        return Err(
            ApiError::not_implemented("ClusterVolumeSpec is not supported by this engine").into(),
        );
    }
    let options = CreateOptions {
        name: body.name,
        driver: body.driver,
        driver_options: body.driver_opts.unwrap_or_default(),
        labels: body.labels.unwrap_or_default(),
    };
    let volume = request.daemon.engine.volume_create(options).await?;
    respond::json(StatusCode::CREATED, &convert::volume::volume(&volume))
}

pub async fn inspect(request: Request, name: &str) -> Reply {
    let volume = request.daemon.engine.volume(name).await?;
    respond::ok(&convert::volume::volume(&volume))
}

pub async fn remove(request: Request, name: &str) -> Reply {
    request
        .daemon
        .engine
        .volume_remove(name, request.query.flag("force"))
        .await?;
    respond::no_content()
}

pub async fn prune(request: Request) -> Reply {
    let mut filters = request.filters(&["all", "label", "label!"])?;
    if request.version.is_before(42) {
        // Before 1.42 there was no such filter, and named volumes went as well.
        filters.remove("all");
        filters.add("all", "true");
    }
    let (deleted, bytes) = request
        .daemon
        .engine
        .volume_prune(&convert::filters(&filters))
        .await?;
    respond::ok(&VolumesPruneReport {
        volumes_deleted: Some(deleted),
        space_reclaimed: bytes,
    })
}
