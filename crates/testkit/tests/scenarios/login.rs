//! `login` and `logout`: what is asked, what is kept and where, and what a registry then lets pass.

use std::os::unix::fs::PermissionsExt as _;

use gantry_testkit::peer::{DockerRegistry, PASSWORD, USER, fresh};
use gantry_testkit::session::{Client, Session};
use serde_json::{Value, json};

gantry_testkit::scenarios![
    without_a_login_nothing_passes,
    login_and_logout,
    a_login_is_asked_for_on_a_terminal,
    what_login_refuses,
    wrong_credentials_are_not_kept,
    helpers_keep_credentials,
    a_helper_for_one_server,
    credentials_of_the_environment,
    the_api_checks_credentials,
    the_header_carries_credentials,
];

const UNENCRYPTED: &str = "\nWARNING! Your credentials are stored unencrypted in '@dir/.docker/config.json'.\nConfigure a credential helper to remove this warning. See\nhttps://docs.docker.com/go/credential-store/\n\n";
const INSECURE: &str = "WARNING! Using --password via the CLI is insecure. Use --password-stdin.\n";

fn config(s: &Session) -> String {
    std::fs::read_to_string(s.dir().join(".docker/config.json")).unwrap_or_default()
}

fn without_a_login_nothing_passes(s: &Session) {
    let registry = DockerRegistry::protected(s);
    let (host, name) = (
        registry.host(),
        format!("{}/{}", registry.host(), s.x("@i")),
    );
    // With a layer that another registry has, which is asked for first, and with one that was never pushed.
    let other = DockerRegistry::open(s);
    fresh(s, &format!("{name}:1"));
    s.d(&format!("tag {name}:1 {}/@i:1", other.host())).ok();
    s.d(&format!("push -q {}/@i:1", other.host())).ok();
    fresh(s, &format!("{name}:2"));
    for tag in [1, 2] {
        s.d(&format!("push {name}:{tag}"))
            .fails(1, "no basic auth credentials\n")
            .shows(": Preparing\n");
    }
    s.d(&format!("pull {name}:1")).fails(
        1,
        &format!("Error response from daemon: Head \"http://{host}/v2/@i/manifests/1\": no basic auth credentials\n"),
    );
    s.d(&format!("run --rm --pull always {name}:1 true"))
        .exits(125)
        .warns("no basic auth credentials");
}

fn login_and_logout(s: &Session) {
    let registry = DockerRegistry::protected(s);
    let (host, name) = (
        registry.host(),
        format!("{}/{}", registry.host(), s.x("@i")),
    );
    let logged_in = s
        .d(&format!("login -u {USER} -p {PASSWORD} {host}"))
        .prints("Login Succeeded\n");
    assert_eq!(logged_in.stderr, s.x(&format!("{INSECURE}{UNENCRYPTED}")));
    assert_eq!(
        config(s),
        format!(
            "{{\n\t\"auths\": {{\n\t\t\"{host}\": {{\n\t\t\t\"auth\": \"YWxpY2U6c2VjcmV0\"\n\t\t}}\n\t}}\n}}"
        )
    );
    let mode = std::fs::metadata(s.dir().join(".docker/config.json"))
        .expect("a file")
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
    s.d(&format!("tag @bb {name}:1")).ok();
    s.d(&format!("push {name}:1"))
        .ok()
        .shows("1: digest: sha256:");
    s.d(&format!("rmi {name}:1")).ok();
    s.d(&format!("run --rm {name}:1 echo pulled"))
        .prints("pulled\n");
    let again = s.d(&format!("login {host}")).prints("Login Succeeded\n");
    assert_eq!(
        again.stderr,
        format!(
            "Authenticating with existing credentials... [Username: {USER}]\n\n Info -> To login with a different account, run 'docker logout' followed by 'docker login'\n\n\n"
        )
    );
    s.d(&format!("logout {host}"))
        .prints(&format!("Removing login credentials for {host}\n"));
    assert_eq!(config(s), "{\n\t\"auths\": {}\n}");
    s.d(&format!("logout {host}"))
        .prints(&format!("Removing login credentials for {host}\n"));
    s.d(&format!("pull {name}:1"))
        .exits(1)
        .warns("no basic auth credentials");
    // By standard input, and with a scheme.
    s.d_with(
        &format!("login -u {USER} --password-stdin http://{host}/"),
        format!("{PASSWORD}\n").as_bytes(),
    )
    .prints("Login Succeeded\n");
    s.d(&format!("pull -q {name}:1")).ok();
    s.d(&format!("logout https://{host}"))
        .prints(&format!("Removing login credentials for {host}\n"));
    assert_eq!(config(s), "{\n\t\"auths\": {}\n}");
    s.d("logout")
        .prints("Removing login credentials for https://index.docker.io/v1/\n");
}

