//! The engine as a whole: ping, version, info, events, disk usage.

use gantry_api::error::ApiError;
use gantry_api::system::{BuildCachePruneReport, DiskUsage};
use gantry_api::volume::VolumeUsage;
use gantry_engine::container::ListOptions;
use gantry_engine::event::Subscription;
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderName, HeaderValue, PRAGMA};
use hyper::{Method, Response};
use tokio::sync::mpsc;

use super::stream::unix_nanos;
use crate::convert;
use crate::server::body::Body;
use crate::server::request::Request;
use crate::server::respond::{self, Reply};

pub fn ping(method: &Method) -> Reply {
    let mut response = Response::new(if method == Method::HEAD {
        Body::empty()
    } else {
        Body::whole("OK")
    });
    for (name, value) in [
        (CONTENT_TYPE, "text/plain; charset=utf-8"),
        (CACHE_CONTROL, "no-cache, no-store, must-revalidate"),
        (PRAGMA, "no-cache"),
        // 1 is the classic builder: this engine has no BuildKit to offer.
        (HeaderName::from_static("builder-version"), "1"),
        (HeaderName::from_static("swarm"), "inactive"),
    ] {
        response
            .headers_mut()
            .insert(name, HeaderValue::from_static(value));
    }
    Ok(response)
}

pub async fn version(_: Request) -> Reply {
    let names = rustix::system::uname();
    respond::ok(&convert::system::version(
        &names.release().to_string_lossy(),
        &names.machine().to_string_lossy(),
    ))
}

pub async fn info(request: Request) -> Reply {
    let info = request.daemon.engine.info().await?;
    let now = std::time::SystemTime::now().into();
    respond::ok(&convert::system::info(
        &info,
        &request.daemon.settings,
        &request.daemon.registries(),
        request.version,
        now,
    ))
}

/// Lists the plugins: there are none.
pub fn plugins(request: &Request) -> Reply {
    let filters = request.filters(&["capability", "enabled"])?;
    filters.bool_or("enabled", false)?;
    respond::ok::<[(); 0]>(&[])
}

pub async fn events(request: Request) -> Reply {
    let query = &request.query;
    let time = |name: &str| query.non_empty(name).map(unix_nanos).transpose();
    let (since_ns, until_ns) = (time("since")?, time("until")?);
    if let (Some(since), Some(until)) = (since_ns, until_ns)
        && since > until
    {
        return Err(ApiError::invalid(format!(
            "`since` time ({}) cannot be after `until` time ({})",
            query.text("since"),
            query.text("until")
        ))
        .into());
    }
    let filters = convert::filters(&gantry_api::filters::Filters::parse(query.text("filters"))?);
    let mut subscriber = request.daemon.engine.events(Subscription {
        since_ns,
        until_ns,
        filters,
    })?;
    let version = request.version;
    let (sender, receiver) = mpsc::channel(16);
    tokio::spawn(async move {
        loop {
            let event = tokio::select! {
                event = subscriber.next() => event,
                () = sender.closed() => return,
            };
            let Some(event) = event else { return };
            let Some(message) = convert::event::message(&event, version) else {
                continue;
            };
            if sender
                .send(Ok(respond::json_line(&message, "\n")))
                .await
                .is_err()
            {
                return;
            }
        }
    });
    respond::stream("application/json", Body::channel(receiver))
}

pub async fn disk_usage(request: Request) -> Reply {
    const TYPES: [&str; 4] = ["container", "image", "volume", "build-cache"];
    let wanted: Vec<&str> = request.query.all("type").collect();
    if let Some(unknown) = wanted.iter().find(|kind| !TYPES.contains(kind)) {
        return Err(ApiError::invalid(format!("unknown object type: {unknown}")).into());
    }
    // Types can be chosen since 1.42.
    let wants =
        |kind: &str| wanted.is_empty() || request.version.is_before(42) || wanted.contains(&kind);
    let engine = &request.daemon.engine;
    let mut usage = DiskUsage::default();
    let every_container = engine
        .list(ListOptions {
            all: true,
            size: wants("container"),
            ..ListOptions::default()
        })
        .await?;
    if wants("container") {
        let now = std::time::SystemTime::now().into();
        usage.containers = Some(
            every_container
                .iter()
                .map(|one| convert::container::summary(one, now))
                .collect(),
        );
    }
    if wants("image") {
        let images = engine
            .images(&gantry_engine::Filters::new(), false, true)
            .await?;
        let counts = engine.containers_of_images();
        usage.images = Some(
            images
                .iter()
                .map(|one| convert::image::summary(one, Some(&counts), request.version))
                .collect(),
        );
        usage.layers_size =
            i64::try_from(engine.image_disk_usage().await?.total_bytes()).unwrap_or(i64::MAX);
    }
    if wants("volume") {
        let mut volumes = Vec::new();
        for (volume, bytes) in engine.volume_sizes().await? {
            let users = every_container
                .iter()
                .filter(|one| {
                    one.record
                        .mounts
                        .iter()
                        .any(|mount| mount.name == volume.name && !mount.name.is_empty())
                })
                .count();
            let mut shown = convert::volume::volume(&volume);
            shown.usage_data = Some(VolumeUsage {
                ref_count: i64::try_from(users).unwrap_or(i64::MAX),
                size: i64::try_from(bytes).unwrap_or(i64::MAX),
            });
            volumes.push(shown);
        }
        usage.volumes = Some(volumes);
    }
    if wants("build-cache") {
        usage.build_cache = Some(Vec::new());
    }
    respond::ok(&usage)
}

/// There is no build cache, so nothing is deleted; `docker system prune` asks in any case.
pub fn prune_build_cache() -> Reply {
    respond::ok(&BuildCachePruneReport {
        caches_deleted: None,
        space_reclaimed: 0,
    })
}
