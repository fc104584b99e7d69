//! The filters of container lists and prunes: which keys there are, what their values mean.

use gantry_api::port::Protocol;

use super::Status;
use super::inspect::NetworkView;
use super::record::Record;
use crate::{Engine, Error, Filters, Result};

/// The filters of a container list.
pub const FILTER_KEYS: &[&str] = &[
    "ancestor",
    "before",
    "since",
    "exited",
    "expose",
    "publish",
    "health",
    "id",
    "isolation",
    "is-task",
    "label",
    "name",
    "network",
    "status",
    "volume",
];

impl Engine {
    /// Reads the filters of a list and looks up what they name.
    pub(super) fn container_filter(&self, filters: &Filters) -> Result<Filter> {
        crate::check_filter_keys(filters, FILTER_KEYS)?;
        let values = |key: &str| filters.get(key).cloned().unwrap_or_default();
        let mut filter = Filter {
            names: values("name"),
            ids: values("id"),
            labels: values("label"),
            networks: values("network"),
            volumes: values("volume"),
            ..Filter::default()
        };
        for status in values("status") {
            let known = [
                Status::Created,
                Status::Running,
                Status::Paused,
                Status::Restarting,
                Status::Removing,
                Status::Exited,
                Status::Dead,
            ];
            let status = known
                .into_iter()
                .find(|known| known.as_str() == status)
                .ok_or_else(|| {
                    Error::invalid(format!(
                        "invalid filter 'status={status}': invalid value for state ({status}): must be one of created, \
                         running, paused, restarting, removing, exited, dead"
                    ))
                })?;
            filter.statuses.push(status);
        }
        for code in values("exited") {
            filter.exited.push(code.parse().map_err(|_| {
                Error::invalid(format!(
                    "invalid filter 'exited={code}': strconv.Atoi: parsing \"{code}\": invalid syntax"
                ))
            })?);
        }
        for health in values("health") {
            match health.as_str() {
                "none" => filter.healthy_only = false,
                "starting" | "healthy" | "unhealthy" => filter.healthy_only = true,
                other => {
                    return Err(Error::invalid(format!(
                        "invalid filter 'health={other}': invalid value for health ({other}): must be one of none, \
                         starting, healthy, unhealthy"
                    )));
                }
            }
        }
        if crate::filter_flag(filters, "is-task")? == Some(true) {
            // There are no tasks here.
            filter.nothing = true;
        }
        for reference in values("ancestor") {
            if let Ok(image) = self.image_for(&reference, None) {
                filter.ancestors.push(image.id);
            }
        }
        filter.has_ancestor = filters.contains_key("ancestor");
        filter.before = self.oldest(&values("before"))?;
        filter.since = self.newest(&values("since"))?;
        for text in values("publish") {
            filter.publish.push(port_range("publish", &text)?);
        }
        for text in values("expose") {
            filter.expose.push(port_range("expose", &text)?);
        }
        Ok(filter)
    }

    fn oldest(&self, names: &[String]) -> Result<Option<i64>> {
        let times: Result<Vec<i64>> = names
            .iter()
            .map(|name| Ok(self.container(name)?.record().created_ns))
            .collect();
        Ok(times?.into_iter().min())
    }

    fn newest(&self, names: &[String]) -> Result<Option<i64>> {
        let times: Result<Vec<i64>> = names
            .iter()
            .map(|name| Ok(self.container(name)?.record().created_ns))
            .collect();
        Ok(times?.into_iter().max())
    }
}

/// Filters with their names resolved.
#[derive(Debug, Default)]
pub(super) struct Filter {
    nothing: bool,
    names: Vec<String>,
    ids: Vec<String>,
    labels: Vec<String>,
    statuses: Vec<Status>,
    exited: Vec<i32>,
    healthy_only: bool,
    has_ancestor: bool,
    ancestors: Vec<String>,
    before: Option<i64>,
    since: Option<i64>,
    networks: Vec<String>,
    volumes: Vec<String>,
    publish: Vec<Ports>,
    expose: Vec<Ports>,
}

impl Filter {
    /// Tells whether the record passes all filters but those of ports.
    pub(super) fn matches(&self, record: &Record) -> bool {
        let any = |list: &[String], test: &dyn Fn(&str) -> bool| {
            list.is_empty() || list.iter().any(|text| test(text))
        };
        !self.nothing
            && !self.healthy_only
            && any(&self.names, &|wanted| {
                // With or without the slash that names have in the API.
                crate::pattern_matches(&record.name, wanted)
                    || crate::pattern_matches(&format!("/{}", record.name), wanted)
            })
            && any(&self.ids, &|wanted| {
                crate::pattern_matches(&record.id, wanted)
            })
            && crate::labels_match(&record.config.labels, &self.labels)
            && (self.statuses.is_empty() || self.statuses.contains(&record.state.status))
            && (self.exited.is_empty()
                || record.state.finished_at_ns.is_some()
                    && !record.state.status.is_running()
                    && self.exited.contains(&record.state.exit_code))
            && (!self.has_ancestor || self.ancestors.contains(&record.image_id))
            && self.before.is_none_or(|before| record.created_ns < before)
            && self.since.is_none_or(|since| record.created_ns > since)
            && any(&self.networks, &|wanted| is_on(record, wanted))
            && any(&self.volumes, &|wanted| {
                record.mounts.iter().any(|point| {
                    point.name == wanted || point.destination == wanted || point.source == wanted
                })
            })
    }

