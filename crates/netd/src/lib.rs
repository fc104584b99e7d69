//! The netd role: one small process per engine that outlives the daemon.
//!
//! It holds a socket for each published host port, so that nobody else takes the port, and carries by that socket what
//! the firewall does not: connections to the host's IPv6 addresses, and everything while the ruleset is missing. It is
//! single-threaded and synchronous and knows no firewall and no container. Names will be answered here, too.

pub mod client;
pub mod protocol;
