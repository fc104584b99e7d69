//! Wire types to the engine's own and back. Pure; nothing else of the daemon knows both.

pub mod container;
pub mod create;
pub mod endpoint;
pub mod event;
pub mod exec;
pub mod image;
pub mod mount;
pub mod network;
pub mod registry;
pub mod stats;
pub mod system;
pub mod transfer;
pub mod upkeep;
pub mod volume;

use gantry_api::filters::Filters;
use gantry_api::time::Timestamp;

/// Turns filters into the engine's form.
pub fn filters(filters: &Filters) -> gantry_engine::Filters {
    filters
        .keys()
        .map(|key| {
            (
                key.to_owned(),
                filters.get(key).map(str::to_owned).collect(),
            )
        })
        .collect()
}

/// Turns nanoseconds since 1970 into an instant.
pub fn instant(unix_nanos: i64) -> Timestamp {
    Timestamp::from_unix_nanos(unix_nanos.into())
}

/// Writes an image's id with its algorithm, as all of the API does.
pub fn image_digest(id: &str) -> String {
    if id.is_empty() || id.starts_with("sha256:") {
        id.to_owned()
    } else {
        format!("sha256:{id}")
    }
}

/// Turns rows and columns into a terminal's size; zeros are no size.
pub fn console_size(size: [u32; 2]) -> Option<[u16; 2]> {
    let [rows, columns] = size.map(|number| u16::try_from(number).unwrap_or(u16::MAX));
    (rows != 0 || columns != 0).then_some([rows, columns])
}

/// Gives a list, or `None` for an empty one, where Docker writes `null`.
pub fn null_if_empty<T: Clone>(list: &[T]) -> Option<Vec<T>> {
    (!list.is_empty()).then(|| list.to_vec())
}
