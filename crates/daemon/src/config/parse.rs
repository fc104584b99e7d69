//! From command line and file to values by option, and their union. Reads no file and touches nothing.

use std::collections::BTreeMap;
use std::ffi::OsString;

use serde_json::Value as Json;

use gantry_engine::AddressPool;

use super::options::{self, Kind, Spec};
use super::{Invalid, network};

/// One option's value.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    Bool(bool),
    Text(String),
    Integer(i64),
    List(Vec<String>),
    Map(BTreeMap<String, String>),
    Ulimits(BTreeMap<String, (i64, i64)>),
    Runtimes(BTreeMap<String, (String, Vec<String>)>),
    Pools(Vec<AddressPool>),
    NetworkOptions(network::NetworkOptions),
}

/// Values by long flag.
pub type Values = BTreeMap<&'static str, Value>;

/// What the command line asks for.
#[derive(Debug, PartialEq)]
pub enum CommandLine {
    Help,
    Version,
    Run(Values),
}

fn invalid(message: impl Into<String>) -> Invalid {
    Invalid(message.into())
}

/// Parses the command line as dockerd's flag library does.
pub fn command_line(args: &[OsString]) -> Result<CommandLine, Invalid> {
    let mut values = Values::new();
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        let arg = arg
            .to_str()
            .ok_or_else(|| invalid(format!("argument {arg:?} is not UTF-8")))?;
        if let Some(long) = arg.strip_prefix("--").filter(|long| !long.is_empty()) {
            let (name, inline) = match long.split_once('=') {
                Some((name, value)) => (name, Some(value.to_owned())),
                None => (long, None),
            };
            match name {
                "help" => return Ok(CommandLine::Help),
                "version" => return Ok(CommandLine::Version),
                _ => {}
            }
            let Some(spec) = options::by_flag(name) else {
                return Err(if options::is_refused_flag(name) {
                    invalid(format!("flag --{name} is not supported"))
                } else {
                    invalid(format!("unknown flag: --{name}"))
                });
            };
            let value = match (inline, spec.kind) {
                (Some(value), _) => value,
                (None, Kind::Bool) => "true".to_owned(),
                (None, _) => next_text(&mut args)
                    .ok_or_else(|| invalid(format!("flag needs an argument: --{name}")))?,
            };
            add(&mut values, spec, &value, &long_name(spec))?;
        } else if let Some(shorts) = arg
            .strip_prefix('-')
            .filter(|shorts| !shorts.is_empty() && !shorts.starts_with('-'))
        {
            let mut rest = shorts;
            while let Some(short) = rest.chars().next() {
                rest = &rest[short.len_utf8()..];
                match short {
                    'h' => return Ok(CommandLine::Help),
                    'v' => return Ok(CommandLine::Version),
                    _ => {}
                }
                let spec = options::by_short(short).ok_or_else(|| {
                    if short == 's' {
                        invalid("flag -s, --storage-driver is not supported")
                    } else {
                        invalid(format!("unknown shorthand flag: '{short}' in -{shorts}"))
                    }
                })?;
                if let Some(value) = rest.strip_prefix('=') {
                    add(&mut values, spec, value, &long_name(spec))?;
                    break;
                }
                if spec.kind == Kind::Bool {
                    add(&mut values, spec, "true", &long_name(spec))?;
                    continue;
                }
                let value = if rest.is_empty() {
                    next_text(&mut args).ok_or_else(|| {
                        invalid(format!("flag needs an argument: '{short}' in -{shorts}"))
                    })?
                } else {
                    rest.to_owned()
                };
                add(&mut values, spec, &value, &long_name(spec))?;
                break;
            }
        } else {
            return Err(invalid("\"gantry daemon\" accepts no arguments."));
        }
    }
    Ok(CommandLine::Run(values))
}

fn next_text<'a>(args: &mut impl Iterator<Item = &'a OsString>) -> Option<String> {
    args.next().and_then(|arg| arg.to_str()).map(str::to_owned)
}

fn long_name(spec: &Spec) -> String {
    match spec.short {
        Some(short) => format!("-{short}, --{}", spec.flag),
        None => format!("--{}", spec.flag),
    }
}

