//! The `--mount` flag: comma-separated fields to the mount that the API takes.

use crate::grammar::values::{parse_bool, parse_bytes, parse_csv};
use serde_json::{Map, Value, json};

/// Parses one `--mount` value into the API's Mount object.
pub fn parse(value: &str) -> Result<Value, String> {
    let mut mount = Mount {
        kind: "volume".to_owned(),
        ..Mount::default()
    };
    // An empty line of comma-separated values has no record at all.
    if value.is_empty() {
        return Err("EOF".to_owned());
    }
    for field in parse_csv(value)? {
        mount.set(&field)?;
    }
    mount.finish()
}

#[derive(Default)]
struct Mount {
    kind: String,
    source: String,
    target: String,
    read_only: bool,
    consistency: String,
    bind: Option<Map<String, Value>>,
    volume: Option<Map<String, Value>>,
    image: Option<Map<String, Value>>,
    tmpfs: Option<Map<String, Value>>,
    driver: Map<String, Value>,
}

impl Mount {
    fn set(&mut self, field: &str) -> Result<(), String> {
        let (key, value) = match field.split_once('=') {
            Some((key, value)) => (key.to_lowercase(), Some(value)),
            None => (field.to_lowercase(), None),
        };
        let boolean = |value: Option<&str>| match value {
            None => Ok(true),
            Some(text) => parse_bool(text).map_err(|_| format!("invalid value for {key}: {text}")),
        };
        match key.as_str() {
            "readonly" | "ro" => {
                self.read_only = boolean(value)?;
                return Ok(());
            }
            "volume-nocopy" => {
                let on = boolean(value)?;
                self.volume_options().insert("NoCopy".to_owned(), json!(on));
                return Ok(());
            }
            "bind-nonrecursive" => {
                let on = boolean(value)?;
                self.bind_options()
                    .insert("NonRecursive".to_owned(), json!(on));
                return Ok(());
            }
            _ => {}
        }
        let Some(value) = value else {
            return Err(format!("invalid field '{field}' must be a key=value pair"));
        };
        match key.as_str() {
            "type" => self.kind = value.to_lowercase(),
            "source" | "src" => self.source = absolute_if_dotted(value),
            "target" | "dst" | "destination" => self.target = value.to_owned(),
            "consistency" => self.consistency = value.to_lowercase(),
            "bind-propagation" => {
                self.bind_options()
                    .insert("Propagation".to_owned(), json!(value.to_lowercase()));
            }
            "bind-recursive" => {
                let option = match value {
                    "enabled" => return Ok(()),
                    "disabled" => "NonRecursive",
                    "writable" => "ReadOnlyNonRecursive",
                    "readonly" => "ReadOnlyForceRecursive",
                    _ => {
                        return Err(format!(
                            "invalid value for {key}: {value} (must be \"enabled\", \"disabled\", \"writable\", or \"readonly\")"
                        ));
                    }
                };
                self.bind_options().insert(option.to_owned(), json!(true));
            }
            "volume-subpath" => {
                self.volume_options()
                    .insert("Subpath".to_owned(), json!(value));
            }
            "volume-label" => {
                let labels = self
                    .volume_options()
                    .entry("Labels")
                    .or_insert_with(|| json!({}));
                insert_pair(labels, value);
            }
            "volume-driver" => {
                self.volume_options();
                self.driver.insert("Name".to_owned(), json!(value));
            }
            "volume-opt" => {
                self.volume_options();
                insert_pair(
                    self.driver.entry("Options").or_insert_with(|| json!({})),
                    value,
                );
            }
            "image-subpath" => {
                self.image
                    .get_or_insert_default()
                    .insert("Subpath".to_owned(), json!(value));
            }
            "tmpfs-size" => {
                let size =
                    parse_bytes(value).map_err(|_| format!("invalid value for {key}: {value}"))?;
                self.tmpfs
                    .get_or_insert_default()
                    .insert("SizeBytes".to_owned(), json!(size));
            }
            "tmpfs-mode" => {
                let mode = u32::from_str_radix(value, 8)
                    .map_err(|_| format!("invalid value for {key}: {value}"))?;
                self.tmpfs
                    .get_or_insert_default()
                    .insert("Mode".to_owned(), json!(mode));
            }
            _ => return Err(format!("unexpected key '{key}' in '{field}'")),
        }
        Ok(())
    }

    fn volume_options(&mut self) -> &mut Map<String, Value> {
        self.volume.get_or_insert_default()
    }

    fn bind_options(&mut self) -> &mut Map<String, Value> {
        self.bind.get_or_insert_default()
    }

