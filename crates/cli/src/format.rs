//! `--format` over rows: tables with headings, JSON lines and templates.

use crate::failure::{Failure, Outcome};
use crate::table;
use crate::template::{Object, Template, Value};
use serde_json::{Map, Value as Json};
use std::rc::Rc;

/// One row: its fields in any order, and labels for `.Label "key"`.
pub struct Row {
    type_name: &'static str,
    fields: Vec<(&'static str, Value)>,
    labels: Vec<(String, String)>,
}

impl Row {
    /// Makes a row of a Go type, whose name error messages show.
    pub fn new(type_name: &'static str) -> Row {
        Row {
            type_name,
            fields: Vec::new(),
            labels: Vec::new(),
        }
    }

    /// Adds a text field.
    pub fn text(mut self, name: &'static str, text: impl AsRef<str>) -> Row {
        self.fields.push((name, Value::text(text)));
        self
    }

    /// Adds a field of any kind.
    pub fn value(mut self, name: &'static str, value: Value) -> Row {
        self.fields.push((name, value));
        self
    }

    /// Sets the labels: the field `Labels` and the method `Label`.
    pub fn labels(mut self, labels: &Json) -> Row {
        self.labels = label_pairs(labels);
        let joined: Vec<_> = self
            .labels
            .iter()
            .map(|(key, value)| format!("{key}={value}"))
            .collect();
        self.text("Labels", joined.join(","))
    }
}

/// Returns the pairs of a JSON object of texts, sorted.
pub fn label_pairs(labels: &Json) -> Vec<(String, String)> {
    let mut pairs: Vec<_> = labels
        .as_object()
        .into_iter()
        .flatten()
        .map(|(key, value)| (key.clone(), value.as_str().unwrap_or_default().to_owned()))
        .collect();
    pairs.sort();
    pairs
}

impl Object for Row {
    fn call(&self, name: &str, arguments: &[Value]) -> Option<Result<Value, String>> {
        if name == "Label" {
            return Some(match arguments {
                [Value::Text(key)] => Ok(Value::text(
                    self.labels
                        .iter()
                        .find(|(label, _)| **label == **key)
                        .map_or("", |(_, value)| value),
                )),
                _ => Err(format!(
                    "wrong number of args for Label: want 1 got {}",
                    arguments.len()
                )),
            });
        }
        let (_, value) = self.fields.iter().find(|(field, _)| *field == name)?;
        Some(match arguments.len() {
            0 => Ok(value.clone()),
            count => Err(format!(
                "wrong number of args for {name}: want 0 got {count}"
            )),
        })
    }

    fn type_name(&self) -> &str {
        self.type_name
    }

    fn json(&self) -> Json {
        let mut fields: Vec<_> = self.fields.iter().collect();
        fields.sort_by_key(|(name, _)| *name);
        let pairs = fields.into_iter().map(|(name, value)| {
            let json = match value {
                Value::Bool(on) => Json::from(*on),
                Value::Integer(integer) => Json::from(*integer),
                Value::Object(object) => object.json(),
                Value::Struct(entries) | Value::Map(entries) => entries.json.clone(),
                Value::Nil | Value::Absent => Json::Null,
                other => Json::from(crate::template::printed(other)),
            };
            ((*name).to_owned(), json)
        });
        Json::Object(pairs.collect::<Map<_, _>>())
    }
}

/// The headings of a table; `.Label "a.b"` has one of its own.
struct Headings(Vec<(&'static str, &'static str)>);

impl Object for Headings {
    fn call(&self, name: &str, arguments: &[Value]) -> Option<Result<Value, String>> {
        if let ("Label", [Value::Text(key)]) = (name, arguments) {
            // The last part of the key, as a heading.
            let last = key.rsplit('.').next().unwrap_or_default();
            return Some(Ok(Value::text(last.replace(['-', '_'], " "))));
        }
        let heading = self
            .0
            .iter()
            .find(|(field, _)| *field == name)
            .map(|(_, heading)| Value::text(heading));
        Some(Ok(heading.unwrap_or(Value::Absent)))
    }

    fn type_name(&self) -> &str {
        "map[string]string"
    }

