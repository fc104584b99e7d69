//! The Linux boundary. Functions bear the name of their man page; nearly all `unsafe` of the project is here, each
//! block with the invariant that makes it sound. Nothing here knows what a container is.

pub mod caps;
pub mod cgroup;
pub mod datagrams;
pub mod epoll;
pub mod fs;
pub mod mount;
pub mod net;
pub mod netlink;
pub mod nft;
pub mod process;
pub mod pty;
pub mod seal;
pub mod seccomp;
pub mod shared;
pub mod unix;
pub mod xtables;
