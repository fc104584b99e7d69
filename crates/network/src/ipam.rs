//! Addresses: which subnet a network gets, and which address a container. Pure, and the same for both families.
//!
//! Docker gives the lowest free address and gives a freed one again at once, and people count on the first container
//! having `.2`. So does this; that the old interface with the address is harmless by then is `release`'s business, and
//! neighbours that remember the old hardware address are told the new one (`Endpoint::address_reused`).

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv6Net};

use crate::AddressPool;

/// Docker's default pools for IPv4 and the size in which it cuts them.
const DEFAULT_POOLS: [([u8; 4], u8, u8); 7] = [
    ([172, 17, 0, 0], 16, 16),
    ([172, 18, 0, 0], 16, 16),
    ([172, 19, 0, 0], 16, 16),
    ([172, 20, 0, 0], 14, 16),
    ([172, 24, 0, 0], 14, 16),
    ([172, 28, 0, 0], 14, 16),
    ([192, 168, 0, 0], 16, 20),
];
/// Docker's pools hold 31 networks. Cut like this they hold 4,096; only the default bridge is as large as Docker's.
const USER_DEFINED_SIZE: u8 = 24;
/// Unique local addresses (RFC 4193): `fd`, forty random bits, sixteen bits for the networks.
const ULA_PREFIX: u8 = 48;
const ULA_SIZE: u8 = 64;

/// Gives the default pools of IPv4. `whole`: as large as Docker cuts them.
pub fn default_pools_v4(whole: bool) -> Vec<AddressPool> {
    DEFAULT_POOLS
        .into_iter()
        .map(|(base, prefix, size)| AddressPool {
            base: IpNet::new_assert(Ipv4Addr::from(base).into(), prefix),
            size: if whole { size } else { USER_DEFINED_SIZE },
        })
        .collect()
}

/// Gives the default pool of IPv6: the engine's own unique local prefix, made of its random id.
pub fn default_pools_v6(engine_id: &str) -> Vec<AddressPool> {
    let digits = engine_id.get(..10).unwrap_or(engine_id);
    let id = u64::from_str_radix(digits, 16).unwrap_or_default();
    let base = (0xfd << 120) | (u128::from(id) << 80);
    vec![AddressPool {
        base: Ipv6Net::new_assert(Ipv6Addr::from(base), ULA_PREFIX).into(),
        size: ULA_SIZE,
    }]
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u32::from(address).into(),
        IpAddr::V6(address) => address.into(),
    }
}

/// Gives the address of a number, in the family of `like`.
fn address(number: u128, like: IpAddr) -> IpAddr {
    match like {
        // Numbers of IPv4 pools come from IPv4 addresses and stay within their subnet.
        IpAddr::V4(_) => Ipv4Addr::from(number as u32).into(),
        IpAddr::V6(_) => Ipv6Addr::from(number).into(),
    }
}

fn bounds(net: IpNet) -> (u128, u128) {
    (number(net.network()), number(net.broadcast()))
}

fn same_family(one: IpNet, other: IpNet) -> bool {
    one.addr().is_ipv4() == other.addr().is_ipv4()
}

/// Finds the first subnet of the pools that overlaps nothing in `taken`. Goes once through each pool, however many
/// networks there are.
pub fn choose_subnet(pools: &[AddressPool], taken: &[IpNet]) -> Option<IpNet> {
    pools.iter().find_map(|pool| first_free_subnet(pool, taken))
}

fn first_free_subnet(pool: &AddressPool, taken: &[IpNet]) -> Option<IpNet> {
    let base = pool.base;
    let host_bits = u32::from(base.max_prefix_len().checked_sub(pool.size)?);
    if pool.size < base.prefix_len() {
        return None;
    }
    let (mut first, end) = bounds(base);
    let last_of =
        |first: u128| first | ((1u128.checked_shl(host_bits).unwrap_or(0)).wrapping_sub(1));
    let mut taken: Vec<(u128, u128)> = taken
        .iter()
        .filter(|net| same_family(**net, base) && overlap(**net, base))
        .map(|net| bounds(*net))
        .collect();
    taken.sort_unstable();
    for (start, stop) in taken {
        if start > last_of(first) {
            break;
        }
        if stop >= first {
            // The next multiple of the size behind what is taken.
            first = last_of(stop).checked_add(1)?;
        }
    }
    if first > end {
        return None;
    }
    IpNet::new(address(first, base.addr()), pool.size).ok()
}

