//! `ps`.

use crate::cli::Cli;
use crate::command::{get, text};
use crate::failure::{Failure, Outcome};
use crate::format::{Format, Row, WRONG_TEMPLATE};
use crate::grammar::Matches;
use crate::grammar::values::quote;
use crate::template::Value as Printed;
use crate::{filter, output, stamp, units};
use gantry_api::reference::{self, AnyReference};
use gantry_client::Query;
use serde_json::Value;

const TABLE: &str = "table {{.ID}}\\t{{.Image}}\\t{{.Command}}\\t{{.RunningFor}}\\t{{.Status}}\\t{{.Ports}}\\t{{.Names}}";
const RAW: &str = "container_id: {{.ID}}\nimage: {{.Image}}\ncommand: {{.Command}}\ncreated_at: {{.CreatedAt}}\nstate: {{- pad .State 1 0}}\nstatus: {{- pad .Status 1 0}}\nnames: {{.Names}}\nlabels: {{- pad .Labels 1 0}}\nports: {{- pad .Ports 1 0}}\n";
const HEADINGS: [(&str, &str); 15] = [
    ("ID", "CONTAINER ID"),
    ("Names", "NAMES"),
    ("Image", "IMAGE"),
    ("Command", "COMMAND"),
    ("CreatedAt", "CREATED AT"),
    ("RunningFor", "CREATED"),
    ("Ports", "PORTS"),
    ("State", "STATE"),
    ("Status", "STATUS"),
    ("Size", "SIZE"),
    ("Labels", "LABELS"),
    ("Mounts", "MOUNTS"),
    ("LocalVolumes", "LOCAL VOLUMES"),
    ("Networks", "NETWORKS"),
    ("Platform", "PLATFORM"),
];

/// Runs `ps`.
pub async fn list(cli: &Cli, matches: &Matches) -> Outcome {
    let quiet = matches.on("quiet");
    let truncate = !matches.on("no-trunc");
    let given = match matches.get("format") {
        Some(format) => format.to_owned(),
        None if !quiet => cli.config().ps_format.clone(),
        None => String::new(),
    };
    let last = matches.integer("last").unwrap_or(-1);
    let limit = if matches.on("latest") && last == -1 {
        1
    } else {
        last
    };
    // A template that shows sizes needs them computed, and so does one that shows all there is.
    let shown = given.contains(".Size") || given.replace(' ', "").contains("{{json.}}");
    let size = matches.on("size") || (shown && !quiet);
    let filters = filter::collect(&matches.all("filter"));
    let query = Query::new()
        .when(matches.on("all"), "all", "1")
        .when(!filters.is_empty(), "filters", filters.to_json())
        .when(limit > 0, "limit", limit.to_string())
        .when(size, "size", "1");
    let default = match (quiet, matches.on("size")) {
        (true, _) => "{{.ID}}".to_owned(),
        (false, true) => format!("{TABLE}\\t{{{{.Size}}}}"),
        (false, false) => TABLE.to_owned(),
    };
    let chosen = match given.as_str() {
        "raw" if quiet => "container_id: {{.ID}}",
        "raw" => RAW,
        _ if quiet && (given.is_empty() || given == "table") => "",
        other => other,
    };
    // This list looks at its template beforehand, and has words of its own for what is wrong there.
    let told = |wrong: &'static str| {
        move |failure: Failure| Failure::new(failure.text.replacen(WRONG_TEMPLATE, wrong, 1))
    };
    let format =
        Format::new(chosen, &default, &HEADINGS).map_err(told("failed to parse template"))?;
    // A wrong template fails even if there is nothing to list.
    format
        .row(row(&Value::Null, truncate))
        .map_err(told("failed to execute template"))?;
    let containers = get(cli.client()?, "/containers/json", query).await?;
    let rows = containers
        .as_array()
        .into_iter()
        .flatten()
        .map(|container| row(container, truncate))
        .collect();
    output::out(&format.render(rows)?);
    Ok(())
}

/// Makes a row of one container.
pub fn row(container: &Value, truncate: bool) -> Row {
    let id = text(container, "Id");
    let created = container["Created"].as_i64().unwrap_or(0);
    let command = match truncate {
        true => units::ellipsis(text(container, "Command"), 20),
        false => text(container, "Command").to_owned(),
    };
    let mounts: Vec<&Value> = container["Mounts"]
        .as_array()
        .into_iter()
        .flatten()
        .collect();
    let volumes = mounts
        .iter()
        .filter(|mount| text(mount, "Driver") == "local")
        .count();
    let names: Vec<String> = mounts
        .iter()
        .map(|mount| match text(mount, "Name") {
            "" => text(mount, "Source"),
            name => name,
        })
        .map(|name| {
            if truncate {
                units::ellipsis(name, 15)
            } else {
                name.to_owned()
            }
        })
        .collect();
    let mut networks: Vec<&String> = container["NetworkSettings"]["Networks"]
        .as_object()
        .into_iter()
        .flatten()
        .map(|(name, _)| name)
        .collect();
    networks.sort();
    let networks: Vec<&str> = networks.into_iter().map(String::as_str).collect();
    Row::new("*formatter.ContainerContext")
        .text("ID", if truncate { units::short_id(id) } else { id })
        .text("Image", image(container, truncate))
        .text("Command", quote(&command))
        .text("CreatedAt", stamp::local(created))
        .text(
            "RunningFor",
            format!("{} ago", units::duration(stamp::age(created))),
        )
        .text("Ports", ports(&container["Ports"]))
        .text("State", text(container, "State"))
        .text("Status", text(container, "Status"))
        .text("Size", size(container))
        .text("Names", self::names(container, truncate))
        .text("Mounts", names.join(","))
        .text("LocalVolumes", volumes.to_string())
        .text("Networks", networks.join(","))
        .value("Platform", platform(container))
        .labels(&container["Labels"])
}

