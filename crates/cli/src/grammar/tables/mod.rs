//! The command tree as constant data: nothing is built at process start.

pub mod container;
pub mod extras;
pub mod image;
pub mod network;
pub mod swarm;
pub mod system;
pub mod volume;
