//! Events.

use gantry_api::event::{Actor, Message, kind};
use gantry_engine::event::Event;

use crate::server::version::ApiVersion;

/// Writes one event; `None` for one that clients of this version do not know.
pub fn message(event: &Event, version: ApiVersion) -> Option<Message> {
    if version.is_before(46) && event.kind == kind::IMAGE && event.action == "create" {
        return None;
    }
    let is_image_id = event.kind == kind::IMAGE && gantry_api::id::is_full_id(&event.id);
    let id_of_actor = if is_image_id {
        super::image_digest(&event.id)
    } else {
        event.id.clone()
    };
    // The fields of old are repeated for the two types that had events then.
    let (status, id, from) = match event.kind.as_str() {
        kind::CONTAINER => (
            event.action.clone(),
            event.id.clone(),
            event.attributes.get("image").cloned().unwrap_or_default(),
        ),
        kind::IMAGE => (event.action.clone(), id_of_actor.clone(), String::new()),
        _ => Default::default(),
    };
    Some(Message {
        status,
        id,
        from,
        kind: event.kind.clone(),
        action: event.action.clone(),
        actor: Actor {
            id: id_of_actor,
            attributes: event.attributes.clone(),
        },
        scope: "local".to_owned(),
        time: event.time_ns.div_euclid(1_000_000_000),
        time_nano: event.time_ns,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::version::MAX;
    use std::collections::BTreeMap;

    fn event(kind: &str, action: &str) -> Event {
        Event {
            kind: kind.to_owned(),
            action: action.to_owned(),
            id: "f84d".to_owned(),
            attributes: BTreeMap::from([("image".to_owned(), "busybox".to_owned())]),
            time_ns: 1_795_470_673_864_171_769,
        }
    }

    #[test]
    fn containers_repeat_the_fields_of_old() {
        let message = message(&event("container", "start"), MAX).unwrap();
        assert_eq!(
            serde_json::to_string(&message).unwrap(),
            r#"{"status":"start","id":"f84d","from":"busybox","Type":"container","Action":"start","Actor":{"ID":"f84d","Attributes":{"image":"busybox"}},"scope":"local","time":1795470673,"timeNano":1795470673864171769}"#
        );
    }

    #[test]
    fn networks_do_not_and_image_creation_is_new() {
        assert!(
            message(&event("network", "connect"), MAX)
                .unwrap()
                .status
                .is_empty()
        );
        assert!(message(&event("image", "create"), ApiVersion::minor(45)).is_none());
        assert!(message(&event("image", "create"), ApiVersion::minor(46)).is_some());
    }
}
