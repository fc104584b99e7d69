//! Docker Engine API and OCI types, ids, references, digests, platforms, stream framing
