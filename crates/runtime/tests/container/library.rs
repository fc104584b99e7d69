//! The library's own paths, which the shim takes: one process, pipes, overlay, a start by call.

use std::fs;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use gantry_runtime::{CreateOptions, Created, ExecOptions, Overlay, Rootfs, Stdio, create, exec};
use gantry_sys::process::{Exit, wait_pidfd};
use serde_json::json;

use super::Test;
use super::bundle::Bundle;

pub const TESTS: &[Test] = &[
    ("pipes_carry_what_is_said", pipes_carry_what_is_said),
    (
        "an_overlay_is_the_root_and_nobody_sees_it",
        an_overlay_is_the_root_and_nobody_sees_it,
    ),
    (
        "the_classic_overlay_does_the_same",
        the_classic_overlay_does_the_same,
    ),
    (
        "an_init_stands_before_the_program",
        an_init_stands_before_the_program,
    ),
    (
        "a_program_that_cannot_run_is_told_by_whom_it_concerns",
        a_program_that_cannot_run_is_told_by_whom_it_concerns,
    ),
    ("a_terminal_is_returned", a_terminal_is_returned),
    (
        "an_exec_is_a_child_of_the_caller",
        an_exec_is_a_child_of_the_caller,
    ),
    (
        "a_network_namespace_is_handed_over",
        a_network_namespace_is_handed_over,
    ),
];

struct Pipes {
    stdin: Option<std::io::PipeWriter>,
    stdout: std::io::PipeReader,
    stderr: std::io::PipeReader,
}

fn pipes() -> (Stdio, Pipes) {
    let (stdin, stdin_write) = std::io::pipe().expect("pipe");
    let (stdout_read, stdout) = std::io::pipe().expect("pipe");
    let (stderr_read, stderr) = std::io::pipe().expect("pipe");
    let stdio = Stdio::Pipes {
        stdin: stdin.into(),
        stdout: stdout.into(),
        stderr: stderr.into(),
    };
    (
        stdio,
        Pipes {
            stdin: Some(stdin_write),
            stdout: stdout_read,
            stderr: stderr_read,
        },
    )
}

impl Pipes {
    fn finish(mut self) -> (String, String) {
        self.stdin = None;
        let (mut out, mut err) = (String::new(), String::new());
        self.stdout.read_to_string(&mut out).expect("read");
        self.stderr.read_to_string(&mut err).expect("read");
        (out, err)
    }
}

fn options(bundle: &Bundle, stdio: Stdio) -> CreateOptions {
    let spec = serde_json::from_value(bundle.spec.clone()).expect("spec");
    CreateOptions {
        stdio,
        ..CreateOptions::new(bundle.id.as_str(), &bundle.path, spec, bundle.state_root())
    }
}

fn wait(pidfd: &OwnedFd) -> Option<Exit> {
    wait_pidfd(pidfd.as_fd(), true).expect("wait")
}

fn pipes_carry_what_is_said() {
    let bundle = Bundle::new("cat; echo err >&2; exit 3");
    let (stdio, mut pipes) = pipes();
    let created = create(options(&bundle, stdio)).expect("create");
    assert!(created.console.is_none());
    let exe = fs::read_link(format!("/proc/{}/exe", created.pid)).expect("waits");
    assert!(!exe.ends_with("busybox"));
    created.start().expect("start");
    pipes
        .stdin
        .as_mut()
        .expect("stdin")
        .write_all(b"in\n")
        .expect("write");
    assert_eq!(pipes.finish(), ("in\n".to_owned(), "err\n".to_owned()));
    assert_eq!(wait(&created.pidfd), Some(Exit::Code(3)));
    let root = fs::read_dir(format!(
        "/proc/self/fd/{}",
        std::os::fd::AsRawFd::as_raw_fd(&created.root)
    ))
    .expect("root");
    assert!(root.flatten().any(|entry| entry.file_name() == "bin"));
}

