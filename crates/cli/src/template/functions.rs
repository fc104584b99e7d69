//! The functions of templates: Go's built-in ones and Docker's `json`, `split`, `join`, `title`, `lower`, `upper`,
//! `pad` and `truncate`.

use super::evaluate::elements;
use super::print::sprintf;
use super::{Value, printed};
use serde_json::{Map, Value as Json};
use std::cmp::Ordering;
use std::rc::Rc;

/// Calls a function.
pub(super) fn call(name: &str, arguments: &[Value]) -> Result<Value, String> {
    let text = |at: usize| -> Result<String, String> {
        match arguments.get(at) {
            Some(Value::Text(text)) => Ok(text.to_string()),
            Some(Value::Absent | Value::Nil) => Ok(String::new()),
            Some(other) => Err(format!(
                "wrong type for value; expected string; got {}",
                type_name(other)
            )),
            None => Err("not enough arguments".to_owned()),
        }
    };
    let integer = |at: usize| -> Result<i64, String> {
        match arguments.get(at) {
            Some(Value::Integer(integer)) => Ok(*integer),
            Some(other) => Err(format!(
                "wrong type for value; expected int; got {}",
                type_name(other)
            )),
            None => Err("not enough arguments".to_owned()),
        }
    };
    let wants = |count: usize| {
        if arguments.len() == count {
            Ok(())
        } else {
            Err(format!(
                "wrong number of args for {name}: want {count} got {}",
                arguments.len()
            ))
        }
    };
    match name {
        "json" => {
            wants(1)?;
            let text = json_text(&to_json(&arguments[0]));
            Ok(Value::text(match &arguments[0] {
                // A row writes itself, and Go's standard writer escapes for HTML.
                Value::Object(_) => text
                    .replace('<', "\\u003c")
                    .replace('>', "\\u003e")
                    .replace('&', "\\u0026"),
                _ => text,
            }))
        }
        "split" => {
            wants(2)?;
            let (whole, separator) = (text(0)?, text(1)?);
            let parts: Vec<_> = if separator.is_empty() {
                whole.chars().map(|c| Value::text(c.to_string())).collect()
            } else {
                whole.split(separator.as_str()).map(Value::text).collect()
            };
            Ok(Value::List(Rc::new(parts)))
        }
        "join" => {
            wants(2)?;
            let parts: Vec<String> = match &arguments[0] {
                Value::List(list) => list.iter().map(printed).collect(),
                Value::Map(entries) => entries
                    .pairs
                    .iter()
                    .map(|(_, value)| printed(value))
                    .collect(),
                Value::Absent | Value::Nil => Vec::new(),
                other => return Err(format!("unsupported type {}", type_name(other))),
            };
            Ok(Value::text(parts.join(&text(1)?)))
        }
        "title" => text(0).map(|text| Value::text(title(&text))),
        "lower" => text(0).map(|text| Value::text(text.to_lowercase())),
        "upper" => text(0).map(|text| Value::text(text.to_uppercase())),
        "pad" => {
            wants(3)?;
            let body = text(0)?;
            if body.is_empty() {
                return Ok(Value::text(body));
            }
            let spaces = |count: i64| " ".repeat(usize::try_from(count).unwrap_or(0));
            Ok(Value::text(format!(
                "{}{body}{}",
                spaces(integer(1)?),
                spaces(integer(2)?)
            )))
        }
        "truncate" => {
            wants(2)?;
            let body = text(0)?;
            let limit = usize::try_from(integer(1)?).unwrap_or(0);
            Ok(Value::text(if body.len() < limit {
                &body
            } else {
                &body[..body.floor_char_boundary(limit)]
            }))
        }
        "print" => Ok(Value::text(sprint(arguments))),
        "println" => {
            let parts: Vec<_> = arguments.iter().map(printed).collect();
            Ok(Value::text(format!("{}\n", parts.join(" "))))
        }
        "printf" => Ok(Value::text(sprintf(&text(0)?, &arguments[1..]))),
        "len" => {
            wants(1)?;
            length(&arguments[0]).map(|length| Value::Integer(length as i64))
        }
        "index" => arguments.split_first().map_or_else(
            || Err("not enough arguments".to_owned()),
            |(first, rest)| {
                rest.iter()
                    .try_fold(first.clone(), |value, key| index(&value, key))
            },
        ),
        "slice" => slice(arguments),
        "not" => {
            wants(1)?;
            Ok(Value::Bool(!truth(&arguments[0])))
        }
        "and" | "or" => Err("wrong number of args: want at least 1 got 0".to_owned()),
        "eq" => {
            let (first, rest) = arguments
                .split_first()
                .ok_or("missing argument for comparison")?;
            if rest.is_empty() {
                return Err("missing argument for comparison".to_owned());
            }
            for other in rest {
                if equal(first, other)? {
                    return Ok(Value::Bool(true));
                }
            }
            Ok(Value::Bool(false))
        }
        "ne" => {
            wants(2)?;
            equal(&arguments[0], &arguments[1]).map(|same| Value::Bool(!same))
        }
        "lt" | "le" | "gt" | "ge" => {
            wants(2)?;
            let order = compare(&arguments[0], &arguments[1])?;
            Ok(Value::Bool(match name {
                "lt" => order == Ordering::Less,
                "le" => order != Ordering::Greater,
                "gt" => order == Ordering::Greater,
                _ => order != Ordering::Less,
            }))
        }
        "html" => Ok(Value::text(html(&sprint(arguments)))),
        "js" => Ok(Value::text(js(&sprint(arguments)))),
        "urlquery" => Ok(Value::text(
            gantry_client::request::escape(&sprint(arguments)).replace("%20", "+"),
        )),
        "call" => Err("there is no function value to call".to_owned()),
        _ => Err(format!("function \"{name}\" not defined")),
    }
}