/// Says whether two subnets share an address.
pub fn overlap(one: IpNet, other: IpNet) -> bool {
    same_family(one, other) && (one.contains(&other.network()) || other.contains(&one.network()))
}

/// Says whether no host can have an address of a subnet: it is the network's own, or all hosts' (IPv4).
///
/// An IPv4 subnet of one or two addresses has neither (RFC 3021).
pub fn is_of_the_subnet(address: IpAddr, subnet: IpNet) -> bool {
    match subnet {
        IpNet::V4(net) => {
            net.prefix_len() < 31 && (address == net.network() || address == net.broadcast())
        }
        IpNet::V6(net) => address == net.network(),
    }
}

/// Gives the address that a gateway has when nobody says which: the first that a host can have of the part that is for
/// containers, or else of the subnet. `None` if there is none.
pub fn default_gateway(subnet: IpNet, range: Option<IpNet>) -> Option<IpAddr> {
    let (first, last) = bounds(range.unwrap_or(subnet));
    let mut candidates = [Some(first), first.checked_add(1)].into_iter().flatten();
    candidates
        .find(|&number| number <= last && !is_of_the_subnet(address(number, subnet.addr()), subnet))
        .map(|number| address(number, subnet.addr()))
}

/// Why an address was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    Taken,
    Outside,
    Exhausted,
}

/// The addresses of one subnet.
#[derive(Debug)]
pub struct Pool {
    pub subnet: IpNet,
    /// First and last address given out without being asked for.
    first: u128,
    last: u128,
    /// Never given out: the gateway and what the user keeps for himself.
    reserved: HashSet<u128>,
    used: HashSet<u128>,
    /// Addresses that were used at some time: somebody may remember their hardware address.
    seen: HashSet<u128>,
    /// No address below this one is free.
    lowest: u128,
}

impl Pool {
    /// Makes the pool of a subnet; the network's and the broadcast address and what is `reserved` are never given out.
    pub fn new(
        subnet: IpNet,
        range: Option<IpNet>,
        reserved: impl IntoIterator<Item = IpAddr>,
    ) -> Self {
        let (mut first, mut last) = bounds(range.unwrap_or(subnet));
        let is_of_the_subnet = |number| is_of_the_subnet(address(number, subnet.addr()), subnet);
        if is_of_the_subnet(first) {
            first = first.saturating_add(1);
        }
        if is_of_the_subnet(last) && last > 0 {
            last -= 1;
        }
        Self {
            subnet,
            first,
            last,
            reserved: reserved
                .into_iter()
                .filter(|address| subnet.contains(address))
                .map(number)
                .collect(),
            used: HashSet::new(),
            seen: HashSet::new(),
            lowest: first,
        }
    }

    /// Takes the lowest free address. The second value says whether it was used before.
    pub fn take(&mut self) -> Result<(IpAddr, bool), Refused> {
        let mut candidate = self.lowest;
        while candidate <= self.last {
            if !self.reserved.contains(&candidate) && self.used.insert(candidate) {
                self.lowest = candidate + 1;
                let found = address(candidate, self.subnet.addr());
                return Ok((found, !self.seen.insert(candidate)));
            }
            candidate += 1;
        }
        self.lowest = candidate;
        Err(Refused::Exhausted)
    }

