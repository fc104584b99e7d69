//! Kernel parameters (sysctl.d(5)) that belong to a namespace and not to the host.

/// The parameters of an IPC namespace, beside those beneath `fs.mqueue.`; see ipc_namespaces(7).
const IPC: [&str; 8] = [
    "kernel.msgmax",
    "kernel.msgmnb",
    "kernel.msgmni",
    "kernel.sem",
    "kernel.shmall",
    "kernel.shmmax",
    "kernel.shmmni",
    "kernel.shm_rmid_forced",
];

/// Tells whether a parameter, its name with dots between the parts, is one of an IPC namespace.
#[must_use]
pub fn is_of_ipc(name: &str) -> bool {
    IPC.contains(&name) || name.starts_with("fs.mqueue.")
}

/// Tells whether a parameter, its name with dots between the parts, is one of a network namespace.
#[must_use]
pub fn is_of_network(name: &str) -> bool {
    name.starts_with("net.")
}
