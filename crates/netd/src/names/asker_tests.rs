use super::*;
use crate::protocol::{NamedEndpoint, ResolverNetwork};

fn endpoint(network: &str, id: &str, names: &[&str], addresses: &[&str]) -> NamedEndpoint {
    NamedEndpoint {
        network: network.to_owned(),
        endpoint: id.to_owned(),
        names: names.iter().map(|&name| name.to_owned()).collect(),
        primary: names[0].to_owned(),
        addresses: addresses.iter().map(|text| text.parse().unwrap()).collect(),
    }
}

fn zones() -> Zones {
    let mut zones = Zones::default();
    zones.put(endpoint(
        "n1",
        "e1",
        &["web", "0123456789ab"],
        &["10.1.0.2"],
    ));
    zones.put(endpoint("n2", "e2", &["web"], &["10.2.0.2", "fd00::2"]));
    zones.put(endpoint("n2", "e3", &["db.internal"], &["10.2.0.3"]));
    zones.put(endpoint("n3", "e4", &["hidden"], &["10.3.0.2"]));
    zones
}

fn asker(ndots_is_set: bool) -> Asker {
    let network = |id: &str, name: &str, links: &[(&str, &str)]| ResolverNetwork {
        id: id.to_owned(),
        name: name.to_owned(),
        links: links
            .iter()
            .map(|(alias, target)| ((*alias).to_owned(), (*target).to_owned()))
            .collect(),
    };
    Asker::from(&Resolver {
        container: "c".to_owned(),
        networks: vec![
            network("n1", "front", &[("Site", "web"), ("gone", "nobody")]),
            network("n2", "Back.End", &[("store", "e3")]),
        ],
        upstreams: protocol::Upstreams::Container {
            servers: Vec::new(),
        },
        ndots_is_set,
        forwards: true,
    })
}

/// Asks as a client does, by a message.
fn ask(asker: &Asker, name: &str, kind: u16) -> (Known, Vec<String>) {
    let mut bytes = vec![0, 1, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        bytes.push(label.len() as u8);
        bytes.extend_from_slice(label.as_bytes());
    }
    bytes.push(0);
    bytes.extend_from_slice(&kind.to_be_bytes());
    bytes.extend_from_slice(&[0, 1]);
    let query = message::parse(&bytes).unwrap();
    let mut found = Vec::new();
    let known = asker.look_up(&zones(), &query.name, kind, &mut found);
    (known, found.iter().map(IpAddr::to_string).collect())
}

#[test]
fn a_name_means_what_it_means_for_docker() {
    let asker = asker(false);
    for (name, kind, want) in [
        ("web", TYPE_A, Some(vec!["10.1.0.2"])),
        ("WEB", TYPE_A, Some(vec!["10.1.0.2"])),
        ("0123456789ab", TYPE_A, Some(vec!["10.1.0.2"])),
        ("web.front", TYPE_A, Some(vec!["10.1.0.2"])),
        ("web.back.end", TYPE_A, Some(vec!["10.2.0.2"])),
        ("web.back.end", TYPE_AAAA, Some(vec!["fd00::2"])),
        // The second network has what the first has not.
        ("web", TYPE_AAAA, Some(vec!["fd00::2"])),
        ("db.internal", TYPE_A, Some(vec!["10.2.0.3"])),
        ("db.internal.back.end", TYPE_A, Some(vec!["10.2.0.3"])),
        // Known, and without an address of this family: nobody else is asked.
        ("db.internal", TYPE_AAAA, Some(vec![])),
        ("site", TYPE_A, Some(vec!["10.1.0.2"])),
        ("site.front", TYPE_A, Some(vec!["10.1.0.2"])),
        ("store", TYPE_A, Some(vec!["10.2.0.3"])),
        ("site.back.end", TYPE_A, None),
        ("gone", TYPE_A, None),
        ("hidden", TYPE_A, None),
        ("db.internal.front", TYPE_A, None),
        ("example.com", TYPE_A, None),
    ] {
        let (known, found) = ask(&asker, name, kind);
        match want {
            Some(want) => {
                assert_eq!(known, Known::Addresses, "{name}");
                assert_eq!(found, want, "{name}");
            }
            None => assert_eq!((known, found), (Known::Unknown, vec![]), "{name}"),
        }
    }
}

#[test]
fn other_types_of_a_known_name_are_nothing_or_others() {
    let asker = asker(false);
    assert_eq!(ask(&asker, "web", TYPE_MX).0, Known::Nothing);
    assert_eq!(ask(&asker, "example.com", TYPE_MX).0, Known::Unknown);
    assert_eq!(ask(&asker, "web", 16).0, Known::Unknown);
}

#[test]
fn an_address_leads_back_to_the_name_on_its_network() {
    let asker = asker(false);
    let pointer = |name: &str| ask(&asker, name, TYPE_PTR).0;
    let ip6 = "2.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.d.f.ip6.arpa";
    assert_eq!(
        pointer("2.0.1.10.in-addr.arpa"),
        Known::Pointer("web.front".to_owned())
    );
    assert_eq!(pointer(ip6), Known::Pointer("web.Back.End".to_owned()));
    for other in [
        "2.0.3.10.in-addr.arpa",
        "0.1.10.in-addr.arpa",
        "2.0.1.10.1.in-addr.arpa",
        "+2.0.1.10.in-addr.arpa",
        "256.0.1.10.in-addr.arpa",
        "d.f.ip6.arpa",
        &format!("2.{ip6}"),
        &ip6.replacen('2', "g", 1),
        "web",
    ] {
        assert_eq!(pointer(other), Known::Unknown, "{other}");
    }
}

#[test]
fn with_ndots_a_lone_word_is_not_passed_on() {
    let asker = asker(true);
    assert_eq!(ask(&asker, "word", TYPE_A).0, Known::Nothing);
    assert_eq!(ask(&asker, "word", 16).0, Known::Unknown);
    assert_eq!(ask(&asker, "two.words", TYPE_A).0, Known::Unknown);
    assert_eq!(ask(&asker, "web", TYPE_A).1, ["10.1.0.2"]);
}
