//! Further processes in a running container, and terminals.

use std::fs;
use std::io::Read;
use std::os::fd::AsFd;
use std::os::unix::net::UnixListener;

use gantry_sys::unix;
use serde_json::json;

use super::Test;
use super::bundle::{Bundle, eventually, text};

pub const TESTS: &[Test] = &[
    (
        "an_exec_is_in_all_namespaces_and_cgroups",
        an_exec_is_in_all_namespaces_and_cgroups,
    ),
    (
        "an_exec_has_its_own_attributes",
        an_exec_has_its_own_attributes,
    ),
    (
        "an_execs_errors_are_told_in_runcs_words",
        an_execs_errors_are_told_in_runcs_words,
    ),
    ("an_exec_can_be_left_alone", an_exec_can_be_left_alone),
    (
        "an_exec_is_confined_like_its_container",
        an_exec_is_confined_like_its_container,
    ),
    (
        "a_terminal_goes_to_the_console_socket",
        a_terminal_goes_to_the_console_socket,
    ),
    (
        "a_terminal_is_the_containers_own",
        a_terminal_is_the_containers_own,
    ),
    (
        "no_descriptor_of_the_host_is_in_an_exec",
        no_descriptor_of_the_host_is_in_an_exec,
    ),
];

fn running() -> Bundle {
    let bundle = Bundle::new("echo ready; sleep 60");
    bundle.start();
    eventually("it prints", || bundle.printed() == "ready\n");
    bundle
}

fn an_exec_is_in_all_namespaces_and_cgroups() {
    let bundle = running();
    let ran = bundle.exec(&[
        &bundle.id,
        "sh",
        "-c",
        "for n in pid net ipc uts mnt cgroup; do test $(readlink /proc/1/ns/$n) = $(readlink /proc/self/ns/$n) && echo same; done; cat /proc/self/cgroup; ps | grep -c sleep",
    ]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert_eq!(ran.stdout.matches("same").count(), 6, "{}", ran.stdout);
    assert!(
        ran.stdout
            .lines()
            .filter(|line| line.contains(':'))
            .all(|line| line.ends_with(":/")),
        "{}",
        ran.stdout
    );
}

fn an_exec_has_its_own_attributes() {
    let bundle = running();
    let ran = bundle.exec(&[
        "--user",
        "1000:1001",
        "-g",
        "7",
        "--cwd",
        "/tmp",
        "-e",
        "X=y",
        &bundle.id,
        "sh",
        "-c",
        "id; pwd; echo $X $HOME; exit 9",
    ]);
    assert_eq!(ran.code, 9, "{}", ran.stderr);
    assert_eq!(
        ran.stdout,
        "uid=1000(user) gid=1001 groups=7\n/tmp\ny /home/user\n"
    );
    let process = bundle.path.join("process.json");
    fs::write(&process, json!({ "args": ["sh", "-c", "echo $A; umask"], "cwd": "/", "env": ["PATH=/bin", "A=b"], "user": { "uid": 0, "gid": 0, "umask": 7 } }).to_string()).expect("write");
    let ran = bundle.exec(&["--process", text(&process), &bundle.id]);
    assert_eq!(ran.stdout, "b\n0007\n", "{}", ran.stderr);
    let ran = bundle.exec(&[&bundle.id, "sh", "-c", "kill -TERM $$"]);
    assert_eq!(ran.code, 143);
}

fn an_execs_errors_are_told_in_runcs_words() {
    let bundle = running();
    for (arguments, words) in [
        (
            &["nosuch"][..],
            r#"exec failed: unable to start container process: exec: "nosuch": executable file not found in $PATH"#,
        ),
        (
            &["/etc/passwd"],
            r#"exec failed: unable to start container process: exec: "/etc/passwd": permission denied"#,
        ),
    ] {
        let mut all = vec![bundle.id.as_str()];
        all.extend(arguments);
        let ran = bundle.exec(&all);
        assert_eq!((ran.code, ran.stderr.trim_end()), (255, words));
    }
    let ran = bundle.exec(&["--cwd", "/nosuch", &bundle.id, "true"]);
    assert!(
        ran.stderr.contains(r#"chdir to cwd ("/nosuch")"#),
        "{}",
        ran.stderr
    );
    assert_eq!(bundle.runtime(&["kill", &bundle.id, "KILL"]).code, 0);
    eventually("it stops", || bundle.status() == "stopped");
    let ran = bundle.exec(&[&bundle.id, "true"]);
    assert!(
        ran.stderr.contains("cannot exec in a stopped container"),
        "{}",
        ran.stderr
    );
}

fn an_exec_can_be_left_alone() {
    let bundle = running();
    let pid_file = bundle.path.join("exec-pid");
    let status = bundle
        .command(&[
            "exec",
            "--detach",
            "--pid-file",
            text(&pid_file),
            &bundle.id,
            "sleep",
            "61",
        ])
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .status()
        .expect("exec");
    assert!(status.success());
    let pid: i32 = fs::read_to_string(&pid_file)
        .expect("pid file")
        .parse()
        .expect("a number");
    let line = fs::read(format!("/proc/{pid}/cmdline")).expect("it runs");
    assert_eq!(line, b"sleep\x0061\0");
    let pids = bundle.runtime(&["ps", "-f", "json", &bundle.id]).stdout;
    assert!(pids.contains(&pid.to_string()), "{pids}");
}

fn an_exec_is_confined_like_its_container() {
    let mut bundle = Bundle::new("echo ready; sleep 60");
    bundle.spec["linux"]["seccomp"] = json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "architectures": ["SCMP_ARCH_X86_64"],
        "syscalls": [{ "names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO" }]
    });
    bundle.start();
    let ran = bundle.exec(&[
        &bundle.id,
        "sh",
        "-c",
        "cat /proc/self/status; mkdir /dev/shm/x || echo refused",
    ]);
    for line in [
        "Seccomp:\t2",
        "NoNewPrivs:\t1",
        "CapBnd:\t0000000020000420",
        "refused",
    ] {
        assert!(ran.stdout.contains(line), "{line}: {}", ran.stdout);
    }
    let ran = bundle.exec(&["-c", "CAP_CHOWN", &bundle.id, "cat", "/proc/self/status"]);
    assert!(
        ran.stdout.contains("CapEff:\t0000000020000421"),
        "{}",
        ran.stdout
    );
}

