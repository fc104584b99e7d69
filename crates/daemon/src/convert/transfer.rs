//! Transfers: credentials in, the lines of Docker's progress streams out.

use gantry_api::image::{AuthConfig, ImageSearchResult, JsonMessage, ProgressDetail};
use gantry_api::progress::draw;
use gantry_engine::image::{Credentials, SearchResult, TransferEvent};

/// The terminal that a bar is drawn for when the client's is not known: Docker draws for this one.
const COLUMNS: usize = 200;

/// Reads what a client sent or stored.
pub fn credentials(auth: AuthConfig) -> Credentials {
    Credentials {
        username: auth.username,
        password: auth.password,
        identity_token: auth.identitytoken,
        registry_token: auth.registrytoken,
    }
}

/// Writes one hit of a search.
pub fn search_result(result: SearchResult) -> ImageSearchResult {
    ImageSearchResult {
        star_count: result.star_count,
        is_official: result.is_official,
        name: result.name,
        is_automated: false,
        description: result.description,
    }
}

/// Writes one line of a transfer.
pub fn message(event: TransferEvent) -> JsonMessage {
    match event {
        TransferEvent::Status { id, text } => JsonMessage {
            // A step of something that has an id has a bar, if an empty one; what a tag begins with has none.
            progress_detail: (!id.is_empty() && !text.starts_with("Pulling from "))
                .then(ProgressDetail::default),
            status: text,
            id,
            ..JsonMessage::default()
        },
        TransferEvent::Progress {
            id,
            text,
            current,
            total,
        } => progress(text, id, current, total),
        TransferEvent::Aux(value) => JsonMessage {
            progress_detail: Some(ProgressDetail::default()),
            aux: Some(value),
            ..JsonMessage::default()
        },
    }
}

/// Writes how far one step has come.
pub fn progress(status: &str, id: String, current: u64, total: u64) -> JsonMessage {
    let signed = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
    let detail = ProgressDetail {
        current: signed(current),
        total: signed(total),
        ..ProgressDetail::default()
    };
    JsonMessage {
        status: status.to_owned(),
        progress: draw(&detail, COLUMNS),
        progress_detail: Some(detail),
        id,
        ..JsonMessage::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::respond::json_line;

    #[test]
    fn lines_are_dockers_byte_for_byte() {
        let check = |event: TransferEvent, want: &str| {
            assert_eq!(json_line(&message(event), ""), want);
        };
        let status = |id: &str, text: &str| TransferEvent::Status {
            id: id.to_owned(),
            text: text.to_owned(),
        };
        check(
            status("1", "Pulling from c/app"),
            r#"{"status":"Pulling from c/app","id":"1"}"#,
        );
        check(
            status("a025a7ebb08d", "Pulling fs layer"),
            r#"{"status":"Pulling fs layer","progressDetail":{},"id":"a025a7ebb08d"}"#,
        );
        check(
            status("", "Status: Image is up to date for a:1"),
            r#"{"status":"Status: Image is up to date for a:1"}"#,
        );
        check(
            TransferEvent::Progress {
                id: "a025a7ebb08d".to_owned(),
                text: "Downloading",
                current: 36_446,
                total: 701_010,
            },
            r#"{"status":"Downloading","progressDetail":{"current":36446,"total":701010},"progress":"[==\u003e                                                ]  36.45kB/701kB","id":"a025a7ebb08d"}"#,
        );
        check(
            TransferEvent::Aux(serde_json::json!({"Size": 734})),
            r#"{"progressDetail":{},"aux":{"Size":734}}"#,
        );
    }
}
