//! Values as Go prints them with `%v`, and as JSON.

use super::Value;
use crate::grammar::values::quote;

/// Prints a value as a template does.
pub fn printed(value: &Value) -> String {
    match value {
        Value::Absent => "<no value>".to_owned(),
        Value::Nil => "<nil>".to_owned(),
        Value::Bool(on) => on.to_string(),
        Value::Integer(integer) => integer.to_string(),
        Value::Float(float) => go_float(*float),
        Value::Text(text) => text.to_string(),
        Value::List(list) => format!(
            "[{}]",
            list.iter().map(nested).collect::<Vec<_>>().join(" ")
        ),
        Value::Map(entries) => {
            let pairs: Vec<_> = entries
                .pairs
                .iter()
                .map(|(key, value)| format!("{key}:{}", nested(value)))
                .collect();
            format!("map[{}]", pairs.join(" "))
        }
        Value::Struct(entries) => {
            let values: Vec<_> = entries
                .pairs
                .iter()
                .map(|(_, value)| nested(value))
                .collect();
            format!("{{{}}}", values.join(" "))
        }
        Value::Object(object) => object.shown(),
    }
}

fn nested(value: &Value) -> String {
    match value {
        Value::Absent => "<nil>".to_owned(),
        other => printed(other),
    }
}

/// Prints a float with the shortest digits that give it back; exponents from 1e21 on and below 1e-4.
pub fn go_float(value: f64) -> String {
    let magnitude = value.abs();
    if value == 0.0 || (1e-4..1e21).contains(&magnitude) {
        return value.to_string();
    }
    let text = format!("{value:e}");
    match text.split_once('e') {
        Some((digits, exponent)) => {
            let (sign, exponent) = match exponent.strip_prefix('-') {
                Some(rest) => ('-', rest),
                None => ('+', exponent),
            };
            format!("{digits}e{sign}{exponent:0>2}")
        }
        None => text,
    }
}

/// Formats as Go's `Sprintf`.
pub fn sprintf(format: &str, arguments: &[Value]) -> String {
    let mut out = String::new();
    let mut arguments = arguments.iter();
    let mut chars = format.chars().peekable();
    while let Some(c) = chars.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        let (mut minus, mut zero, mut plus, mut sharp) = (false, false, false, false);
        while let Some(flag) = chars.next_if(|c| "-0+# ".contains(*c)) {
            match flag {
                '-' => minus = true,
                '0' => zero = true,
                '+' => plus = true,
                '#' => sharp = true,
                _ => {}
            }
        }
        let digits = |chars: &mut std::iter::Peekable<std::str::Chars<'_>>| {
            let mut text = String::new();
            while let Some(digit) = chars.next_if(char::is_ascii_digit) {
                text.push(digit);
            }
            text.parse::<usize>().ok()
        };
        let width = digits(&mut chars).unwrap_or(0);
        let precision = if chars.next_if_eq(&'.').is_some() {
            Some(digits(&mut chars).unwrap_or(0))
        } else {
            None
        };
        let Some(verb) = chars.next() else {
            out.push_str("%!(NOVERB)");
            break;
        };
        if verb == '%' {
            out.push('%');
            continue;
        }
        let Some(argument) = arguments.next() else {
            out.push_str(&format!("%!{verb}(MISSING)"));
            continue;
        };
        let text = verb_text(verb, argument, precision, plus, sharp);
        let length = text.chars().count();
        let fill = width.saturating_sub(length);
        match (minus, zero && verb != 's' && verb != 'v' && verb != 'q') {
            (true, _) => out.push_str(&format!("{text}{}", " ".repeat(fill))),
            (false, true) => {
                let (sign, rest) = match text.strip_prefix('-') {
                    Some(rest) => ("-", rest),
                    None => ("", text.as_str()),
                };
                out.push_str(&format!("{sign}{}{rest}", "0".repeat(fill)));
            }
            (false, false) => out.push_str(&format!("{}{text}", " ".repeat(fill))),
        }
    }
    let rest: Vec<_> = arguments
        .map(|value| format!("{}={}", kind(value), printed(value)))
        .collect();
    if !rest.is_empty() {
        out.push_str(&format!("%!(EXTRA {})", rest.join(", ")));
    }
    out
}

fn verb_text(
    verb: char,
    argument: &Value,
    precision: Option<usize>,
    plus: bool,
    sharp: bool,
) -> String {
    let signed = |text: String| {
        if plus && !text.starts_with('-') {
            format!("+{text}")
        } else {
            text
        }
    };
    match (verb, argument) {
        ('v', Value::Text(text)) if sharp => quote(text),
        ('v', value) => printed(value),
        ('s', value) => {
            let text = printed(value);
            match (value, precision) {
                (Value::Integer(_) | Value::Bool(_) | Value::Float(_), _) => {
                    format!("%!s({}={text})", kind(value))
                }
                (_, Some(limit)) => text.chars().take(limit).collect(),
                _ => text,
            }
        }
        ('q', value) => quote(&printed(value)),
        ('d', Value::Integer(integer)) => signed(integer.to_string()),
        ('x', Value::Integer(integer)) => format!("{integer:x}"),
        ('X', Value::Integer(integer)) => format!("{integer:X}"),
        ('o', Value::Integer(integer)) => format!("{integer:o}"),
        ('b', Value::Integer(integer)) => format!("{integer:b}"),
        ('c', Value::Integer(integer)) => u32::try_from(*integer)
            .ok()
            .and_then(char::from_u32)
            .map(String::from)
            .unwrap_or_default(),
        ('x', Value::Text(text)) => text.bytes().map(|byte| format!("{byte:02x}")).collect(),
        ('t', Value::Bool(on)) => on.to_string(),
        ('f' | 'F', Value::Float(float)) => signed(format!("{float:.*}", precision.unwrap_or(6))),
        ('g', Value::Float(float)) => signed(go_float(*float)),
        (verb, value) => format!("%!{verb}({}={})", kind(value), printed(value)),
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Bool(_) => "bool",
        Value::Integer(_) => "int",
        Value::Float(_) => "float64",
        Value::Text(_) => "string",
        Value::List(_) => "[]interface {}",
        _ => "map[string]interface {}",
    }
}
