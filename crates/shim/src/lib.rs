//! Supervises one container: parent of its init and of its execs, holder of its terminal and pipes, writer of its log,
//! keeper of its exit. One process per container, one thread, one epoll loop, no async runtime; it lives on when the
//! daemon does not.

pub mod log;
pub mod protocol;