fn add(values: &mut Values, spec: &'static Spec, text: &str, shown: &str) -> Result<(), Invalid> {
    let bad = |why: &str| {
        invalid(format!(
            "invalid argument \"{text}\" for \"{shown}\" flag: {why}"
        ))
    };
    match spec.kind {
        Kind::Bool => {
            let value = parse_bool(text).ok_or_else(|| {
                bad(&format!(
                    "strconv.ParseBool: parsing \"{text}\": invalid syntax"
                ))
            })?;
            values.insert(spec.flag, Value::Bool(value));
        }
        Kind::Text => {
            values.insert(spec.flag, Value::Text(text.to_owned()));
        }
        Kind::Integer => {
            let value = text.parse().map_err(|_| {
                bad(&format!(
                    "strconv.ParseInt: parsing \"{text}\": invalid syntax"
                ))
            })?;
            values.insert(spec.flag, Value::Integer(value));
        }
        Kind::Size => {
            let value = parse_size(text).ok_or_else(|| bad(&format!("invalid size: '{text}'")))?;
            values.insert(spec.flag, Value::Integer(value));
        }
        Kind::List | Kind::Addresses => match values
            .entry(spec.flag)
            .or_insert_with(|| Value::List(Vec::new()))
        {
            Value::List(list) => list.push(text.to_owned()),
            _ => unreachable!("a flag keeps its kind"),
        },
        Kind::Map | Kind::Settings => {
            let (key, value) = text.split_once('=').unwrap_or((text, ""));
            match values
                .entry(spec.flag)
                .or_insert_with(|| Value::Map(BTreeMap::new()))
            {
                Value::Map(map) => map.insert(key.to_owned(), value.to_owned()),
                _ => unreachable!("a flag keeps its kind"),
            };
        }
        Kind::Ulimits => {
            let (name, limits) = parse_ulimit(text)
                .ok_or_else(|| bad(&format!("invalid ulimit argument: {text}")))?;
            match values
                .entry(spec.flag)
                .or_insert_with(|| Value::Ulimits(BTreeMap::new()))
            {
                Value::Ulimits(map) => map.insert(name, limits),
                _ => unreachable!("a flag keeps its kind"),
            };
        }
        Kind::Runtimes => {
            let (name, path) = text
                .split_once('=')
                .filter(|(name, path)| !name.is_empty() && !path.is_empty())
                .ok_or_else(|| bad(&format!("invalid runtime argument: {text}")))?;
            match values
                .entry(spec.flag)
                .or_insert_with(|| Value::Runtimes(BTreeMap::new()))
            {
                Value::Runtimes(map) => map.insert(name.to_owned(), (path.to_owned(), Vec::new())),
                _ => unreachable!("a flag keeps its kind"),
            };
        }
        Kind::Pools => {
            let pool = network::pool_of_flag(text).map_err(|why| bad(&why))?;
            match values
                .entry(spec.flag)
                .or_insert_with(|| Value::Pools(Vec::new()))
            {
                Value::Pools(pools) => pools.push(pool),
                _ => unreachable!("a flag keeps its kind"),
            }
        }
        Kind::NetworkOptions => {
            let (driver, key, value) = network::option_of_flag(text).map_err(|why| bad(&why))?;
            match values
                .entry(spec.flag)
                .or_insert_with(|| Value::NetworkOptions(BTreeMap::new()))
            {
                Value::NetworkOptions(drivers) => {
                    drivers.entry(driver).or_default().insert(key, value)
                }
                _ => unreachable!("a flag keeps its kind"),
            };
        }
    }
    Ok(())
}

