//! What other programs see of pushes and pulls: the API's answers and progress streams, a terminal, scripts, and registries
//! that podman and skopeo use as well.

use gantry_testkit::peer::{DockerRegistry, digest, fresh};
use gantry_testkit::session::{Client, Session};
use serde_json::Value;

gantry_testkit::scenarios![
    progress_on_the_wire,
    progress_on_a_terminal,
    what_a_registry_says_of_an_image,
    names_and_tags_of_requests_are_checked,
    a_pipeline_pushes_and_deploys,
    other_programs_read_what_was_pushed,
    pushed_by_others,
    import_from_an_address,
];

/// The objects of a progress stream.
fn objects(text: &str) -> Vec<Value> {
    text.split("\r\n")
        .filter(|line| !line.is_empty())
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{line}: {error}")))
        .collect()
}

fn progress_on_the_wire(s: &Session) {
    if s.client == Client::Gantry {
        return; // the API is the same
    }
    let registry = DockerRegistry::open(s);
    let name = format!("{}/{}", registry.host(), s.x("@i"));
    fresh(s, &format!("{name}:1"));
    let push = s
        .engine
        .api("POST", &format!("/v1.51/images/{name}/push?tag=1"), None);
    assert_eq!(
        (push.status, push.header("content-type")),
        (200, Some("application/json"))
    );
    let text = push.text();
    assert!(text.ends_with("}\r\n"), "{text}");
    let lines = objects(&text);
    assert_eq!(
        lines[0].to_string(),
        format!("{{\"status\":\"The push refers to repository [{name}]\"}}")
    );
    assert_eq!(lines[1]["status"], "Preparing");
    assert_eq!(lines[1]["progressDetail"].to_string(), "{}");
    let aux = lines.last().expect("lines");
    assert_eq!(aux["aux"]["Tag"], "1");
    assert!(text.contains(&format!(
        "{{\"progressDetail\":{{}},\"aux\":{{\"Tag\":\"1\",\"Digest\":{},\"Size\":{}}}}}\r\n",
        aux["aux"]["Digest"], aux["aux"]["Size"]
    )));
    s.d(&format!("rmi {name}:1")).ok();
    let pull = s.engine.api(
        "POST",
        &format!("/v1.51/images/create?fromImage={name}&tag=1"),
        None,
    );
    assert_eq!(
        (pull.status, pull.header("content-type")),
        (200, Some("application/json"))
    );
    let text = pull.text();
    let lines = objects(&text);
    assert!(
        text.starts_with(&format!("{{\"status\":\"Pulling from {}\",\"id\":\"1\"}}\r\n{{\"status\":\"Pulling fs layer\",\"progressDetail\":{{}},\"id\":\"", s.x("@i"))),
        "{text}"
    );
    let bar = lines
        .iter()
        .find(|line| line["progressDetail"]["current"].is_u64())
        .unwrap_or_else(|| panic!("no bar in {text}"));
    assert!(bar["progressDetail"]["total"].is_u64(), "{bar}");
    let drawn = bar["progress"].as_str().expect("a bar");
    assert!(
        drawn.starts_with('[') && drawn.contains('/') && drawn.ends_with("kB"),
        "{drawn}"
    );
    assert!(text.contains("\\u003e"), "Go's encoder escapes: {text}");
}

fn progress_on_a_terminal(s: &Session) {
    let registry = DockerRegistry::open(s);
    let name = format!("{}/{}", registry.host(), s.x("@i"));
    fresh(s, &format!("{name}:1"));
    s.d(&format!("push {name}:1")).ok();
    s.d(&format!("rmi {name}:1")).ok();
    let mut terminal = s.terminal(&format!("pull {name}:1"));
    terminal.expect("\x1b[1A\x1b[2K\r");
    terminal.expect(": Pull complete \r\x1b[1B");
    terminal.expect("Status: Downloaded newer image for ");
    assert_eq!(terminal.wait(), 0);
}

