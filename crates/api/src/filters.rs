//! Filters of list, prune and event requests.
//!
//! Both forms are read, `{"status":{"exited":true}}` of old and the command line's, and `{"status":["exited"]}`; the
//! old one is written, because every version reads it. Which keys are legal is the caller's: [`Filters::validate`].

use crate::error::ApiError;
use std::collections::{BTreeMap, BTreeSet};

/// Holds values by key; a key is either absent or has at least one value.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filters(BTreeMap<String, BTreeSet<String>>);

impl Filters {
    /// Reads the query parameter `filters`; an empty text is no filter.
    pub fn parse(text: &str) -> Result<Self, ApiError> {
        if text.is_empty() {
            return Ok(Self::default());
        }
        if let Ok(old) =
            serde_json::from_str::<BTreeMap<String, Option<BTreeMap<String, bool>>>>(text)
        {
            let fields = old.into_iter().map(|(key, values)| {
                // The old form's `false` was never looked at: a key that is there counts.
                (
                    key,
                    values
                        .unwrap_or_default()
                        .into_keys()
                        .collect::<BTreeSet<_>>(),
                )
            });
            return Ok(Self(
                fields.filter(|(_, values)| !values.is_empty()).collect(),
            ));
        }
        match serde_json::from_str::<BTreeMap<String, Vec<String>>>(text) {
            Ok(new) => Ok(Self(
                new.into_iter()
                    .map(|(key, values)| (key, values.into_iter().collect::<BTreeSet<_>>()))
                    .filter(|(_, values)| !values.is_empty())
                    .collect(),
            )),
            Err(_) => Err(ApiError::invalid("invalid filter")),
        }
    }

    /// Writes the query parameter in the form that all versions read.
    pub fn to_json(&self) -> String {
        let old: BTreeMap<&str, BTreeMap<&str, bool>> = self
            .0
            .iter()
            .map(|(key, values)| {
                (
                    key.as_str(),
                    values.iter().map(|v| (v.as_str(), true)).collect(),
                )
            })
            .collect();
        serde_json::to_string(&old).unwrap_or_default()
    }

    /// Adds a value to a key.
    pub fn add(&mut self, key: impl Into<String>, value: impl Into<String>) {
        self.0.entry(key.into()).or_default().insert(value.into());
    }

    /// Removes a key with all its values.
    pub fn remove(&mut self, key: &str) {
        self.0.remove(key);
    }

    /// Tells whether there is no filter at all.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Tells whether a key is there.
    pub fn contains(&self, key: &str) -> bool {
        self.0.contains_key(key)
    }

    /// Walks over a key's values, in order.
    pub fn get<'a>(&'a self, key: &str) -> impl Iterator<Item = &'a str> + use<'a> {
        self.0.get(key).into_iter().flatten().map(String::as_str)
    }

    /// Walks over all keys, in order.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// Refuses a key that is not among the accepted ones, with Docker's text.
    pub fn validate(&self, accepted: &[&str]) -> Result<(), ApiError> {
        match self.0.keys().find(|key| !accepted.contains(&key.as_str())) {
            Some(key) => Err(ApiError::invalid(format!("invalid filter '{key}'"))),
            None => Ok(()),
        }
    }

    /// Tells whether a value passes: the key is absent, or has exactly this value.
    pub fn exact(&self, key: &str, value: &str) -> bool {
        self.0.get(key).is_none_or(|values| values.contains(value))
    }

    /// Reads a key as one truth value; more than one, or another text, is refused with Docker's text.
    pub fn bool_or(&self, key: &str, default: bool) -> Result<bool, ApiError> {
        let Some(values) = self.0.get(key) else {
            return Ok(default);
        };
        let is = |texts: &[&str]| texts.iter().any(|text| values.contains(*text));
        match (is(&["1", "true"]), is(&["0", "false"])) {
            (true, false) if values.len() == 1 => Ok(true),
            (false, true) if values.len() == 1 => Ok(false),
            _ => {
                let values: Vec<&str> = values.iter().map(String::as_str).collect();
                Err(ApiError::invalid(format!(
                    "invalid filter '{key}=[{}]'",
                    values.join(" ")
                )))
            }
        }
    }

    /// Tells whether labels satisfy every `key` or `key=value` of a filter; an absent filter is satisfied.
    pub fn labels_match(&self, key: &str, labels: &BTreeMap<String, String>) -> bool {
        self.get(key).all(|wanted| match wanted.split_once('=') {
            Some((name, value)) => labels.get(name).is_some_and(|have| have == value),
            None => labels.contains_key(wanted),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_are_read_and_the_old_is_written() {
        let old = Filters::parse(r#"{"status":{"exited":true,"dead":true}}"#).unwrap();
        let new = Filters::parse(r#"{"status":["dead","exited"]}"#).unwrap();
        assert_eq!(old, new);
        assert_eq!(new.to_json(), r#"{"status":{"dead":true,"exited":true}}"#);
        assert_eq!(new.get("status").collect::<Vec<_>>(), ["dead", "exited"]);
        assert!(Filters::parse("").unwrap().is_empty());
        assert!(Filters::parse(r#"{"label":[]}"#).unwrap().is_empty());
    }

    #[test]
    fn errors_are_dockers() {
        assert_eq!(
            Filters::parse("nonsense").unwrap_err().message,
            "invalid filter"
        );
        let filters = Filters::parse(r#"{"nope":["x"]}"#).unwrap();
        assert_eq!(
            filters.validate(&["id"]).unwrap_err().message,
            "invalid filter 'nope'"
        );
        let filters = Filters::parse(r#"{"dangling":["maybe"]}"#).unwrap();
        assert_eq!(
            filters.bool_or("dangling", false).unwrap_err().message,
            "invalid filter 'dangling=[maybe]'"
        );
    }

    #[test]
    fn truth_values() {
        for (text, want) in [("1", true), ("true", true), ("0", false), ("false", false)] {
            let mut filters = Filters::default();
            filters.add("all", text);
            assert_eq!(filters.bool_or("all", !want).unwrap(), want);
        }
        assert!(Filters::default().bool_or("all", true).unwrap());
    }

    #[test]
    fn labels_must_all_match() {
        let labels = BTreeMap::from([
            ("a".to_owned(), "1".to_owned()),
            ("b".to_owned(), String::new()),
        ]);
        let check = |text: &str| Filters::parse(text).unwrap().labels_match("label", &labels);
        assert!(check("{}"));
        assert!(check(r#"{"label":["a"]}"#));
        assert!(check(r#"{"label":["a=1","b"]}"#));
        assert!(check(r#"{"label":["b="]}"#));
        assert!(!check(r#"{"label":["a=2"]}"#));
        assert!(!check(r#"{"label":["a","c"]}"#));
    }
}
