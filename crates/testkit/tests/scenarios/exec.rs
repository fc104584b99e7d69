//! `exec` in a running container.

use gantry_testkit::session::Session;
use gantry_testkit::wait::eventually;

gantry_testkit::scenarios![
    output_code_and_error_come_back,
    input_reaches_the_command,
    environment_directory_and_user,
    missing_and_not_executable_commands,
    a_stopped_container_refuses,
    a_paused_container_refuses,
    a_detached_exec_goes_on,
    a_privileged_exec_has_all_capabilities,
    an_exec_is_inspected,
    an_exec_shares_the_limits,
    the_containers_end_ends_its_execs,
    many_at_once,
    an_exec_has_a_terminal_when_asked,
    home_follows_the_user,
];

fn sleeper(s: &Session) {
    s.d("run -d --name @c -e FROM=container -w /etc @bb sleep 1000")
        .ok();
}

fn output_code_and_error_come_back(s: &Session) {
    sleeper(s);
    let outcome = s
        .d("exec @c sh -c 'echo out; echo err >&2; exit 9'")
        .exits(9);
    assert_eq!(
        (outcome.stdout.as_str(), outcome.stderr.as_str()),
        ("out\n", "err\n")
    );
    s.d("exec @c sh -c 'kill -9 $$'").exits(137);
}

fn input_reaches_the_command(s: &Session) {
    sleeper(s);
    let input = "0123456789\n".repeat(50_000);
    s.d_with("exec -i @c wc -c", input.as_bytes())
        .prints("550000\n");
    s.d_with("exec @c wc -c", input.as_bytes()).prints("0\n");
}

fn environment_directory_and_user(s: &Session) {
    sleeper(s);
    s.file("env", "C=file\n");
    s.d("exec -e B=two --env-file env @c sh -c 'echo $FROM $B $C; pwd; id -u'")
        .prints("container two file\n/etc\n0\n");
    s.d("exec -w /tmp -u user @c sh -c 'pwd; id -u; id -g'")
        .prints("/tmp\n1000\n1000\n");
    s.d("exec -u nobodyx @c true")
        .exits(1)
        .warns("unable to find user nobodyx: no matching entries in passwd file");
    s.d("exec -w /no/such @c true")
        .exits(127)
        .shows("chdir to cwd (\"/no/such\") set in config.json failed: no such file or directory");
}

fn missing_and_not_executable_commands(s: &Session) {
    sleeper(s);
    let text = "OCI runtime exec failed: exec failed: unable to start container process: exec: ";
    s.d("exec @c nosuch").exits(127).shows(&format!(
        "{text}\"nosuch\": executable file not found in $PATH"
    ));
    s.d("exec @c /no/such").exits(127).shows(&format!(
        "{text}\"/no/such\": stat /no/such: no such file or directory"
    ));
    s.d("exec @c /etc/not-executable")
        .exits(126)
        .shows(&format!("{text}\"/etc/not-executable\": permission denied"));
    s.d("exec @c")
        .exits(1)
        .warns("requires at least 2 arguments");
}

fn a_stopped_container_refuses(s: &Session) {
    let id = s.d("create --name @c @bb true").ok().text();
    s.d("exec @c true").fails(
        1,
        &format!("Error response from daemon: container {id} is not running\n"),
    );
    s.d("exec @none true")
        .fails(1, "Error response from daemon: No such container: @none\n");
}

fn a_paused_container_refuses(s: &Session) {
    sleeper(s);
    s.d("pause @c").ok();
    s.d("exec @c true").fails(
        1,
        "Error response from daemon: Container @c is paused, unpause the container before exec\n",
    );
    s.d("unpause @c").ok();
    s.d("exec @c true").ok();
}

fn a_detached_exec_goes_on(s: &Session) {
    sleeper(s);
    s.d("exec -d @c sh -c 'sleep 0.2; echo done > /tmp/mark; sleep 1000'")
        .prints("");
    eventually("the mark is there", || {
        s.d("exec @c cat /tmp/mark").stdout == "done\n"
    });
}