fn what_a_registry_says_of_an_image(s: &Session) {
    if s.client == Client::Gantry {
        return; // the API is the same
    }
    let registry = DockerRegistry::open(s);
    let name = format!("{}/{}", registry.host(), s.x("@i"));
    s.d(&format!("tag @bb {name}:1")).ok();
    let digest = digest(&s.d(&format!("push {name}:1")).ok().stdout);
    let ask = |name: &str| {
        let answer = s
            .engine
            .api("GET", &format!("/v1.51/distribution/{name}/json"), None);
        (answer.status, answer.text())
    };
    for name in [format!("{name}:1"), format!("{name}@{digest}")] {
        let (status, text) = ask(&name);
        assert_eq!(status, 200, "{text}");
        let json: Value = serde_json::from_str(&text).expect("JSON");
        assert_eq!(json["Descriptor"]["digest"], digest);
        assert_eq!(
            json["Platforms"].to_string(),
            "[{\"architecture\":\"amd64\",\"os\":\"linux\"}]"
        );
        assert!(text.starts_with("{\"Descriptor\":{\"mediaType\":\"application/vnd.docker.distribution.manifest.v2+json\",\"digest\":"), "{text}");
    }
    for (name, status, message) in [
        (
            format!("{name}:9"),
            404,
            "manifest unknown: manifest unknown",
        ),
        (
            format!("{name}-x:9"),
            404,
            "manifest unknown: manifest unknown",
        ),
        (
            digest[7..].to_owned(),
            500,
            "no manifest found for full image ID",
        ),
        (
            "BAD".to_owned(),
            400,
            "invalid reference format: repository name (library/BAD) must be lowercase",
        ),
    ] {
        assert_eq!(
            ask(&name),
            (status, format!("{{\"message\":\"{message}\"}}\n"))
        );
    }
}

fn names_and_tags_of_requests_are_checked(s: &Session) {
    if s.client == Client::Gantry {
        return; // the API is the same
    }
    let post = |path: &str| {
        let answer = s.engine.api("POST", path, None);
        (answer.status, answer.text())
    };
    let says = |message: &str| format!("{{\"message\":\"{message}\"}}\n");
    let case = "invalid reference format: repository name (library/UPPER) must be lowercase";
    for path in [
        "/images/create?fromImage=UPPER&tag=1",
        "/images/UPPER/push?tag=1",
    ] {
        assert_eq!(post(path), (400, says(case)));
    }
    for path in [
        "/images/create?fromImage=a/b&tag=-x",
        "/images/a/b/push?tag=-x",
    ] {
        assert_eq!(post(path), (400, says("invalid tag format")));
    }
    let (status, text) = post("/images/a/b/push?tag=1&platform=x");
    assert_eq!(status, 400);
    assert!(text.contains("failed to parse platform: "), "{text}");
}

fn a_pipeline_pushes_and_deploys(s: &Session) {
    let registry = DockerRegistry::open(s);
    let image = format!("{}/{}:8f3c2d1", registry.host(), s.x("@my-app"));
    // Its first stage would build the image, which is given here.
    let script = |name: &str| {
        format!(
            "set -e\ndocker push {image}\ndocker rmi {image}\ndocker pull {image}\ndocker stop {name} || true\ndocker rm {name} || true\ndocker run -d --label gantry.test={prefix} --name {name} {image} sleep 1000\n",
            prefix = s.x("@prefix")
        )
    };
    s.d(&format!("tag @bb {image}")).ok();
    for _ in 0..2 {
        s.script(&script(&s.x("@deploy"))).ok();
        s.d("inspect -f '{{.State.Running}} {{.Config.Image}}' @deploy")
            .prints(&format!("true {image}\n"));
    }
}

