//! What a container sees of its networks: addresses, settings and routes in its namespace.

use std::fs;
use std::io;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use gantry_sys::netlink::{Batch, Socket, route};

use super::{Shared, Stack, lock, macvlan};
use crate::{DefaultRoutes, Endpoint, Error, Netns, netns};

/// The word in a setting's name that stands for the interface.
const INTERFACE: &str = "IFNAME";

/// Gives the file of a setting such as `net.ipv4.conf.IFNAME.log_martians`; `None` for a name that is not of this form.
pub(super) fn setting_path(name: &str, interface: &str) -> Option<String> {
    let parts: Vec<&str> = name.split('.').collect();
    let valid = |part: &str| {
        !part.is_empty()
            && part
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'))
    };
    if parts.first() != Some(&"net")
        || !parts.contains(&INTERFACE)
        || !parts.iter().all(|part| valid(part))
    {
        return None;
    }
    let path: Vec<&str> = parts
        .into_iter()
        .map(|part| if part == INTERFACE { interface } else { part })
        .collect();
    Some(format!("/proc/sys/{}", path.join("/")))
}

/// Writes the settings of an endpoint's interface. Needs a thread in the namespace, so it is left out where there are
/// none.
///
/// `announced`: neighbours on a wire that is not ours may remember an earlier owner of the address; the kernel tells them
/// of the new one when the interface comes up.
fn write_settings(endpoint: &Endpoint, netns: &Netns, announced: bool) -> Result<(), Error> {
    let name = endpoint.container_interface.as_str();
    let ipv6 = endpoint.ipv6.is_some()
        || endpoint
            .link_local
            .iter()
            .any(|address| address.addr().is_ipv6());
    let mut settings = Vec::new();
    if ipv6 {
        let path = format!("/proc/sys/net/ipv6/conf/{name}/disable_ipv6");
        settings.push((path, "0"));
        if announced {
            let path = format!("/proc/sys/net/ipv6/conf/{name}/ndisc_notify");
            settings.push((path, "1"));
        }
    }
    if announced && endpoint.ipv4.is_some() {
        let path = format!("/proc/sys/net/ipv4/conf/{name}/arp_notify");
        settings.push((path, "1"));
    }
    for (key, value) in &endpoint.sysctls {
        let path = setting_path(key, name)
            .ok_or_else(|| Error::Invalid(format!("invalid endpoint sysctl: {key}")))?;
        settings.push((path, value.as_str()));
    }
    if settings.is_empty() {
        return Ok(());
    }
    let written = netns.enter(|| {
        for (path, value) in &settings {
            fs::write(path, value).map_err(|error| {
                io::Error::new(error.kind(), format!("write `{path}`: {error}"))
            })?;
        }
        Ok(())
    });
    written.map_err(Error::kernel("set up interface", name))
}

/// What an endpoint's interface is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Veth,
    /// On top of an interface of the host.
    Stacked,
    /// The same, and itself the way out, without a gateway (ipvlan l3).
    Routed,
}

/// Where a default route leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Way {
    link: u32,
    gateway: Option<IpAddr>,
}

impl Way {
    fn add(self, batch: &mut Batch, ipv6: bool) {
        match self.gateway {
            Some(gateway) => route::add_default_route(batch, self.link, gateway),
            None => route::add_default_link_route(batch, self.link, ipv6),
        }
    }
}

fn link_index(socket: &Socket, name: &str) -> Result<u32, Error> {
    let failed = || Error::kernel("set up interface", name);
    let link = route::link_by_name(socket, name)
        .map_err(failed())?
        .ok_or_else(|| failed()(io::ErrorKind::NotFound.into()))?;
    Ok(link.index)
}

/// Gives an endpoint's way out for one family. `routed`: the interface itself is the way (ipvlan l3).
fn way(endpoint: &Endpoint, link: u32, ipv6: bool, routed: bool) -> Option<Way> {
    let (address, gateway) = match ipv6 {
        true => (endpoint.ipv6.is_some(), endpoint.gateway_v6.map(IpAddr::V6)),
        false => (endpoint.ipv4.is_some(), endpoint.gateway.map(IpAddr::V4)),
    };
    if !address || (gateway.is_none() && !routed) {
        return None;
    }
    Some(Way {
        link,
        gateway: gateway.filter(|_| !routed),
    })
}

