//! Unix sockets: descriptors and credentials as control messages.
