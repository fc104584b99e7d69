//! The fields of the API, one by one and by raw requests: what is taken is shown again, what is refused is named.

use gantry_testkit::http::Response;
use gantry_testkit::session::Session;
use serde_json::{Value, json};

gantry_testkit::scenarios![
    fields_that_are_taken_are_shown,
    fields_that_are_refused_are_named,
    zero_values_of_refused_fields_pass,
    modes_that_are_none_are_refused,
    an_endpoints_answers_are_the_engines_own,
    an_endpoints_wishes_are_refused_by_name,
    an_exec_has_all_its_fields,
    an_update_refuses_what_stays,
    a_volume_has_its_fields,
    mounts_have_their_fields,
    a_missing_source_is_made_when_asked,
    a_new_volume_is_as_its_mount_says,
];

/// Asks for a container of the scenario with more fields: `{"HostConfig": {…}}` or those of its configuration.
fn create(s: &Session, fields: &Value) -> Response {
    let mut body = json!({"Image": s.x("@bb"), "Cmd": ["sleep", "1000"], "Labels": {"gantry.test": s.x("@prefix")}});
    for (key, value) in fields.as_object().expect("an object") {
        body[key] = value.clone();
    }
    s.engine.api("POST", "/containers/create", Some(&body))
}

/// Creates a container and gives its inspect answer.
#[track_caller]
fn created(s: &Session, fields: &Value) -> Value {
    let response = create(s, fields);
    assert_eq!(response.status, 201, "{fields}: {}", response.text());
    let id = response.json().expect("JSON")["Id"].clone();
    let id = id.as_str().expect("an id");
    let inspect = s
        .engine
        .api("GET", &format!("/containers/{id}/json"), None)
        .json()
        .expect("JSON");
    s.engine
        .api("DELETE", &format!("/containers/{id}?force=1&v=1"), None);
    inspect
}

#[track_caller]
fn refused(response: &Response, words: &str) {
    assert!(
        (400..=503).contains(&response.status) && response.text().contains(words),
        "no `{words}` in {} {}",
        response.status,
        response.text()
    );
}