/// Receives a terminal's master as conmon does.
fn receive(listener: &UnixListener) -> fs::File {
    let (socket, _) = listener.accept().expect("accept");
    let (mut buffer, mut fds) = ([0; 64], Vec::new());
    unix::wait_readable(socket.as_fd(), std::time::Duration::from_secs(10)).expect("wait");
    unix::recv_with_fds(socket.as_fd(), &mut buffer, &mut fds).expect("receive");
    fs::File::from(fds.pop().expect("a descriptor"))
}

fn read_all(mut master: fs::File) -> String {
    let (mut output, mut buffer) = (Vec::new(), [0; 1024]);
    // EIO is a terminal's end.
    while let Ok(length @ 1..) = master.read(&mut buffer) {
        output.extend(&buffer[..length]);
    }
    String::from_utf8_lossy(&output).into_owned()
}

fn a_terminal_goes_to_the_console_socket() {
    let mut bundle = Bundle::new(
        "tty; ls -l /dev/console; echo x >/dev/tty; test -t 0 && test -t 2 && echo terminal",
    );
    bundle.spec["process"]["terminal"] = json!(true);
    bundle.spec["process"]["consoleSize"] = json!({ "height": 33, "width": 77 });
    bundle.write();
    let path = bundle.path.join("console.sock");
    let listener = UnixListener::bind(&path).expect("bind");
    let created = bundle.runtime(&[
        "create",
        "-b",
        text(&bundle.path),
        "--console-socket",
        text(&path),
        &bundle.id,
    ]);
    assert_eq!(created.code, 0, "{}", created.stderr);
    let master = receive(&listener);
    let size = rustix::termios::tcgetwinsize(&master).expect("size");
    assert_eq!((size.ws_row, size.ws_col), (33, 77));
    assert_eq!(bundle.runtime(&["start", &bundle.id]).code, 0);
    let output = read_all(master);
    assert!(
        output.starts_with("/dev/pts/0\r\ncrw") && output.ends_with("x\r\nterminal\r\n"),
        "{output}"
    );
}

fn a_terminal_is_the_containers_own() {
    let bundle = running();
    let path = bundle.path.join("console.sock");
    let listener = UnixListener::bind(&path).expect("bind");
    let process = bundle.path.join("process.json");
    fs::write(&process, json!({ "terminal": true, "args": ["sh", "-c", "tty; ls /dev/pts; echo x >/dev/tty"], "cwd": "/", "env": ["PATH=/bin"], "user": {} }).to_string()).expect("write");
    let ran = bundle.exec(&[
        "--detach",
        "--process",
        text(&process),
        "--console-socket",
        text(&path),
        &bundle.id,
    ]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    let output = read_all(receive(&listener));
    assert_eq!(
        output,
        "/dev/pts/0\r\n0     ptmx\r\nx\r\n"
            .replace("0     ptmx", output.lines().nth(1).expect("line")),
        "{output}"
    );
}

fn no_descriptor_of_the_host_is_in_an_exec() {
    let bundle = running();
    assert_eq!(
        bundle
            .exec(&[&bundle.id, "sh", "-c", "ls /proc/self/fd | tr '\\n' ' '"])
            .stdout,
        "0 1 2 3 "
    );
    for number in 3..20 {
        let ran = bundle.exec(&[
            "--cwd",
            &format!("/proc/self/fd/{number}"),
            &bundle.id,
            "pwd",
        ]);
        assert_eq!((ran.code, ran.stdout.as_str()), (255, ""), "{number}");
    }
}
