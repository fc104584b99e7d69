//! Published and exposed ports: `[IP:][HOST[-END]:]CONTAINER[-END][/PROTOCOL]` and `published=,target=,protocol=`.

use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::net::IpAddr;

/// A host's side of a published port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Binding {
    pub ip: String,
    pub port: String,
}

/// Container ports (`80/tcp`) with their bindings; an exposed port has none.
pub type Ports = BTreeMap<String, Vec<Binding>>;

/// Parses the values of `-p`. The order of bindings of one port is that of the values.
pub fn parse_published(values: &[String]) -> Result<Ports, String> {
    let mut ports = Ports::new();
    for value in values {
        let value = if value.contains('=') {
            plain_form(value)?
        } else {
            value.clone()
        };
        for (port, binding) in parse_one(&value)? {
            ports.entry(port).or_default().push(binding);
        }
    }
    Ok(ports)
}

fn plain_form(value: &str) -> Result<String, String> {
    let (mut published, mut target, mut protocol) =
        (String::new(), String::new(), "tcp".to_owned());
    for parameter in value.split(',') {
        let Some((key, text)) = parameter.split_once('=').filter(|(key, _)| !key.is_empty()) else {
            return Err(format!(
                "invalid publish opts format (should be name=value but got '{parameter}')"
            ));
        };
        match key {
            "published" => published = text.to_owned(),
            "target" => target = text.to_owned(),
            "protocol" => protocol = text.to_owned(),
            _ => {}
        }
    }
    Ok(format!("{published}:{target}/{protocol}"))
}

fn parse_one(spec: &str) -> Result<Vec<(String, Binding)>, String> {
    let parts: Vec<&str> = spec.split(':').collect();
    let (ip, host, container) = match parts.as_slice() {
        [container] => (String::new(), "", *container),
        [host, container] => (String::new(), *host, *container),
        [ip @ .., host, container] => (ip.join(":"), *host, *container),
        [] => (String::new(), "", ""),
    };
    let (protocol, container) = split_protocol(container);
    let ip = match ip.strip_prefix('[') {
        Some(rest) => rest.strip_suffix(']').unwrap_or(rest).to_owned(),
        None => ip,
    };
    if !ip.is_empty() && ip.parse::<IpAddr>().is_err() {
        return Err(format!("invalid IP address: {ip}"));
    }
    if container.is_empty() {
        return Err(format!("no port specified: {spec}<empty>"));
    }
    let (start, end) =
        parse_range(container).map_err(|_| format!("invalid containerPort: {container}"))?;
    let (host_start, host_end) = match host {
        "" => (0, 0),
        host => parse_range(host).map_err(|_| format!("invalid hostPort: {host}"))?,
    };
    if !host.is_empty() && end - start != host_end - host_start && end != start {
        return Err(format!(
            "invalid ranges specified for container and host Ports: {container} and {host}"
        ));
    }
    let protocol = protocol.to_lowercase();
    if !matches!(protocol.as_str(), "tcp" | "udp" | "sctp") {
        return Err(format!("invalid proto: {protocol}"));
    }
    Ok((0..=end - start)
        .map(|offset| {
            let port = match host {
                "" => String::new(),
                // One container port with a range of host ports: the daemon chooses.
                _ if start == end && host_start != host_end => format!("{host_start}-{host_end}"),
                _ => (host_start + offset).to_string(),
            };
            (
                format!("{}/{protocol}", start + offset),
                Binding {
                    ip: ip.clone(),
                    port,
                },
            )
        })
        .collect())
}

fn split_protocol(port: &str) -> (&str, &str) {
    match port.split_once('/') {
        None => ("tcp", port),
        Some(("", _)) => ("", ""),
        Some((port, "")) => ("tcp", port),
        Some((port, protocol)) => (protocol, port),
    }
}