fn fields_that_are_taken_are_shown(s: &Session) {
    for (field, value) in [
        ("Hostname", json!("box")),
        ("Domainname", json!("example.test")),
        ("User", json!("user")),
        ("AttachStdin", json!(true)),
        ("AttachStdout", json!(true)),
        ("AttachStderr", json!(true)),
        ("ExposedPorts", json!({"80/tcp": {}})),
        ("Tty", json!(true)),
        ("OpenStdin", json!(true)),
        ("StdinOnce", json!(true)),
        ("Cmd", json!(["one", "two"])),
        ("Healthcheck", json!({"Test": ["NONE"]})),
        ("ArgsEscaped", json!(true)),
        ("Volumes", json!({"/v": {}})),
        ("WorkingDir", json!("/w")),
        ("Entrypoint", json!(["one", "two"])),
        ("OnBuild", json!(["RUN x"])),
        ("StopSignal", json!("SIGUSR1")),
        ("StopTimeout", json!(7)),
        ("Shell", json!(["sh", "-c"])),
    ] {
        let shown = created(s, &json!({ field: value }));
        assert_eq!(shown["Config"][field], value, "{field}");
    }
    let dir = s.x("@dir");
    for (field, value) in [
        ("CpuShares", json!(512)),
        ("Memory", json!(67_108_864)),
        ("CgroupParent", json!("/mine")),
        ("CpuPeriod", json!(50_000)),
        ("CpuQuota", json!(20_000)),
        ("CpuRealtimePeriod", json!(900_000)),
        ("CpuRealtimeRuntime", json!(1000)),
        ("CpusetCpus", json!("0")),
        ("CpusetMems", json!("0")),
        (
            "Devices",
            json!([{"PathOnHost": "/dev/null", "PathInContainer": "/dev/x", "CgroupPermissions": "r"}]),
        ),
        ("DeviceCgroupRules", json!(["c 1:11 r"])),
        (
            "BlkioDeviceReadBps",
            json!([{"Path": "/dev/null", "Rate": 5}]),
        ),
        (
            "BlkioDeviceWriteBps",
            json!([{"Path": "/dev/null", "Rate": 5}]),
        ),
        (
            "BlkioDeviceReadIOps",
            json!([{"Path": "/dev/null", "Rate": 5}]),
        ),
        (
            "BlkioDeviceWriteIOps",
            json!([{"Path": "/dev/null", "Rate": 5}]),
        ),
        ("MemoryReservation", json!(33_554_432)),
        ("MemorySwappiness", json!(7)),
        ("NanoCpus", json!(500_000_000)),
        ("OomKillDisable", json!(true)),
        ("Init", json!(true)),
        ("PidsLimit", json!(9)),
        (
            "Ulimits",
            json!([{"Name": "nofile", "Hard": 20, "Soft": 10}]),
        ),
        ("Binds", json!([format!("{dir}:/b:ro")])),
        ("ContainerIDFile", json!("/cid")),
        (
            "LogConfig",
            json!({"Type": "json-file", "Config": {"max-size": "1m"}}),
        ),
        ("NetworkMode", json!("none")),
        (
            "PortBindings",
            json!({"80/tcp": [{"HostIp": "127.0.0.1", "HostPort": "8080"}]}),
        ),
        (
            "RestartPolicy",
            json!({"Name": "on-failure", "MaximumRetryCount": 2}),
        ),
        ("AutoRemove", json!(true)),
        ("VolumeDriver", json!("local")),
        ("ConsoleSize", json!([24, 80])),
        ("Annotations", json!({"one": "1"})),
        ("CapAdd", json!(["CAP_NET_ADMIN"])),
        ("CapDrop", json!(["CAP_CHOWN"])),
        ("CgroupnsMode", json!("host")),
        ("Dns", json!(["9.9.9.9"])),
        ("DnsOptions", json!(["ndots:3"])),
        ("DnsSearch", json!(["example.test"])),
        ("ExtraHosts", json!(["db:10.1.2.3"])),
        ("GroupAdd", json!(["staff"])),
        ("IpcMode", json!("host")),
        ("OomScoreAdj", json!(321)),
        ("PidMode", json!("host")),
        ("Privileged", json!(true)),
        ("PublishAllPorts", json!(true)),
        ("ReadonlyRootfs", json!(true)),
        ("SecurityOpt", json!(["no-new-privileges"])),
        ("Tmpfs", json!({"/t": "size=1m"})),
        ("UTSMode", json!("host")),
        ("UsernsMode", json!("host")),
        ("ShmSize", json!(1_048_576)),
        ("Sysctls", json!({"net.core.somaxconn": "321"})),
        ("Isolation", json!("default")),
        ("MaskedPaths", json!(["/proc/kcore"])),
        ("ReadonlyPaths", json!(["/proc/bus"])),
    ] {
        let shown = created(s, &json!({"HostConfig": { field: value }}));
        assert_eq!(shown["HostConfig"][field], value, "HostConfig.{field}");
    }
    let shown = created(
        s,
        &json!({"Env": ["A=1"], "MacAddress": "02:42:ac:11:00:99"}),
    );
    assert_eq!(shown["Config"]["Env"][0], "A=1");
    assert_eq!(
        created(
            s,
            &json!({"HostConfig": {"MemorySwap": -1, "Memory": 67_108_864}})
        )["HostConfig"]["MemorySwap"],
        -1
    );
    for (field, kind) in [("VolumesFrom", "VolumesFrom"), ("Links", "Links")] {
        s.d("run -d --name @base -v @v:/v @bb sleep 1000");
        let given = match kind {
            "Links" => s.x("@base:alias"),
            _ => s.x("@base"),
        };
        let shown = created(s, &json!({"HostConfig": { field: [given] }}));
        assert_eq!(
            shown["HostConfig"][field].as_array().map(Vec::len),
            Some(1),
            "{field}"
        );
    }
}

