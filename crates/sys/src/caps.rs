//! Capabilities: names, sets of the calling thread, the bounding set.
