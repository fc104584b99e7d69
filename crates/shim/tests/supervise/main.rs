//! The shim with real containers: it needs root, busybox (static) and nothing else. Every container lives in temporary
//! directories, namespaces and a cgroup of its own.

mod attach;
mod exec;
mod fixture;
mod lifecycle;
mod logs;
mod names;
