//! Names of containers on networks that have names.

use super::settings::EndpointSettings;
use crate::container::Record;

/// Returns what a container is called on a network: its name, its aliases, its short id, its host name.
pub(crate) fn dns_names(record: &Record, settings: &EndpointSettings) -> Vec<String> {
    let short = record.id.get(..12).unwrap_or(&record.id);
    let all = std::iter::once(record.name.as_str())
        .chain(settings.aliases().iter().map(String::as_str))
        .chain([short, record.config.hostname.as_str()]);
    let mut names: Vec<String> = Vec::new();
    for name in all.filter(|name| !name.is_empty()) {
        if !names.iter().any(|other| other == name) {
            names.push(name.to_owned());
        }
    }
    names
}