    fn finish(mut self) -> Result<Value, String> {
        if self.kind.is_empty() {
            return Err("type is required".to_owned());
        }
        if self.target.is_empty() {
            return Err("target is required".to_owned());
        }
        let kind = self.kind.as_str();
        for (given, owner) in [
            (self.volume.is_some(), "volume"),
            (self.image.is_some(), "image"),
            (self.bind.is_some(), "bind"),
            (self.tmpfs.is_some(), "tmpfs"),
        ] {
            if given && kind != owner {
                return Err(format!(
                    "cannot mix '{owner}-*' options with mount type '{kind}'"
                ));
            }
        }
        if let Some(bind) = &self.bind {
            if bind.contains_key("ReadOnlyNonRecursive") && !self.read_only {
                return Err(
                    "option 'bind-recursive=writable' requires 'readonly' to be specified in conjunction".to_owned()
                );
            }
            if bind.contains_key("ReadOnlyForceRecursive") {
                if !self.read_only {
                    return Err("option 'bind-recursive=readonly' requires 'readonly' to be specified in conjunction"
                        .to_owned());
                }
                if bind.get("Propagation").and_then(Value::as_str) != Some("rprivate") {
                    return Err(
                        "option 'bind-recursive=readonly' requires 'bind-propagation=rprivate' to be specified in conjunction"
                            .to_owned(),
                    );
                }
            }
        }
        if let (Some(volume), false) = (&mut self.volume, self.driver.is_empty()) {
            volume.insert("DriverConfig".to_owned(), Value::Object(self.driver));
        }
        let mut out = Map::new();
        out.insert("Type".to_owned(), json!(self.kind));
        for (key, text) in [("Source", self.source), ("Target", self.target)] {
            if !text.is_empty() {
                out.insert(key.to_owned(), json!(text));
            }
        }
        if self.read_only {
            out.insert("ReadOnly".to_owned(), json!(true));
        }
        if !self.consistency.is_empty() {
            out.insert("Consistency".to_owned(), json!(self.consistency));
        }
        for (key, options) in [
            ("BindOptions", self.bind),
            ("VolumeOptions", self.volume),
            ("ImageOptions", self.image),
            ("TmpfsOptions", self.tmpfs),
        ] {
            if let Some(options) = options {
                // Go leaves out the fields that are false.
                let options = options
                    .into_iter()
                    .filter(|(_, value)| value != &json!(false))
                    .collect();
                out.insert(key.to_owned(), Value::Object(options));
            }
        }
        Ok(Value::Object(out))
    }
}

fn insert_pair(target: &mut Value, text: &str) {
    let (key, value) = text.split_once('=').unwrap_or((text, ""));
    if let (Value::Object(map), false) = (target, key.is_empty()) {
        map.insert(key.to_owned(), json!(value));
    }
}

/// Makes `.` and `./x` absolute; other relative sources are the daemon's to refuse.
fn absolute_if_dotted(path: &str) -> String {
    if path == "." || path.starts_with("./") {
        crate::run::volume::absolute(path)
    } else {
        path.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(value: &str, expected: &str) {
        let got = match parse(value) {
            Ok(mount) => mount.to_string(),
            Err(error) => error,
        };
        assert_eq!(got, expected, "{value}");
    }

    #[test]
    fn mounts() {
        check(
            "type=bind,src=/a,dst=/b,ro",
            r#"{"Type":"bind","Source":"/a","Target":"/b","ReadOnly":true}"#,
        );
        check("target=/x", r#"{"Type":"volume","Target":"/x"}"#);
        check(
            "type=volume,src=v,dst=/x,volume-opt=type=nfs,volume-driver=local,volume-label=a=b,volume-nocopy",
            r#"{"Type":"volume","Source":"v","Target":"/x","VolumeOptions":{"Labels":{"a":"b"},"NoCopy":true,"DriverConfig":{"Options":{"type":"nfs"},"Name":"local"}}}"#,
        );
        check(
            "type=tmpfs,dst=/t,tmpfs-size=1m,tmpfs-mode=1770",
            r#"{"Type":"tmpfs","Target":"/t","TmpfsOptions":{"SizeBytes":1048576,"Mode":1016}}"#,
        );
    }

    #[test]
    fn refusals() {
        check("", "EOF");
        check(",", "invalid field '' must be a key=value pair");
        check("x", "invalid field 'x' must be a key=value pair");
        check("type=foo", "target is required");
        check(
            "type=bind,target=/x,volume-nocopy",
            "cannot mix 'volume-*' options with mount type 'bind'",
        );
        check("target=/x,readonly=z", "invalid value for readonly: z");
        check(
            "type=tmpfs,target=/x,tmpfs-mode=9",
            "invalid value for tmpfs-mode: 9",
        );
        check("target=/x,foo=bar", "unexpected key 'foo' in 'foo=bar'");
    }
}