pub fn parse_bool(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

/// Reads bytes with a binary suffix: `64M`, `1.5g`, `512kb`, `100`.
pub fn parse_size(text: &str) -> Option<i64> {
    let text = text.trim();
    let number_end = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let number: f64 = text[..number_end].parse().ok()?;
    let unit = text[number_end..].trim().to_ascii_lowercase();
    let exponent = match unit.trim_end_matches('b').trim_end_matches('i') {
        "" => 0,
        "k" => 1,
        "m" => 2,
        "g" => 3,
        "t" => 4,
        "p" => 5,
        _ => return None,
    };
    let bytes = number * 1024_f64.powi(exponent);
    (bytes.is_finite() && bytes < 9e18).then_some(bytes as i64)
}

fn parse_ulimit(text: &str) -> Option<(String, (i64, i64))> {
    let (name, limits) = text.split_once('=')?;
    let (soft, hard) = limits.split_once(':').unwrap_or((limits, limits));
    let (soft, hard) = (soft.parse().ok()?, hard.parse().ok()?);
    (!name.is_empty() && (hard == -1 || (soft != -1 && soft <= hard)))
        .then(|| (name.to_owned(), (soft, hard)))
}

/// Parses the text of `daemon.json`.
pub fn file(text: &str) -> Result<Values, Invalid> {
    if text.trim().is_empty() {
        return Ok(Values::new());
    }
    let object: serde_json::Map<String, Json> =
        serde_json::from_str(text).map_err(|error| invalid(format!("invalid JSON: {error}")))?;
    let mut values = Values::new();
    let mut unknown = Vec::new();
    for (key, json) in flattened(&object) {
        let key = &key;
        let Some(spec) = options::by_key(key) else {
            if options::is_refused_key(key) {
                return Err(invalid(format!("the directive \"{key}\" is not supported")));
            }
            // An option within an object is named as Docker names it.
            unknown.push(key.rsplit('/').next().unwrap_or_default().to_owned());
            continue;
        };
        let value = from_json(spec.kind, json).ok_or_else(|| {
            invalid(format!(
                "the directive \"{key}\" has a value of the wrong kind: {json}"
            ))
        })?;
        values.insert(spec.flag, value);
    }
    if unknown.is_empty() {
        Ok(values)
    } else {
        Err(invalid(format!(
            "the following directives don't match any configuration option: {}",
            unknown.join(", ")
        )))
    }
}

/// Gives each member that is an option: those of the object `proxies` are options of their own.
fn flattened(object: &serde_json::Map<String, Json>) -> Vec<(String, &Json)> {
    const OUTER: &str = "proxies";
    let mut members = Vec::new();
    for (key, json) in object {
        match json {
            Json::Object(inner) if key == OUTER => {
                members.extend(
                    inner
                        .iter()
                        .map(|(key, json)| (format!("{OUTER}/{key}"), json)),
                );
            }
            json => members.push((key.clone(), json)),
        }
    }
    members
}

fn from_json(kind: Kind, json: &Json) -> Option<Value> {
    let texts = |json: &Json| -> Option<Vec<String>> {
        json.as_array()?
            .iter()
            .map(|item| item.as_str().map(str::to_owned))
            .collect()
    };
    Some(match kind {
        Kind::Bool => Value::Bool(json.as_bool()?),
        Kind::Text => Value::Text(json.as_str()?.to_owned()),
        Kind::Integer => Value::Integer(json.as_i64()?),
        Kind::Size => Value::Integer(match json {
            Json::String(text) => parse_size(text)?,
            other => other.as_i64()?,
        }),
        Kind::List => Value::List(texts(json)?),
        Kind::Addresses => Value::List(match json {
            Json::String(one) => vec![one.clone()],
            many => texts(many)?,
        }),
        Kind::Pools => Value::Pools(network::pools_of_file(json)?),
        Kind::NetworkOptions => Value::NetworkOptions(network::options_of_file(json)?),
        Kind::Map => Value::Map(
            json.as_object()?
                .iter()
                .map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned())))
                .collect::<Option<_>>()?,
        ),
        Kind::Settings => Value::Map(
            json.as_object()?
                .iter()
                .map(|(key, value)| {
                    let text = match value {
                        Json::String(text) => text.clone(),
                        Json::Number(_) | Json::Bool(_) => value.to_string(),
                        _ => return None,
                    };
                    Some((key.clone(), text))
                })
                .collect::<Option<_>>()?,
        ),
        Kind::Ulimits => Value::Ulimits(
            json.as_object()?
                .iter()
                .map(|(name, limit)| {
                    let number = |key: &str| limit.get(key).map_or(Some(0), Json::as_i64);
                    Some((name.clone(), (number("Soft")?, number("Hard")?)))
                })
                .collect::<Option<_>>()?,
        ),
        Kind::Runtimes => Value::Runtimes(
            json.as_object()?
                .iter()
                .map(|(name, runtime)| {
                    let known = ["path", "runtimeArgs"];
                    if runtime
                        .as_object()?
                        .keys()
                        .any(|key| !known.contains(&key.as_str()))
                    {
                        return None;
                    }
                    let args = runtime.get("runtimeArgs").map_or(Some(Vec::new()), texts)?;
                    Some((
                        name.clone(),
                        (runtime.get("path")?.as_str()?.to_owned(), args),
                    ))
                })
                .collect::<Option<_>>()?,
        ),
    })
}

/// Joins flags and file; an option in both is refused as dockerd does.
pub fn merge(flags: Values, file: Values) -> Result<Values, Invalid> {
    let conflicts: Vec<String> = flags
        .iter()
        .filter_map(|(flag, from_flag)| {
            let from_file = file.get(flag)?;
            let key = options::by_flag(flag).map_or(*flag, |spec| spec.key);
            let key = key.rsplit('/').next().unwrap_or_default();
            Some(format!(
                "{key}: (from flag: {}, from file: {})",
                show(from_flag),
                show(from_file)
            ))
        })
        .collect();
    if !conflicts.is_empty() {
        return Err(invalid(format!(
            "the following directives are specified both as a flag and in the configuration file: {}",
            conflicts.join(", ")
        )));
    }
    Ok(flags.into_iter().chain(file).collect())
}

fn show(value: &Value) -> String {
    match value {
        Value::Bool(value) => value.to_string(),
        Value::Text(text) => text.clone(),
        Value::Integer(number) => number.to_string(),
        Value::List(list) => format!("[{}]", list.join(" ")),
        Value::Map(map) => show_map(map),
        Value::Pools(pools) => {
            let pools = pools
                .iter()
                .map(|pool| format!("{{{} {}}}", pool.base, pool.size));
            format!("[{}]", pools.collect::<Vec<_>>().join(" "))
        }
        Value::NetworkOptions(drivers) => {
            let drivers = drivers
                .iter()
                .map(|(driver, map)| format!("{driver}:{}", show_map(map)));
            format!("map[{}]", drivers.collect::<Vec<_>>().join(" "))
        }
        Value::Ulimits(map) => {
            format!(
                "[{}]",
                map.iter()
                    .map(|(k, (s, h))| format!("{k}={s}:{h}"))
                    .collect::<Vec<_>>()
                    .join(" ")
            )
        }
        Value::Runtimes(map) => format!("[{}]", map.keys().cloned().collect::<Vec<_>>().join(" ")),
    }
}

fn show_map(map: &BTreeMap<String, String>) -> String {
    let pairs = map.iter().map(|(key, value)| format!("{key}:{value}"));
    format!("map[{}]", pairs.collect::<Vec<_>>().join(" "))
}

#[cfg(test)]
mod tests;
