//! Images.

use std::collections::BTreeMap;

use gantry_api::image as wire;
use gantry_api::oci::image::RunConfig;
use gantry_api::reference::Reference;
use gantry_api::time::Timestamp;
use gantry_engine::image::{HistoryEntry, Image, Listed, LoadEvent, Loaded, Removed};
use serde_json::{Map, Value, json};

use crate::server::version::ApiVersion;

fn texts(references: &[Reference]) -> Vec<String> {
    references.iter().map(ToString::to_string).collect()
}

fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// Writes one entry of the list. `containers` counts an image's containers where that is shown.
pub fn summary(
    listed: &Listed,
    containers: Option<&BTreeMap<String, u64>>,
    version: ApiVersion,
) -> wire::ImageSummary {
    let image = &listed.image;
    let mut tags = texts(&listed.references);
    let mut digests = texts(&listed.digests);
    let is_old = version.is_before(43);
    if is_old && tags.is_empty() && digests.is_empty() {
        tags.push("<none>:<none>".to_owned());
        digests.push("<none>@<none>".to_owned());
    }
    // Old clients get `null` for no name.
    let shown = |list: Vec<String>| {
        if is_old && list.is_empty() {
            None
        } else {
            Some(list)
        }
    };
    let size = signed(image.size_bytes);
    wire::ImageSummary {
        containers: containers.map_or(-1, |counts| {
            signed(
                counts
                    .get(&image.id.to_digest())
                    .or(counts.get(image.id.as_str()))
                    .copied()
                    .unwrap_or(0),
            )
        }),
        created: image.created.map_or(0, Timestamp::unix_seconds),
        id: image.id.to_digest(),
        labels: image.config().config.labels.clone(),
        parent_id: image
            .parent
            .as_ref()
            .map(|parent| parent.to_digest())
            .unwrap_or_default(),
        repo_digests: shown(digests),
        repo_tags: shown(tags),
        shared_size: listed.shared_size_bytes.map_or(-1, signed),
        size,
        virtual_size: if version.is_before(44) { size } else { 0 },
        ..wire::ImageSummary::default()
    }
}

/// Writes an image in full.
pub fn inspect(image: &Image, version: ApiVersion) -> wire::ImageInspect {
    let config = image.config();
    let size = signed(image.size_bytes);
    let layers: Vec<String> = image
        .layers
        .iter()
        .map(|layer| layer.diff_id.to_string())
        .collect();
    wire::ImageInspect {
        id: image.id.to_digest(),
        repo_tags: Some(texts(&image.references)),
        repo_digests: Some(texts(&image.digests)),
        parent: image
            .parent
            .as_ref()
            .map(|parent| parent.to_digest())
            .unwrap_or_default(),
        comment: config.comment.clone(),
        created: image
            .created
            .map(|time| time.to_string())
            .unwrap_or_default(),
        container_config: version.is_before(45).then(empty_container_config),
        docker_version: config.docker_version.clone(),
        author: config.author.clone(),
        architecture: config.architecture.clone(),
        variant: config.variant.clone(),
        os: config.os.clone(),
        os_version: config.os_version.clone(),
        size,
        virtual_size: if version.is_before(44) { size } else { 0 },
        graph_driver: graph_driver(image),
        root_fs: wire::RootFs {
            kind: "layers".to_owned(),
            layers: (!layers.is_empty()).then_some(layers),
        },
        metadata: wire::ImageMetadata {
            last_tag_time: Some(image.last_tagged),
        },
        config: Some(run_config(&config.config, version)),
        ..wire::ImageInspect::default()
    }
}

fn graph_driver(image: &Image) -> gantry_api::container::DriverData {
    let paths: Vec<String> = image
        .layers
        .iter()
        .rev()
        .map(|layer| layer.path.display().to_string())
        .collect();
    let data = paths.split_first().map(|(top, lowers)| {
        let mut data = BTreeMap::from([("UpperDir".to_owned(), top.clone())]);
        if !lowers.is_empty() {
            data.insert("LowerDir".to_owned(), lowers.join(":"));
        }
        data
    });
    gantry_api::container::DriverData {
        data,
        name: "overlay2".to_owned(),
    }
}