/// Sets up an endpoint's interface and `lo`: all of it in one sendmsg(2) through the socket inside the namespace.
pub(super) fn set_up(
    endpoint: &Endpoint,
    netns: &Netns,
    routes: DefaultRoutes,
    kind: Kind,
) -> Result<(), Error> {
    let routed = kind == Kind::Routed;
    let name = endpoint.container_interface.as_str();
    let failed = || Error::kernel("set up interface", name);
    write_settings(endpoint, netns, kind != Kind::Veth)?;
    let socket = netns.socket().map_err(failed())?;
    let link = link_index(&socket, name)?;
    let mut batch = Batch::new();
    netns::add_loopback_up(&mut batch);
    if let Some(address) = endpoint.ipv4 {
        route::add_address(&mut batch, link, address, endpoint.prefix_len);
    }
    if let Some(address) = endpoint.ipv6 {
        route::add_address(&mut batch, link, address, endpoint.prefix_len_v6);
    }
    for address in &endpoint.link_local {
        route::add_address(&mut batch, link, address.addr(), address.prefix_len());
    }
    route::set_up(&mut batch, link);
    for (ipv6, wanted) in [(false, routes.ipv4), (true, routes.ipv6)] {
        if wanted && let Some(way) = way(endpoint, link, ipv6, routed) {
            way.add(&mut batch, ipv6);
        }
    }
    socket
        .execute(&mut batch)
        .map_err(|error| failed()(error.into()))?;
    if let Some(address) = endpoint.ipv6 {
        wait_until_usable(&socket, link, address.into()).map_err(failed())?;
    }
    Ok(())
}

/// How long IPv6 addresses are waited for; without it the container starts and finds out by itself.
const USABLE_WITHIN: Duration = Duration::from_millis(200);
const USABLE_PAUSE: Duration = Duration::from_micros(200);

/// Waits for the kernel's worker that makes an IPv6 address usable, also one that nobody else is asked about: until then
/// binding it fails, and what others send to it is lost.
fn wait_until_usable(socket: &Socket, link: u32, address: IpAddr) -> io::Result<()> {
    let end = Instant::now() + USABLE_WITHIN;
    let is_waiting =
        |one: &route::Address| one.link == link && one.address == address && one.tentative;
    while route::addresses(socket)?.iter().any(is_waiting) && Instant::now() < end {
        std::thread::sleep(USABLE_PAUSE);
    }
    Ok(())
}

/// Tells which default routes a namespace lacks.
pub(super) fn missing_routes(netns: &Netns) -> io::Result<DefaultRoutes> {
    let routes = route::routes(&netns.socket()?)?;
    let any = |ipv6: bool| {
        routes
            .iter()
            .any(|route| route.is_default() && route.destination.is_ipv6() == ipv6)
    };
    Ok(DefaultRoutes {
        ipv4: !any(false),
        ipv6: !any(true),
    })
}

