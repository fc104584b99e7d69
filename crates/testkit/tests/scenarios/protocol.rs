//! The API below the clients: paths that are written in another way, and execs and streams as a script sees them.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use gantry_testkit::http;
use gantry_testkit::session::Session;
use serde_json::json;

gantry_testkit::scenarios![
    a_path_is_cleaned,
    a_path_that_there_is_not_comes_before_the_version,
    a_network_without_settings_is_refused,
    a_name_with_slashes_is_not_found,
    an_exec_is_listed_before_its_start,
    the_command_of_an_exec_is_a_list,
    a_size_for_a_process_without_a_terminal_is_taken,
    a_stream_without_upgrade_is_called_raw,
    keys_may_be_in_another_case,
    a_second_start_of_an_exec_is_told_in_its_stream,
];

fn a_path_is_cleaned(s: &Session) {
    for (path, location) in [
        ("//containers/json", "/containers/json"),
        (
            "/v1.40//containers//json?all=1",
            "/v1.40/containers/json?all=1",
        ),
        ("/containers/../info?a=b%20c", "/info?a=b%20c"),
        ("/volumes/a%20b//", "/volumes/a%20b/"),
        ("/containers/%2Fname/json", "/containers/name/json"),
    ] {
        for method in ["GET", "POST"] {
            let answer = http::unix(&s.engine.socket, method, path, None).expect("an answer");
            assert_eq!(
                (answer.status, answer.header("Location")),
                (301, Some(location)),
                "{method} {path}"
            );
        }
    }
    s.d("create --name @c @bb").ok();
    s.d("inspect -f '{{.Name}}' /@c").prints("/@c\n");
    s.d("rm /@c").prints("/@c\n");
}

fn a_path_that_there_is_not_comes_before_the_version(s: &Session) {
    let check = |path: &str| {
        let answer = http::unix(&s.engine.socket, "GET", path, None).expect("an answer");
        (answer.status, answer.text())
    };
    let unknown = "{\"message\":\"page not found\"}\n";
    for path in ["/v1.23/nosuch", "/v1.99/nosuch", "/v1.51/nosuch"] {
        let (status, text) = check(path);
        assert_eq!(
            (status, text.trim_end()),
            (404, unknown.trim_end()),
            "{path}"
        );
    }
    for (path, word) in [("/v1.23/info", "old"), ("/v1.99/info", "new")] {
        let (status, text) = check(path);
        assert_eq!(status, 400, "{path}");
        assert!(text.contains(&format!("is too {word}")), "{text}");
    }
}

fn a_network_without_settings_is_refused(s: &Session) {
    let path = s.x("/containers/create?name=@c");
    let create = |image: String| {
        let body =
            json!({"Image": image, "NetworkingConfig": {"EndpointsConfig": {"bridge": null}}});
        s.engine.api("POST", &path, Some(&body))
    };
    let refused = create(s.x("@bb"));
    assert_eq!(refused.status, 400, "{}", refused.text());
    assert_eq!(
        refused.text().trim_end(),
        r#"{"message":"invalid config for network bridge: EndpointsConfig is nil"}"#
    );
    // That there is no image is told first.
    assert_eq!(create("localhost/no/such:1".to_owned()).status, 404);
}

fn a_name_with_slashes_is_not_found(s: &Session) {
    for command in ["container inspect", "logs", "stop", "rm", "top", "rename"] {
        let more = if command == "rename" { " @x" } else { "" };
        s.d(&format!("{command} @a/b/c{more}"))
            .fails_with(1, "No such container: @a/b/c\n");
    }
    // Only the words for it tell that it was looked for among containers.
    s.d("container inspect @bb").fails_with(
        1,
        "Error response from daemon: No such container: localhost/test/busybox:1\n",
    );
}

/// Makes an exec and gives its id.
fn exec(s: &Session, body: &serde_json::Value) -> String {
    let created = s
        .engine
        .api("POST", &s.x("/containers/@c/exec"), Some(body));
    assert_eq!(created.status, 201, "{}", created.text());
    let created = created.json().expect("JSON");
    created["Id"].as_str().expect("an id").to_owned()
}

