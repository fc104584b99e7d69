//! The registry over HTTP, on a loopback port: every endpoint, and every way in which it refuses.

mod access;
mod bounds;
mod cache;
mod client;
mod collect;
mod lists;
mod manifests;
mod uploads;