fn a_login_is_asked_for_on_a_terminal(s: &Session) {
    let registry = DockerRegistry::protected(s);
    let host = registry.host();
    let mut terminal = s.terminal(&format!("login {host}"));
    terminal.expect("Username: ");
    terminal.send(format!("{USER}\n").as_bytes());
    terminal.expect("Password: ");
    terminal.send(format!("{PASSWORD}\n").as_bytes());
    terminal.expect("Login Succeeded");
    assert_eq!(terminal.wait(), 0);
    assert!(
        !terminal.screen().contains(PASSWORD),
        "{}",
        terminal.screen()
    );
    assert!(config(s).contains(&host));
    let mut terminal = s.terminal(&format!("login -u {USER} {host}"));
    terminal.expect("Password: ");
    terminal.send(b"\n");
    terminal.expect("Error: Password Required");
    assert_eq!(terminal.wait(), 1);
    s.d(&format!("logout {host}")).ok();
    let mut terminal = s.terminal(&format!("login {host}"));
    terminal.expect("Username: ");
    terminal.send(b"\n");
    terminal.expect("Error: Non-null Username Required");
    assert_eq!(terminal.wait(), 1);
}

fn what_login_refuses(s: &Session) {
    let registry = DockerRegistry::protected(s);
    let host = registry.host();
    let no_terminal = "Error: Cannot perform an interactive login from a non TTY device\n";
    for (line, words) in [
        ("login HOST", no_terminal),
        ("login -u alice HOST", no_terminal),
        ("login -u alice --password-stdin HOST", no_terminal),
        ("login -u '' -p secret HOST", "username is empty\n"),
        ("login -u alice -p '' HOST", "password is empty\n"),
        (
            "login --password-stdin HOST",
            "the --password-stdin option requires --username to be set\n",
        ),
        (
            "login -u alice -p x --password-stdin HOST",
            "conflicting options: cannot specify both --password and --password-stdin\n",
        ),
    ] {
        s.d(&line.replace("HOST", &host)).fails(1, words);
    }
    let nobody = format!("127.0.0.1:{}", s.port());
    s.d(&format!("login -u {USER} -p {PASSWORD} {nobody}")).fails(
        1,
        &format!("{INSECURE}Error response from daemon: Get \"http://{nobody}/v2/\": dial tcp {nobody}: connect: connection refused\n"),
    );
}

fn wrong_credentials_are_not_kept(s: &Session) {
    let registry = DockerRegistry::protected(s);
    let host = registry.host();
    let refused = format!(
        "Error response from daemon: login attempt to http://{host}/v2/ failed with status: 401 Unauthorized\n"
    );
    s.d(&format!("login -u {USER} -p wrong {host}"))
        .fails(1, &format!("{INSECURE}{refused}"));
    assert_eq!(config(s), "");
    // What was kept and is wrong now is asked for again.
    std::fs::create_dir_all(s.dir().join(".docker")).expect("a directory");
    s.file(
        ".docker/config.json",
        &format!("{{\"auths\":{{\"{host}\":{{\"auth\":\"YWxpY2U6b2xk\"}}}}}}"),
    );
    let mut terminal = s.terminal(&format!("login {host}"));
    terminal.expect("Login did not succeed, error: Error response from daemon: login attempt to ");
    terminal.expect(&format!("Username ({USER}): "));
    terminal.send(b"\n");
    terminal.expect("Password: ");
    terminal.send(format!("{PASSWORD}\n").as_bytes());
    terminal.expect("Login Succeeded");
    assert_eq!(terminal.wait(), 0);
}

/// A helper that keeps what it is given in a file, and the path that has it.
fn helper(s: &Session) -> String {
    let script = "#!/bin/sh\ninput=$(cat)\necho \"$1\" >> @dir/asked\ncase $1 in\nstore) echo \"$input\" > @dir/kept ;;\nget) if [ -e @dir/kept ]; then cat @dir/kept; else echo credentials not found in native keychain; exit 1; fi ;;\nerase) rm -f @dir/kept ;;\nesac\n";
    let path = s.file("docker-credential-test", &s.x(script));
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).expect("executable");
    let path = std::env::var("PATH").unwrap_or_default();
    format!("{}:{path}", s.dir().display())
}

fn write_config(s: &Session, text: &str) {
    std::fs::create_dir_all(s.dir().join(".docker")).expect("a directory");
    s.file(".docker/config.json", text);
}

