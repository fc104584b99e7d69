//! Typed Docker Engine API client
