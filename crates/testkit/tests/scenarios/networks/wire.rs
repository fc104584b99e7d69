//! The API of networks as a program sees it, over its versions.

use gantry_testkit::session::Session;
use serde_json::{Value, json};

use super::endpoint;

gantry_testkit::scenarios![
    requests_about_networks,
    networks_over_the_versions_of_the_api,
    a_container_over_the_versions_of_the_api,
    several_networks_by_an_old_client,
    fields_of_a_network_are_taken,
    fields_of_an_endpoint_are_taken,
];

fn requests_about_networks(s: &Session) {
    let _turn = super::turn();
    s.d("network create --subnet 10.139.17.0/24 @n").ok();
    s.d("run -d --name @c --network @n @bb sleep 1000").ok();
    crate::wire::compare(
        s,
        "network_requests",
        &[
            ("GET", "/networks/@none", ""),
            ("GET", "/networks/@n?scope=swarm", ""),
            ("GET", "/networks/@n?verbose=maybe", ""),
            ("GET", "/networks?filters=x", ""),
            ("GET", "/networks?filters={%22nosuch%22:[%221%22]}", ""),
            ("GET", "/networks?filters={%22dangling%22:[%22x%22]}", ""),
            ("GET", "/networks?filters={%22name%22:[%22@none%22]}", ""),
            ("POST", "/networks/create", ""),
            ("POST", "/networks/create", "{"),
            ("POST", "/networks/create", "[]"),
            ("POST", "/networks/create", "{}"),
            ("POST", "/networks/create", "{\"Name\":\"@n\"}"),
            (
                "POST",
                "/v1.43/networks/create",
                "{\"Name\":\"@n\",\"CheckDuplicate\":true}",
            ),
            (
                "POST",
                "/networks/create",
                "{\"Name\":\"@x\",\"Driver\":\"nosuch\"}",
            ),
            (
                "POST",
                "/networks/create",
                "{\"Name\":\"@x\",\"IPAM\":{\"Config\":[{\"Subnet\":\"x\"}]}}",
            ),
            (
                "POST",
                "/networks/create",
                "{\"Name\":\"@x\",\"IPAM\":{\"Config\":[{\"Subnet\":\"10.139.18.1/24\"}]}}",
            ),
            (
                "POST",
                "/networks/create",
                "{\"Name\":\"@x\",\"IPAM\":{\"Config\":[{\"Subnet\":\"10.139.18.0/24\",\"IPRange\":\"10.139.19.0/24\"}]}}",
            ),
            (
                "POST",
                "/networks/create",
                "{\"Name\":\"@x\",\"IPAM\":{\"Config\":[{\"Subnet\":\"10.139.18.0/24\",\"IPRange\":\"10.139.18.0/23\",\"Gateway\":\"10.139.19.1\",\"AuxiliaryAddresses\":{\"a\":\"10.139.20.1\"}}]}}",
            ),
            (
                "POST",
                "/networks/create",
                "{\"Name\":\"@x\",\"IPAM\":{\"Config\":[{\"Gateway\":\"10.139.18.1\"}]}}",
            ),
            (
                "POST",
                "/networks/create",
                "{\"Name\":\"@x\",\"IPAM\":{\"Config\":[{\"Subnet\":\"10.139.23.0/24\"},{\"Subnet\":\"10.139.23.0/25\"}]}}",
            ),
            (
                "POST",
                "/networks/create",
                "{\"Name\":\"@x\",\"IPAM\":{\"Config\":[{\"Subnet\":\"10.139.21.0/24\"},{\"Subnet\":\"10.139.22.0/24\"}]}}",
            ),
            (
                "POST",
                "/networks/create",
                "{\"Name\":\"@x\",\"ConfigFrom\":{\"Network\":\"@none\"}}",
            ),
            (
                "POST",
                "/networks/create",
                "{\"Name\":\"@x\",\"Ingress\":true}",
            ),
            (
                "POST",
                "/networks/create",
                "{\"Name\":\"@x\",\"Scope\":\"swarm\"}",
            ),
            (
                "POST",
                "/networks/create",
                "{\"Name\":\"@x\",\"Labels\":[]}",
            ),
            ("POST", "/networks/@none/connect", "{\"Container\":\"@c\"}"),
            ("POST", "/networks/@n/connect", ""),
            ("POST", "/networks/@n/connect", "{"),
            ("POST", "/networks/@n/connect", "{}"),
            ("POST", "/networks/@n/connect", "{\"Container\":\"@none\"}"),
            ("POST", "/networks/@n/connect", "{\"Container\":\"@c\"}"),
            (
                "POST",
                "/networks/bridge/connect",
                "{\"Container\":\"@c\",\"EndpointConfig\":{\"MacAddress\":\"x\"}}",
            ),
            (
                "POST",
                "/networks/bridge/connect",
                "{\"Container\":\"@c\",\"EndpointConfig\":{\"IPAMConfig\":{\"IPv4Address\":\"1.2.3.4\"}}}",
            ),
            (
                "POST",
                "/networks/@none/disconnect",
                "{\"Container\":\"@c\"}",
            ),
            ("POST", "/networks/@n/disconnect", ""),
            ("POST", "/networks/@n/disconnect", "{}"),
            (
                "POST",
                "/networks/@n/disconnect",
                "{\"Container\":\"@none\"}",
            ),
            (
                "POST",
                "/networks/@n/disconnect",
                "{\"Container\":\"@none\",\"Force\":true}",
            ),
            (
                "POST",
                "/networks/bridge/disconnect",
                "{\"Container\":\"@c\"}",
            ),
            ("DELETE", "/networks/@none", ""),
            ("DELETE", "/networks/@n", ""),
            ("DELETE", "/networks/bridge", ""),
            ("POST", "/networks/prune?filters=x", ""),
            (
                "POST",
                "/networks/prune?filters={%22nosuch%22:[%221%22]}",
                "",
            ),
            (
                "POST",
                "/networks/prune?filters={%22label%22:[%22@none%22]}",
                "",
            ),
            ("POST", "/networks/@n", ""),
            (
                "POST",
                "/containers/create",
                "{\"Image\":\"@bb\",\"NetworkingConfig\":{\"EndpointsConfig\":{\"@none\":{}}},\"HostConfig\":{\"NetworkMode\":\"@none\"}}",
            ),
            (
                "POST",
                "/containers/create",
                "{\"Image\":\"@bb\",\"HostConfig\":{\"NetworkMode\":\"@n\"},\"NetworkingConfig\":{\"EndpointsConfig\":{\"@n\":{\"IPAMConfig\":{\"IPv4Address\":\"x\",\"IPv6Address\":\"y\",\"LinkLocalIPs\":[\"z\"]}}}}}",
            ),
            (
                "POST",
                "/containers/create",
                "{\"Image\":\"@bb\",\"MacAddress\":\"02:00:00:00:00:01\",\"HostConfig\":{\"NetworkMode\":\"@n\"},\"NetworkingConfig\":{\"EndpointsConfig\":{\"@n\":{\"MacAddress\":\"02:00:00:00:00:02\"}}}}",
            ),
            (
                "POST",
                "/containers/create",
                "{\"Image\":\"@bb\",\"HostConfig\":{\"NetworkMode\":\"@n\"},\"NetworkingConfig\":{\"EndpointsConfig\":{\"@n\":{\"MacAddress\":\"x\"}}}}",
            ),
            (
                "POST",
                "/containers/create",
                "{\"Image\":\"@bb\",\"HostConfig\":{\"NetworkMode\":\"@n\"},\"NetworkingConfig\":{\"EndpointsConfig\":{\"host\":{}}}}",
            ),
        ],
    );
    s.d("rm -f @c").ok();
    s.d("network rm @n").ok();
}