impl Stack {
    /// Lets a container's default routes lead to these endpoints' gateways, after a live connect or disconnect. Only
    /// what leads to the gateway of an endpoint is touched: a default route of the container's own (a VPN's) stays, and
    /// where none of ours stands beside it, none is put in its way.
    pub fn set_default_routes(
        &self,
        netns: &Netns,
        ipv4: Option<&Endpoint>,
        ipv6: Option<&Endpoint>,
    ) -> Result<(), Error> {
        let failed = || Error::kernel("set", "default routes");
        let socket = netns.socket().map_err(failed())?;
        let standing = route::routes(&socket).map_err(failed())?;
        let links = route::links(&socket).map_err(failed())?;
        let mut batch = Batch::new();
        for (is_ipv6, endpoint) in [(false, ipv4), (true, ipv6)] {
            let wanted = match endpoint {
                None => None,
                Some(endpoint) => {
                    let link = link_index(&socket, &endpoint.container_interface)?;
                    let routed = self.shared.is_routed(&endpoint.network);
                    way(endpoint, link, is_ipv6, routed)
                }
            };
            let ours = self.shared.ways(&links, is_ipv6);
            let (mut stands, mut left, mut foreign) = (false, false, false);
            for route in standing.iter().filter(|route| {
                // What a router announced is not ours to take.
                route.is_default() && route.destination.is_ipv6() == is_ipv6 && !route.advertised
            }) {
                let found = route.link.map(|link| Way {
                    link,
                    gateway: route.gateway,
                });
                if found == wanted && !stands {
                    stands = true;
                } else if found.is_some_and(|found| ours.contains(&found)) {
                    route::delete_default_route(&mut batch, route);
                    left = true;
                } else {
                    foreign = true;
                }
            }
            if let Some(way) = wanted.filter(|_| !stands && (left || !foreign)) {
                way.add(&mut batch, is_ipv6);
            }
        }
        socket
            .execute(&mut batch)
            .map_err(|error| failed()(error.into()))
    }

    /// Takes an endpoint's interface out of a living container. Address and ports are given back by `release`.
    pub fn disconnect(&self, endpoint: &Endpoint, netns: &Netns) -> Result<(), Error> {
        if let Some(network) = lock(&self.shared.state).networks.get_mut(&endpoint.network) {
            // Nobody is to mend what goes on purpose.
            network.connected.remove(&endpoint.host_interface);
        }
        let name = endpoint.container_interface.as_str();
        let failed = || Error::kernel("delete interface", name);
        // Looked for by the host's end, which nobody in the container can rename.
        if self.shared.delete_veth(&endpoint.host_interface)? {
            return Ok(());
        }
        let socket = netns.socket().map_err(failed())?;
        let Some(link) = route::link_by_name(&socket, name).map_err(failed())? else {
            return Ok(());
        };
        if link.address != Some(endpoint.mac.0) && link.kind.as_deref() != Some("ipvlan") {
            // Another network's interface has the name by now.
            return Ok(());
        }
        let mut batch = Batch::new();
        route::delete_link(&mut batch, link.index);
        match socket.execute(&mut batch) {
            Err(error) if error.errno() == libc::ENODEV => Ok(()),
            answer => answer.map_err(|error| failed()(error.into())),
        }
    }
}

impl Shared {
    /// Gives the ways out that endpoints have by these interfaces of one container. An interface is known by its
    /// hardware address, since the container may have renamed it; ipvlan's is the parent's, so there the name tells.
    fn ways(&self, links: &[route::Link], ipv6: bool) -> Vec<Way> {
        let state = lock(&self.state);
        let mut ways = Vec::new();
        for network in state.networks.values() {
            let routed = macvlan::is_routed(&network.config);
            for endpoint in network.endpoints.values() {
                let own = links.iter().filter(|link| match link.kind.as_deref() {
                    Some("ipvlan") => link.name == endpoint.container_interface,
                    _ => link.address == Some(endpoint.mac.0),
                });
                ways.extend(own.filter_map(|link| way(endpoint, link.index, ipv6, routed)));
            }
        }
        ways
    }

    pub(super) fn is_routed(&self, network: &str) -> bool {
        lock(&self.state)
            .networks
            .get(network)
            .is_some_and(|network| macvlan::is_routed(&network.config))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_files_of_the_interface_and_of_nothing_else() {
        let check = |name| setting_path(name, "eth1.5");
        assert_eq!(
            check("net.ipv4.conf.IFNAME.log_martians").as_deref(),
            Some("/proc/sys/net/ipv4/conf/eth1.5/log_martians")
        );
        for bad in [
            "net.ipv4.ip_forward",
            "kernel.IFNAME",
            "net.ipv4.conf.IFNAME/../../../x",
            "net.ipv4..IFNAME",
            "",
        ] {
            assert_eq!(check(bad), None, "{bad}");
        }
    }
}
