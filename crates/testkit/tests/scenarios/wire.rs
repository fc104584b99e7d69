//! The API as a script with curl sees it: status and body of requests, good and bad, as the reference gives them.

use gantry_testkit::golden::Recording;
use gantry_testkit::http;
use gantry_testkit::session::Session;

gantry_testkit::scenarios![
    requests_and_answers,
    versions_are_negotiated,
    a_hijack_without_upgrade_works,
    heads_are_complete,
    a_connection_to_be_closed_is_closed,
];

fn requests_and_answers(s: &Session) {
    s.d("create --name @created @bb").ok();
    s.d("run -d --name @running @bb sleep 1000").ok();
    compare(
        s,
        "requests",
        &[
            ("GET", "/_ping", ""),
            ("HEAD", "/_ping", ""),
            ("GET", "/v1.51/_ping", ""),
            ("GET", "/nosuch", ""),
            ("POST", "/nosuch", ""),
            ("GET", "/v1.99/containers/json", ""),
            ("GET", "/v1.10/containers/json", ""),
            ("GET", "/vx/containers/json", ""),
            ("DELETE", "/containers/json", ""),
            ("GET", "/containers/@none/json", ""),
            ("GET", "/containers/@none/logs?stdout=1", ""),
            ("GET", "/containers/@running/logs", ""),
            ("GET", "/containers/@running/logs?stdout=1&tail=x", ""),
            ("GET", "/containers/@running/logs?stdout=1&since=x", ""),
            ("GET", "/containers/json?limit=x", ""),
            ("GET", "/containers/json?filters=x", ""),
            (
                "GET",
                "/containers/json?filters={%22nosuch%22:[%221%22]}",
                "",
            ),
            (
                "GET",
                "/containers/json?filters={%22status%22:{%22nosuch%22:true}}",
                "",
            ),
            ("POST", "/containers/create", ""),
            ("POST", "/containers/create", "{"),
            ("POST", "/containers/create", "[]"),
            ("POST", "/containers/create", "{}"),
            ("POST", "/containers/create", "{\"Image\":\"\"}"),
            ("POST", "/containers/create", "{\"Image\":\"BAD\"}"),
            ("POST", "/containers/create", "{\"Image\":\"@none\"}"),
            (
                "POST",
                "/containers/create",
                "{\"Image\":\"@bb\",\"HostConfig\":{\"Memory\":1}}",
            ),
            (
                "POST",
                "/containers/create",
                "{\"Image\":\"@bb\",\"Memory\":\"x\"}",
            ),
            ("POST", "/containers/create?name=a", "{\"Image\":\"@bb\"}"),
            (
                "POST",
                "/containers/create?name=bad%20name",
                "{\"Image\":\"@bb\"}",
            ),
            (
                "POST",
                "/containers/create?name=@created",
                "{\"Image\":\"@bb\"}",
            ),
            (
                "POST",
                "/containers/create?platform=x/y/z/w",
                "{\"Image\":\"@bb\"}",
            ),
            ("POST", "/containers/create", "{\"Image\":\"@bb\"} trailing"),
            (
                "POST",
                "/containers/create",
                "{\"Image\":\"@bb\",\"HostConfig\":{\"NetworkMode\":\"nosuch\"}}",
            ),
            (
                "POST",
                "/containers/create",
                "{\"Image\":\"@bb\",\"HostConfig\":{\"RestartPolicy\":{\"Name\":\"x\"}}}",
            ),
            (
                "POST",
                "/containers/create",
                "{\"Image\":\"@bb\",\"HostConfig\":{\"PortBindings\":{\"x\":[]}}}",
            ),
            (
                "POST",
                "/containers/create",
                "{\"Image\":\"@bb\",\"HostConfig\":{\"Binds\":[\"relative\"]}}",
            ),
            (
                "POST",
                "/containers/create",
                "{\"Image\":\"@bb\",\"HostConfig\":{\"Mounts\":[{\"Type\":\"nosuch\",\"Target\":\"/x\"}]}}",
            ),
            ("POST", "/containers/@none/start", ""),
            ("POST", "/containers/@running/start", ""),
            ("POST", "/containers/@created/stop", ""),
            ("POST", "/containers/@running/stop?t=x", ""),
            ("POST", "/containers/@created/kill", ""),
            ("POST", "/containers/@running/kill?signal=NOSUCH", ""),
            ("POST", "/containers/@created/pause", ""),
            ("POST", "/containers/@running/unpause", ""),
            ("POST", "/containers/@running/rename", ""),
            ("POST", "/containers/@running/rename?name=@created", ""),
            ("POST", "/containers/@running/resize?h=x&w=1", ""),
            ("POST", "/containers/@created/resize?h=1&w=1", ""),
            ("POST", "/containers/@running/update", "{\"Memory\":1}"),
            ("POST", "/containers/@running/update", "{}"),
            ("POST", "/containers/@running/wait?condition=nosuch", ""),
            ("POST", "/containers/@none/wait", ""),
            ("POST", "/containers/@none/attach", ""),
            ("POST", "/containers/@running/exec", "{}"),
            ("POST", "/containers/@created/exec", "{\"Cmd\":[\"true\"]}"),
            ("POST", "/containers/@running/exec", "{\"Cmd\":[]}"),
            ("POST", "/exec/nosuch/start", "{}"),
            ("GET", "/exec/nosuch/json", ""),
            ("POST", "/exec/nosuch/resize?h=1&w=1", ""),
            ("DELETE", "/containers/@none", ""),
            ("DELETE", "/containers/@running", ""),
            ("DELETE", "/containers/@running?link=1", ""),
            ("GET", "/containers/@created/top", ""),
            ("GET", "/containers/@none/stats?stream=0", ""),
            ("GET", "/containers/@none/changes", ""),
            ("GET", "/containers/@none/export", ""),
            ("GET", "/images/@none/json", ""),
            ("GET", "/images/BAD/json", ""),
            ("GET", "/images/@none/history", ""),
            ("GET", "/images/json?filters={%22nosuch%22:[%221%22]}", ""),
            ("DELETE", "/images/@none", ""),
            ("POST", "/images/@bb/tag?repo=BAD", ""),
            ("POST", "/images/@none/tag?repo=x&tag=1", ""),
            ("GET", "/images/@none/get", ""),
            ("GET", "/volumes/@none", ""),
            ("DELETE", "/volumes/@none", ""),
            ("DELETE", "/volumes/@none?force=1", ""),
            ("POST", "/volumes/create", "{\"Name\":\"bad name\"}"),
            ("POST", "/volumes/create", "{\"Driver\":\"nosuch\"}"),
            ("POST", "/volumes/create", "{"),
            ("GET", "/volumes?filters={%22nosuch%22:[%221%22]}", ""),
            (
                "POST",
                "/volumes/prune?filters={%22nosuch%22:[%221%22]}",
                "",
            ),
            ("GET", "/networks/nosuch", ""),
            ("DELETE", "/networks/nosuch", ""),
            ("DELETE", "/networks/bridge", ""),
            ("GET", "/networks?filters={%22nosuch%22:[%221%22]}", ""),
            ("GET", "/events?since=x", ""),
            ("GET", "/events?since=1&until=2&filters=x", ""),
            ("GET", "/events?since=10&until=5", ""),
            (
                "POST",
                "/containers/prune?filters={%22nosuch%22:[%221%22]}",
                "",
            ),
            ("POST", "/images/prune?filters={%22nosuch%22:[%221%22]}", ""),
            ("GET", "/swarm", ""),
            ("GET", "/services", ""),
            ("GET", "/nodes", ""),
            ("GET", "/secrets", ""),
            ("GET", "/plugins", ""),
        ],
    );
}