fn overlay(bundle: &mut Bundle) -> Overlay {
    for name in ["middle", "top", "upper", "work"] {
        fs::create_dir(bundle.path.join(name)).expect("mkdir");
    }
    fs::write(bundle.path.join("middle/which"), "middle\n").expect("write");
    fs::write(bundle.path.join("top/which"), "top\n").expect("write");
    bundle.spec["root"] = json!({ "path": "nosuch", "readonly": false });
    Overlay {
        lowers: vec![
            bundle.path.join("top"),
            bundle.path.join("middle"),
            bundle.rootfs(),
        ],
        upper: bundle.path.join("upper"),
        work: bundle.path.join("work"),
        ..Overlay::default()
    }
}

fn run(bundle: &Bundle, rootfs: Rootfs) -> String {
    let (stdio, pipes) = pipes();
    let created = create(CreateOptions {
        rootfs,
        ..options(bundle, stdio)
    })
    .expect("create");
    created.start().expect("start");
    let (out, err) = pipes.finish();
    assert_eq!(
        (wait(&created.pidfd), err.as_str()),
        (Some(Exit::Code(0)), "")
    );
    out
}

fn an_overlay_is_the_root_and_nobody_sees_it() {
    let mut bundle = Bundle::new("cat /which; echo new >/made; grep ' / ' /proc/mounts");
    let overlay = overlay(&mut bundle);
    let before = fs::read_to_string("/proc/self/mountinfo").expect("mounts");
    let output = run(&bundle, Rootfs::Overlay(overlay));
    assert!(output.starts_with("top\n"), "{output}");
    assert!(output.contains("overlay"), "{output}");
    assert!(
        !output.contains("index=on")
            && !output.contains("metacopy=on")
            && !output.contains("redirect_dir=on"),
        "{output}"
    );
    assert_eq!(
        fs::read_to_string(bundle.path.join("upper/made")).expect("upper"),
        "new\n"
    );
    assert_eq!(
        fs::read_to_string("/proc/self/mountinfo").expect("mounts"),
        before
    );
}

fn the_classic_overlay_does_the_same() {
    let mut bundle = Bundle::new("cat /which; echo new >/made");
    let overlay = overlay(&mut bundle);
    let tree = gantry_runtime::mount_overlay_classic(&overlay, &bundle.path).expect("mount");
    assert_eq!(run(&bundle, Rootfs::Mount(tree)), "top\n");
    assert_eq!(
        fs::read_to_string(bundle.path.join("upper/made")).expect("upper"),
        "new\n"
    );
}

fn an_init_stands_before_the_program() {
    // Busybox as an init: it takes its applet from argument 0, `docker-init`, which it does not have.
    let bundle = Bundle::new("true");
    let (stdio, pipes) = pipes();
    let init = fs::File::open("/bin/busybox").expect("open");
    let created = create(CreateOptions {
        init_binary: Some(init.into()),
        ..options(&bundle, stdio)
    })
    .expect("create");
    created.start().expect("start");
    let (_, err) = pipes.finish();
    assert!(err.contains("docker-init: applet not found"), "{err}");
    assert_eq!(wait(&created.pidfd), Some(Exit::Code(127)));
}

fn a_program_that_cannot_run_is_told_by_whom_it_concerns() {
    let mut bundle = Bundle::new("");
    fs::write(bundle.rootfs().join("bin/garbage"), "not a program").expect("write");
    fs::set_permissions(
        bundle.rootfs().join("bin/garbage"),
        std::os::unix::fs::PermissionsExt::from_mode(0o755),
    )
    .expect("chmod");
    bundle.spec["process"]["args"] = json!(["garbage"]);
    let (stdio, ours) = pipes();
    let created: Created = create(options(&bundle, stdio)).expect("create");
    // What the kernel does not execute is told by the container, which has started.
    created.start().expect("start");
    assert_eq!(ours.finish().1, "exec /bin/garbage: exec format error\n");
    assert_eq!(wait(&created.pidfd), Some(Exit::Code(255)));
    drop(bundle);

    let mut bundle = Bundle::new("");
    bundle.spec["process"]["args"] = json!(["nosuch"]);
    let (stdio, _pipes) = pipes();
    let error = create(options(&bundle, stdio)).expect_err("no program");
    assert!(error.is_not_found(), "{error:?}");
    assert!(bundle.cgroups().is_empty() && !bundle.state_root().join(&bundle.id).exists());
}

