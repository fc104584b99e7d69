//! clone3, pidfds, setns, spawn.