/// Sends requests of method, path and body, and compares status, type and body of the answers with the recording `file`.
pub fn compare(s: &Session, file: &str, requests: &[(&str, &str, &str)]) {
    let mut recording = Recording::open(file, s.engine);
    let mut differences = Vec::new();
    for &(method, path, body) in requests {
        let line = format!("{method} {path} {body}");
        let body = s.x(body);
        let body = (!body.is_empty()).then_some(("application/json", body.as_bytes()));
        let answer = match http::unix(&s.engine.socket, method, &s.x(path), body) {
            Ok(response) => {
                if method == "POST" && response.status == 201 && path.contains("/create") {
                    // It bears no label by which the scenario's end would find it.
                    let made = response.json().unwrap_or_default();
                    let id = made["Id"].as_str().unwrap_or_default();
                    let kind = path.split('/').rev().nth(1).unwrap_or_default();
                    s.engine.api("DELETE", &format!("/{kind}/{id}"), None);
                }
                let text = response.text().replace(&s.x("@prefix"), "@prefix");
                format!(
                    "{} {}\n{text}",
                    response.status,
                    response.header("Content-Type").unwrap_or("-")
                )
            }
            Err(error) => format!("no answer: {error:#}"),
        };
        if let Some((_, ours)) = DIFFERS.iter().find(|(differs, _)| *differs == line)
            && !s.engine.is_reference()
        {
            assert!(answer.starts_with(ours), "{line}: {answer}");
            continue;
        }
        differences.extend(recording.compare(&line, &mask(&answer)));
    }
    recording.save();
    assert!(
        differences.is_empty(),
        "{} differ:\n{}",
        differences.len(),
        differences.join("\n")
    );
}

/// Requests to which Gantry answers with the reference's status and its own words: the decoder's, and those for a
/// configuration in which every field has its zero value.
const DIFFERS: &[(&str, &str)] = &[
    ("POST /containers/create []", "400 application/json"),
    ("POST /networks/create []", "400 application/json"),
    (
        r#"POST /networks/create {"Name":"@x","Labels":[]}"#,
        "400 application/json",
    ),
    (
        r#"POST /containers/create {"Image":""}"#,
        "400 application/json",
    ),
];

