//! What one container may ask for, and the answer to it: Docker's rules of which name means what.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::rc::Rc;

use super::host_file;
use super::message::{self, TYPE_A, TYPE_AAAA, TYPE_MX, TYPE_PTR};
use super::zone::Zones;
use crate::protocol::{self, Resolver};

/// A container's view of the names.
#[derive(Debug)]
pub struct Asker {
    networks: Vec<Network>,
    pub upstreams: Upstreams,
    ndots_is_set: bool,
    pub forwards: bool,
}

/// Who is asked for what is not known here.
#[derive(Debug)]
pub enum Upstreams {
    /// The servers that the host's file names.
    Host(PathBuf),
    /// Servers that are asked from the container's namespace.
    Container(Rc<[SocketAddr]>),
}

#[derive(Debug)]
struct Network {
    id: Box<str>,
    name: String,
    /// In lower case.
    folded: Box<[u8]>,
    links: HashMap<Box<[u8]>, Box<[u8]>>,
}

/// What is known of a question.
#[derive(Debug, PartialEq, Eq)]
pub enum Known {
    /// The addresses were appended; there may be none of the wanted kind.
    Addresses,
    Pointer(String),
    /// The name exists, or must not be asked for elsewhere, and has nothing of this kind.
    Nothing,
    /// Others may know.
    Unknown,
}

fn folded(text: &str) -> Box<[u8]> {
    text.to_ascii_lowercase().into_bytes().into_boxed_slice()
}

impl From<&Resolver> for Asker {
    fn from(resolver: &Resolver) -> Self {
        let network = |network: &protocol::ResolverNetwork| Network {
            id: network.id.as_str().into(),
            name: network.name.clone(),
            folded: folded(&network.name),
            links: network
                .links
                .iter()
                .map(|(alias, target)| (folded(alias), folded(target)))
                .collect(),
        };
        Self {
            networks: resolver.networks.iter().map(network).collect(),
            upstreams: match &resolver.upstreams {
                protocol::Upstreams::Host { path } => Upstreams::Host(path.clone()),
                protocol::Upstreams::Container { servers } => {
                    Upstreams::Container(host_file::with_port(servers))
                }
            },
            ndots_is_set: resolver.ndots_is_set,
            forwards: resolver.forwards,
        }
    }
}

impl Asker {
    /// Answers a question from what is known here; addresses are appended to `found`.
    pub fn look_up(
        &self,
        zones: &Zones,
        name: &message::Name,
        kind: u16,
        found: &mut Vec<IpAddr>,
    ) -> Known {
        let Some(name) = name.text() else {
            return Known::Unknown;
        };
        match kind {
            TYPE_A | TYPE_AAAA => {
                let is_wanted = |address: &IpAddr| address.is_ipv4() == (kind == TYPE_A);
                if self.find(zones, name, is_wanted, found) {
                    return Known::Addresses;
                }
                // With `ndots` set by the user, a name without a dot is left to the search list.
                if self.ndots_is_set && !name.contains(&b'.') {
                    return Known::Nothing;
                }
                Known::Unknown
            }
            TYPE_MX if self.find(zones, name, |_| false, found) => Known::Nothing,
            TYPE_PTR => {
                let pointer = address_of(name).and_then(|address| self.reverse(zones, address));
                pointer.map_or(Known::Unknown, Known::Pointer)
            }
            _ => Known::Unknown,
        }
    }

    /// Finds a name. `a.b.c` may be that name on any network, `a.b` on network `c`, or `a` on network `b.c`.
    fn find(
        &self,
        zones: &Zones,
        name: &[u8],
        is_wanted: impl Fn(&IpAddr) -> bool + Copy,
        found: &mut Vec<IpAddr>,
    ) -> bool {
        let (mut end, mut network) = (name.len(), None::<&[u8]>);
        loop {
            for links in [true, false] {
                let mut is_known = false;
                for candidate in &self.networks {
                    if network.is_some_and(|network| *network != *candidate.folded) {
                        continue;
                    }
                    let target = if links {
                        match candidate.links.get(&name[..end]) {
                            Some(target) => target,
                            None => continue,
                        }
                    } else {
                        &name[..end]
                    };
                    is_known |= zones.find(&candidate.id, target, is_wanted, found);
                    // The first network that has any answers.
                    if !found.is_empty() {
                        return true;
                    }
                }
                if is_known {
                    return true;
                }
            }
            match name[..end].iter().rposition(|&byte| byte == b'.') {
                Some(dot) => (end, network) = (dot, Some(&name[dot + 1..])),
                None => return false,
            }
        }
    }

    fn reverse(&self, zones: &Zones, address: IpAddr) -> Option<String> {
        self.networks.iter().find_map(|network| {
            let name = zones.reverse(&network.id, address)?;
            Some(format!("{name}.{}", network.name))
        })
    }
}

/// Reads `4.3.2.1.in-addr.arpa` and the like of IPv6.
fn address_of(name: &[u8]) -> Option<IpAddr> {
    let name = std::str::from_utf8(name).ok()?;
    if let Some(reversed) = name.strip_suffix(".in-addr.arpa") {
        let mut octets = [0; 4];
        let mut parts = reversed.split('.');
        for octet in octets.iter_mut().rev() {
            let part = parts.next()?;
            if !part.bytes().all(|byte| byte.is_ascii_digit()) {
                return None;
            }
            *octet = part.parse().ok()?;
        }
        return parts
            .next()
            .is_none()
            .then(|| Ipv4Addr::from(octets).into());
    }
    let reversed = name.strip_suffix(".ip6.arpa")?;
    let (mut value, mut count) = (0u128, 0);
    for part in reversed.split('.') {
        let [digit] = part.as_bytes() else {
            return None;
        };
        let digit = char::from(*digit).to_digit(16)?;
        if count == 32 {
            return None;
        }
        value |= u128::from(digit) << (4 * count);
        count += 1;
    }
    (count == 32).then(|| Ipv6Addr::from(value).into())
}

#[cfg(test)]
#[path = "asker_tests.rs"]
mod tests;