/// Runs another program where the engine's host is.
fn other(s: &Session, words: &[&str]) -> String {
    let mut all = s.engine.host_words();
    all.extend(words.iter().map(|&word| word.to_owned()));
    let output = std::process::Command::new(&all[0])
        .args(&all[1..])
        .current_dir(s.dir())
        .output()
        .unwrap_or_else(|error| panic!("{}: {error}", all[0]));
    assert!(
        output.status.success(),
        "{words:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

fn other_programs_read_what_was_pushed(s: &Session) {
    let registry = DockerRegistry::open(s);
    let name = format!("{}/{}", registry.host(), s.x("@i"));
    fresh(s, &format!("{name}:1"));
    let pushed = digest(&s.d(&format!("push {name}:1")).ok().stdout);
    let inspect = s.d(&format!("image inspect {name}:1")).ok().json();
    let source = format!("docker://{name}:1");
    let copy = format!("dir:{}/copy", s.dir().display());
    let seen: Value = serde_json::from_str(&other(
        s,
        &["skopeo", "inspect", "--tls-verify=false", &source],
    ))
    .expect("JSON");
    assert_eq!(seen["Digest"], pushed);
    other(
        s,
        &["skopeo", "copy", "--src-tls-verify=false", &source, &copy],
    );
    let manifest: Value = serde_json::from_slice(
        &std::fs::read(s.dir().join("copy/manifest.json")).expect("a manifest"),
    )
    .expect("JSON");
    assert_eq!(manifest["config"]["digest"], inspect[0]["Id"]);
    let root = s.dir().join("podman").display().to_string();
    let podman = |words: &[&str]| {
        let mut all = vec![
            "podman",
            "--root",
            &root,
            "--runroot",
            &root,
            "--storage-driver",
            "vfs",
        ];
        all.extend(words);
        other(s, &all)
    };
    let id = podman(&["pull", "-q", "--tls-verify=false", &format!("{name}:1")]);
    assert_eq!(
        format!("sha256:{id}"),
        inspect[0]["Id"].as_str().expect("an id")
    );
    podman(&["rmi", "-f", &id]);
}

fn pushed_by_others(s: &Session) {
    let registry = DockerRegistry::open(s);
    let name = format!("{}/{}", registry.host(), s.x("@i"));
    let archive = gantry_testkit::engine::images_directory().join("app.tar");
    let source = format!("docker-archive:{}", archive.display());
    let id = s.d("image inspect -f '{{.Id}}' @app").ok().text();
    for (tag, options) in [
        ("docker", &["--format", "v2s2"][..]),
        ("oci", &["--format", "oci"]),
        (
            "zstd",
            &["--format", "oci", "--dest-compress-format", "zstd"],
        ),
    ] {
        let target = format!("docker://{name}:{tag}");
        let mut words = vec!["skopeo", "copy", "--dest-tls-verify=false", "-q"];
        words.extend(options);
        words.extend([source.as_str(), target.as_str()]);
        other(s, &words);
        let pushed = other(
            s,
            &[
                "skopeo",
                "inspect",
                "--tls-verify=false",
                "--format",
                "{{.Digest}}",
                &target,
            ],
        );
        let pulled = s.d(&format!("pull {name}:{tag}")).ok();
        assert_eq!(digest(&pulled.stdout), pushed);
        if tag == "docker" {
            s.d(&format!("image inspect -f '{{{{.Id}}}}' {name}:{tag}"))
                .prints(&format!("{id}\n"));
        }
        s.d(&format!("run --rm {name}:{tag} echo {tag}"))
            .prints(&format!("entry echo {tag}\n"));
    }
}

fn import_from_an_address(s: &Session) {
    let port = s.port();
    let script = "echo x > f; tar -cf t.tar f";
    let made = std::process::Command::new("sh")
        .current_dir(s.dir())
        .args(["-ec", script])
        .status()
        .expect("start sh");
    assert!(made.success());
    let mut words = s.engine.host_words();
    words.extend(["python3", "-m", "http.server", "-b", "127.0.0.1", "-d"].map(str::to_owned));
    words.extend([s.dir().display().to_string(), port.to_string()]);
    let mut server = std::process::Command::new(&words[0])
        .args(&words[1..])
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn()
        .expect("start a web server");
    s.get(std::net::Ipv4Addr::LOCALHOST, port, "/t.tar");
    let address = format!("http://127.0.0.1:{port}/t.tar");
    let imported = s.d(&format!("import {address} @i:1"));
    let absent = s.d(&format!("import {address}.none @i:2"));
    server.kill().expect("end the web server");
    server.wait().expect("wait for the web server");
    let lines: Vec<String> = imported.ok().stdout.lines().map(str::to_owned).collect();
    assert_eq!(lines[0], format!("Downloading from {address}"));
    assert!(
        lines[1].starts_with("sha256:") && lines.len() == 2,
        "{lines:?}"
    );
    s.d("history --format '{{.Comment}}' @i:1")
        .prints(&format!("Imported from {address}\n"));
    absent.exits(1).warns(&format!(
        "Error response from daemon: failed to GET {address}.none with status 404 "
    ));
    s.d(&format!("import {address} @i:3")).fails(
        1,
        &format!("Error response from daemon: Get \"{address}\": dial tcp 127.0.0.1:{port}: connect: connection refused\n"),
    );
}
