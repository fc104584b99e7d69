//! A container's place on a network: what clients wish for, as the engine has it.

use gantry_api::network::{EndpointIpamConfig, EndpointSettings};
use gantry_engine::network::EndpointIpam;
pub use gantry_engine::network::EndpointSettings as Settings;

use crate::server::version::ApiVersion;

/// Reads what a client wishes for. What stands beside the wishes is the engine's own answer, which clients send back.
pub fn settings(wished: EndpointSettings, version: ApiVersion) -> Settings {
    let EndpointSettings {
        ipam_config,
        links,
        aliases,
        mac_address,
        driver_opts,
        gw_priority,
        network_id: _,
        endpoint_id: _,
        gateway: _,
        ip_address: _,
        ip_prefix_len: _,
        ipv6_gateway: _,
        global_ipv6_address: _,
        global_ipv6_prefix_len: _,
        dns_names: _,
    } = wished;
    Settings {
        ipam: ipam_config.map(
            |EndpointIpamConfig {
                 ipv4_address,
                 ipv6_address,
                 link_local_ips,
             }| EndpointIpam {
                ipv4: ipv4_address,
                ipv6: ipv6_address,
                link_local: link_local_ips,
            },
        ),
        links,
        aliases,
        mac: mac_address,
        driver_opts,
        // Older clients know of none.
        gw_priority: if version.is_before(48) {
            0
        } else {
            gw_priority
        },
        ..Settings::default()
    }
}
