//! Reserved host ports and the forwards that the firewall cannot carry
