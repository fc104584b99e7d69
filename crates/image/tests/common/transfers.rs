//! Transfers between stores and the registry that misbehaves.

use super::{Built, Store, tar};
use gantry_image::distribution::{Config, Credentials};
use gantry_image::{
    Compression, Concurrency, Events, PullOptions, PushOptions, TransferEvent, Transfers,
};
use gantry_testkit::registry::Registry;
use serde_json::json;
use std::io::Write;
use std::time::Duration;

pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub const INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
pub const LAYER_GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

pub fn transfers(store: &Store) -> Transfers {
    transfers_with(store, 3)
}

pub fn transfers_with(store: &Store, downloads: usize) -> Transfers {
    let transfers = Transfers::new(store.images.clone());
    let concurrency = Concurrency {
        downloads,
        uploads: 5,
    };
    let config = Config {
        attempts_max: 2,
        stall_timeout: Duration::from_secs(2),
        ..Config::plain("test")
    };
    transfers.configure(config, concurrency, None).unwrap();
    transfers
}

pub fn pull_options(reference: &str) -> PullOptions {
    PullOptions {
        reference: reference.parse().unwrap(),
        platform: None,
        all_platforms: false,
        credentials: Credentials::default(),
        headers: Default::default(),
    }
}

pub fn push_options(reference: &str) -> PushOptions {
    PushOptions {
        reference: reference.parse().unwrap(),
        platform: None,
        all_platforms: false,
        compression: Compression::Gzip,
        credentials: Credentials::default(),
        headers: Default::default(),
    }
}

/// Reads a transfer to its end: its lines without the moving bars, or what it failed with.
pub async fn lines(mut events: Events) -> Result<Vec<String>, String> {
    let mut lines = Vec::new();
    while let Some(event) = events.recv().await {
        match event.map_err(|error| error.to_string())? {
            TransferEvent::Status { id, text } if id.is_empty() => lines.push(text),
            TransferEvent::Status { id, text } => lines.push(format!("{id}: {text}")),
            TransferEvent::Progress { .. } => {}
            TransferEvent::Aux(value) => lines.push(value.to_string()),
        }
    }
    Ok(lines)
}

pub async fn pull(transfers: &Transfers, reference: &str) -> Result<Vec<String>, String> {
    pull_with(transfers, pull_options(reference)).await
}

pub async fn pull_with(transfers: &Transfers, options: PullOptions) -> Result<Vec<String>, String> {
    let events = transfers.pull(options, Box::new(|_| ())).await;
    lines(events.map_err(|error| error.to_string())?).await
}

pub async fn push(transfers: &Transfers, reference: &str) -> Result<Vec<String>, String> {
    push_with(transfers, push_options(reference)).await
}

pub async fn push_with(transfers: &Transfers, options: PushOptions) -> Result<Vec<String>, String> {
    let events = transfers.push(options, Box::new(|_| ())).await;
    lines(events.map_err(|error| error.to_string())?).await
}

pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// Is an image in a registry.
pub struct Published {
    pub manifest: String,
    /// Of the compressed layers.
    pub blobs: Vec<String>,
    pub sizes: Vec<usize>,
}

/// Stores an image with gzipped layers.
pub fn publish(registry: &Registry, repository: &str, tag: &str, image: &Built) -> Published {
    let config = registry.push_blob(&image.config);
    let layers: Vec<Vec<u8>> = image.layers.iter().map(|layer| gzip(layer)).collect();
    let blobs: Vec<String> = layers
        .iter()
        .map(|layer| registry.push_blob(layer))
        .collect();
    let parts: Vec<_> = blobs
        .iter()
        .zip(&layers)
        .map(|(digest, layer)| json!({"mediaType": LAYER_GZIP, "digest": digest, "size": layer.len()}))
        .collect();
    let manifest = json!({
        "schemaVersion": 2, "mediaType": MANIFEST,
        "config": {"mediaType": CONFIG, "digest": config, "size": image.config.len()},
        "layers": parts, "annotations": {"of": "the publisher"},
    });
    Published {
        manifest: registry.push_manifest(
            repository,
            tag,
            MANIFEST,
            manifest.to_string().as_bytes(),
        ),
        blobs,
        sizes: layers.iter().map(Vec::len).collect(),
    }
}

/// Gives bytes that do not compress, the same for the same seed.
pub fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed | 1;
    let bytes = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 24) as u8
    });
    bytes.take(length).collect()
}

/// Makes a layer with one file of noise.
pub fn layer(seed: u64, length: usize) -> Vec<u8> {
    tar(&[(&format!("file-{seed}"), &noise(seed, length))])
}

/// Sums the bytes that the registry sent of a blob.
pub fn sent(registry: &Registry, digest: &str) -> usize {
    let requests = registry.requests_of("GET", digest);
    requests.iter().map(|request| request.sent).sum()
}

pub fn short(digest: &str) -> &str {
    &digest[7..19]
}