/// Returns what a function gives for a column's heading: the heading itself.
pub(super) fn heading(name: &str, arguments: &[Value]) -> Option<Value> {
    matches!(
        name,
        "json" | "split" | "join" | "title" | "lower" | "upper" | "pad" | "truncate"
    )
    .then(|| {
        arguments
            .iter()
            .find(|value| matches!(value, Value::Text(_)))
            .cloned()
    })
    .flatten()
    .map(|value| match (name, &value, arguments) {
        // Padding applies to headings too.
        ("pad", Value::Text(_), [_, _, _]) => call("pad", arguments).unwrap_or(value),
        _ => value,
    })
}

/// Says whether a value counts as true.
pub(super) fn truth(value: &Value) -> bool {
    match value {
        Value::Nil | Value::Absent => false,
        Value::Bool(on) => *on,
        Value::Integer(integer) => *integer != 0,
        Value::Float(float) => *float != 0.0,
        Value::Text(text) => !text.is_empty(),
        Value::List(list) => !list.is_empty(),
        Value::Map(entries) => !entries.pairs.is_empty(),
        Value::Struct(_) | Value::Object(_) => true,
    }
}

/// Turns a value into JSON.
fn to_json(value: &Value) -> Json {
    match value {
        Value::Nil | Value::Absent => Json::Null,
        Value::Bool(on) => Json::from(*on),
        Value::Integer(integer) => Json::from(*integer),
        Value::Float(float) => Json::from(*float),
        Value::Text(text) => Json::from(text.as_ref()),
        Value::List(list) => Json::Array(list.iter().map(to_json).collect()),
        Value::Map(entries) | Value::Struct(entries) => match &entries.json {
            Json::Null => Json::Null,
            // Go writes maps sorted by key and structs in their order.
            Json::Object(map) if matches!(value, Value::Map(_)) => {
                let mut pairs: Vec<_> = map.iter().collect();
                pairs.sort_by_key(|(key, _)| key.as_str());
                Json::Object(
                    pairs
                        .into_iter()
                        .map(|(k, v)| (k.clone(), v.clone()))
                        .collect::<Map<_, _>>(),
                )
            }
            json => json.clone(),
        },
        Value::Object(object) => object.json(),
    }
}

/// Writes JSON as Go does without HTML escaping: U+2028 and U+2029 are escaped.
pub fn json_text(json: &Json) -> String {
    json.to_string()
        .replace('\u{2028}', "\\u2028")
        .replace('\u{2029}', "\\u2029")
}

fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Nil | Value::Absent => "nil",
        Value::Bool(_) => "bool",
        Value::Integer(_) => "int",
        Value::Float(_) => "float64",
        Value::Text(_) => "string",
        Value::List(_) => "[]interface {}",
        Value::Map(_) => "map[string]interface {}",
        Value::Struct(_) | Value::Object(_) => "struct",
    }
}

/// Joins as Go's `Sprint`: a space between two operands that are both no text.
fn sprint(arguments: &[Value]) -> String {
    let mut out = String::new();
    for (at, value) in arguments.iter().enumerate() {
        let plain = |value: &Value| !matches!(value, Value::Text(_));
        if at > 0 && plain(value) && plain(&arguments[at - 1]) {
            out.push(' ');
        }
        out.push_str(&printed(value));
    }
    out
}

fn title(text: &str) -> String {
    let mut out = String::new();
    let mut inside = false;
    for c in text.chars() {
        if inside {
            out.push(c)
        } else {
            out.extend(c.to_uppercase())
        }
        inside = c.is_alphanumeric() || c == '_' || c == '\'';
    }
    out
}