/// Replaces ids.
fn mask(text: &str) -> String {
    let is_id = |word: &str| {
        word.len() == 64 && word.chars().all(|character| character.is_ascii_hexdigit())
    };
    let mut result = text.to_owned();
    for word in text.split(|character: char| !character.is_ascii_alphanumeric()) {
        if is_id(word) {
            result = result.replace(word, "<id>");
        }
    }
    // An endpoint is named by the begin of its id.
    const SHORT_ID: usize = 12;
    let marker = "id:\\\"";
    if let Some((before, rest)) = result.clone().split_once(marker)
        && let Some(after) = rest.get(SHORT_ID..)
    {
        result = format!("{before}{marker}<short id>{after}");
    }
    result
}

fn versions_are_negotiated(s: &Session) {
    let response = http::unix(&s.engine.socket, "GET", "/_ping", None).expect("an answer");
    assert_eq!(response.text(), "OK");
    assert_eq!(response.header("Api-Version"), Some("1.51"));
    assert_eq!(response.header("Ostype"), Some("linux"));
    for version in ["1.24", "1.30", "1.41", "1.45"] {
        let version = s
            .d_env(
                "version --format '{{.Client.APIVersion}}'",
                &[("DOCKER_API_VERSION", version)],
            )
            .ok()
            .text();
        assert!(version.starts_with("1."));
        s.d_env(
            "run --rm @bb echo old client",
            &[("DOCKER_API_VERSION", &version)],
        )
        .prints("old client\n");
        s.d_env("ps -q", &[("DOCKER_API_VERSION", &version)]).ok();
    }
}

fn a_hijack_without_upgrade_works(s: &Session) {
    use std::io::{Read, Write};
    s.d("run -d --name @c @bb sleep 1000").ok();
    let body = serde_json::json!({"Cmd": ["cat"], "AttachStdin": true, "AttachStdout": true});
    let created = s
        .engine
        .api("POST", &s.x("/containers/@c/exec"), Some(&body))
        .json()
        .expect("JSON");
    let id = created["Id"].as_str().expect("an id");
    for (upgrade, status) in [
        ("", "HTTP/1.1 200 OK"),
        (
            "Connection: Upgrade\r\nUpgrade: tcp\r\n",
            "HTTP/1.1 101 UPGRADED",
        ),
    ] {
        let id = if upgrade.is_empty() {
            id.to_owned()
        } else {
            let created = s
                .engine
                .api("POST", &s.x("/containers/@c/exec"), Some(&body))
                .json()
                .expect("JSON");
            created["Id"].as_str().expect("an id").to_owned()
        };
        let mut stream =
            std::os::unix::net::UnixStream::connect(&s.engine.socket).expect("a connection");
        stream
            .set_read_timeout(Some(std::time::Duration::from_secs(20)))
            .expect("a timeout");
        let start = "{\"Detach\":false,\"Tty\":false}";
        let request = format!(
            "POST /v1.24/exec/{id}/start HTTP/1.1\r\nHost: d\r\n{upgrade}Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{start}",
            start.len()
        );
        stream.write_all(request.as_bytes()).expect("a write");
        let mut raw = Vec::new();
        while !raw.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            assert_eq!(stream.read(&mut byte).expect("the head"), 1);
            raw.push(byte[0]);
        }
        stream.write_all(b"early\n").expect("a write");
        stream
            .shutdown(std::net::Shutdown::Write)
            .expect("a half close");
        stream.read_to_end(&mut raw).expect("the answer's end");
        let text = String::from_utf8_lossy(&raw);
        assert!(text.starts_with(status), "{text:?}");
        assert!(raw.ends_with(b"\x01\0\0\0\0\0\0\x06early\n"), "{text:?}");
    }
}

fn heads_are_complete(s: &Session) {
    let response =
        http::unix(&s.engine.socket, "GET", "/containers/json", None).expect("an answer");
    assert_eq!(response.header("Content-Type"), Some("application/json"));
    assert_eq!(response.header("Api-Version"), Some("1.51"));
    assert_eq!(response.header("Docker-Experimental"), Some("false"));
    assert!(
        response
            .header("Server")
            .is_some_and(|server| server.contains('/') && server.ends_with("(linux)")),
        "{:?}",
        response.headers
    );
}

fn a_connection_to_be_closed_is_closed(s: &Session) {
    use std::io::{Read, Write};
    s.d("run -d --name @c @bb sleep 0.3").ok();
    for path in ["/containers/@c/wait", "/containers/@c/wait"] {
        let mut stream =
            std::os::unix::net::UnixStream::connect(&s.engine.socket).expect("a connection");
        stream
            .set_read_timeout(Some(std::time::Duration::from_secs(10)))
            .expect("a timeout");
        let request = format!(
            "POST {} HTTP/1.1\r\nHost: d\r\nConnection: close\r\nContent-Length: 0\r\n\r\n",
            s.x(path)
        );
        stream.write_all(request.as_bytes()).expect("a write");
        let mut raw = Vec::new();
        stream
            .read_to_end(&mut raw)
            .expect("the connection's end after the answer");
        assert!(String::from_utf8_lossy(&raw).contains("\"StatusCode\":0"));
    }
}