fn a_privileged_exec_has_all_capabilities(s: &Session) {
    sleeper(s);
    let bits = |line: &str| {
        u64::from_str_radix(
            s.d(line)
                .ok()
                .text()
                .split_whitespace()
                .last()
                .unwrap_or(""),
            16,
        )
        .expect("hex")
    };
    assert_eq!(bits("exec @c grep CapEff /proc/self/status"), 0xa804_25fb);
    let all = bits("exec --privileged @c grep CapEff /proc/self/status");
    assert!(all & !0xa804_25fb != 0, "{all:x}");
}

fn an_exec_is_inspected(s: &Session) {
    sleeper(s);
    let name = s.x("@c");
    let body = serde_json::json!({"Cmd": ["sh", "-c", "exit 4"], "AttachStdout": true, "Env": ["A=1"], "User": "1000"});
    let created = s
        .engine
        .api("POST", &format!("/containers/{name}/exec"), Some(&body));
    assert_eq!(created.status, 201);
    let id = created.json().expect("JSON")["Id"]
        .as_str()
        .expect("an id")
        .to_owned();
    let before = s
        .engine
        .api("GET", &format!("/exec/{id}/json"), None)
        .json()
        .expect("JSON");
    assert_eq!(
        (&before["Running"], &before["ExitCode"]),
        (&false.into(), &serde_json::Value::Null)
    );
    assert_eq!(
        before["ProcessConfig"],
        serde_json::json!({"tty": false, "entrypoint": "sh", "arguments": ["-c", "exit 4"], "privileged": false, "user": "1000"})
    );
    let started = s.engine.api(
        "POST",
        &format!("/exec/{id}/start"),
        Some(&serde_json::json!({"Detach": false, "Tty": false})),
    );
    assert_eq!(started.status, 200);
    eventually("the exec has ended", || {
        let state = s
            .engine
            .api("GET", &format!("/exec/{id}/json"), None)
            .json()
            .expect("JSON");
        state["ExitCode"] == 4 && state["Running"] == false
    });
    let again = s.engine.api(
        "POST",
        &format!("/exec/{id}/start"),
        Some(&serde_json::json!({"Detach": false})),
    );
    assert!(
        again
            .text()
            .contains(&format!("exec command {id} has already run")),
        "{} {}",
        again.status,
        again.text()
    );
}

fn an_exec_shares_the_limits(s: &Session) {
    sleeper(s);
    let cgroup = "cat /proc/self/cgroup";
    let of_exec = s.d(&format!("exec @c {cgroup}")).ok().text();
    let of_first = s.d("exec @c cat /proc/1/cgroup").ok().text();
    assert_eq!(of_exec, of_first);
}

fn the_containers_end_ends_its_execs(s: &Session) {
    sleeper(s);
    let mut exec = s.background("exec", "exec @c sleep 1000");
    eventually("the exec runs", || {
        s.d("exec @c ps").stdout.matches("sleep 1000").count() == 2
    });
    s.d("kill @c").ok();
    assert_eq!(exec.wait(), 137);
}

fn many_at_once(s: &Session) {
    sleeper(s);
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8)
            .map(|number| {
                scope.spawn(move || {
                    s.d(&format!("exec @c sh -c 'echo {number}; exit {number}'"))
                        .exits(number)
                        .text()
                })
            })
            .collect();
        for (number, thread) in threads.into_iter().enumerate() {
            assert_eq!(thread.join().expect("a thread"), number.to_string());
        }
    });
}

fn an_exec_has_a_terminal_when_asked(s: &Session) {
    sleeper(s);
    s.d("exec -t @c sh -c 'tty; echo $TERM'")
        .prints("/dev/pts/0\r\nxterm\r\n");
    s.d("exec @c tty").exits(1).shows("not a tty");
}

fn home_follows_the_user(s: &Session) {
    sleeper(s);
    s.d("exec -u user @c sh -c 'echo $HOME'").prints("/home\n");
    s.d("exec @c sh -c 'echo $HOME'").prints("/root\n");
}
