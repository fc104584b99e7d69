//! Overlay snapshots; tar apply and tar stream