/// Fields that this engine does not have: value, and zero.
fn unsupported() -> Vec<(&'static str, &'static str, Value, Value)> {
    let none = Value::Null;
    vec![
        ("Config", "NetworkDisabled", json!(true), json!(false)),
        (
            "Config",
            "Healthcheck",
            json!({"Test": ["CMD", "true"], "Interval": 1_000_000_000_u64, "Timeout": 1_000_000_000, "Retries": 1, "StartPeriod": 1_000_000_000, "StartInterval": 1_000_000_000}),
            json!({}),
        ),
        (
            "Config",
            "Healthcheck",
            json!({"Interval": 1_000_000_000_u64}),
            none.clone(),
        ),
        ("HostConfig", "Cgroup", json!("container:x"), json!("")),
        ("HostConfig", "StorageOpt", json!({"size": "1G"}), json!({})),
        ("HostConfig", "UsernsMode", json!("keep-id"), json!("")),
        (
            "HostConfig",
            "DeviceRequests",
            json!([{"Driver": "nvidia", "Count": -1, "Capabilities": [["gpu"]]}]),
            json!([]),
        ),
        ("HostConfig", "KernelMemory", json!(33_554_432), json!(0)),
        ("HostConfig", "KernelMemoryTCP", json!(33_554_432), json!(0)),
        ("HostConfig", "CpuCount", json!(1), json!(0)),
        ("HostConfig", "CpuPercent", json!(50), json!(0)),
        ("HostConfig", "IOMaximumIOps", json!(5), json!(0)),
        ("HostConfig", "IOMaximumBandwidth", json!(5), json!(0)),
    ]
}

fn wrapped(object: &str, field: &str, value: &Value) -> Value {
    match object {
        "Config" => json!({ field: value }),
        object => json!({object: { field: value }}),
    }
}

fn fields_that_are_refused_are_named(s: &Session) {
    if s.engine.is_reference() {
        return; // it has some of them
    }
    for (object, field, value, _) in unsupported() {
        let response = create(s, &wrapped(object, field, &value));
        assert_eq!(response.status, 501, "{field}: {}", response.text());
        refused(
            &response,
            &format!("{field} is not supported by this engine"),
        );
    }
}

fn zero_values_of_refused_fields_pass(s: &Session) {
    for (object, field, _, zero) in unsupported() {
        created(s, &wrapped(object, field, &zero));
        created(s, &wrapped(object, field, &Value::Null));
    }
}

fn modes_that_are_none_are_refused(s: &Session) {
    for (field, value, words) in [
        ("Isolation", json!("hyperv"), "hyperv"),
        ("IpcMode", json!("nosuch"), "IPC"),
        ("PidMode", json!("nosuch"), "PID"),
        ("UTSMode", json!("nosuch"), "UTS"),
        ("CgroupnsMode", json!("nosuch"), "cgroup"),
        ("NetworkMode", json!("container:"), "container"),
        ("Runtime", json!("nosuch"), "nosuch"),
        ("OomScoreAdj", json!(2000), "oom score"),
        ("ShmSize", json!(-1), "SHM size"),
        ("CapAdd", json!(["NOSUCH"]), "NOSUCH"),
        ("CapDrop", json!(["NOSUCH"]), "NOSUCH"),
        ("SecurityOpt", json!(["nosuch=1"]), "nosuch"),
        ("RestartPolicy", json!({"Name": "nosuch"}), "nosuch"),
        ("LogConfig", json!({"Type": "nosuch"}), "nosuch"),
        ("MemorySwappiness", json!(101), "swappiness"),
    ] {
        refused(&create(s, &json!({"HostConfig": { field: value }})), words);
    }
}

