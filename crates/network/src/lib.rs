//! Bridges, addresses, published ports, firewall rules