fn get(s: &Session, path: &str) -> Value {
    let answer = s.engine.api("GET", &s.x(path), None);
    assert_eq!(answer.status, 200, "{path}: {}", answer.text());
    answer.json().expect("JSON")
}

fn networks_over_the_versions_of_the_api(s: &Session) {
    s.d("network create @n").ok();
    s.d("run -d --name @c --network @n @bb sleep 1000").ok();
    for version in ["1.24", "1.27", "1.28", "1.43", "1.47", "1.51"] {
        let list = get(
            s,
            &format!("/v{version}/networks?filters={{%22name%22:[%22@n%22]}}"),
        );
        let members = list[0]["Containers"].as_object().expect("an object").len();
        // Until 1.27 the list names the containers as inspect does.
        let old = matches!(version, "1.24" | "1.27");
        assert_eq!(members, usize::from(old), "{version}: {list}");
        let one = get(s, &format!("/v{version}/networks/@n"));
        assert_eq!(one["Containers"].as_object().expect("an object").len(), 1);
        assert_eq!(one["EnableIPv4"], true, "{version}");
    }
}

fn a_container_over_the_versions_of_the_api(s: &Session) {
    s.d("network create @a").ok();
    s.d("network create @b").ok();
    s.d("run -d --name @c --network @a --network name=@b,mac-address=02:00:00:00:00:99 --network-alias x @bb sleep 1000")
        .ok();
    s.d("run -d --name @d @bb sleep 1000").ok();
    let id = s.inspect("@c")["Id"].as_str().expect("an id")[..12].to_owned();
    for version in ["1.24", "1.43", "1.44", "1.45", "1.47", "1.48", "1.51"] {
        let shown = get(s, &format!("/v{version}/containers/@c/json"));
        let settings = &shown["NetworkSettings"];
        let of = |name: &str| &settings["Networks"][s.x(name)];
        assert_eq!(settings["IPAddress"], "", "{version}");
        assert_eq!(of("@b")["MacAddress"], "02:00:00:00:00:99");
        let aliases = match version {
            // Until 1.44 the container's id stands among its aliases.
            "1.24" | "1.43" | "1.44" => json!(["x", id]),
            _ => json!(["x"]),
        };
        assert_eq!(of("@a")["Aliases"], aliases, "{version}");
        let mode = &shown["HostConfig"]["NetworkMode"];
        assert_eq!(mode, &json!(s.x("@a")), "{version}");
        let shown = get(s, &format!("/v{version}/containers/@d/json"));
        let settings = &shown["NetworkSettings"];
        assert_eq!(
            settings["IPAddress"],
            settings["Networks"]["bridge"]["IPAddress"]
        );
        assert_ne!(settings["IPAddress"], "");
        assert_eq!(shown["HostConfig"]["NetworkMode"], "bridge", "{version}");
    }
    let list = get(s, "/containers/json?filters={%22name%22:[%22@c%22]}");
    let networks = list[0]["NetworkSettings"]["Networks"].as_object();
    let names: Vec<&String> = networks.expect("an object").keys().collect();
    assert_eq!(names, [&s.x("@a"), &s.x("@b")]);
    // Docker's client takes them out of a map, each time in another order.
    let shown = s.d("ps --filter network=@b --format {{.Networks}}").ok();
    let mut names: Vec<&str> = shown.stdout.trim().split(',').collect();
    names.sort_unstable();
    assert_eq!(names, [&s.x("@a"), &s.x("@b")]);
}

