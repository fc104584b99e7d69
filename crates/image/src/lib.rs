//! Content store, references, unpack, load and save