fn length(value: &Value) -> Result<usize, String> {
    match value {
        Value::Text(text) => Ok(text.len()),
        Value::List(list) => Ok(list.len()),
        Value::Map(entries) => Ok(entries.pairs.len()),
        Value::Nil | Value::Absent => Err("len of nil pointer".to_owned()),
        other => Err(format!("len of type {}", type_name(other))),
    }
}

fn index(value: &Value, key: &Value) -> Result<Value, String> {
    match (value, key) {
        (Value::List(list), Value::Integer(at)) => usize::try_from(*at)
            .ok()
            .and_then(|at| list.get(at).cloned())
            .ok_or_else(|| format!("index out of range: {at}")),
        (Value::Text(text), Value::Integer(at)) => usize::try_from(*at)
            .ok()
            .and_then(|at| text.as_bytes().get(at))
            .map(|byte| Value::Integer(i64::from(*byte)))
            .ok_or_else(|| format!("index out of range: {at}")),
        (Value::Map(entries), Value::Text(name)) => match value.entry(name) {
            Some(found) => Ok(found.clone()),
            // The zero value of a map of texts is the empty text.
            None if entries
                .pairs
                .iter()
                .all(|(_, value)| matches!(value, Value::Text(_)))
                && !entries.pairs.is_empty() =>
            {
                Ok(Value::text(""))
            }
            None => Ok(Value::Absent),
        },
        (Value::Nil | Value::Absent, _) => Err("index of untyped nil".to_owned()),
        (Value::List(_), other) => Err(format!(
            "cannot index slice/array with type {}",
            type_name(other)
        )),
        (Value::Map(_), other) => Err(format!(
            "value has type {}; should be string",
            type_name(other)
        )),
        (other, _) => Err(format!("can't index item of type {}", type_name(other))),
    }
}

fn slice(arguments: &[Value]) -> Result<Value, String> {
    let (value, bounds) = arguments.split_first().ok_or("not enough arguments")?;
    let total = match value {
        Value::Text(text) => text.len(),
        Value::List(list) => list.len(),
        other => return Err(format!("can't slice item of type {}", type_name(other))),
    };
    let bound = |at: usize, default: usize| match bounds.get(at) {
        None => Ok(default),
        Some(Value::Integer(n)) => usize::try_from(*n)
            .ok()
            .filter(|n| *n <= total)
            .ok_or_else(|| format!("index out of range: {n}")),
        Some(other) => Err(format!(
            "cannot index slice/array with type {}",
            type_name(other)
        )),
    };
    let (from, to) = (bound(0, 0)?, bound(1, total)?);
    if from > to {
        return Err(format!("invalid slice index: {from} > {to}"));
    }
    match (value, elements(value)) {
        (_, Some(list)) => Ok(Value::List(Rc::new(list[from..to].to_vec()))),
        (Value::Text(text), _) => Ok(Value::text(String::from_utf8_lossy(
            &text.as_bytes()[from..to],
        ))),
        _ => Ok(Value::Absent),
    }
}

fn equal(a: &Value, b: &Value) -> Result<bool, String> {
    Ok(match (a, b) {
        (Value::Bool(a), Value::Bool(b)) => a == b,
        (Value::Integer(a), Value::Integer(b)) => a == b,
        (Value::Float(a), Value::Float(b)) => a == b,
        (Value::Text(a), Value::Text(b)) => a == b,
        (Value::Nil | Value::Absent, Value::Nil | Value::Absent) => true,
        (Value::Nil | Value::Absent, _) | (_, Value::Nil | Value::Absent) => false,
        (Value::List(_) | Value::Map(_) | Value::Struct(_) | Value::Object(_), _) => {
            return Err(format!(
                "non-comparable type {}: {}",
                printed(a),
                type_name(a)
            ));
        }
        _ => return Err("incompatible types for comparison".to_owned()),
    })
}

fn compare(a: &Value, b: &Value) -> Result<Ordering, String> {
    match (a, b) {
        (Value::Integer(a), Value::Integer(b)) => Ok(a.cmp(b)),
        (Value::Float(a), Value::Float(b)) => Ok(a.partial_cmp(b).unwrap_or(Ordering::Equal)),
        (Value::Text(a), Value::Text(b)) => Ok(a.cmp(b)),
        (Value::Bool(_), _) | (Value::List(_), _) | (Value::Map(_), _) => {
            Err("invalid type for comparison".to_owned())
        }
        _ => Err("incompatible types for comparison".to_owned()),
    }
}

fn html(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&#34;"),
            '\'' => out.push_str("&#39;"),
            '\0' => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}

fn js(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '\'' => out.push_str("\\'"),
            '"' => out.push_str("\\\""),
            '<' | '>' | '&' | '=' => out.push_str(&format!("\\u{:04X}", c as u32)),
            c if (c as u32) < 0x20 => out.push_str(&format!("\\u{:04X}", c as u32)),
            c => out.push(c),
        }
    }
    out
}
