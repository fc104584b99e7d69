//! Mounts in the `--mount` form, both ways, and mount points.

use gantry_api::container as wire;
use gantry_api::error::ApiError;
use gantry_engine::container::config::MountSpec;
use gantry_engine::container::{MountKind, MountPoint};

use crate::server::query::quoted;

/// Reads one mount of a create request.
pub fn spec(mount: wire::MountSpec) -> Result<MountSpec, ApiError> {
    let wire::MountSpec {
        kind,
        source,
        target,
        read_only,
        consistency,
        bind_options,
        volume_options,
        image_options,
        tmpfs_options,
        cluster_options,
    } = mount;
    let invalid = |why: String| {
        Err(ApiError::invalid(format!(
            "invalid mount config for type {}: {why}",
            quoted(&kind)
        )))
    };
    let kind_of_mount = match kind.as_str() {
        "bind" => MountKind::Bind,
        "volume" => MountKind::Volume,
        "tmpfs" => MountKind::Tmpfs,
        "image" | "cluster" | "npipe" => {
            return Err(ApiError::not_implemented(format!(
                "mount type {} is not supported by this engine",
                quoted(&kind)
            )));
        }
        _ => return invalid("mount type unknown".to_owned()),
    };
    for (name, given, belongs) in [
        (
            "BindOptions",
            bind_options.is_some(),
            kind_of_mount == MountKind::Bind,
        ),
        (
            "VolumeOptions",
            volume_options.is_some(),
            kind_of_mount == MountKind::Volume,
        ),
        (
            "TmpfsOptions",
            tmpfs_options.is_some(),
            kind_of_mount == MountKind::Tmpfs,
        ),
        ("ImageOptions", image_options.is_some(), false),
        ("ClusterOptions", cluster_options.is_some(), false),
    ] {
        if given && !belongs {
            return invalid(format!("field {name} must not be specified"));
        }
    }
    let wire::BindOptions {
        propagation,
        non_recursive,
        create_mountpoint,
        read_only_non_recursive,
        read_only_force_recursive,
    } = bind_options.unwrap_or_default();
    let wire::VolumeOptions {
        no_copy,
        labels,
        subpath,
        driver_config,
    } = volume_options.unwrap_or_default();
    let wire::DriverConfig {
        name: volume_driver,
        options: driver_options,
    } = driver_config.unwrap_or_default();
    let wire::TmpfsOptions {
        size_bytes,
        mode,
        options,
    } = tmpfs_options.unwrap_or_default();
    Ok(MountSpec {
        kind: kind_of_mount,
        source,
        target,
        read_only,
        consistency,
        bind_propagation: propagation,
        bind_non_recursive: non_recursive,
        bind_create_mountpoint: create_mountpoint,
        bind_read_only_non_recursive: read_only_non_recursive,
        bind_read_only_force_recursive: read_only_force_recursive,
        volume_no_copy: no_copy,
        volume_labels: labels.unwrap_or_default(),
        volume_driver,
        volume_driver_options: driver_options.unwrap_or_default(),
        volume_subpath: subpath,
        tmpfs_size_bytes: size_bytes,
        tmpfs_mode: mode,
        tmpfs_options: options.unwrap_or_default(),
    })
}

/// Writes one mount of a create request as inspect shows it.
pub fn wire_spec(spec: &MountSpec) -> wire::MountSpec {
    let some =
        |map: &std::collections::BTreeMap<String, String>| (!map.is_empty()).then(|| map.clone());
    let bind = wire::BindOptions {
        propagation: spec.bind_propagation.clone(),
        non_recursive: spec.bind_non_recursive,
        create_mountpoint: spec.bind_create_mountpoint,
        read_only_non_recursive: spec.bind_read_only_non_recursive,
        read_only_force_recursive: spec.bind_read_only_force_recursive,
    };
    let driver = wire::DriverConfig {
        name: spec.volume_driver.clone(),
        options: some(&spec.volume_driver_options),
    };
    let volume = wire::VolumeOptions {
        no_copy: spec.volume_no_copy,
        labels: some(&spec.volume_labels),
        subpath: spec.volume_subpath.clone(),
        driver_config: non_zero(driver),
    };
    let tmpfs = wire::TmpfsOptions {
        size_bytes: spec.tmpfs_size_bytes,
        mode: spec.tmpfs_mode,
        options: super::null_if_empty(&spec.tmpfs_options),
    };
    wire::MountSpec {
        kind: spec.kind.as_str().to_owned(),
        source: spec.source.clone(),
        target: spec.target.clone(),
        read_only: spec.read_only,
        consistency: spec.consistency.clone(),
        bind_options: non_zero(bind),
        volume_options: non_zero(volume),
        tmpfs_options: non_zero(tmpfs),
        ..wire::MountSpec::default()
    }
}

fn non_zero<T: Default + PartialEq>(value: T) -> Option<T> {
    (value != T::default()).then_some(value)
}

/// Writes a mount as it stands in a container.
pub fn point(point: &MountPoint) -> wire::MountPoint {
    wire::MountPoint {
        kind: point.kind.as_str().to_owned(),
        name: point.name.clone(),
        source: point.source.clone(),
        destination: point.destination.clone(),
        driver: point.driver.clone(),
        mode: point.mode.clone(),
        rw: point.rw,
        propagation: point.propagation.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_survive_the_way_in_and_out() {
        for text in [
            r#"{"Type":"tmpfs","Target":"/t2"}"#,
            r#"{"Type":"tmpfs","Target":"/t","TmpfsOptions":{"SizeBytes":1024,"Mode":448}}"#,
            r#"{"Type":"bind","Source":"/a","Target":"/b","ReadOnly":true,"BindOptions":{"Propagation":"rslave"}}"#,
            r#"{"Type":"volume","Source":"v","Target":"/v","VolumeOptions":{"NoCopy":true,"DriverConfig":{"Name":"local"}}}"#,
        ] {
            let mount: wire::MountSpec = serde_json::from_str(text).unwrap();
            let back = wire_spec(&spec(mount).unwrap());
            assert_eq!(serde_json::to_string(&back).unwrap(), text);
        }
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let refuse = |text: &str| {
            spec(serde_json::from_str(text).unwrap())
                .unwrap_err()
                .message
        };
        assert_eq!(
            refuse(r#"{"Type":"tmpfs","Target":"/t","BindOptions":{}}"#),
            "invalid mount config for type \"tmpfs\": field BindOptions must not be specified"
        );
        assert_eq!(
            refuse(r#"{"Type":"x","Target":"/t"}"#),
            "invalid mount config for type \"x\": mount type unknown"
        );
        assert_eq!(
            refuse(r#"{"Type":"image"}"#),
            "mount type \"image\" is not supported by this engine"
        );
    }
}
