//! Volumes.

use gantry_api::volume as wire;
use gantry_engine::volume::Volume;

use super::instant;

/// Writes a volume as list and inspect show it.
pub fn volume(volume: &Volume) -> wire::Volume {
    // Docker writes `null` where nothing was given.
    let map =
        |map: &std::collections::BTreeMap<String, String>| (!map.is_empty()).then(|| map.clone());
    let created = instant(volume.created_ns);
    wire::Volume {
        // Whole seconds, as the directory's time is shown.
        created_at: gantry_api::time::Timestamp::from_unix(created.unix_seconds(), 0).to_string(),
        driver: volume.driver.clone(),
        labels: map(&volume.labels),
        mountpoint: volume.mountpoint.display().to_string(),
        name: volume.name.clone(),
        options: map(&volume.options),
        scope: "local".to_owned(),
        ..wire::Volume::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_volume_is_dockers() {
        let ours = Volume {
            name: "dmn_v".to_owned(),
            driver: "local".to_owned(),
            created_ns: 1_795_470_748_843_065_813,
            mountpoint: "/var/lib/peer-docker/volumes/dmn_v/_data".into(),
            ..Volume::default()
        };
        assert_eq!(
            serde_json::to_string(&volume(&ours)).unwrap(),
            r#"{"CreatedAt":"2026-11-23T21:52:28Z","Driver":"local","Labels":null,"Mountpoint":"/var/lib/peer-docker/volumes/dmn_v/_data","Name":"dmn_v","Options":null,"Scope":"local"}"#
        );
    }
}
