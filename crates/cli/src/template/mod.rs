//! Go's text templates, as far as `--format` uses them: pipelines, variables, `if`, `with`, `range`, comparisons, the
//! built-in functions and Docker's own, with Go's way of printing values and its error positions.
//!
//! Left out are `define`, `template` and `block`: a format is one template.

mod evaluate;
mod functions;
mod parse;
mod print;

pub use functions::json_text;
pub use print::printed;

use serde_json::{Map, Value as Json};
use std::rc::Rc;

/// A value inside a template.
#[derive(Clone)]
pub enum Value {
    /// A nil pointer or interface.
    Nil,
    /// What a missing key of a map gives; printed as `<no value>`.
    Absent,
    Bool(bool),
    Integer(i64),
    Float(f64),
    Text(Rc<str>),
    List(Rc<Vec<Value>>),
    /// A map: a missing key is no error.
    Map(Rc<Entries>),
    /// A struct: a missing field is an error.
    Struct(Rc<Entries>),
    /// A value with methods.
    Object(Rc<dyn Object>),
}

/// The entries of a map or struct, in their order, and the JSON they came from.
pub struct Entries {
    pub pairs: Vec<(String, Value)>,
    /// A missing key is an error, as after `Option("missingkey=error")`.
    pub strict: bool,
    pub json: Json,
}

/// A value whose fields are methods, such as a row of a table.
pub trait Object {
    /// Returns a field or calls a method; `None` if there is none of that name.
    fn call(&self, name: &str, arguments: &[Value]) -> Option<Result<Value, String>>;
    /// Returns the Go type's name for error messages.
    fn type_name(&self) -> &str;
    /// Returns the value as JSON.
    fn json(&self) -> Json;
    /// Prints the value as a template does; JSON unless the type has a form of its own.
    fn shown(&self) -> String {
        self.json().to_string()
    }
}

impl Value {
    /// Makes a text.
    pub fn text(text: impl AsRef<str>) -> Value {
        Value::Text(Rc::from(text.as_ref()))
    }

    fn entry(&self, name: &str) -> Option<&Value> {
        match self {
            Value::Map(entries) | Value::Struct(entries) => entries
                .pairs
                .iter()
                .find(|(key, _)| key == name)
                .map(|(_, value)| value),
            _ => None,
        }
    }
}

/// A parsed template.
pub struct Template {
    source: String,
    nodes: Vec<parse::Node>,
}

impl Template {
    /// Parses a template. The error is Go's, beginning with `template: `.
    pub fn parse(source: &str) -> Result<Template, String> {
        Ok(Template {
            source: source.to_owned(),
            nodes: parse::parse(source)?,
        })
    }

    /// Executes the template. The error is Go's, beginning with `template: `.
    pub fn execute(&self, dot: &Value) -> Result<String, String> {
        evaluate::execute(&self.source, &self.nodes, dot, false)
    }

    /// Executes the template over column headings: functions give back their heading.
    pub fn execute_header(&self, dot: &Value) -> Result<String, String> {
        evaluate::execute(&self.source, &self.nodes, dot, true)
    }
}

/// Names of fields that hold Go maps in the API's types; everything else that is a JSON object is a struct.
const MAPS: [&str; 28] = [
    "Labels",
    "Annotations",
    "Ports",
    "Networks",
    "ExposedPorts",
    "Volumes",
    "Sysctls",
    "StorageOpt",
    "Tmpfs",
    "Config",
    "DriverOpts",
    "Options",
    "Data",
    "Containers",
    "PortBindings",
    "Attributes",
    "Status",
    "Runtimes",
    "Services",
    "EngineVersion",
    "IndexConfigs",
    "Details",
    "Peers",
    "AuxiliaryAddresses",
    "UsageData",
    "RuntimesStatus",
    "Metadata",
    "Endpoints",
];

/// Fields that Go leaves out of the JSON when they are zero, with that zero, by the object that holds them.
const OMITTED: [(&str, &str, Zero); 28] = [
    ("State", "Health", Zero::Nil),
    ("Config", "Healthcheck", Zero::Nil),
    ("Config", "ExposedPorts", Zero::Map),
    ("Config", "StopSignal", Zero::Text),
    ("Config", "StopTimeout", Zero::Nil),
    ("Config", "Shell", Zero::List),
    ("Config", "MacAddress", Zero::Text),
    ("Config", "NetworkDisabled", Zero::False),
    ("Config", "ArgsEscaped", Zero::False),
    ("HostConfig", "Init", Zero::Nil),
    ("HostConfig", "Runtime", Zero::Text),
    ("HostConfig", "Sysctls", Zero::Map),
    ("HostConfig", "StorageOpt", Zero::Map),
    ("HostConfig", "Tmpfs", Zero::Map),
    ("HostConfig", "Mounts", Zero::List),
    ("HostConfig", "Annotations", Zero::Map),
    ("Healthcheck", "Test", Zero::List),
    ("Healthcheck", "Interval", Zero::Integer),
    ("Healthcheck", "Timeout", Zero::Integer),
    ("Healthcheck", "Retries", Zero::Integer),
    ("Healthcheck", "StartPeriod", Zero::Integer),
    ("Mounts", "Name", Zero::Text),
    ("Mounts", "Driver", Zero::Text),
    ("", "SizeRw", Zero::Nil),
    ("", "SizeRootFs", Zero::Nil),
    ("", "ImageManifestDescriptor", Zero::Nil),
    ("", "Status", Zero::Map),
    ("", "UsageData", Zero::Nil),
];

