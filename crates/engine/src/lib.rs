//! Containers, volumes, networks and images as one domain
