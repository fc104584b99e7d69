//! Files beneath a descriptor: openat2, extended attributes, renameat2.
