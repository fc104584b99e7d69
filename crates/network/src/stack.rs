//! All networks of one engine.

use crate::{
    BridgeConfig, BridgeInfo, Endpoint, EndpointRequest, Error, Netns, PortMapping, PublishedPort,
    Report, StackConfig,
};

/// All networks of one engine. Cheap to share behind an `Arc`; methods may be called from several threads.
pub struct Stack {}

fn unsupported<T>() -> Result<T, Error> {
    Err(Error::Invalid("unsupported".to_owned()))
}

impl Stack {
    /// Brings up the default bridge, the user-defined `networks` and the firewall table; takes the endpoints of `live`
    /// containers as allocated. Changes nothing that stands already.
    pub fn open(
        _config: StackConfig,
        _networks: &[BridgeConfig],
        _live: &[(Endpoint, Vec<PublishedPort>)],
    ) -> Result<Self, Error> {
        unsupported()
    }
    /// Describes the default bridge.
    pub fn bridge(&self) -> Option<BridgeInfo> {
        None
    }
    /// Describes a network.
    pub fn network(&self, _id: &str) -> Result<BridgeInfo, Error> {
        unsupported()
    }
    /// Makes a user-defined bridge network.
    pub fn create_network(&self, _config: &BridgeConfig) -> Result<BridgeInfo, Error> {
        unsupported()
    }
    /// Removes a user-defined network without endpoints; one that is gone is no error.
    pub fn remove_network(&self, _id: &str) -> Result<(), Error> {
        unsupported()
    }
    /// Chooses address, names and hardware address. Touches no kernel object.
    pub fn allocate(&self, _request: &EndpointRequest) -> Result<Endpoint, Error> {
        unsupported()
    }
    /// Makes the veth pair, addresses and routes of `endpoint` in `netns`.
    pub fn connect(&self, _endpoint: &Endpoint, _netns: &Netns) -> Result<(), Error> {
        unsupported()
    }
    /// Chooses and reserves host ports: all or none. Put the answer into the record before `publish`.
    pub fn reserve_ports(
        &self,
        _endpoint: &Endpoint,
        _mappings: &[PortMapping],
    ) -> Result<Vec<PublishedPort>, Error> {
        unsupported()
    }
    /// Leads reserved ports to the container.
    pub fn publish(&self, _endpoint: &Endpoint, _ports: &[PublishedPort]) -> Result<(), Error> {
        unsupported()
    }
    /// Gives back everything of `endpoint`: ports, rules, address. May be called at any stage and again.
    pub fn release(&self, _endpoint: &Endpoint, _ports: &[PublishedPort]) -> Result<(), Error> {
        unsupported()
    }
    /// Compares the kernel with `live` and mends the difference; removes what has this engine's mark and no owner.
    pub fn reconcile(&self, _live: &[(Endpoint, Vec<PublishedPort>)]) -> Result<Report, Error> {
        unsupported()
    }
    /// Removes table, bridges and marks in other tables: the engine is being uninstalled or was a test.
    pub fn teardown(&self) -> Result<(), Error> {
        unsupported()
    }
}