fn several_networks_by_an_old_client(s: &Session) {
    s.d("network create @a").ok();
    s.d("network create @b").ok();
    let label = json!({"gantry.test": s.x("@prefix")});
    let body = json!({
        "Image": s.x("@bb"), "Cmd": ["sleep", "1000"], "Labels": label,
        "HostConfig": {"NetworkMode": s.x("@a")},
        "NetworkingConfig": {"EndpointsConfig": {s.x("@a"): {}, s.x("@b"): {}}}
    });
    let answer = s.engine.api(
        "POST",
        &s.x("/v1.43/containers/create?name=@c"),
        Some(&body),
    );
    assert_eq!(answer.status, 400, "{}", answer.text());
    assert!(
        answer
            .text()
            .contains("Container cannot be created with multiple network endpoints"),
        "{}",
        answer.text()
    );
    let answer = s.engine.api(
        "POST",
        &s.x("/v1.44/containers/create?name=@c"),
        Some(&body),
    );
    assert_eq!(answer.status, 201, "{}", answer.text());
}

fn fields_of_a_network_are_taken(s: &Session) {
    let net = s.subnet();
    let body = json!({
        "Name": s.x("@n"), "Driver": "bridge", "Scope": "local", "EnableIPv4": true, "EnableIPv6": false,
        "Internal": true, "Attachable": true, "Ingress": false, "ConfigOnly": false, "ConfigFrom": null,
        "IPAM": {"Driver": "default", "Options": {"o": "1"}, "Config": [{
            "Subnet": format!("{net}.0/24"), "IPRange": format!("{net}.64/26"), "Gateway": format!("{net}.3"),
            "AuxiliaryAddresses": {"a": format!("{net}.64")}
        }]},
        "Options": {"com.docker.network.bridge.enable_icc": "false"}, "Labels": {"l": "m"}
    });
    let answer = s.engine.api("POST", "/networks/create", Some(&body));
    assert_eq!(answer.status, 201, "{}", answer.text());
    let answer = answer.json().expect("JSON");
    assert_eq!(answer["Warning"], "");
    let shown = get(s, "/networks/@n");
    assert_eq!(shown["Id"], answer["Id"]);
    for key in [
        "Name",
        "Driver",
        "Scope",
        "EnableIPv4",
        "EnableIPv6",
        "Internal",
        "Attachable",
        "Ingress",
        "ConfigOnly",
        "IPAM",
        "Options",
        "Labels",
    ] {
        assert_eq!(shown[key], body[key], "{key}");
    }
}

