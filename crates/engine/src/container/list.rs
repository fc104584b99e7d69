//! `ps`: which containers, and what is told of each.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::Status;
use super::inspect::NetworkView;
use super::record::Record;
use crate::{Engine, Error, Filters, Result};

/// What to list.
#[derive(Clone, Debug, Default)]
pub struct ListOptions {
    /// Also those that do not run.
    pub all: bool,
    /// The newest ones only, whether they run or not.
    pub limit: Option<usize>,
    /// Measures the writable layer and the root.
    pub size: bool,
    pub filters: Filters,
}

/// One container of a list.
#[derive(Clone, Debug)]
pub struct Listed {
    pub record: Arc<Record>,
    /// Its own name and those by links of old, each with a slash in front.
    pub names: Vec<String>,
    /// Bytes of the writable layer, and of the whole root.
    pub sizes: Option<(u64, u64)>,
    pub network: NetworkView,
}

const FILTER_KEYS: &[&str] = &[
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

/// Returns a container's names in the order of their spelling.
fn names(record: &Record, by_links: &BTreeMap<String, Vec<String>>) -> Vec<String> {
    let mut names = by_links.get(&record.id).cloned().unwrap_or_default();
    names.push(format!("/{}", record.name));
    names.sort();
    names
}

impl Engine {
    /// Lists containers, the newest first.
    pub async fn list(&self, options: ListOptions) -> Result<Vec<Listed>> {
        crate::check_filter_keys(&options.filters, FILTER_KEYS)?;
        let filter = self.compile_filter(&options.filters)?;
        let mut records: Vec<Arc<Record>> = self
            .inner
            .containers
            .all()
            .iter()
            .map(|one| one.record())
            .collect();
        records.sort_by(|a, b| {
            b.created_ns
                .cmp(&a.created_ns)
                .then_with(|| b.id.cmp(&a.id))
        });
        let all = options.all
            || options.limit.is_some()
            || options.filters.contains_key("status")
            || options.filters.contains_key("exited");
        records
            .retain(|record| (all || record.state.status.is_running()) && filter.matches(record));
        if let Some(limit) = options.limit {
            records.truncate(limit);
        }
        let by_links = self.names_by_links();
        let mut listed = Vec::with_capacity(records.len());
        for record in records {
            let sizes = if options.size {
                Some(self.sizes(&record).await?)
            } else {
                None
            };
            let network = self.network_view(&record);
            listed.push(Listed {
                names: names(&record, &by_links),
                record,
                sizes,
                network,
            });
        }
        Ok(listed)
    }

    fn compile_filter(&self, filters: &Filters) -> Result<Filter> {
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
            filter.publish.push(port_range(&text)?);
        }
        for text in values("expose") {
            filter.expose.push(port_range(&text)?);
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

    /// Measures the bytes of the writable layer and of the whole root.
    pub(crate) async fn sizes(&self, record: &Arc<Record>) -> Result<(u64, u64)> {
        let writable = self.writable_bytes(record).await;
        let image_bytes = match self.image(&record.image_id).await {
            Ok(image) => image.size_bytes,
            // Removed by force under a stopped container.
            Err(_) => 0,
        };
        Ok((writable, writable + image_bytes))
    }

    /// Measures the bytes of the writable layer.
    pub(crate) async fn writable_bytes(&self, record: &Arc<Record>) -> u64 {
        let Some(number) = record.snapshot else {
            return 0;
        };
        let images = self.inner.images.clone();
        let measured =
            crate::blocking::run(move || images.usage(number).map(|usage| usage.apparent_bytes))
                .await;
        measured.ok().and_then(std::result::Result::ok).unwrap_or(0)
    }
}

/// Filters with their names resolved.
#[derive(Debug, Default)]
struct Filter {
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
    publish: Vec<(u16, u16, Option<String>)>,
    expose: Vec<(u16, u16, Option<String>)>,
}

impl Filter {
    fn matches(&self, record: &Record) -> bool {
        let any = |list: &[String], test: &dyn Fn(&str) -> bool| {
            list.is_empty() || list.iter().any(|text| test(text))
        };
        let port_in = |list: &[(u16, u16, Option<String>)], port: u16, protocol: &str| {
            list.iter().any(|(first, last, wanted)| {
                (*first..=*last).contains(&port)
                    && wanted.as_deref().is_none_or(|wanted| wanted == protocol)
            })
        };
        !self.nothing
            && !self.healthy_only
            && any(&self.names, &|wanted| name_matches(&record.name, wanted))
            && any(&self.ids, &|wanted| record.id.starts_with(wanted))
            && crate::labels_match(&record.config.labels, &self.labels)
            && (self.statuses.is_empty() || self.statuses.contains(&record.state.status))
            && (self.exited.is_empty()
                || record.state.finished_at_ns.is_some()
                    && !record.state.status.is_running()
                    && self.exited.contains(&record.state.exit_code))
            && (!self.has_ancestor || self.ancestors.contains(&record.image_id))
            && self.before.is_none_or(|before| record.created_ns < before)
            && self.since.is_none_or(|since| record.created_ns > since)
            && any(&self.networks, &|wanted| record.host.network_mode == wanted)
            && any(&self.volumes, &|wanted| {
                record.mounts.iter().any(|point| {
                    point.name == wanted || point.destination == wanted || point.source == wanted
                })
            })
            && (self.publish.is_empty()
                || record
                    .host
                    .port_bindings
                    .keys()
                    .any(|spec| port_in(&self.publish, spec.port, spec.protocol.as_str())))
            && (self.expose.is_empty()
                || record
                    .config
                    .exposed_ports
                    .iter()
                    .chain(record.host.port_bindings.keys())
                    .any(|spec| port_in(&self.expose, spec.port, spec.protocol.as_str())))
    }
}

/// Matches a container's name, with and without the slash that older clients write before it.
fn name_matches(name: &str, wanted: &str) -> bool {
    crate::names::matches(name, wanted) || crate::names::matches(&format!("/{name}"), wanted)
}

fn port_range(text: &str) -> Result<(u16, u16, Option<String>)> {
    let invalid = || Error::invalid(format!("invalid port specification: '{text}'"));
    let (range, protocol) = match text.split_once('/') {
        Some((range, protocol)) => (range, Some(protocol.to_owned())),
        None => (text, None),
    };
    let (first, last) = range.split_once('-').unwrap_or((range, range));
    Ok((
        first.parse().map_err(|_| invalid())?,
        last.parse().map_err(|_| invalid())?,
        protocol,
    ))
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
    let parsed = gantry_api::time::parse_since(text, now, 0)
        .ok_or_else(|| Error::invalid(format!("invalid filter 'until={text}'")))?;
    Ok(Some(i64::try_from(parsed.unix_nanos()).unwrap_or(i64::MAX)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_match_as_parts_or_anchored() {
        for (name, wanted, expected) in [
            ("web1", "web", true),
            ("web1", "^web1$", true),
            ("web12", "^web1$", false),
            ("web1", "^/web1$", true),
            ("web1", "w.b[0-9]", true),
            ("web1", "/web1", true),
            ("myweb", "^web", false),
            ("myweb", "web$", true),
        ] {
            assert_eq!(name_matches(name, wanted), expected, "{name} {wanted}");
        }
    }

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
}
