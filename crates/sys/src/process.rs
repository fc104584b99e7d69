//! Processes: clone3, pidfds, namespaces, attributes of the calling process, spawn.
//!
//! Two ways to make a process: [`clone3`] copies the caller, which must have one thread, and runs a closure in the copy;
//! [`spawn`] executes a program and may be called by any process, however large and threaded. Every descriptor is
//! close-on-exec. [`keep_descriptors`] makes one that shares the caller's descriptors and does nothing but keep them.

mod attributes;
mod clone;
mod keeper;
mod loopback;
mod spawn;

pub use attributes::*;
pub use clone::*;
pub use keeper::*;
pub use loopback::*;
pub use spawn::*;