    /// Takes a certain address.
    pub fn take_this(&mut self, wanted: IpAddr) -> Result<bool, Refused> {
        if !self.subnet.contains(&wanted) {
            return Err(Refused::Outside);
        }
        let special = is_of_the_subnet(wanted, self.subnet);
        let wanted = number(wanted);
        if special || self.reserved.contains(&wanted) || !self.used.insert(wanted) {
            return Err(Refused::Taken);
        }
        Ok(!self.seen.insert(wanted))
    }

    /// Gives an address back; one that is free is no error.
    pub fn free(&mut self, address: IpAddr) {
        let number = number(address);
        if self.used.remove(&number) && number >= self.first && number < self.lowest {
            self.lowest = number;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn net(text: &str) -> IpNet {
        text.parse().unwrap()
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn pool(subnet: &str, range: Option<&str>, reserved: &[&str]) -> Pool {
        Pool::new(
            net(subnet),
            range.map(net),
            reserved.iter().map(|text| ip(text)),
        )
    }

    #[test]
    fn the_first_container_gets_two_and_a_freed_address_is_given_again() {
        for (subnet, gateway, first, second, third) in [
            (
                "172.17.0.0/16",
                "172.17.0.1",
                "172.17.0.2",
                "172.17.0.3",
                "172.17.0.4",
            ),
            (
                "fd00:1::/64",
                "fd00:1::1",
                "fd00:1::2",
                "fd00:1::3",
                "fd00:1::4",
            ),
        ] {
            let mut pool = pool(subnet, None, &[gateway]);
            assert_eq!(pool.take(), Ok((ip(first), false)));
            assert_eq!(pool.take(), Ok((ip(second), false)));
            pool.free(ip(first));
            pool.free(ip(first));
            assert_eq!(pool.take(), Ok((ip(first), true)));
            assert_eq!(pool.take(), Ok((ip(third), false)));
        }
    }

    #[test]
    fn a_small_subnet_runs_out_and_recovers() {
        let mut pool = pool("10.0.0.0/29", None, &["10.0.0.1"]);
        for last in 2..=6 {
            assert_eq!(pool.take().unwrap().0, IpAddr::from([10, 0, 0, last]));
        }
        assert_eq!(pool.take(), Err(Refused::Exhausted));
        pool.free(ip("10.0.0.4"));
        assert_eq!(pool.take(), Ok((ip("10.0.0.4"), true)));
        assert_eq!(pool.take(), Err(Refused::Exhausted));
    }

    #[test]
    fn the_last_address_is_a_broadcast_only_in_ipv4() {
        let mut four = pool("10.0.0.0/30", None, &["10.0.0.1"]);
        assert_eq!(four.take().unwrap().0, ip("10.0.0.2"));
        assert_eq!(four.take(), Err(Refused::Exhausted));
        assert_eq!(four.take_this(ip("10.0.0.3")), Err(Refused::Taken));
        let mut six = pool("fd00::/126", None, &["fd00::1"]);
        assert_eq!(six.take().unwrap().0, ip("fd00::2"));
        assert_eq!(six.take().unwrap().0, ip("fd00::3"));
        assert_eq!(six.take(), Err(Refused::Exhausted));
    }

    #[test]
    fn a_range_limits_what_is_given_but_not_what_is_asked_for() {
        let mut pool = pool(
            "10.1.0.0/16",
            Some("10.1.8.0/30"),
            &["10.1.0.1", "10.1.8.1"],
        );
        assert_eq!(pool.take().unwrap().0, ip("10.1.8.0"));
        assert_eq!(pool.take_this(ip("10.1.0.9")), Ok(false));
        assert_eq!(pool.take_this(ip("10.1.0.9")), Err(Refused::Taken));
        assert_eq!(pool.take_this(ip("10.2.0.9")), Err(Refused::Outside));
        assert_eq!(pool.take_this(ip("10.1.0.1")), Err(Refused::Taken));
        assert_eq!(pool.take_this(ip("10.1.8.1")), Err(Refused::Taken));
        assert_eq!(pool.take_this(ip("10.1.255.255")), Err(Refused::Taken));
        pool.free(ip("10.1.0.9"));
        assert_eq!(pool.take().unwrap().0, ip("10.1.8.2"));
        assert_eq!(pool.take().unwrap().0, ip("10.1.8.3"));
        assert_eq!(pool.take(), Err(Refused::Exhausted));
    }

    fn fill(pools: &[AddressPool]) -> Vec<IpNet> {
        let mut taken = Vec::new();
        while let Some(subnet) = choose_subnet(pools, &taken) {
            taken.push(subnet);
        }
        taken
    }

    #[test]
    fn the_pools_hold_thirty_one_of_dockers_networks_and_thousands_of_ours() {
        let dockers = fill(&default_pools_v4(true));
        assert_eq!(dockers.len(), 31);
        assert_eq!(dockers[0], net("172.17.0.0/16"));
        assert_eq!(dockers[14], net("172.31.0.0/16"));
        assert_eq!(dockers[15], net("192.168.0.0/20"));
        let few = [AddressPool {
            base: net("10.0.0.0/22"),
            size: 24,
        }];
        assert_eq!(fill(&few).len(), 4);
        let pools = default_pools_v4(false);
        let count: u32 = pools
            .iter()
            .map(|pool| 1 << (pool.size - pool.base.prefix_len()))
            .sum();
        assert_eq!(count, 4096);
    }

    #[test]
    fn what_overlaps_the_hosts_networks_is_skipped() {
        let check = |whole, taken: &[&str]| {
            let taken: Vec<IpNet> = taken.iter().map(|text| net(text)).collect();
            choose_subnet(&default_pools_v4(whole), &taken).map(|net| net.to_string())
        };
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(check(true, &["172.17.5.0/24"]), some("172.18.0.0/16"));
        assert_eq!(check(true, &["172.16.0.0/12"]), some("192.168.0.0/20"));
        assert_eq!(check(true, &["0.0.0.0/0"]), None);
        assert_eq!(check(false, &["172.17.0.0/16"]), some("172.18.0.0/24"));
        assert_eq!(
            check(false, &["172.17.0.0/16", "172.18.1.0/25", "172.18.0.0/24"]),
            some("172.18.2.0/24")
        );
        assert_eq!(check(false, &["fd00::/8"]), some("172.17.0.0/24"));
    }

    #[test]
    fn an_engine_has_its_own_unique_local_prefix() {
        let pools = default_pools_v6("0123456789abcdef");
        assert_eq!(pools[0].base, net("fd01:2345:6789::/48"));
        assert_eq!(choose_subnet(&pools, &[]), Some(net("fd01:2345:6789::/64")));
        assert_eq!(
            choose_subnet(&pools, &[net("fd01:2345:6789::/64")]),
            Some(net("fd01:2345:6789:1::/64"))
        );
        assert_eq!(choose_subnet(&pools, &[net("fd00::/8")]), None);
    }

    #[test]
    fn a_gateway_is_the_first_address_that_a_host_can_have() {
        // Asked of Docker 28.5.
        for (subnet, range, wanted) in [
            ("10.1.0.0/24", None, Some("10.1.0.1")),
            ("10.1.0.0/30", None, Some("10.1.0.1")),
            ("10.1.0.0/31", None, Some("10.1.0.0")),
            ("10.1.0.0/32", None, Some("10.1.0.0")),
            ("10.1.0.0/24", Some("10.1.0.16/28"), Some("10.1.0.16")),
            ("10.1.0.0/24", Some("10.1.0.0/25"), Some("10.1.0.1")),
            ("10.1.0.0/24", Some("10.1.0.4/32"), Some("10.1.0.4")),
            ("10.1.0.0/24", Some("10.1.0.0/32"), None),
            ("fd00::/64", None, Some("fd00::1")),
            ("fd00::/127", None, Some("fd00::1")),
            ("fd00::/128", None, None),
            ("fd00::/64", Some("fd00::/128"), None),
        ] {
            let given = default_gateway(net(subnet), range.map(net));
            assert_eq!(given, wanted.map(ip), "{subnet} {range:?}");
        }
    }
}
