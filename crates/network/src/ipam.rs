//! Addresses: which subnet a network gets, and which address a container. Pure.
//!
//! Docker gives the lowest free address and gives a freed one again at once, and people count on the first container
//! having `.2`. So does this; that the old interface with the address is harmless by then is `release`'s business, and
//! neighbours that remember the old hardware address are told the new one (`Endpoint::address_reused`).

use std::collections::HashSet;
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use crate::AddressPool;

/// Gives Docker's default pools: 172.17 to 172.31 as /16, then 192.168 as /20.
pub fn default_pools() -> Vec<AddressPool> {
    [
        ([172, 17, 0, 0], 16, 16),
        ([172, 18, 0, 0], 16, 16),
        ([172, 19, 0, 0], 16, 16),
        ([172, 20, 0, 0], 14, 16),
        ([172, 24, 0, 0], 14, 16),
        ([172, 28, 0, 0], 14, 16),
        ([192, 168, 0, 0], 16, 20),
    ]
    .into_iter()
    .map(|(base, prefix, size)| AddressPool {
        base: Ipv4Net::new_assert(base.into(), prefix),
        size,
    })
    .collect()
}

/// Finds the first subnet of the pools that overlaps nothing in `taken`.
pub fn choose_subnet(pools: &[AddressPool], taken: &[Ipv4Net]) -> Option<Ipv4Net> {
    pools
        .iter()
        .filter_map(|pool| pool.base.subnets(pool.size).ok())
        .flatten()
        .find(|candidate| !taken.iter().any(|net| overlap(*net, *candidate)))
}

/// Says whether two subnets share an address.
pub fn overlap(one: Ipv4Net, other: Ipv4Net) -> bool {
    one.contains(&other.network()) || other.contains(&one.network())
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
    subnet: Ipv4Net,
    /// First and last address given out without being asked for.
    first: u32,
    last: u32,
    gateway: Ipv4Addr,
    used: HashSet<u32>,
    /// Addresses that were used at some time: somebody may remember their hardware address.
    seen: HashSet<u32>,
    /// No address below this one is free.
    lowest: u32,
}

impl Pool {
    /// Makes the pool of a subnet; network, broadcast and gateway address are never given out.
    pub fn new(subnet: Ipv4Net, range: Option<Ipv4Net>, gateway: Ipv4Addr) -> Self {
        let range = range.unwrap_or(subnet);
        let (mut first, mut last) = (u32::from(range.network()), u32::from(range.broadcast()));
        if subnet.prefix_len() < 31 {
            first = first.max(u32::from(subnet.network()) + 1);
            last = last.min(u32::from(subnet.broadcast()) - 1);
        }
        Self {
            subnet,
            first,
            last,
            gateway,
            used: HashSet::new(),
            seen: HashSet::new(),
            lowest: first,
        }
    }

    /// Takes the lowest free address. The second value says whether it was used before.
    pub fn take(&mut self) -> Result<(Ipv4Addr, bool), Refused> {
        let mut candidate = self.lowest;
        while candidate <= self.last {
            if candidate != u32::from(self.gateway) && !self.used.contains(&candidate) {
                self.used.insert(candidate);
                self.lowest = candidate + 1;
                return Ok((candidate.into(), !self.seen.insert(candidate)));
            }
            candidate += 1;
        }
        self.lowest = candidate;
        Err(Refused::Exhausted)
    }

    /// Takes a certain address.
    pub fn take_this(&mut self, address: Ipv4Addr) -> Result<bool, Refused> {
        if !self.subnet.contains(&address) {
            return Err(Refused::Outside);
        }
        let reserved = self.subnet.prefix_len() < 31
            && (address == self.subnet.network() || address == self.subnet.broadcast());
        if address == self.gateway || reserved || !self.used.insert(address.into()) {
            return Err(Refused::Taken);
        }
        Ok(!self.seen.insert(address.into()))
    }

    /// Gives an address back; one that is free is no error.
    pub fn free(&mut self, address: Ipv4Addr) {
        let number = u32::from(address);
        if self.used.remove(&number) && number >= self.first && number < self.lowest {
            self.lowest = number;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn net(text: &str) -> Ipv4Net {
        text.parse().unwrap()
    }

    fn address(text: &str) -> Ipv4Addr {
        text.parse().unwrap()
    }

    #[test]
    fn the_first_container_gets_two_and_a_freed_address_is_given_again() {
        let mut pool = Pool::new(net("172.17.0.0/16"), None, address("172.17.0.1"));
        assert_eq!(pool.take(), Ok((address("172.17.0.2"), false)));
        assert_eq!(pool.take(), Ok((address("172.17.0.3"), false)));
        pool.free(address("172.17.0.2"));
        pool.free(address("172.17.0.2"));
        assert_eq!(pool.take(), Ok((address("172.17.0.2"), true)));
        assert_eq!(pool.take(), Ok((address("172.17.0.4"), false)));
    }

    #[test]
    fn a_small_subnet_runs_out_and_recovers() {
        let mut pool = Pool::new(net("10.0.0.0/29"), None, address("10.0.0.1"));
        for last in 2..=6 {
            assert_eq!(pool.take().unwrap().0, Ipv4Addr::new(10, 0, 0, last));
        }
        assert_eq!(pool.take(), Err(Refused::Exhausted));
        pool.free(address("10.0.0.4"));
        assert_eq!(pool.take(), Ok((address("10.0.0.4"), true)));
        assert_eq!(pool.take(), Err(Refused::Exhausted));
    }

    #[test]
    fn a_range_limits_what_is_given_but_not_what_is_asked_for() {
        let mut pool = Pool::new(
            net("10.1.0.0/16"),
            Some(net("10.1.8.0/30")),
            address("10.1.0.1"),
        );
        assert_eq!(pool.take().unwrap().0, address("10.1.8.0"));
        assert_eq!(pool.take_this(address("10.1.0.9")), Ok(false));
        assert_eq!(pool.take_this(address("10.1.0.9")), Err(Refused::Taken));
        assert_eq!(pool.take_this(address("10.2.0.9")), Err(Refused::Outside));
        assert_eq!(pool.take_this(address("10.1.0.1")), Err(Refused::Taken));
        assert_eq!(pool.take_this(address("10.1.255.255")), Err(Refused::Taken));
        pool.free(address("10.1.0.9"));
        assert_eq!(pool.take().unwrap().0, address("10.1.8.1"));
        assert_eq!(pool.take().unwrap().0, address("10.1.8.2"));
        assert_eq!(pool.take().unwrap().0, address("10.1.8.3"));
        assert_eq!(pool.take(), Err(Refused::Exhausted));
    }

    #[test]
    fn the_pools_hold_thirty_one_networks_and_skip_overlaps() {
        let pools = default_pools();
        let mut taken = Vec::new();
        while let Some(subnet) = choose_subnet(&pools, &taken) {
            taken.push(subnet);
        }
        assert_eq!(taken.len(), 31);
        assert_eq!(taken[0], net("172.17.0.0/16"));
        assert_eq!(taken[14], net("172.31.0.0/16"));
        assert_eq!(taken[15], net("192.168.0.0/20"));
        assert_eq!(
            choose_subnet(&pools, &[net("172.17.5.0/24")]),
            Some(net("172.18.0.0/16"))
        );
        assert_eq!(
            choose_subnet(&pools, &[net("172.16.0.0/12")]),
            Some(net("192.168.0.0/20"))
        );
        assert_eq!(choose_subnet(&pools, &[net("0.0.0.0/0")]), None);
    }
}