fn helpers_keep_credentials(s: &Session) {
    let registry = DockerRegistry::protected(s);
    let (host, name) = (
        registry.host(),
        format!("{}/{}", registry.host(), s.x("@i")),
    );
    let path = helper(s);
    let with = [("PATH", path.as_str())];
    write_config(s, "{\"credsStore\":\"test\"}");
    let logged_in = s
        .d_env(&format!("login -u {USER} -p {PASSWORD} {host}"), &with)
        .prints("Login Succeeded\n");
    assert_eq!(logged_in.stderr, INSECURE);
    let kept: Value =
        serde_json::from_slice(&std::fs::read(s.dir().join("kept")).expect("kept")).expect("JSON");
    assert_eq!(
        kept,
        json!({"ServerURL": host, "Username": USER, "Secret": PASSWORD})
    );
    assert_eq!(
        config(s),
        format!("{{\n\t\"auths\": {{\n\t\t\"{host}\": {{}}\n\t}},\n\t\"credsStore\": \"test\"\n}}")
    );
    s.d(&format!("tag @bb {name}:1")).ok();
    s.d_env(&format!("push -q {name}:1"), &with).ok();
    s.d_env(&format!("pull -q {name}:1"), &with).ok();
    s.d_env(&format!("logout {host}"), &with).ok();
    assert!(!s.dir().join("kept").exists());
    s.d_env(&format!("pull -q {name}:1"), &with)
        .exits(1)
        .warns("no basic auth credentials");
    // A helper that is not there is named where something is to be kept.
    write_config(s, "{\"credsStore\":\"none\"}");
    s.d(&format!("login -u {USER} -p {PASSWORD} {host}")).fails(
        1,
        &format!("{INSECURE}Error saving credentials: error storing credentials - err: exec: \"docker-credential-none\": executable file not found in $PATH, out: ``\n"),
    );
}

fn a_helper_for_one_server(s: &Session) {
    let registry = DockerRegistry::protected(s);
    let (host, name) = (
        registry.host(),
        format!("{}/{}", registry.host(), s.x("@i")),
    );
    let path = helper(s);
    let with = [("PATH", path.as_str())];
    write_config(
        s,
        &format!("{{\"credsStore\":\"none\",\"credHelpers\":{{\"{host}\":\"test\"}}}}"),
    );
    s.d_env(&format!("login -u {USER} -p {PASSWORD} {host}"), &with)
        .prints("Login Succeeded\n");
    s.d(&format!("tag @bb {name}:1")).ok();
    s.d_env(&format!("push -q {name}:1"), &with).ok();
    let asked = std::fs::read_to_string(s.dir().join("asked")).expect("a log");
    assert_eq!(asked, "store\nget\n");
}

fn credentials_of_the_environment(s: &Session) {
    if s.client == Client::Docker {
        return; // docker has read this variable since 28.3 alone
    }
    let registry = DockerRegistry::protected(s);
    let (host, name) = (
        registry.host(),
        format!("{}/{}", registry.host(), s.x("@i")),
    );
    let auths = format!("{{\"auths\":{{\"{host}\":{{\"auth\":\"YWxpY2U6c2VjcmV0\"}}}}}}");
    let with = [("DOCKER_AUTH_CONFIG", auths.as_str())];
    s.d(&format!("tag @bb {name}:1")).ok();
    s.d_env(&format!("push -q {name}:1"), &with).ok();
    s.d_env(&format!("logout {host}"), &with).ok().warns(
        "\n Warn -> DOCKER_AUTH_CONFIG is set and takes precedence.\n         Unset DOCKER_AUTH_CONFIG to restore the CLI auth behaviour.\n         \n",
    );
    s.d_env(&format!("push -q {name}:1"), &[("DOCKER_AUTH_CONFIG", "x")])
        .exits(1)
        .warns("Failed to create credential store from DOCKER_AUTH_CONFIG:  ");
}

fn the_api_checks_credentials(s: &Session) {
    if s.client == Client::Gantry {
        return; // the API is the same
    }
    let registry = DockerRegistry::protected(s);
    let host = registry.host();
    let ask = |user: &str, password: &str, server: &str| {
        let body = json!({"username": user, "password": password, "serveraddress": server});
        let answer = s.engine.api("POST", "/v1.51/auth", Some(&body));
        (answer.status, answer.text())
    };
    let good = (
        200,
        "{\"IdentityToken\":\"\",\"Status\":\"Login Succeeded\"}\n".to_owned(),
    );
    assert_eq!(ask(USER, PASSWORD, &host), good);
    assert_eq!(ask(USER, PASSWORD, &format!("http://{host}/v2/")), good);
    assert_eq!(
        ask(USER, "wrong", &host),
        (
            500,
            format!(
                "{{\"message\":\"login attempt to http://{host}/v2/ failed with status: 401 Unauthorized\"}}\n"
            )
        )
    );
    assert_eq!(
        ask("", "", &host),
        (
            500,
            format!(
                "{{\"message\":\"Get \\\"http://{host}/v2/\\\": no basic auth credentials\"}}\n"
            )
        )
    );
}

fn the_header_carries_credentials(s: &Session) {
    let registry = DockerRegistry::protected(s);
    let (host, name) = (
        registry.host(),
        format!("{}/{}", registry.host(), s.x("@i")),
    );
    s.d(&format!("login -u {USER} -p {PASSWORD} {host}")).ok();
    s.d(&format!("tag @bb {name}:1")).ok();
    s.d(&format!("push -q {name}:1")).ok();
    // Without the header, and with one that nobody can read, the request has no credentials.
    let answer = s.engine.api(
        "POST",
        &format!("/v1.51/images/create?fromImage={name}&tag=1"),
        None,
    );
    assert_eq!(
        (answer.status, answer.text()),
        (
            500,
            s.x(&format!("{{\"message\":\"Head \\\"http://{host}/v2/@i/manifests/1\\\": no basic auth credentials\"}}\n"))
        )
    );
}