/// Writes the process's part of the configuration as Docker does: keys sorted, the fields that always were there kept
/// even when empty, and before 1.50 those that only containers have.
fn run_config(config: &RunConfig, version: ApiVersion) -> Value {
    let mut fields = BTreeMap::from([
        ("Cmd", json!(config.cmd)),
        ("Entrypoint", json!(config.entrypoint)),
        ("Env", json!(config.env)),
        ("Labels", json!(config.labels)),
        ("OnBuild", json!(config.on_build)),
        ("User", json!(config.user)),
        ("Volumes", json!(config.volumes)),
        ("WorkingDir", json!(config.working_dir)),
    ]);
    if config.args_escaped {
        fields.insert("ArgsEscaped", json!(true));
    }
    if let Some(ports) = config
        .exposed_ports
        .as_ref()
        .filter(|ports| !ports.is_empty())
    {
        fields.insert("ExposedPorts", json!(ports));
    }
    if let Some(check) = &config.healthcheck {
        fields.insert("Healthcheck", json!(check));
    }
    if !config.stop_signal.is_empty() {
        fields.insert("StopSignal", json!(config.stop_signal));
    }
    if let Some(shell) = config.shell.as_ref().filter(|shell| !shell.is_empty()) {
        fields.insert("Shell", json!(shell));
    }
    if version.is_before(50) {
        for name in [
            "AttachStderr",
            "AttachStdin",
            "AttachStdout",
            "OpenStdin",
            "StdinOnce",
            "Tty",
        ] {
            fields.insert(name, json!(false));
        }
        for name in ["Domainname", "Hostname", "Image"] {
            fields.insert(name, json!(""));
        }
    }
    Value::Object(
        fields
            .into_iter()
            .map(|(name, value)| (name.to_owned(), value))
            .collect::<Map<_, _>>(),
    )
}

/// Writes the configuration of the container that an image was committed from, which nobody records any more.
fn empty_container_config() -> Value {
    serde_json::to_value(gantry_api::container::Config::default()).unwrap_or_default()
}

/// Writes one step of the history.
pub fn history(entry: &HistoryEntry) -> wire::HistoryItem {
    let tags = texts(&entry.tags);
    wire::HistoryItem {
        comment: entry.comment.clone(),
        created: entry.created.map_or(0, Timestamp::unix_seconds),
        created_by: entry.created_by.clone(),
        id: entry
            .id
            .as_ref()
            .map_or_else(|| "<missing>".to_owned(), |id| id.to_digest()),
        size: signed(entry.size_bytes),
        tags: (!tags.is_empty()).then_some(tags),
    }
}

/// Writes what went with a removal.
pub fn removed(removed: &Removed) -> wire::ImageDeleteItem {
    match removed {
        Removed::Untagged(reference) => wire::ImageDeleteItem {
            untagged: reference.to_string(),
            ..wire::ImageDeleteItem::default()
        },
        Removed::Deleted(digest) => wire::ImageDeleteItem {
            deleted: digest.to_string(),
            ..wire::ImageDeleteItem::default()
        },
    }
}

/// Writes what a load tells.
pub fn load_event(event: &LoadEvent) -> wire::JsonMessage {
    match event {
        LoadEvent::Layer { id, current, total } => {
            super::transfer::progress("Loading layer", id.clone(), *current, *total)
        }
        LoadEvent::Renamed { .. } | LoadEvent::Loaded(Loaded { .. }) => wire::JsonMessage {
            stream: event.text().unwrap_or_default(),
            ..wire::JsonMessage::default()
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::version::MAX;

    fn busybox() -> RunConfig {
        RunConfig {
            cmd: Some(vec!["/bin/sh".to_owned()]),
            env: Some(vec!["PATH=/bin".to_owned()]),
            ..RunConfig::default()
        }
    }

    #[test]
    fn the_configuration_is_dockers() {
        assert_eq!(
            run_config(&busybox(), MAX).to_string(),
            r#"{"Cmd":["/bin/sh"],"Entrypoint":null,"Env":["PATH=/bin"],"Labels":null,"OnBuild":null,"User":"","Volumes":null,"WorkingDir":""}"#
        );
        assert_eq!(
            run_config(&busybox(), ApiVersion::minor(49)).to_string(),
            r#"{"AttachStderr":false,"AttachStdin":false,"AttachStdout":false,"Cmd":["/bin/sh"],"Domainname":"","Entrypoint":null,"Env":["PATH=/bin"],"Hostname":"","Image":"","Labels":null,"OnBuild":null,"OpenStdin":false,"StdinOnce":false,"Tty":false,"User":"","Volumes":null,"WorkingDir":""}"#
        );
        assert_eq!(
            empty_container_config().to_string(),
            r#"{"Hostname":"","Domainname":"","User":"","AttachStdin":false,"AttachStdout":false,"AttachStderr":false,"Tty":false,"OpenStdin":false,"StdinOnce":false,"Env":null,"Cmd":null,"Image":"","Volumes":null,"WorkingDir":"","Entrypoint":null,"OnBuild":null,"Labels":null}"#
        );
    }

    #[test]
    fn a_step_without_an_image_is_missing() {
        let entry = HistoryEntry {
            id: None,
            created: Some(Timestamp::from_unix(1_735_689_600, 0)),
            created_by: "bench/images".to_owned(),
            comment: String::new(),
            tags: Vec::new(),
            size_bytes: 1_984_172,
        };
        assert_eq!(
            serde_json::to_string(&history(&entry)).unwrap(),
            r#"{"Comment":"","Created":1735689600,"CreatedBy":"bench/images","Id":"<missing>","Size":1984172,"Tags":null}"#
        );
    }
}