fn an_endpoints_answers_are_the_engines_own(s: &Session) {
    let given = json!({
        "NetworkID": "n", "EndpointID": "e", "Gateway": "1.2.3.4", "IPAddress": "1.2.3.5", "IPPrefixLen": 3,
        "IPv6Gateway": "fd00::1", "GlobalIPv6Address": "fd00::2", "GlobalIPv6PrefixLen": 3, "DNSNames": ["x"],
        "MacAddress": "02:42:ac:11:00:99", "GwPriority": 0
    });
    let wishes = json!({"EndpointsConfig": {"bridge": given}});
    let response = create(
        s,
        &json!({"NetworkingConfig": wishes, "HostConfig": {"NetworkMode": "bridge"}}),
    );
    let id = response.json().expect("JSON")["Id"].clone();
    let id = id.as_str().expect("an id");
    s.d(&format!("start {id}")).ok();
    let shown = s.inspect(id);
    let endpoint = &shown["NetworkSettings"]["Networks"]["bridge"];
    for (field, value) in given.as_object().expect("an object") {
        if field == "DNSNames" && s.engine.is_reference() {
            continue; // on its default bridge, where nobody asks for them, it leaves them
        }
        let taken = matches!(field.as_str(), "MacAddress" | "GwPriority");
        assert_eq!(&endpoint[field] == value, taken, "{field}: {endpoint}");
    }
}

fn an_endpoints_wishes_are_refused_by_name(s: &Session) {
    let of_docker = "user specified IP address is supported on user defined networks only";
    for (field, value, words) in [
        (
            "IPAMConfig",
            json!({"IPv4Address": "172.17.0.9"}),
            of_docker,
        ),
        ("IPAMConfig", json!({"IPv6Address": "fd00::9"}), of_docker),
        (
            "Aliases",
            json!(["x"]),
            "network-scoped alias is supported only for containers in user defined networks",
        ),
    ] {
        let wishes = json!({"EndpointsConfig": {"bridge": { field: value }}});
        let answer = create(
            s,
            &json!({"NetworkingConfig": wishes, "HostConfig": {"NetworkMode": "bridge"}}),
        );
        refused(&answer, words);
    }
    // What has no meaning there is taken all the same.
    for (field, value) in [
        ("IPAMConfig", json!({"LinkLocalIPs": ["169.254.1.1"]})),
        ("Links", json!(["a:b"])),
        ("DriverOpts", json!({"a": "b"})),
        ("GwPriority", json!(1)),
    ] {
        for value in [value, Value::Null] {
            let wishes = json!({"EndpointsConfig": {"bridge": { field: value }}});
            let answer = create(
                s,
                &json!({"NetworkingConfig": wishes, "HostConfig": {"NetworkMode": "bridge"}}),
            );
            assert_eq!(answer.status, 201, "{field}: {}", answer.text());
        }
    }
}

fn an_exec_has_all_its_fields(s: &Session) {
    s.d("run -d --name @c @bb sleep 1000").ok();
    let body = json!({
        "AttachStdin": true, "AttachStdout": true, "AttachStderr": true, "Tty": true, "DetachKeys": "ctrl-a,x",
        "ConsoleSize": [33, 101], "Env": ["A=1"], "Privileged": true, "User": "user", "WorkingDir": "/tmp",
        "Cmd": ["sh", "-c", "stty size; echo $A; pwd; id -u; grep -c 00000000a80425fb /proc/self/status"]
    });
    let id = s
        .engine
        .api("POST", &s.x("/containers/@c/exec"), Some(&body))
        .json()
        .expect("JSON")["Id"]
        .clone();
    let id = id.as_str().expect("an id");
    let start = json!({"Detach": false, "Tty": true, "ConsoleSize": [33, 101]});
    let answer = s
        .engine
        .api("POST", &format!("/exec/{id}/start"), Some(&start));
    let text = answer.text().replace('\r', "");
    assert!(
        text.starts_with("33 101\n1\n/tmp\n1000\n"),
        "{} {text:?}",
        answer.status
    );
    let shown = s
        .engine
        .api("GET", &format!("/exec/{id}/json"), None)
        .json()
        .expect("JSON");
    for field in ["OpenStdin", "OpenStdout", "OpenStderr"] {
        assert_eq!(shown[field], true, "{field}: {shown}");
    }
    let detached = json!({"Cmd": ["touch", "/tmp/mark"]});
    let id = s
        .engine
        .api("POST", &s.x("/containers/@c/exec"), Some(&detached))
        .json()
        .expect("JSON")["Id"]
        .clone();
    let path = format!("/exec/{}/start", id.as_str().expect("an id"));
    let answer = s
        .engine
        .api("POST", &path, Some(&json!({"Detach": true, "Tty": false})));
    assert_eq!(answer.status, 200);
    gantry_testkit::wait::eventually("the mark", || s.d("exec @c ls /tmp/mark").code == 0);
    let body = json!({"Cmd": ["true"], "DetachKeys": "nosuch"});
    let answer = s
        .engine
        .api("POST", &s.x("/containers/@c/exec"), Some(&body));
    refused(&answer, "nosuch");
}