fn fields_of_an_endpoint_are_taken(s: &Session) {
    let (net, six) = (s.subnet(), s.subnet_v6());
    s.d(&format!(
        "network create --ipv6 --subnet {net}.0/24 --subnet {six}::/64 @n"
    ))
    .ok();
    s.d("run -d --name @other --network @n @bb sleep 1000").ok();
    s.d("run -d --name @c @bb sleep 1000").ok();
    let wishes = json!({
        "IPAMConfig": {"IPv4Address": format!("{net}.40"), "IPv6Address": format!("{six}::40"), "LinkLocalIPs": ["169.254.4.4"]},
        "Links": [s.x("@other:o")], "Aliases": ["x"], "MacAddress": "02:00:00:00:00:40", "GwPriority": 2,
        "DriverOpts": {"com.docker.network.endpoint.ifname": "bar7"},
        // What the engine answers is its own.
        "EndpointID": "e", "Gateway": "9.9.9.9", "IPAddress": "9.9.9.8", "IPPrefixLen": 7,
        "IPv6Gateway": "fd09::9", "GlobalIPv6Address": "fd09::8", "GlobalIPv6PrefixLen": 7
    });
    let body = json!({"Container": s.x("@c"), "EndpointConfig": wishes});
    let answer = s
        .engine
        .api("POST", &s.x("/networks/@n/connect"), Some(&body));
    assert_eq!(answer.status, 200, "{}", answer.text());
    let shown = endpoint(s, "@c", "@n");
    for key in ["IPAMConfig", "Links", "Aliases", "GwPriority", "DriverOpts"] {
        assert_eq!(shown[key], wishes[key], "{key}");
    }
    for (key, value) in [
        ("NetworkID", get(s, "/networks/@n")["Id"].clone()),
        ("Gateway", json!(format!("{net}.1"))),
        ("IPAddress", json!(format!("{net}.40"))),
        ("IPPrefixLen", json!(24)),
        ("IPv6Gateway", json!(format!("{six}::1"))),
        ("GlobalIPv6Address", json!(format!("{six}::40"))),
        ("GlobalIPv6PrefixLen", json!(64)),
    ] {
        assert_eq!(shown[key], value, "{key}");
    }
    assert_eq!(shown["EndpointID"].as_str().map(str::len), Some(64));
    assert_eq!(shown["DNSNames"][0], s.x("@c"));
    assert_eq!(shown["DNSNames"][1], "x");
    if !s.engine.is_reference() {
        // The reference takes an address for the interface at create alone.
        assert_eq!(shown["MacAddress"], wishes["MacAddress"]);
        s.d("exec @c cat /sys/class/net/bar7/address")
            .prints("02:00:00:00:00:40\n");
    }
}
