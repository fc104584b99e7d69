//! The messages of `GET /events`.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Is what an event happened to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Actor {
    #[serde(rename = "ID")]
    pub id: String,
    #[serde(rename = "Attributes")]
    pub attributes: BTreeMap<String, String>,
}

/// Is one event, with the fields of old that containers' and images' events repeat.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Message {
    /// Repeats the action.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub status: String,
    /// Repeats the actor's id.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub id: String,
    /// Repeats the image of a container.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub from: String,
    #[serde(rename = "Type")]
    pub kind: String,
    #[serde(rename = "Action")]
    pub action: String,
    #[serde(rename = "Actor")]
    pub actor: Actor,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub scope: String,
    /// Seconds since 1970.
    #[serde(skip_serializing_if = "crate::wire::is_zero")]
    pub time: i64,
    /// Nanoseconds since 1970.
    #[serde(rename = "timeNano", skip_serializing_if = "crate::wire::is_zero")]
    pub time_nano: i64,
}

/// The types of actors on one machine.
pub mod kind {
    pub const BUILDER: &str = "builder";
    pub const CONTAINER: &str = "container";
    pub const DAEMON: &str = "daemon";
    pub const IMAGE: &str = "image";
    pub const NETWORK: &str = "network";
    pub const VOLUME: &str = "volume";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fields_of_old_come_first_and_only_when_set() {
        let mut message = Message {
            kind: kind::VOLUME.into(),
            action: "create".into(),
            scope: "local".into(),
            time: 1,
            time_nano: 1_000_000_001,
            ..Default::default()
        };
        assert_eq!(
            serde_json::to_string(&message).unwrap(),
            r#"{"Type":"volume","Action":"create","Actor":{"ID":"","Attributes":{}},"scope":"local","time":1,"timeNano":1000000001}"#
        );
        message.status = "create".into();
        assert!(
            serde_json::to_string(&message)
                .unwrap()
                .starts_with(r#"{"status":"create","Type""#)
        );
    }
}