/// The platform of the image, which only engines with a store of several platforms tell; a nil pointer otherwise.
fn platform(container: &Value) -> Printed {
    let platform = &container["ImageManifestDescriptor"]["platform"];
    if platform.is_null() {
        return Printed::Nil;
    }
    let mut out = format!(
        "{}/{}",
        text(platform, "os"),
        text(platform, "architecture")
    );
    if !text(platform, "variant").is_empty() {
        out.push('/');
        out.push_str(text(platform, "variant"));
    }
    Printed::text(out)
}

fn size(container: &Value) -> String {
    let writable = container["SizeRw"].as_f64().unwrap_or(0.0);
    let whole = container["SizeRootFs"].as_f64().unwrap_or(0.0);
    let shown = units::size(writable, 3);
    if whole > 0.0 {
        format!("{shown} (virtual {})", units::size(whole, 3))
    } else {
        shown
    }
}

/// Returns a container's own names, without those by which others link to it.
pub fn names(container: &Value, truncate: bool) -> String {
    let names: Vec<&str> = container["Names"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .map(|name| name.strip_prefix('/').unwrap_or(name))
        .collect();
    if truncate && let Some(own) = names.iter().find(|name| !name.contains('/')) {
        return (*own).to_owned();
    }
    names.join(",")
}

fn image(container: &Value, truncate: bool) -> String {
    let image = text(container, "Image");
    if image.is_empty() {
        return "<no image>".to_owned();
    }
    if !truncate {
        return image.to_owned();
    }
    let short = units::short_id(text(container, "ImageID"));
    if short == units::short_id(image) {
        return short.to_owned();
    }
    match reference::parse_any(image) {
        // The digest is left out; the tag stays.
        Ok(AnyReference::Named(reference)) => {
            let tag = reference
                .tag()
                .map(|tag| format!(":{tag}"))
                .unwrap_or_default();
            format!("{}{tag}", reference.familiar_name())
        }
        _ => image.to_owned(),
    }
}

/// One port of a container as the list shows it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Port {
    private: u64,
    ip: String,
    public: u64,
    kind: String,
}

/// Formats ports; neighbouring ones that are published under their own number are joined to ranges.
pub fn ports(ports: &Value) -> String {
    let mut ports: Vec<Port> = ports
        .as_array()
        .into_iter()
        .flatten()
        .map(|port| Port {
            private: port["PrivatePort"].as_u64().unwrap_or(0),
            ip: text(port, "IP").to_owned(),
            public: port["PublicPort"].as_u64().unwrap_or(0),
            kind: text(port, "Type").to_owned(),
        })
        .collect();
    ports.sort();
    let mut groups: Vec<(String, String, u64, u64)> = Vec::new();
    let (mut out, mut mapped) = (Vec::new(), Vec::new());
    for port in &ports {
        if !port.ip.is_empty() && port.public != port.private {
            mapped.push(format!(
                "{}->{}/{}",
                joined(&port.ip, &port.public.to_string()),
                port.private,
                port.kind
            ));
            continue;
        }
        match groups
            .iter_mut()
            .find(|group| group.0 == port.ip && group.1 == port.kind)
        {
            Some(group) if group.3 + 1 == port.private => group.3 = port.private,
            Some(group) => {
                out.push(shown(group));
                (group.2, group.3) = (port.private, port.private);
            }
            None => groups.push((
                port.ip.clone(),
                port.kind.clone(),
                port.private,
                port.private,
            )),
        }
    }
    out.extend(groups.iter().map(shown));
    out.extend(mapped);
    out.join(", ")
}

fn shown((ip, kind, first, last): &(String, String, u64, u64)) -> String {
    let range = if first == last {
        first.to_string()
    } else {
        format!("{first}-{last}")
    };
    if ip.is_empty() {
        format!("{range}/{kind}")
    } else {
        format!("{}->{range}/{kind}", joined(ip, &range))
    }
}

/// Joins an address and a port; IPv6 addresses get brackets.
pub fn joined(ip: &str, port: &str) -> String {
    if ip.contains(':') {
        format!("[{ip}]:{port}")
    } else {
        format!("{ip}:{port}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn ports_are_compacted() {
        let port = |ip: &str, private: u16, public: u16| json!({"IP": ip, "PrivatePort": private, "PublicPort": public, "Type": "tcp"});
        let check =
            |list: Vec<Value>, expected: &str| assert_eq!(ports(&Value::Array(list)), expected);
        check(
            vec![port("0.0.0.0", 80, 8080), port("::", 80, 8080)],
            "0.0.0.0:8080->80/tcp, [::]:8080->80/tcp",
        );
        check(
            vec![
                port("0.0.0.0", 80, 80),
                port("0.0.0.0", 81, 81),
                port("0.0.0.0", 90, 90),
            ],
            "0.0.0.0:80-81->80-81/tcp, 0.0.0.0:90->90/tcp",
        );
        check(
            vec![
                json!({"PrivatePort": 80, "Type": "tcp"}),
                json!({"PrivatePort": 81, "Type": "tcp"}),
            ],
            "80-81/tcp",
        );
        check(Vec::new(), "");
    }

    #[test]
    fn names_and_images() {
        let container = json!({"Names": ["/other/alias", "/web"], "Image": "busybox:latest@sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "ImageID": "sha256:bbbb"});
        assert_eq!(names(&container, true), "web");
        assert_eq!(names(&container, false), "other/alias,web");
        assert_eq!(image(&container, true), "busybox:latest");
    }
}