fn an_exec_is_listed_before_its_start(s: &Session) {
    s.d("run -d --name @c @bb sleep 1000").ok();
    assert_eq!(s.inspect("@c")["ExecIDs"], json!(null));
    let id = exec(s, &json!({"Cmd": ["true"], "AttachStdout": true}));
    assert_eq!(s.inspect("@c")["ExecIDs"], json!([id]));
    let start = json!({"Detach": true});
    let started = s
        .engine
        .api("POST", &format!("/exec/{id}/start"), Some(&start));
    assert_eq!(started.status, 200);
    gantry_testkit::wait::eventually("the exec has ended", || {
        s.inspect("@c")["ExecIDs"].is_null()
    });
}

fn the_command_of_an_exec_is_a_list(s: &Session) {
    s.d("run -d --name @c @bb sleep 1000").ok();
    let path = s.x("/containers/@c/exec");
    let refused = s.engine.api("POST", &path, Some(&json!({"Cmd": "true"})));
    assert_eq!(refused.status, 400, "{}", refused.text());
    // That of a container may be a text.
    let body = json!({"Image": s.x("@bb"), "Cmd": "one word"});
    let created = s
        .engine
        .api("POST", &s.x("/containers/create?name=@text"), Some(&body));
    assert_eq!(created.status, 201, "{}", created.text());
    assert_eq!(s.inspect("@text")["Config"]["Cmd"], json!(["one word"]));
    s.d("rm @text").ok();
}

fn a_size_for_a_process_without_a_terminal_is_taken(s: &Session) {
    s.d("run -d --name @c @bb sleep 1000").ok();
    let answer = s
        .engine
        .api("POST", &s.x("/containers/@c/resize?h=10&w=20"), None);
    assert_eq!((answer.status, answer.text().as_str()), (200, ""));
}

fn a_stream_without_upgrade_is_called_raw(s: &Session) {
    s.d("run -d --name @c @bb sh -c 'echo out; exec sleep 1000'")
        .ok();
    s.until_logged("@c", "out");
    for (upgrade, status, kind) in [
        ("", "200 OK", "raw"),
        (
            "Connection: Upgrade\r\nUpgrade: tcp\r\n",
            "101 UPGRADED",
            "multiplexed",
        ),
    ] {
        let mut stream = UnixStream::connect(&s.engine.socket).expect("a connection");
        let limit = Some(Duration::from_secs(20));
        stream.set_read_timeout(limit).expect("a timeout");
        let path = s.x("/containers/@c/attach?logs=1&stdout=1");
        let request =
            format!("POST {path} HTTP/1.1\r\nHost: d\r\n{upgrade}Content-Length: 0\r\n\r\n");
        stream.write_all(request.as_bytes()).expect("a write");
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).expect("the answer's end");
        let text = String::from_utf8_lossy(&answer);
        let head =
            format!("HTTP/1.1 {status}\r\nContent-Type: application/vnd.docker.{kind}-stream\r\n");
        assert!(text.starts_with(&head), "{text:?}");
        assert!(answer.ends_with(b"\x01\0\0\0\0\0\0\x04out\n"), "{text:?}");
    }
}

