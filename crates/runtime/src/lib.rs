//! OCI runtime over a bundle
