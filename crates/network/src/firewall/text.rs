//! The table in nft's own language, with the reason above each rule.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};

use gantry_sys::nft::{BaseChain, Element, ElementValue, Hook, Set, Type, Value, Verdict};

use super::Ruleset;

fn type_text(parts: &[Type]) -> String {
    parts
        .iter()
        .map(|part| part.name)
        .collect::<Vec<_>>()
        .join(" . ")
}

/// Prints a concatenation by its types.
fn value_text(parts: &[Type], mut bytes: &[u8]) -> String {
    let mut words = Vec::new();
    for part in parts {
        let size = (part.size as usize).min(bytes.len());
        let value = &bytes[..size];
        bytes = &bytes[(part.size.next_multiple_of(4) as usize).min(bytes.len())..];
        words.push(match (part.name, value) {
            ("ipv4_addr", &[a, b, c, d]) => Ipv4Addr::new(a, b, c, d).to_string(),
            ("ipv6_addr", octets) if octets.len() == 16 => octets
                .first_chunk::<16>()
                .map(|octets| Ipv6Addr::from(*octets).to_string())
                .unwrap_or_default(),
            ("inet_proto", [6]) => "tcp".to_owned(),
            ("inet_proto", [17]) => "udp".to_owned(),
            ("inet_proto", [132]) => "sctp".to_owned(),
            ("inet_service", &[high, low]) => u16::from_be_bytes([high, low]).to_string(),
            ("ifname", name) => {
                let end = name
                    .iter()
                    .position(|&byte| byte == 0)
                    .unwrap_or(name.len());
                format!("\"{}\"", String::from_utf8_lossy(&name[..end]))
            }
            (_, other) => format!("{other:?}"),
        });
    }
    words.join(" . ")
}

fn element_text(set: &Set, element: &Element) -> String {
    let key = value_text(set.key, &element.key);
    match (&element.value, set.value) {
        (ElementValue::Data(data), Some(Value::Data(parts))) => {
            format!("{key} : {}", value_text(parts, data))
        }
        (ElementValue::Verdict(Verdict::Jump(chain)), _) => format!("{key} : jump {chain}"),
        (ElementValue::Verdict(verdict), _) => format!("{key} : {verdict:?}"),
        _ => key,
    }
}

fn base_text(base: &BaseChain) -> String {
    let hook = match base.hook {
        Hook::Prerouting => "prerouting",
        Hook::Input => "input",
        Hook::Forward => "forward",
        Hook::Output => "output",
        Hook::Postrouting => "postrouting",
    };
    // nft prints the usual priorities by name, and -100 so at prerouting alone.
    let priority = match (base.priority, base.hook) {
        (-300, _) => "raw".to_owned(),
        (-100, Hook::Prerouting) => "dstnat".to_owned(),
        (0, _) => "filter".to_owned(),
        (100, Hook::Postrouting) => "srcnat".to_owned(),
        (number, _) => number.to_string(),
    };
    let policy = match base.policy {
        gantry_sys::nft::Policy::Accept => "accept",
        gantry_sys::nft::Policy::Drop => "drop",
    };
    format!(
        "type {} hook {hook} priority {priority}; policy {policy};",
        base.kind
    )
}

impl fmt::Display for Ruleset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "table inet {} {{", self.table)?;
        for filled in &self.sets {
            let set = &filled.set;
            let kind = if set.value.is_some() { "map" } else { "set" };
            writeln!(f, "\t{kind} {} {{", set.name)?;
            let value = match set.value {
                None => String::new(),
                Some(Value::Verdict) => " : verdict".to_owned(),
                Some(Value::Data(parts)) => format!(" : {}", type_text(parts)),
            };
            writeln!(f, "\t\ttype {}{value}", type_text(set.key))?;
            if !filled.elements.is_empty() {
                let elements: Vec<String> = filled
                    .elements
                    .iter()
                    .map(|element| element_text(set, element))
                    .collect();
                writeln!(f, "\t\telements = {{ {} }}", elements.join(", "))?;
            }
            writeln!(f, "\t}}\n")?;
        }
        for (index, chain) in self.chains.iter().enumerate() {
            if index > 0 {
                writeln!(f)?;
            }
            writeln!(f, "\tchain {} {{", chain.name)?;
            if let Some(base) = &chain.base {
                writeln!(f, "\t\t{}", base_text(base))?;
            }
            for rule in &chain.rules {
                writeln!(f, "\t\t# {}", rule.why)?;
                writeln!(f, "\t\t{rule} comment \"{}\"", rule.comment())?;
            }
            writeln!(f, "\t}}")?;
        }
        writeln!(f, "}}")
    }
}
