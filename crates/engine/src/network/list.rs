//! `ls`: networks that pass filters.

use super::inspect::Network;
use super::record::PREDEFINED;
use crate::{Engine, Error, Filters, Result};

const FILTER_KEYS: &[&str] = &["dangling", "driver", "id", "label", "name", "scope", "type"];

impl Engine {
    /// Lists networks by name.
    ///
    /// # Errors
    /// A filter that is none (invalid).
    pub async fn networks(&self, filters: &Filters) -> Result<Vec<Network>> {
        crate::check_filter_keys(filters, FILTER_KEYS)?;
        let dangling = crate::filter_flag(filters, "dangling").map_err(|_| {
            Error::invalid(
                "invalid value for filter 'dangling', must be \"true\" (or \"1\"), or \"false\" (or \"0\")",
            )
        })?;
        if let Some(kind) = filters
            .get("type")
            .into_iter()
            .flatten()
            .find(|kind| !matches!(kind.as_str(), "builtin" | "custom"))
        {
            return Err(Error::invalid(format!("invalid filter: 'type'='{kind}'")));
        }
        let (engine, filters) = (self.clone(), filters.clone());
        // No system call, but as long as there are networks and containers.
        crate::blocking::run(move || {
            let mut members = engine.members();
            let all = engine.inner.networks.all();
            let all = all
                .iter()
                .map(|record| engine.network_view_of(record, members.take(record)));
            all.filter(|network| passes(network, &filters, dangling))
                .collect()
        })
        .await
    }
}

fn passes(network: &Network, filters: &Filters, dangling: Option<bool>) -> bool {
    let any = |key: &str, test: &dyn Fn(&str) -> bool| {
        filters
            .get(key)
            .is_none_or(|values| values.is_empty() || values.iter().any(|value| test(value)))
    };
    let builtin = PREDEFINED.contains(&network.name.as_str());
    any("driver", &|value| value == network.driver)
        && any("id", &|value| crate::pattern_matches(&network.id, value))
        && any("name", &|value| crate::pattern_matches(&network.name, value))
        && any("scope", &|value| value == network.scope)
        && any("type", &|value| (value == "builtin") == builtin)
        && filters
            .get("label")
            .is_none_or(|wanted| crate::labels_match(&network.labels, wanted))
        // A built-in one is never dangling.
        && dangling.is_none_or(|wanted| wanted == (!builtin && network.containers.is_empty()))
}