fn a_terminal_is_returned() {
    let mut bundle = Bundle::new("tty; read x; echo got $x");
    bundle.spec["process"]["terminal"] = json!(true);
    let created = create(options(
        &bundle,
        Stdio::Terminal {
            size: Some((40, 100)),
        },
    ))
    .expect("create");
    let mut master = fs::File::from(
        created
            .console
            .as_ref()
            .expect("console")
            .try_clone()
            .expect("dup"),
    );
    let size = rustix::termios::tcgetwinsize(&master).expect("size");
    assert_eq!((size.ws_row, size.ws_col), (40, 100));
    created.start().expect("start");
    master.write_all(b"hello\n").expect("write");
    let (mut output, mut buffer) = (Vec::new(), [0; 256]);
    while let Ok(length @ 1..) = master.read(&mut buffer) {
        output.extend(&buffer[..length]);
    }
    let output = String::from_utf8_lossy(&output);
    assert!(
        output.contains("/dev/pts/0") && output.contains("got hello"),
        "{output}"
    );
    assert_eq!(wait(&created.pidfd), Some(Exit::Code(0)));
}

fn an_exec_is_a_child_of_the_caller() {
    let bundle = Bundle::new("sleep 60");
    let (stdio, _pipes) = pipes();
    let created = create(options(&bundle, stdio)).expect("create");
    created.start().expect("start");
    let (stdio, pipes) = self::pipes();
    let mut process: gantry_api::oci::runtime::Process =
        serde_json::from_value(bundle.spec["process"].clone()).expect("process");
    process.args = ["sh", "-c", "echo $PPID; cat; exit 5"]
        .map(str::to_owned)
        .to_vec();
    let execed = exec(ExecOptions {
        id: &bundle.id,
        pid: created.pid,
        pidfd: created.pidfd.as_fd(),
        process,
        stdio,
        cgroup: &created.cgroup,
        seccomp_filter: None,
        seccomp: None,
        no_new_keyring: false,
        preserve_fds: 0,
        pid_file: None,
    })
    .expect("exec");
    let stat = fs::read_to_string(format!("/proc/{}/stat", execed.pid)).expect("stat");
    let parent = stat
        .rsplit_once(") ")
        .expect("stat")
        .1
        .split(' ')
        .nth(1)
        .expect("ppid");
    assert_eq!(parent, std::process::id().to_string());
    assert_eq!(pipes.finish().0, "0\n");
    assert_eq!(wait(&execed.pidfd), Some(Exit::Code(5)));
    created.cgroup.kill().expect("kill");
    assert_eq!(wait(&created.pidfd), Some(Exit::Signal(9)));
    // Nobody else is left to reap: the helper was reaped by the library.
    assert!(matches!(
        rustix::process::wait(rustix::process::WaitOptions::NOHANG),
        Err(rustix::io::Errno::CHILD)
    ));
}

fn a_network_namespace_is_handed_over() {
    let bundle = Bundle::new("readlink /proc/self/ns/net");
    let (stdio, pipes) = pipes();
    let netns = fs::File::open(Path::new("/proc/self/ns/net")).expect("open");
    let created = create(CreateOptions {
        netns: Some(netns.into()),
        ..options(&bundle, stdio)
    })
    .expect("create");
    created.start().expect("start");
    let own = fs::read_link("/proc/self/ns/net").expect("own");
    assert_eq!(pipes.finish().0.trim_end(), own.display().to_string());
    assert_eq!(wait(&created.pidfd), Some(Exit::Code(0)));
}