/// Fields that are pointers: null is `<nil>` there; elsewhere null is an empty slice or map.
const POINTERS: [&str; 14] = [
    "Health",
    "Init",
    "MemorySwappiness",
    "OomKillDisable",
    "PidsLimit",
    "Healthcheck",
    "StopTimeout",
    "IPAMConfig",
    "SizeRw",
    "SizeRootFs",
    "UsageData",
    "ClusterVolume",
    "Descriptor",
    "ConfigFrom",
];

#[derive(Clone, Copy)]
enum Zero {
    Nil,
    Map,
    List,
    Text,
    False,
    Integer,
}

/// Converts an API answer so that templates see it as Go's typed structs: what is missing is an error, except in maps.
pub fn typed(json: &Json) -> Value {
    convert(json, "", "", false)
}

/// Converts JSON as Go's untyped maps, in which a missing key is an error.
pub fn untyped(json: &Json) -> Value {
    match json {
        Json::Object(map) => {
            let mut pairs: Vec<_> = map
                .iter()
                .map(|(key, value)| (key.clone(), untyped(value)))
                .collect();
            pairs.sort_by(|a, b| a.0.cmp(&b.0));
            Value::Map(Rc::new(Entries {
                pairs,
                strict: true,
                json: json.clone(),
            }))
        }
        Json::Array(list) => Value::List(Rc::new(list.iter().map(untyped).collect())),
        other => scalar(other, Value::Nil),
    }
}

fn convert(json: &Json, name: &str, parent: &str, in_map: bool) -> Value {
    match json {
        Json::Object(map) => {
            let is_map =
                !in_map && MAPS.contains(&name) && !(name == "Config" && parent != "LogConfig")
                    || (name == "Volumes" && parent == "Config");
            let mut pairs: Vec<(String, Value)> = map
                .iter()
                .map(|(key, value)| {
                    (
                        key.clone(),
                        convert(value, if is_map { name } else { key }, name, is_map),
                    )
                })
                .collect();
            if is_map {
                pairs.sort_by(|a, b| a.0.cmp(&b.0));
                return Value::Map(Rc::new(Entries {
                    pairs,
                    strict: false,
                    json: json.clone(),
                }));
            }
            add_omitted(&mut pairs, map, name);
            Value::Struct(Rc::new(Entries {
                pairs,
                strict: false,
                json: json.clone(),
            }))
        }
        Json::Array(list) => Value::List(Rc::new(
            list.iter()
                .map(|value| convert(value, name, parent, true))
                .collect(),
        )),
        other => {
            let null = match name {
                name if POINTERS.contains(&name) => Value::Nil,
                name if MAPS.contains(&name) && !in_map => empty_map(),
                _ => Value::List(Rc::new(Vec::new())),
            };
            scalar(other, null)
        }
    }
}

fn add_omitted(pairs: &mut Vec<(String, Value)>, map: &Map<String, Json>, name: &str) {
    // At the top the kind of object is told by a field that every one of that kind has.
    let top = |field: &str| match field {
        "SizeRw" | "SizeRootFs" | "ImageManifestDescriptor" => map.contains_key("HostConfig"),
        _ => map.contains_key("Mountpoint"),
    };
    for (owner, field, zero) in OMITTED {
        if owner == name && !map.contains_key(field) && (!owner.is_empty() || top(field)) {
            let value = match zero {
                Zero::Nil => Value::Nil,
                Zero::Map => empty_map(),
                Zero::List => Value::List(Rc::new(Vec::new())),
                Zero::Text => Value::text(""),
                Zero::False => Value::Bool(false),
                Zero::Integer => Value::Integer(0),
            };
            pairs.push((field.to_owned(), value));
        }
    }
}

fn empty_map() -> Value {
    Value::Map(Rc::new(Entries {
        pairs: Vec::new(),
        strict: false,
        json: Json::Null,
    }))
}

fn scalar(json: &Json, null: Value) -> Value {
    match json {
        Json::Null => null,
        Json::Bool(on) => Value::Bool(*on),
        Json::Number(number) => match number.as_i64() {
            Some(integer) => Value::Integer(integer),
            None => match number.as_u64() {
                // Counters beyond i64 only occur as text.
                Some(large) => Value::text(large.to_string()),
                None => Value::Float(number.as_f64().unwrap_or(0.0)),
            },
        },
        Json::String(text) => Value::text(text),
        Json::Array(_) | Json::Object(_) => null,
    }
}

#[cfg(test)]
mod tests;
