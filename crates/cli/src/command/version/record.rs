//! The versions as a template sees them: Go's types, whose fields have other names than their JSON.
//!
//! A field is found by its Go name (`APIVersion`) and by its JSON name (`ApiVersion`) too.

use crate::template::{Object, Value, typed};
use serde_json::{Value as Json, json};
use std::rc::Rc;

/// Go names and JSON names of the client's fields, in their order.
const CLIENT: [(&str, &str); 10] = [
    ("Platform", "Platform"),
    ("Version", "Version"),
    ("APIVersion", "ApiVersion"),
    ("DefaultAPIVersion", "DefaultAPIVersion"),
    ("GitCommit", "GitCommit"),
    ("GoVersion", "GoVersion"),
    ("Os", "Os"),
    ("Arch", "Arch"),
    ("BuildTime", "BuildTime"),
    ("Context", "Context"),
];

/// Go names and JSON names of the server's fields, in their order.
const SERVER: [(&str, &str); 12] = [
    ("Platform", "Platform"),
    ("Components", "Components"),
    ("Version", "Version"),
    ("APIVersion", "ApiVersion"),
    ("MinAPIVersion", "MinAPIVersion"),
    ("GitCommit", "GitCommit"),
    ("GoVersion", "GoVersion"),
    ("Os", "Os"),
    ("Arch", "Arch"),
    ("KernelVersion", "KernelVersion"),
    ("Experimental", "Experimental"),
    ("BuildTime", "BuildTime"),
];

const COMPONENT: [(&str, &str); 3] = [
    ("Name", "Name"),
    ("Version", "Version"),
    ("Details", "Details"),
];

/// Makes the value that the template is executed over; a server that did not answer is a nil pointer.
pub fn whole(client: &Json, server: Option<&Json>) -> Value {
    let json = json!({"Client": client, "Server": server});
    let server = server.map_or(Value::Nil, |json| record("*types.Version", &SERVER, json));
    let client = record("system.clientVersion", &CLIENT, client);
    Value::Object(Rc::new(Record {
        type_name: "system.versionInfo",
        fields: vec![("Client", "Client", client), ("Server", "Server", server)],
        json,
    }))
}

struct Record {
    type_name: &'static str,
    /// Go name, JSON name and value.
    fields: Vec<(&'static str, &'static str, Value)>,
    json: Json,
}

impl Object for Record {
    fn call(&self, name: &str, arguments: &[Value]) -> Option<Result<Value, String>> {
        let (_, _, value) = self
            .fields
            .iter()
            .find(|(go, json, _)| *go == name || *json == name)?;
        if !arguments.is_empty() {
            return Some(Err(format!(
                "{name} has arguments but cannot be invoked as function"
            )));
        }
        Some(Ok(value.clone()))
    }

    fn type_name(&self) -> &str {
        self.type_name
    }

    fn json(&self) -> Json {
        self.json.clone()
    }

    fn shown(&self) -> String {
        let values: Vec<_> = self
            .fields
            .iter()
            .map(|(_, _, value)| crate::template::printed(value))
            .collect();
        format!("{{{}}}", values.join(" "))
    }
}

/// Makes a record of JSON; a field that the JSON leaves out has its type's zero value.
fn record(type_name: &'static str, names: &[(&'static str, &'static str)], json: &Json) -> Value {
    let field = |name: &str| match (name, &json[name]) {
        ("Platform", platform) => record("struct { Name string }", &[("Name", "Name")], platform),
        ("Components", list) => Value::List(Rc::new(
            list.as_array()
                .into_iter()
                .flatten()
                .map(|component| record("types.ComponentVersion", &COMPONENT, component))
                .collect(),
        )),
        // Converted inside its parent, whose field name tells that it is a map.
        ("Details", details) => match typed(&json!({ "Details": details })) {
            Value::Struct(entries) => entries.pairs[0].1.clone(),
            other => other,
        },
        ("Experimental", Json::Null) => Value::Bool(false),
        (_, Json::Null) => Value::text(""),
        (_, value) => typed(value),
    };
    let fields = names
        .iter()
        .map(|(go, json)| (*go, *json, field(json)))
        .collect();
    Value::Object(Rc::new(Record {
        type_name,
        fields,
        json: json.clone(),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::template::Template;

    fn check(template: &str, server: Option<&Json>, expected: &str) {
        let client = json!({"Platform": {"Name": "P"}, "Version": "28", "ApiVersion": "1.50", "DefaultAPIVersion": "1.51", "Os": "linux", "Context": "default"});
        let got = Template::parse(template)
            .and_then(|template| template.execute(&whole(&client, server)))
            .unwrap_or_else(|error| error);
        assert_eq!(got, expected, "{template}");
    }

    #[test]
    fn fields_have_go_and_json_names() {
        let server = json!({"Components": [{"Name": "Engine", "Version": "9", "Details": {"ApiVersion": "1.51"}}], "Version": "9", "ApiVersion": "1.51", "MinAPIVersion": "1.24", "Os": "linux", "Arch": "amd64"});
        let server = Some(&server);
        check(
            "{{.Server.APIVersion}} {{.Server.MinAPIVersion}} {{.Server.Os}} {{.Server.Arch}}",
            server,
            "1.51 1.24 linux amd64",
        );
        check(
            "{{.Client.APIVersion}} {{.Client.ApiVersion}} {{.Client.DefaultAPIVersion}} {{.Client.Platform.Name}}",
            server,
            "1.50 1.50 1.51 P",
        );
        check(
            "{{range .Server.Components}}{{.Name}} {{.Details.ApiVersion}}{{end}}",
            server,
            "Engine 1.51",
        );
        check(
            "{{.Server}}",
            server,
            "{{} [{Engine 9 map[ApiVersion:1.51]}] 9 1.51 1.24   linux amd64  false }",
        );
        check("{{json .Client.Platform}}", server, r#"{"Name":"P"}"#);
        check(
            "{{.Server.Nosuch}}",
            server,
            "template: :1:9: executing \"\" at <.Server.Nosuch>: can't evaluate field Nosuch in type *types.Version",
        );
    }

    #[test]
    fn an_absent_server_is_nil() {
        check("{{.Server}}", None, "<nil>");
        check("{{json .Server}}", None, "null");
        check("{{if .Server}}yes{{else}}no{{end}}", None, "no");
    }
}
