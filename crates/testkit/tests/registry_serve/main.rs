//! `gantry registry` as a user meets it: with skopeo, podman and Debian's docker-registry, with TLS and passwords, killed at
//! any moment, on a full disk.

mod clients;
mod place;
mod robust;
