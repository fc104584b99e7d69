//! Test equipment: an engine in private namespaces, the reference engine, sessions that clean up after themselves.
//!
//! - [`engine`]: starts, kills and restarts a daemon whose files, networks and mounts are its own; or speaks to the
//!   reference engine, the real Docker, when `GANTRY_ORACLE_SOCKET` names its socket.
//! - [`session`]: one scenario's names, directory and clients; removes what the scenario made.
//! - [`outcome`]: what a command did, and assertions that show all of it when they fail.
//! - [`pty`], [`http`]: a terminal and a plain HTTP client, so that no client library hides what is on the wire.
//! - [`peer`]: registries of others, at the engine's side.
//! - [`registry`]: a registry in memory that records what it is asked and misbehaves on command.
//! - [`golden`]: answers recorded from the reference engine.
//! - [`leak`]: what an engine left behind, read from the kernel and the disk alone.
//!
//! Nothing here uses the engine's own crates: the tests see what a user sees.

pub mod engine;
pub mod golden;
pub mod http;
pub mod janitor;
pub mod leak;
pub mod outcome;
pub mod peer;
pub mod pty;
pub mod random;
pub mod registry;
pub mod runner;
pub mod session;
pub mod space;
pub mod wait;
pub mod words;