/// Parses `80` or `80-90`.
fn parse_range(text: &str) -> Result<(u32, u32), String> {
    if text.is_empty() {
        return Err("empty string specified for ports".to_owned());
    }
    let number = |text: &str| {
        crate::grammar::values::parse_unsigned_decimal(text, u16::MAX.into()).map(|n| n as u32)
    };
    match text.split_once('-') {
        None => number(text).map(|port| (port, port)),
        Some((start, end)) => {
            let (start, end) = (number(start)?, number(end)?);
            if end < start {
                return Err(format!("invalid range specified for port: {text}"));
            }
            Ok((start, end))
        }
    }
}

/// Adds the ports of `--expose`.
pub fn add_exposed(ports: &mut Ports, values: &[String]) -> Result<Vec<String>, String> {
    let mut exposed: Vec<String> = ports.keys().cloned().collect();
    for value in values {
        if value.contains(':') {
            return Err(format!("invalid port format for --expose: {value}"));
        }
        let (protocol, port) = split_protocol(value);
        let (start, end) = parse_range(port).map_err(|error| {
            format!("invalid range format for --expose: {value}, error: {error}")
        })?;
        for port in start..=end {
            let key = format!("{port}/{protocol}");
            if !exposed.contains(&key) {
                exposed.push(key);
            }
        }
    }
    exposed.sort();
    Ok(exposed)
}

/// Makes the API's `PortBindings`.
pub fn bindings(published: &Ports) -> Value {
    let bindings = published.iter().map(|(port, bindings)| {
        let list: Vec<_> = bindings
            .iter()
            .map(|b| json!({"HostIp": b.ip, "HostPort": b.port}))
            .collect();
        (port.clone(), json!(list))
    });
    Value::Object(bindings.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(spec: &str, expected: &str) {
        let got = match parse_published(&[spec.to_owned()]) {
            Ok(ports) => ports
                .iter()
                .flat_map(|(port, bindings)| {
                    bindings
                        .iter()
                        .map(move |b| format!("{}:{}->{port}", b.ip, b.port))
                })
                .collect::<Vec<_>>()
                .join(" "),
            Err(error) => error,
        };
        assert_eq!(got, expected, "{spec}");
    }

    #[test]
    fn published_ports() {
        check("80", ":->80/tcp");
        check("8080:80", ":8080->80/tcp");
        check("127.0.0.1::80/udp", "127.0.0.1:->80/udp");
        check("[::1]:8080:80", "::1:8080->80/tcp");
        check("::1:8080:80", "::1:8080->80/tcp");
        check("8000-8001:80-81", ":8000->80/tcp :8001->81/tcp");
        check("8000-8010:80", ":8000-8010->80/tcp");
        check("published=8080,target=80,protocol=udp", ":8080->80/udp");
    }

    #[test]
    fn refusals() {
        check("1:2:3:4:5", "invalid IP address: 1:2:3");
        check("foo", "invalid containerPort: foo");
        check("x:80", "invalid hostPort: x");
        check(
            "80-90:80-85",
            "invalid ranges specified for container and host Ports: 80-85 and 80-90",
        );
        check("80/foo", "invalid proto: foo");
        check(":", "no port specified: :<empty>");
        check(
            "target=80,foo",
            "invalid publish opts format (should be name=value but got 'foo')",
        );
    }

    #[test]
    fn exposed_ports_join_the_published() {
        let mut ports = parse_published(&["80".to_owned()]).expect("ports");
        let exposed = add_exposed(&mut ports, &["81-82/udp".to_owned(), "80".to_owned()]);
        assert_eq!(
            exposed,
            Ok(vec![
                "80/tcp".to_owned(),
                "81/udp".to_owned(),
                "82/udp".to_owned()
            ])
        );
        assert_eq!(
            add_exposed(&mut ports, &["foo".to_owned()]),
            Err("invalid range format for --expose: foo, error: strconv.ParseUint: parsing \"foo\": invalid syntax".to_owned())
        );
    }
}
