//! Published ports that pass from one endpoint of a container to another: the host's ports are never free in between, and
//! the rules change in one step.

use gantry_api::port::ReserveError;
use gantry_sys::nft::{Family, Transaction};

use super::publish::{refused, reservations};
use super::{Shared, Stack, lock};
use crate::firewall::{Publication, Sorted};
use crate::{Endpoint, Error, PortMapping, PublishedPort, Report, ports};

impl Stack {
    /// Chooses the host ports of `mappings` for the endpoint `to` and takes them over from `from`, which holds `held` and
    /// has none afterwards: all or none. Put the answer into the record before `publish_instead`.
    ///
    /// `None`: `from` has to let go first, because what it holds is in the way of what `to` wants, such as one address of
    /// the host's of all of them; or the reserver is of a version that cannot do this. Nothing has changed then.
    pub fn transfer_ports(
        &self,
        from: &Endpoint,
        held: &[PublishedPort],
        to: &Endpoint,
        mappings: &[PortMapping],
    ) -> Result<Option<Vec<PublishedPort>>, Error> {
        let shared = &self.shared;
        let mut ports = Vec::new();
        let taken = shared.take_over(from, to, mappings, &mut ports);
        if let Err(error) = taken {
            shared.free_ports(to, &ports);
            return match &error {
                Error::Reserver(ReserveError::Unavailable(_)) => Ok(None),
                Error::PortInUse { host, protocol, .. } => {
                    let is_own = |port: &PublishedPort| {
                        (port.protocol, port.host_port) == (*protocol, host.port())
                            && ports::collide(port.ip, host.ip())
                    };
                    match held.iter().any(is_own) {
                        true => Ok(None),
                        false => Err(error),
                    }
                }
                _ => Err(error),
            };
        }
        shared.free_ports(from, held);
        let chosen = shared.choose_the_rest(to, mappings, &mut ports);
        if let Err(error) = chosen {
            if let Err(cause) = self.return_ports(to, &ports, from, held) {
                (shared.config.warn)(&format!(
                    "give host ports back to container {}: {}",
                    from.container_id,
                    cause.whole()
                ));
            }
            return Err(error);
        }
        Ok(Some(ports))
    }

    /// Gives `from` back what it held before `transfer_ports`.
    ///
    /// # Errors
    /// Why it cannot have them. Nobody has them then, as `holds_ports` says.
    pub fn return_ports(
        &self,
        to: &Endpoint,
        ports: &[PublishedPort],
        from: &Endpoint,
        held: &[PublishedPort],
    ) -> Result<(), Error> {
        let shared = &self.shared;
        shared.free_ports(to, ports);
        lock(&shared.state).take_ports(from, held);
        let reserver = &shared.config.reserver;
        let returned = reserver.transfer(&to.id, &from.id, &reservations(from, held));
        returned.map_err(|error| {
            for endpoint in [to, from] {
                // A reserver that does not answer gives them up at the next start, which looks for their owners.
                let _ = reserver.release(&endpoint.id);
            }
            shared.free_ports(from, held);
            refused(from, held, error)
        })
    }

    /// Says whether an endpoint has these ports of the host's.
    pub fn holds_ports(&self, endpoint: &Endpoint, ports: &[PublishedPort]) -> bool {
        let state = lock(&self.shared.state);
        let mut numbered = ports.iter().filter(|port| port.host_port != 0);
        numbered.all(|port| {
            state
                .ports
                .has(&endpoint.id, port.protocol, port.host_port, port.ip)
        })
    }

    /// Leads ports that were taken over to the container by its endpoint `to` and no longer by `from`.
    pub fn publish_instead(
        &self,
        from: &Endpoint,
        to: &Endpoint,
        ports: &[PublishedPort],
    ) -> Result<(), Error> {
        let shared = &self.shared;
        let (gone, come, turned) = {
            let mut state = lock(&shared.state);
            let gone = state.published.get(&from.id).cloned().unwrap_or_default();
            let come = shared.publications(&state, to, ports);
            let turned = [
                (from, state.set_published(from, Vec::new())),
                (to, state.set_published(to, come.clone())),
            ];
            (gone, come, turned)
        };
        if !shared.config.firewall {
            return Ok(());
        }
        shared.replace_elements(&gone, &come)?;
        for (endpoint, turned) in turned {
            if turned {
                shared.apply_loopback_routing(Some(&endpoint.network))?;
            }
        }
        shared.allow_hairpin(&to.host_interface)?;
        let old: Vec<PublishedPort> = gone.iter().map(|one| one.port).collect();
        shared.forget_connections(from, &old)?;
        shared.forget_connections(to, ports)?;
        shared.warn_of_bypass(&come);
        Ok(())
    }
}

impl Shared {
    /// Takes over what is asked for by number.
    fn take_over(
        &self,
        from: &Endpoint,
        to: &Endpoint,
        mappings: &[PortMapping],
        taken: &mut Vec<PublishedPort>,
    ) -> Result<(), Error> {
        for mapping in mappings {
            let Some(port) = mapping.single_port() else {
                continue;
            };
            let places = self.places(to, mapping)?;
            let protocol = mapping.protocol;
            let mut state = lock(&self.state);
            let spared = Some(from.id.as_str());
            let conflict =
                state
                    .ports
                    .conflict_beside(mapping, port, &places.bound, &to.id, taken, spared);
            if let Some(address) = conflict {
                return Err(Error::PortAllocated {
                    address,
                    port,
                    protocol,
                });
            }
            state.ports.take(&to.id, protocol, port, &places.bound);
            drop(state);
            taken.extend(places.published(mapping, port));
        }
        let wanted = reservations(to, taken);
        let reserver = &self.config.reserver;
        reserver
            .transfer(&from.id, &to.id, &wanted)
            .map_err(|error| refused(to, taken, error))
    }

    /// Reserves what is free to be elsewhere.
    fn choose_the_rest(
        &self,
        to: &Endpoint,
        mappings: &[PortMapping],
        taken: &mut Vec<PublishedPort>,
    ) -> Result<(), Error> {
        for mapping in mappings.iter().filter(|one| one.single_port().is_none()) {
            let places = self.places(to, mapping)?;
            let number = self.reserve_one_of(to, mapping, &places.bound)?;
            taken.extend(places.published(mapping, number));
        }
        Ok(())
    }

    /// Replaces map elements by one transaction: no packet finds neither.
    fn replace_elements(&self, gone: &[Publication], come: &[Publication]) -> Result<(), Error> {
        let mut transaction = Transaction::new();
        for (set, elements) in Sorted::of(gone).iter() {
            transaction.delete_elements(Family::Inet, &self.table, set.name, elements);
        }
        for (set, elements) in Sorted::of(come).iter() {
            transaction.add_elements(Family::Inet, &self.table, set.name, elements);
        }
        let answer = transaction.commit(&lock(&self.nfnl));
        match answer {
            // The kernel has something else than the state says: the whole table is compared instead.
            Err(error) if matches!(error.errno(), libc::ENOENT | libc::EEXIST) => {
                self.apply_firewall(&mut Report::default())
            }
            answer => answer
                .map_err(|error| Error::kernel("move ports in table", &*self.table)(error.into())),
        }
    }
}