fn an_update_refuses_what_stays(s: &Session) {
    s.d("run -d --name @c @bb sleep 1000").ok();
    if s.engine.is_reference() {
        return; // it takes them and does nothing
    }
    let rate = json!([{"Path": "/dev/null", "Rate": 5}]);
    for (field, value) in [
        ("Devices", json!([{"PathOnHost": "/dev/null"}])),
        ("DeviceCgroupRules", json!(["c 1:11 r"])),
        (
            "Ulimits",
            json!([{"Name": "nofile", "Hard": 20, "Soft": 10}]),
        ),
        ("CgroupParent", json!("/x")),
        (
            "BlkioWeightDevice",
            json!([{"Path": "/dev/null", "Weight": 50}]),
        ),
        ("BlkioDeviceReadBps", rate.clone()),
        ("BlkioDeviceWriteBps", rate.clone()),
        ("BlkioDeviceReadIOps", rate.clone()),
        ("BlkioDeviceWriteIOps", rate),
        ("DeviceRequests", json!([{"Count": 1}])),
        ("KernelMemory", json!(5)),
        ("KernelMemoryTCP", json!(5)),
        ("CpuCount", json!(5)),
        ("CpuPercent", json!(5)),
        ("IOMaximumIOps", json!(5)),
        ("IOMaximumBandwidth", json!(5)),
    ] {
        let path = s.x("/containers/@c/update");
        let ask = |value: Value| s.engine.api("POST", &path, Some(&json!({ field: value })));
        refused(&ask(value), field);
        assert_eq!(ask(Value::Null).status, 200, "{field}");
    }
}

fn a_volume_has_its_fields(s: &Session) {
    let body =
        json!({"Name": s.x("@v"), "Driver": "local", "Labels": {"a": "b"}, "DriverOpts": {}});
    let answer = s.engine.api("POST", "/volumes/create", Some(&body));
    assert_eq!(answer.status, 201, "{}", answer.text());
    let volume = answer.json().expect("JSON");
    assert_eq!(
        (&volume["Name"], &volume["Driver"], &volume["Labels"]["a"]),
        (&body["Name"], &body["Driver"], &json!("b"))
    );
    let ask = |more: Value| {
        let mut body = json!({"Name": s.x("@w")});
        for (key, value) in more.as_object().expect("an object") {
            body[key] = value.clone();
        }
        s.engine.api("POST", "/volumes/create", Some(&body))
    };
    refused(&ask(json!({"Driver": "nosuch"})), "nosuch");
    refused(&ask(json!({"DriverOpts": {"nosuch": "1"}})), "nosuch");
    let cluster = ask(json!({"ClusterVolumeSpec": {"Group": "g"}}));
    if s.engine.is_reference() {
        refused(&cluster, "swarm manager");
    } else {
        refused(&cluster, "ClusterVolumeSpec");
    }
    assert_eq!(ask(json!({"ClusterVolumeSpec": null})).status, 201);
}

