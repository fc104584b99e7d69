//! A registry: the OCI distribution specification served over the content store.
