//! rtnetlink: one batch of messages per call.
