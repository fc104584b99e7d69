//! Bridges, addresses, published ports and the firewall against the real kernel.
//!
//! Each test moves its own thread into a new network namespace, which plays the host, so the machine's own network is
//! never touched. Needs root.

mod bridges;
mod contested;
mod dual;
mod foreign;
mod foreign_matrix;
mod golden;
mod isolation;
mod live;
mod macvlan;
mod measure;
mod published;
mod repair;
mod world;
