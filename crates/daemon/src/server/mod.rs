//! HTTP itself: connections, versions, queries, bodies. Knows no route and no engine verb.

pub mod body;
pub mod connection;
pub mod query;
pub mod request;
pub mod respond;
pub mod stream;
pub mod version;