    fn json(&self) -> Json {
        let pairs = self
            .0
            .iter()
            .map(|(field, heading)| ((*field).to_owned(), Json::from(*heading)));
        Json::Object(pairs.collect::<Map<_, _>>())
    }
}

/// How Docker's client begins its words on a template that is wrong, be it in its form or in the fields it names.
pub const WRONG_TEMPLATE: &str = "template parsing error";

/// The exit code of `inspect` for a template that is none; one that names what is not there is an ordinary failure.
pub const WRONG_TEMPLATE_CODE: u8 = 64;

/// How rows are printed.
pub struct Format {
    template: Template,
    table: bool,
    headings: Vec<(&'static str, &'static str)>,
}

impl Format {
    /// Makes a format. `given` is what the user asked for: empty or `table` for the default table, `table TEMPLATE`,
    /// `json` or a template.
    pub fn new(
        given: &str,
        default: &str,
        headings: &[(&'static str, &'static str)],
    ) -> Outcome<Format> {
        let given = match given {
            "" | "table" => default,
            "json" => "{{json .}}",
            other => other,
        };
        let (table, body) = match given.strip_prefix("table") {
            Some(rest) => (true, rest.trim_matches(' ')),
            None => (false, given),
        };
        // In quotes of a shell, `\t` is two characters.
        let body = body.replace("\\t", "\t").replace("\\n", "\n");
        let template = Template::parse(&body)
            .map_err(|error| Failure::new(format!("{WRONG_TEMPLATE}: {error}")))?;
        Ok(Format {
            template,
            table,
            headings: headings.to_vec(),
        })
    }

    /// Renders the heading line of a table, empty for other formats.
    pub fn heading(&self) -> String {
        if !self.table {
            return String::new();
        }
        let headings = Value::Object(Rc::new(Headings(self.headings.clone())));
        let mut line = self.template.execute_header(&headings).unwrap_or_default();
        line.push('\n');
        line
    }

    /// Renders one row with its newline.
    pub fn row(&self, row: Row) -> Outcome<String> {
        let value = Value::Object(Rc::new(row));
        let mut line = self
            .template
            .execute(&value)
            .map_err(|error| Failure::new(format!("{WRONG_TEMPLATE}: {error}")))?;
        line.push('\n');
        Ok(line)
    }

    /// Renders all rows, laid out as a table if it is one.
    pub fn render(&self, rows: Vec<Row>) -> Outcome<String> {
        let mut body = String::new();
        for row in rows {
            body.push_str(&self.row(row)?);
        }
        if self.table {
            Ok(table::layout(&format!("{}{body}", self.heading())))
        } else {
            Ok(body)
        }
    }

    /// Says whether the format is a table.
    pub fn is_table(&self) -> bool {
        self.table
    }
}

/// Executes a template over one JSON value as over Go's typed struct, falling back to the plain JSON as `inspect` does.
pub fn inspect(template: &Template, json: &Json) -> Outcome<String> {
    match template.execute(&crate::template::typed(json)) {
        Ok(text) => Ok(text),
        Err(_) => template
            .execute(&crate::template::untyped(json))
            .map_err(|error| Failure::new(format!("template parsing error: {error}"))),
    }
}

/// Executes a template over one JSON value as over the Go type of this name, without falling back.
pub fn typed(template: &Template, json: &Json, type_name: &str) -> Outcome<String> {
    template
        .execute(&crate::template::typed(json))
        .map_err(|error| {
            Failure::new(error.replace("in type struct", &format!("in type {type_name}")))
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows() -> Vec<Row> {
        let labels = serde_json::json!({"a.b": "1"});
        vec![
            Row::new("*formatter.X")
                .text("ID", "abc")
                .text("Names", "web")
                .labels(&labels),
        ]
    }

    fn check(given: &str, expected: &str) {
        let headings = [("ID", "CONTAINER ID"), ("Names", "NAMES")];
        let got = Format::new(given, "table {{.ID}}\\t{{.Names}}", &headings)
            .and_then(|format| format.render(rows()));
        assert_eq!(
            got.unwrap_or_else(|failure| failure.text),
            expected,
            "{given}"
        );
    }

    #[test]
    fn formats() {
        check("", "CONTAINER ID   NAMES\nabc            web\n");
        check(
            "table {{.Names}}\\t{{.Label \"a.b\"}}",
            "NAMES     b\nweb       1\n",
        );
        check(
            "json",
            "{\"ID\":\"abc\",\"Labels\":\"a.b=1\",\"Names\":\"web\"}\n",
        );
        check("{{.ID}} {{upper .Names}}", "abc WEB\n");
        check(
            "table {{.ID}} {{upper .Names}}",
            "CONTAINER ID NAMES\nabc WEB\n",
        );
        check(
            "{{.Foo}}",
            "template parsing error: template: :1:2: executing \"\" at <.Foo>: can't evaluate field Foo in type *formatter.X",
        );
        check(
            "{{",
            "template parsing error: template: :1: unclosed action",
        );
    }
}