    /// Tells whether ports are asked for.
    pub(super) fn wants_ports(&self) -> bool {
        !self.publish.is_empty() || !self.expose.is_empty()
    }

    /// Tells whether the container has one of the ports: `publish` means those of the host, `expose` its own. One that
    /// does not run has none.
    pub(super) fn ports_match(&self, record: &Record, view: &NetworkView) -> bool {
        let is_in = |list: &[Ports], port: u16, protocol: Protocol| {
            list.iter().any(|wanted| {
                wanted.protocol == protocol.as_str() && (wanted.first..=wanted.last).contains(&port)
            })
        };
        let published = || {
            view.ports.iter().any(|port| {
                is_in(&self.publish, port.host_port, port.protocol)
                    || is_in(&self.expose, port.container_port, port.protocol)
            })
        };
        let exposed = || {
            let mut exposed = record.config.exposed_ports.iter();
            exposed.any(|port| is_in(&self.expose, port.port, port.protocol))
        };
        view.networks.values().any(|one| one.place.is_some()) && (published() || exposed())
    }
}
/// Tells whether the container is on the network of this name or id.
fn is_on(record: &Record, wanted: &str) -> bool {
    let mut networks = record.networks.iter();
    networks.any(|(name, settings)| name == wanted || settings.network_id == wanted)
}

/// A range of ports of one protocol.
#[derive(Debug, PartialEq, Eq)]
struct Ports {
    first: u16,
    last: u16,
    /// A word of the user's: one that no port has finds nothing.
    protocol: String,
}

/// Reads `80`, `80-90` or `80/udp`, with Docker's texts for what is neither.
fn port_range(key: &str, text: &str) -> Result<Ports> {
    if text.contains(':') {
        return Err(Error::invalid(format!(
            "filter for '{key}' should not contain ':': {text}"
        )));
    }
    let failed =
        |why: String| Error::invalid(format!("error while looking up for {key} {text}: {why}"));
    let (range, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let number = |digits: &str| {
        let invalid = if !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()) {
            "value out of range"
        } else {
            "invalid syntax"
        };
        digits
            .parse::<u16>()
            .map_err(|_| failed(format!("strconv.ParseUint: parsing {digits:?}: {invalid}")))
    };
    let (first, last) = range.split_once('-').unwrap_or((range, range));
    let (first, last) = (number(first)?, number(last)?);
    if last < first {
        return Err(failed(format!(
            "Invalid range specified for the Port: {range}"
        )));
    }
    Ok(Ports {
        first,
        last,
        protocol: protocol.to_owned(),
    })
}

/// Reads the filter `until`: a time, or how long ago.
pub(crate) fn until_ns(filters: &Filters) -> Result<Option<i64>> {
    let Some(values) = filters.get("until").filter(|values| !values.is_empty()) else {
        return Ok(None);
    };
    let [text] = values.as_slice() else {
        return Err(Error::invalid("more than one until filter specified"));
    };
    let now = gantry_api::time::Timestamp::from_unix_nanos(crate::now_ns().into());
    let parsed = gantry_api::time::parse_since(text, now, 0).ok_or_else(|| {
        Error::invalid(format!(
            "failed to parse value as time or duration: {text:?}"
        ))
    })?;
    Ok(Some(i64::try_from(parsed.unix_nanos()).unwrap_or(i64::MAX)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exit_code_is_matched_only_after_an_exit() {
        let filter = Filter {
            exited: vec![0],
            ..Filter::default()
        };
        let mut record = Record::default();
        assert!(!filter.matches(&record));
        record.state.finished_at_ns = Some(1);
        record.state.status = Status::Exited;
        assert!(filter.matches(&record));
        record.state.exit_code = 3;
        assert!(!filter.matches(&record));
    }

    #[test]
    fn ports_are_ranges_of_a_protocol() {
        let range = |first, last, protocol: &str| {
            Ok(Ports {
                first,
                last,
                protocol: protocol.to_owned(),
            })
        };
        let read = |text| port_range("publish", text).map_err(|error| error.to_string());
        assert_eq!(read("80"), range(80, 80, "tcp"));
        assert_eq!(read("80-90/udp"), range(80, 90, "udp"));
        for (text, message) in [
            ("x:y", "filter for 'publish' should not contain ':': x:y"),
            (
                "99999",
                "error while looking up for publish 99999: strconv.ParseUint: parsing \"99999\": value out of range",
            ),
            (
                "x",
                "error while looking up for publish x: strconv.ParseUint: parsing \"x\": invalid syntax",
            ),
            (
                "5-3",
                "error while looking up for publish 5-3: Invalid range specified for the Port: 5-3",
            ),
        ] {
            assert_eq!(read(text), Err(message.to_owned()));
        }
    }
}