fn keys_may_be_in_another_case(s: &Session) {
    let body = json!({
        "image": s.x("@bb"),
        "CMD": ["sleep", "1000"],
        "labels": {"image": "mine", "gantry.test": s.x("@prefix")},
        "exposedports": {"80/tcp": {}},
        "hostconfig": {
            "memory": 33_554_432,
            "Restartpolicy": {"name": "on-failure", "maximumretrycount": 3},
            "portbindings": {"80/tcp": [{"hostIP": "127.0.0.1", "hostport": "0"}]},
            "logconfig": {"type": "json-file", "config": {"max-size": "1m"}},
            "sysctls": {"net.ipv4.ip_default_ttl": "77"},
        },
        "nothing": 1,
    });
    let path = s.x("/containers/create?name=@c");
    let created = s.engine.api("POST", &path, Some(&body));
    assert_eq!(created.status, 201, "{}", created.text());
    let shown = s.inspect("@c");
    assert_eq!(shown["Config"]["Image"], s.x("@bb"));
    assert_eq!(shown["Config"]["Cmd"], json!(["sleep", "1000"]));
    assert_eq!(shown["Config"]["Labels"]["image"], "mine");
    let host = &shown["HostConfig"];
    assert_eq!(host["Memory"], 33_554_432);
    assert_eq!(
        host["RestartPolicy"],
        json!({"Name": "on-failure", "MaximumRetryCount": 3})
    );
    assert_eq!(
        host["PortBindings"],
        json!({"80/tcp": [{"HostIp": "127.0.0.1", "HostPort": "0"}]})
    );
    assert_eq!(
        host["LogConfig"],
        json!({"Type": "json-file", "Config": {"max-size": "1m"}})
    );
    assert_eq!(host["Sysctls"], json!({"net.ipv4.ip_default_ttl": "77"}));
    // The last of several wins, and objects of one name become one.
    let twice = br#"{"CpuShares":5,"cpushares":6,"Memory":1,"memory":0,"CpuShares":7,"restartpolicy":{"Name":"no"},"RestartPolicy":{"MaximumRetryCount":0}}"#;
    let path = s.x("/containers/@c/update");
    let body = Some(("application/json", &twice[..]));
    let updated = http::unix(&s.engine.socket, "POST", &path, body).expect("an answer");
    assert_eq!(updated.status, 200, "{}", updated.text());
    let host = &s.inspect("@c")["HostConfig"];
    assert_eq!(
        (&host["CpuShares"], &host["Memory"]),
        (&json!(7), &json!(33_554_432))
    );
    assert_eq!(host["RestartPolicy"]["Name"], "no");
    // But each must fit.
    for wrong in [
        r#"{"CpuShares":"x","CpuShares":5}"#,
        r#"{"CpuShares":"x","cpushares":5}"#,
        r#"{"RestartPolicy":{"Name":1},"RestartPolicy":{"Name":"no"}}"#,
    ] {
        let body = Some(("application/json", wrong.as_bytes()));
        let refused = http::unix(&s.engine.socket, "POST", &path, body).expect("an answer");
        let text = refused.text();
        assert!(
            refused.status == 400 && text.starts_with("{\"message\":\"invalid JSON: "),
            "{wrong}: {} {text}",
            refused.status
        );
    }

    let body = json!({"name": s.x("@n"), "labels": {"Name": "x"}, "ipam": {"config": []}, "INTERNAL": true});
    let created = s.engine.api("POST", "/networks/create", Some(&body));
    assert_eq!(created.status, 201, "{}", created.text());
    s.d("network inspect -f '{{.Internal}} {{.Labels}}' @n")
        .prints("true map[Name:x]\n");
    let body = json!({"container": s.x("@c"), "endpointconfig": {"aliases": ["web"]}});
    let joined = s
        .engine
        .api("POST", &s.x("/networks/@n/connect"), Some(&body));
    assert_eq!(joined.status, 200, "{}", joined.text());
    let networks = &s.inspect("@c")["NetworkSettings"]["Networks"];
    assert_eq!(networks[s.x("@n")]["Aliases"], json!(["web"]));
    let body = json!({"name": s.x("@v"), "driveropts": {"type": "tmpfs", "device": "Name"}});
    let created = s.engine.api("POST", "/volumes/create", Some(&body));
    assert_eq!(created.status, 201, "{}", created.text());
    s.d("volume inspect -f '{{.Options}}' @v")
        .prints("map[device:Name type:tmpfs]\n");
}

fn a_second_start_of_an_exec_is_told_in_its_stream(s: &Session) {
    s.d("run -d --name @c @bb sleep 1000").ok();
    let start = |id: &str, body: serde_json::Value| {
        let path = format!("/exec/{id}/start");
        let answer = s.engine.api("POST", &path, Some(&body));
        (answer.status, answer.text())
    };
    let framed = |text: &str| {
        let length = char::from(u8::try_from(text.len()).expect("a short line"));
        format!("\u{1}\0\0\0\0\0\0{length}{text}")
    };
    let id = exec(s, &json!({"Cmd": ["echo", "hi"], "AttachStdout": true}));
    assert_eq!(start(&id, json!({})), (200, framed("hi\n")));
    let text = format!("exec command {id} has already run");
    assert_eq!(start(&id, json!({})), (200, framed(&format!("{text}\r\n"))));
    assert_eq!(
        start(&id, json!({"Tty": true})),
        (200, format!("{text}\r\n"))
    );
    let (status, answer) = start(&id, json!({"Detach": true}));
    assert_eq!((status, answer.contains(&text)), (409, true), "{answer}");
    let id = exec(s, &json!({"Cmd": ["sleep", "1000"]}));
    assert_eq!(start(&id, json!({"Detach": true})).0, 200);
    let text = format!("exec command {id} is already running\r\n");
    assert_eq!(start(&id, json!({})), (200, framed(&text)));
    // Whether the container runs is asked first.
    s.d("pause @c").ok();
    assert_eq!(start(&id, json!({})).0, 409);
    s.d("unpause @c").ok();
}