fn mounts_have_their_fields(s: &Session) {
    let dir = s.x("@dir");
    for mount in [
        json!({"Type": "bind", "Source": dir, "Target": "/m", "ReadOnly": true, "Consistency": "cached",
            "BindOptions": {"Propagation": "rslave", "NonRecursive": true, "CreateMountpoint": true, "ReadOnlyNonRecursive": true}}),
        json!({"Type": "bind", "Source": dir, "Target": "/m", "ReadOnly": true, "BindOptions": {"ReadOnlyForceRecursive": true, "Propagation": "rprivate"}}),
        json!({"Type": "volume", "Source": s.x("@v"), "Target": "/m",
            "VolumeOptions": {"NoCopy": true, "Labels": {"gantry.test": s.x("@prefix")}, "DriverConfig": {"Name": "local"}, "Subpath": "sub"}}),
        json!({"Type": "tmpfs", "Target": "/m", "TmpfsOptions": {"SizeBytes": 1_048_576, "Mode": 448, "Options": [["exec"]]}}),
    ] {
        let shown = created(s, &json!({"HostConfig": {"Mounts": [mount]}}));
        assert_eq!(shown["HostConfig"]["Mounts"][0], mount);
    }
    let refuse = |mount: Value, words: &str| {
        refused(
            &create(s, &json!({"HostConfig": {"Mounts": [mount]}})),
            words,
        );
    };
    refuse(
        json!({"Type": "bind", "Source": dir, "Target": "/m", "BindOptions": {"Propagation": "nosuch"}}),
        "nosuch",
    );
    refuse(
        json!({"Type": "bind", "Source": dir, "Target": "/m", "VolumeOptions": {}}),
        "VolumeOptions",
    );
    refuse(
        json!({"Type": "tmpfs", "Target": "/m", "Source": "/x"}),
        "Source",
    );
    if !s.engine.is_reference() {
        refuse(
            json!({"Type": "image", "Source": s.x("@bb"), "Target": "/m", "ImageOptions": {"Subpath": "x"}}),
            "image",
        );
        refuse(
            json!({"Type": "cluster", "Source": "x", "Target": "/m", "ClusterOptions": {}}),
            "cluster",
        );
        refuse(
            json!({"Type": "npipe", "Source": "x", "Target": "/m"}),
            "npipe",
        );
    }
}

fn a_missing_source_is_made_when_asked(s: &Session) {
    let ask = |made: bool| {
        let mount = json!({"Type": "bind", "Source": s.x("@dir/new/one"), "Target": "/m", "BindOptions": {"CreateMountpoint": made}});
        create(s, &json!({"HostConfig": {"Mounts": [mount]}}))
    };
    refused(&ask(false), "bind source path does not exist");
    let answer = ask(true);
    assert_eq!(answer.status, 201, "{}", answer.text());
    let id = answer.json().expect("JSON")["Id"].clone();
    s.d(&format!("start {}", id.as_str().expect("an id"))).ok();
    assert!(s.dir().join("new/one").is_dir());
}

fn a_new_volume_is_as_its_mount_says(s: &Session) {
    let ask = |options: Value| {
        let mount = json!({"Type": "volume", "Source": s.x("@v"), "Target": "/m", "VolumeOptions": options});
        create(s, &json!({"HostConfig": {"Mounts": [mount]}}))
    };
    refused(&ask(json!({"DriverConfig": {"Name": "nosuch"}})), "nosuch");
    refused(
        &ask(json!({"DriverConfig": {"Options": {"nosuch": "1"}}})),
        "nosuch",
    );
    let answer = ask(json!({"Labels": {"tier": "a"}, "DriverConfig": {"Name": "local"}}));
    assert_eq!(answer.status, 201, "{}", answer.text());
    s.d("volume inspect -f '{{.Driver}} {{.Labels.tier}}' @v")
        .prints("local a\n");
}
