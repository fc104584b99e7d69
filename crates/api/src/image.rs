//! Wire types of images, and the messages of the progress streams.

use crate::container::{DriverData, HealthConfig};
use crate::oci::image::Descriptor;
use crate::platform::Platform;
use crate::time::Timestamp;
use crate::wire::{KeySet, StringList, wire};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

wire! {
    /// Is one entry of `GET /images/json`.
    pub struct ImageSummary {
        /// -1 is not counted.
        containers: i64,
        /// Seconds since 1970.
        created: i64,
        id: String,
        labels: Option<BTreeMap<String, String>>,
        parent_id: String,
        descriptor: Option<serde_json::Value> = omitempty,
        manifests: Option<Vec<serde_json::Value>> = omitempty,
        repo_digests: Option<Vec<String>>,
        repo_tags: Option<Vec<String>>,
        /// Bytes shared with other images; -1 is not computed.
        shared_size: i64,
        size: i64,
        /// Repeats `size` for clients before 1.44.
        virtual_size: i64 = omitempty,
    }

    /// Is an image's configuration of the process, as inspect shows it.
    pub struct ImageConfig {
        user: String = omitempty,
        exposed_ports: Option<KeySet> = omitempty,
        env: Option<Vec<String>> = omitempty,
        entrypoint: Option<StringList> = omitempty,
        cmd: Option<StringList> = omitempty,
        volumes: Option<KeySet> = omitempty,
        working_dir: String = omitempty,
        labels: Option<BTreeMap<String, String>> = omitempty,
        stop_signal: String = omitempty,
        args_escaped: bool = omitempty,
        healthcheck: Option<HealthConfig> = omitempty,
        on_build: Option<Vec<String>> = omitempty,
        shell: Option<StringList> = omitempty,
    }

    /// Names the layers by their diffIDs.
    pub struct RootFs {
        #[serde(rename = "Type")]
        kind: String = omitempty,
        layers: Option<Vec<String>> = omitempty,
    }

    /// Is what the engine knows of an image beyond its configuration.
    pub struct ImageMetadata {
        last_tag_time: Option<Timestamp> = omitempty,
    }

    /// Answers `GET /images/{name}/json`.
    pub struct ImageInspect {
        id: String,
        repo_tags: Option<Vec<String>>,
        repo_digests: Option<Vec<String>>,
        parent: String,
        comment: String,
        created: String = omitempty,
        /// Only before 1.45.
        container: Option<String> = omitempty,
        /// Only before 1.45.
        container_config: Option<serde_json::Value> = omitempty,
        docker_version: String,
        author: String,
        architecture: String,
        variant: String = omitempty,
        os: String,
        os_version: String = omitempty,
        size: i64,
        /// Repeats `size` for clients before 1.44.
        virtual_size: i64 = omitempty,
        graph_driver: DriverData,
        #[serde(rename = "RootFS")]
        root_fs: RootFs,
        metadata: ImageMetadata,
        descriptor: Option<serde_json::Value> = omitempty,
        manifests: Option<Vec<serde_json::Value>> = omitempty,
        /// An [`ImageConfig`], or before 1.50 a container's [`Config`](crate::container::Config).
        config: Option<serde_json::Value>,
    }

    /// Is one step of an image's history.
    pub struct HistoryItem {
        comment: String,
        /// Seconds since 1970.
        created: i64,
        created_by: String,
        id: String,
        size: i64,
        tags: Option<Vec<String>>,
    }

    /// Is one effect of removing an image; one of both is set.
    pub struct ImageDeleteItem {
        deleted: String = omitempty,
        untagged: String = omitempty,
    }

    /// Answers prune.
    pub struct ImagesPruneReport {
        images_deleted: Option<Vec<ImageDeleteItem>>,
        space_reclaimed: u64,
    }

    /// Is one hit of `GET /images/search`.
    pub struct ImageSearchResult {
        #[serde(rename = "star_count")]
        star_count: i64,
        #[serde(rename = "is_official")]
        is_official: bool,
        #[serde(rename = "name")]
        name: String,
        #[serde(rename = "is_automated")]
        is_automated: bool,
        #[serde(rename = "description")]
        description: String,
    }

    /// Answers `GET /distribution/NAME/json`.
    pub struct DistributionInspect {
        descriptor: Option<Descriptor>,
        platforms: Option<Vec<Platform>>,
    }
}

/// Is one message of pull, push, build, load and import.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct JsonMessage {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub stream: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub status: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub progress_detail: Option<ProgressDetail>,
    /// The drawn bar, for clients that do not draw it themselves.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub progress: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error_detail: Option<ErrorDetail>,
    /// Repeats the detail's message.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub error: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub aux: Option<serde_json::Value>,
}

impl JsonMessage {
    /// Makes a message that reports an error in a stream whose head is sent.
    pub fn from_error(message: &str) -> Self {
        Self {
            error_detail: Some(ErrorDetail {
                code: 0,
                message: message.to_owned(),
            }),
            error: message.to_owned(),
            ..Self::default()
        }
    }
}

/// Is how far one step has come.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ProgressDetail {
    #[serde(skip_serializing_if = "crate::wire::is_zero")]
    pub current: i64,
    #[serde(skip_serializing_if = "crate::wire::is_zero")]
    pub total: i64,
    /// Seconds since 1970.
    #[serde(skip_serializing_if = "crate::wire::is_zero")]
    pub start: i64,
    #[serde(skip_serializing_if = "crate::wire::is_zero")]
    pub hidecounts: bool,
    /// Empty for bytes.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub units: String,
}

/// Is an error within a progress stream.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ErrorDetail {
    #[serde(skip_serializing_if = "crate::wire::is_zero")]
    pub code: i64,
    pub message: String,
}

/// Is what `X-Registry-Auth` carries in base64 and `POST /auth` in its body.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct AuthConfig {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub username: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub password: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub auth: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub email: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub serveraddress: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub identitytoken: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub registrytoken: String,
}

crate::fold::shaped!(AuthConfig, {
    let names = crate::fold::fields_of::<AuthConfig>().iter();
    crate::fold::Shape::Object(
        names
            .map(|name| (*name, <String as crate::fold::Shaped>::shape as fn() -> _))
            .collect(),
        crate::fold::fits::<AuthConfig>,
    )
});

/// Shows whose credentials these are, never the secrets.
impl std::fmt::Debug for AuthConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AuthConfig")
            .field("username", &self.username)
            .field("serveraddress", &self.serveraddress)
            .finish_non_exhaustive()
    }
}

wire! {
    /// Answers `POST /auth`.
    pub struct AuthResponse {
        identity_token: String,
        status: String,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_leave_out_what_is_empty() {
        let message = JsonMessage {
            stream: "Loaded image: busybox:latest\n".to_owned(),
            ..Default::default()
        };
        assert_eq!(
            serde_json::to_string(&message).unwrap(),
            r#"{"stream":"Loaded image: busybox:latest\n"}"#
        );
        assert_eq!(
            serde_json::to_string(&JsonMessage::from_error("no")).unwrap(),
            r#"{"errorDetail":{"message":"no"},"error":"no"}"#
        );
    }

    #[test]
    fn secrets_are_not_printed() {
        let auth = AuthConfig {
            username: "a".into(),
            password: "hunter2".into(),
            ..Default::default()
        };
        assert!(!format!("{auth:?}").contains("hunter2"));
    }
}
