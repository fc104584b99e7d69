//! Verdicts of compiled programs, by the interpreter and by the kernel.

use std::collections::BTreeSet;

use gantry_api::oci::runtime::{LinuxSeccompArg, LinuxSyscall};

use super::interpreter::run;
use super::*;

const ALLOW: u32 = 0x7fff_0000;
const EPERM: u32 = 0x0005_0001;
const ENOSYS: u32 = 0x0005_0026;
const KILL: u32 = 0;

const DOCKER: &[&str] = &[
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FSETID",
    "CAP_FOWNER",
    "CAP_MKNOD",
    "CAP_NET_RAW",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETFCAP",
    "CAP_SETPCAP",
    "CAP_NET_BIND_SERVICE",
    "CAP_SYS_CHROOT",
    "CAP_KILL",
    "CAP_AUDIT_WRITE",
];

fn rule(name: &str, action: &str, args: &[(u32, &str, u64, u64)]) -> LinuxSyscall {
    LinuxSyscall {
        names: vec![name.to_owned()],
        action: format!("SCMP_ACT_{action}"),
        errno_ret: None,
        args: args
            .iter()
            .map(|(index, operator, value, value_two)| LinuxSeccompArg {
                index: *index,
                value: *value,
                value_two: *value_two,
                op: format!("SCMP_CMP_{operator}"),
            })
            .collect(),
    }
}

fn profile(default: &str, syscalls: Vec<LinuxSyscall>) -> LinuxSeccomp {
    LinuxSeccomp {
        default_action: format!("SCMP_ACT_{default}"),
        architectures: ["X86_64", "X86", "X32"]
            .iter()
            .map(|one| format!("SCMP_ARCH_{one}"))
            .collect(),
        syscalls,
        ..LinuxSeccomp::default()
    }
}

fn verdict(filter: &Filter, architecture: Architecture, name: &str, arguments: &[u64]) -> u32 {
    let mut all = [0; 6];
    all[..arguments.len()].copy_from_slice(arguments);
    run(
        filter,
        architecture.audit(),
        syscalls::number(architecture, name).unwrap(),
        all,
    )
    .0
}

#[test]
fn comparisons_are_of_64_bits() {
    let pivot = 0x1_0000_0005_u64;
    let values = [
        0,
        4,
        5,
        6,
        pivot - 1,
        pivot,
        pivot + 1,
        0x2_0000_0000,
        0x2_0000_0005,
        u64::MAX,
    ];
    type Holds = fn(u64, u64) -> bool;
    let operators: [(&str, Holds); 6] = [
        ("EQ", |one, other| one == other),
        ("NE", |one, other| one != other),
        ("LT", |one, other| one < other),
        ("LE", |one, other| one <= other),
        ("GT", |one, other| one > other),
        ("GE", |one, other| one >= other),
    ];
    for (operator, holds) in operators {
        let filter = compile(&profile(
            "ERRNO",
            vec![rule("read", "ALLOW", &[(3, operator, pivot, 0)])],
        ))
        .unwrap();
        for value in values {
            let expected = if holds(value, pivot) { ALLOW } else { EPERM };
            let got = verdict(&filter, Architecture::X86_64, "read", &[9, 9, 9, value]);
            assert_eq!(got, expected, "{value:#x} {operator} {pivot:#x}");
            // Narrow architectures pass 32 bits, and the rest is not looked at.
            let expected = if holds(value & 0xffff_ffff, 5) {
                ALLOW
            } else {
                EPERM
            };
            for architecture in [Architecture::X86, Architecture::X32] {
                let got = verdict(&filter, architecture, "read", &[9, 9, 9, value]);
                assert_eq!(got, expected, "{architecture:?} {value:#x} {operator}");
            }
        }
    }
    let masked = [rule(
        "read",
        "ALLOW",
        &[(0, "MASKED_EQ", 0xf0_0000_00f0, 0x10_0000_0020)],
    )];
    let filter = compile(&profile("ERRNO", masked.to_vec())).unwrap();
    for (value, expected) in [
        (0x10_0000_0020, ALLOW),
        (0x1f_ffff_ff2f, ALLOW),
        (0x10_0000_0030, EPERM),
        (0x20_0000_0020, EPERM),
        (0x20, EPERM),
    ] {
        assert_eq!(
            verdict(&filter, Architecture::X86_64, "read", &[value]),
            expected,
            "{value:#x}"
        );
    }
}

#[test]
fn conditions_of_a_rule_are_joint_and_rules_are_alternatives() {
    let rules = vec![
        rule("read", "ALLOW", &[(0, "EQ", 1, 0), (1, "EQ", 2, 0)]),
        rule("read", "ALLOW", &[(0, "EQ", 7, 0)]),
        rule("write", "ALLOW", &[(0, "EQ", 1, 0), (0, "EQ", 2, 0)]),
        rule("open", "ALLOW", &[(0, "EQ", 1, 0)]),
        rule("open", "KILL_PROCESS", &[]),
        rule("close", "ALLOW", &[]),
        rule("close", "KILL_PROCESS", &[]),
        rule("close", "KILL_PROCESS", &[(0, "EQ", 1, 0)]),
        rule("no_such_call", "ALLOW", &[]),
    ];
    let filter = compile(&profile("ERRNO", rules)).unwrap();
    let got =
        |name: &str, arguments: &[u64]| verdict(&filter, Architecture::X86_64, name, arguments);
    for (name, arguments, expected) in [
        ("read", [1, 2], ALLOW),
        ("read", [1, 3], EPERM),
        ("read", [7, 3], ALLOW),
        ("write", [1, 0], ALLOW),
        ("write", [2, 0], ALLOW),
        ("write", [3, 0], EPERM),
        ("open", [1, 0], 0x8000_0000),
        ("close", [1, 0], ALLOW),
    ] {
        assert_eq!(got(name, &arguments), expected, "{name} {arguments:?}");
    }
}

#[test]
fn actions_have_their_verdicts() {
    for (action, number, expected) in [
        ("ALLOW", None, ALLOW),
        ("ERRNO", None, EPERM),
        ("ERRNO", Some(38), ENOSYS),
        ("ERRNO", Some(70_000), 0x0005_0fff),
        ("KILL", None, 0),
        ("KILL_THREAD", None, 0),
        ("KILL_PROCESS", None, 0x8000_0000),
        ("TRAP", None, 0x0003_0000),
        ("TRACE", Some(5), 0x7ff0_0005),
        ("LOG", None, 0x7ffc_0000),
    ] {
        let mut one = rule("read", action, &[]);
        one.errno_ret = number;
        let filter = compile(&profile(
            if action == "ALLOW" { "ERRNO" } else { "ALLOW" },
            vec![one],
        ))
        .unwrap();
        assert_eq!(
            verdict(&filter, Architecture::X86_64, "read", &[]),
            expected,
            "{action}"
        );
    }
}

#[test]
fn unnamed_architectures_are_killed() {
    let mut native = profile("ALLOW", vec![rule("read", "ERRNO", &[])]);
    native.architectures.clear();
    let filter = compile(&native).unwrap();
    assert_eq!(verdict(&filter, Architecture::X86_64, "write", &[]), ALLOW);
    assert_eq!(verdict(&filter, Architecture::X86_64, "read", &[]), EPERM);
    assert_eq!(verdict(&filter, Architecture::X86, "write", &[]), KILL);
    assert_eq!(verdict(&filter, Architecture::X32, "write", &[]), KILL);
    assert_eq!(
        run(&filter, Architecture::X86_64.audit(), u32::MAX, [0; 6]).0,
        ALLOW
    );
    assert_eq!(
        run(&filter, Architecture::Aarch64.audit(), 1, [0; 6]).0,
        KILL
    );
}

#[test]
fn denying_a_socket_call_denies_it_through_the_multiplexers() {
    let rules = vec![rule("socket", "ERRNO", &[]), rule("shmget", "ERRNO", &[])];
    let filter = compile(&profile("ALLOW", rules)).unwrap();
    for (name, argument, expected) in [
        ("socketcall", 1, EPERM),
        ("socketcall", 2, ALLOW),
        ("ipc", 23, EPERM),
        ("ipc", 1, ALLOW),
        ("socket", 0, EPERM),
    ] {
        assert_eq!(
            verdict(&filter, Architecture::X86, name, &[argument]),
            expected,
            "{name} {argument}"
        );
    }
}

#[test]
fn a_multiplexer_takes_the_place_of_the_first_condition() {
    let rules = vec![rule("accept", "ALLOW", &[(0, "EQ", 9, 0), (2, "EQ", 7, 0)])];
    let filter = compile(&profile("ERRNO", rules)).unwrap();
    for (arguments, expected) in [([5, 0, 7], ALLOW), ([5, 0, 8], EPERM), ([9, 0, 7], EPERM)] {
        assert_eq!(
            verdict(&filter, Architecture::X86, "socketcall", &arguments),
            expected,
            "{arguments:?}"
        );
    }
    // `accept` has no number of its own there: the multiplexer is the newest call the profile knows.
    assert_eq!(verdict(&filter, Architecture::X86, "getcwd", &[]), ENOSYS);
}

#[test]
fn calls_newer_than_the_profile_do_not_exist() {
    let rules = || vec![rule("read", "ALLOW", &[]), rule("openat2", "ALLOW", &[])];
    let filter = compile(&profile("ERRNO", rules())).unwrap();
    let newest = syscalls::number(Architecture::X86_64, "openat2").unwrap();
    let got = |filter: &Filter, number| run(filter, Architecture::X86_64.audit(), number, [0; 6]).0;
    assert_eq!(
        [newest - 1, newest, newest + 1].map(|one| got(&filter, one)),
        [EPERM, ALLOW, ENOSYS]
    );
    assert_eq!(got(&filter, X32_BIT | (newest + 1)), ENOSYS);
    for default in ["LOG", "TRACE"] {
        let filter = compile(&profile(default, rules())).unwrap();
        assert_eq!(
            got(&filter, newest + 1),
            got(&filter, newest - 1),
            "{default}"
        );
    }
}

#[test]
fn what_is_not_served_is_refused_by_name() {
    let with = |change: fn(&mut LinuxSeccomp)| {
        let mut profile = profile("ERRNO", vec![rule("read", "ALLOW", &[(0, "EQ", 0, 0)])]);
        change(&mut profile);
        compile(&profile).unwrap_err().to_string()
    };
    for (error, text) in [
        (
            with(|one| one.default_action = "SCMP_ACT_NOTIFY".to_owned()),
            "the seccomp action `SCMP_ACT_NOTIFY` is not supported",
        ),
        (
            with(|one| one.default_action = "ALLOW".to_owned()),
            "unknown seccomp action `ALLOW`",
        ),
        (
            with(|one| one.architectures = vec!["x86".to_owned()]),
            "unknown seccomp architecture `x86`",
        ),
        (
            with(|one| one.syscalls[0].args[0].op = "EQ".to_owned()),
            "unknown seccomp operator `EQ`",
        ),
        (
            with(|one| one.syscalls[0].args[0].index = 6),
            "seccomp rule for `read`: argument index 6 is above 5",
        ),
        (
            with(|one| one.flags = vec!["X".to_owned()]),
            "unknown seccomp flag `X`",
        ),
        (
            with(|one| one.listener_path = "/l".to_owned()),
            "the seccomp listenerPath `/l` is not supported",
        ),
    ] {
        assert_eq!(error, text);
    }
}

#[test]
fn long_filters_jump_far_enough() {
    // Every call with conditions of its own: blocks far beyond the reach of one conditional jump.
    let mut rules = Vec::new();
    for number in 0..330_u64 {
        let name = NAMES_OF_TEST
            .get(usize::try_from(number).unwrap() % NAMES_OF_TEST.len())
            .unwrap();
        rules.push(rule(
            name,
            "ALLOW",
            &[(0, "EQ", number, 0), (5, "NE", number, 0)],
        ));
    }
    let mut profile = profile("ERRNO", rules);
    profile.architectures.truncate(1);
    let filter = compile(&profile).unwrap();
    assert!(filter.len() > 1500, "{}", filter.len());
    for number in 0..330_u64 {
        let index = usize::try_from(number).unwrap() % NAMES_OF_TEST.len();
        let got = |first, last| {
            verdict(
                &filter,
                Architecture::X86_64,
                NAMES_OF_TEST[index],
                &[first, 0, 0, 0, 0, last],
            )
        };
        assert_eq!(got(number, number), EPERM);
        assert_eq!(got(number, 1000), ALLOW);
        assert_eq!(got(number + 1, 1000), EPERM);
    }
}

const NAMES_OF_TEST: &[&str] = &[
    "read", "write", "open", "close", "mmap", "ioctl", "pread64", "openat2", "futex",
];

#[test]
fn the_default_profile_of_docker() {
    let filter = compile(&default_profile(DOCKER, (6, 1))).unwrap();
    let got =
        |name: &str, arguments: &[u64]| verdict(&filter, Architecture::X86_64, name, arguments);
    for (name, arguments, expected) in [
        ("read", [0, 0], ALLOW),
        ("chroot", [0, 0], ALLOW),
        ("ptrace", [0, 0], ALLOW),
        ("mount", [0, 0], EPERM),
        ("unshare", [0, 0], EPERM),
        ("bpf", [0, 0], EPERM),
        ("keyctl", [0, 0], EPERM),
        ("io_uring_setup", [0, 0], EPERM),
        ("userfaultfd", [0, 0], EPERM),
        ("clone3", [0, 0], ENOSYS),
        ("clone", [17, 0], ALLOW),
        ("clone", [0x1000_0000, 0], EPERM),
        ("clone", [0x0002_0000, 0], EPERM),
        ("clone", [1 << 33, 0], ALLOW),
        ("socket", [2, 0], ALLOW),
        ("socket", [38, 0], EPERM),
        ("socket", [39, 0], ALLOW),
        ("socket", [40, 0], EPERM),
        ("socket", [41, 0], ALLOW),
        ("personality", [0, 0], ALLOW),
        ("personality", [0x20008, 0], ALLOW),
        ("personality", [0xffff_ffff, 0], ALLOW),
        ("personality", [0x4_0000, 0], EPERM),
    ] {
        assert_eq!(got(name, &arguments), expected, "{name} {arguments:x?}");
    }
    assert_eq!(
        verdict(&filter, Architecture::X86, "socketcall", &[1]),
        ALLOW
    );
    assert_eq!(verdict(&filter, Architecture::X32, "read", &[]), ALLOW);
    let old = compile(&default_profile(DOCKER, (4, 7))).unwrap();
    assert_eq!(verdict(&old, Architecture::X86_64, "ptrace", &[]), EPERM);
    let administrator = compile(&default_profile(&["SYS_ADMIN"], (6, 1))).unwrap();
    for name in ["mount", "unshare", "bpf", "clone3"] {
        assert_eq!(
            verdict(&administrator, Architecture::X86_64, name, &[0x1000_0000]),
            ALLOW,
            "{name}"
        );
    }
    assert_eq!(
        verdict(
            &administrator,
            Architecture::X86_64,
            "clone",
            &[0x1000_0000]
        ),
        ALLOW
    );
}

#[test]
fn the_way_to_a_verdict_is_short() {
    let filter = compile(&default_profile(DOCKER, (6, 1))).unwrap();
    // The numbers that exist: those in between are nobody's way.
    let steps: Vec<usize> = (0..=334)
        .chain(424..=469)
        .map(|number| run(&filter, Architecture::X86_64.audit(), number, [0; 6]).1)
        .collect();
    let mean = steps.iter().sum::<usize>() as f64 / steps.len() as f64;
    println!(
        "{} instructions; to a verdict: at most {:?}, {mean:.1} on average",
        filter.len(),
        steps.iter().max()
    );
    assert!(mean <= 12.0, "{mean}");
    for name in ["read", "write", "futex", "close", "mmap", "epoll_wait"] {
        let number = syscalls::number(Architecture::X86_64, name).unwrap();
        let steps = run(&filter, Architecture::X86_64.audit(), number, [0; 6]).1;
        println!("{name}: {steps}");
        assert!(steps <= 12, "{name}: {steps}");
    }
}

#[test]
fn the_default_profile_names_only_known_calls() {
    let profile = default_profile(DOCKER, (6, 1));
    let known = |name: &str| {
        [
            Architecture::X86_64,
            Architecture::X86,
            Architecture::X32,
            Architecture::Aarch64,
        ]
        .iter()
        .any(|architecture| syscalls::number(*architecture, name).is_some())
            || syscalls::SOCKETCALL.iter().any(|(one, _)| *one == name)
    };
    let unknown: BTreeSet<&str> = profile
        .syscalls
        .iter()
        .flat_map(|rule| &rule.names)
        .map(String::as_str)
        .filter(|name| !known(name))
        .collect();
    // Of 32-bit arm, glibc's own names, and riscv.
    assert_eq!(unknown, BTreeSet::from(["riscv_hwprobe"]));
    let first: BTreeSet<&String> = profile.syscalls[0].names.iter().collect();
    assert_eq!((first.len(), profile.syscalls[0].names.len()), (361, 361));
}

#[test]
fn profiles_of_docker_are_resolved() {
    let json = r#"{
        "defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 38,
        "archMap": [
            {"architecture": "SCMP_ARCH_X86_64", "subArchitectures": ["SCMP_ARCH_X86", "SCMP_ARCH_X32"]},
            {"architecture": "SCMP_ARCH_AARCH64", "subArchitectures": null}
        ],
        "syscalls": [
            {"names": ["read"], "action": "SCMP_ACT_ALLOW", "comment": "", "includes": {}, "excludes": {}},
            {"name": "write", "action": "SCMP_ACT_ALLOW", "args": null},
            {"names": ["mount"], "action": "SCMP_ACT_ALLOW", "includes": {"caps": ["CAP_SYS_ADMIN"]}},
            {"names": ["open"], "action": "SCMP_ACT_ALLOW", "excludes": {"caps": ["CAP_CHOWN"]}},
            {"names": ["ptrace"], "action": "SCMP_ACT_ALLOW", "includes": {"minKernel": "4.8"}},
            {"names": ["kcmp"], "action": "SCMP_ACT_ALLOW", "includes": {"minKernel": "6.2"}},
            {"names": ["chroot"], "action": "SCMP_ACT_ALLOW", "includes": {"arches": ["s390x"]}},
            {"names": ["arch_prctl"], "action": "SCMP_ACT_ALLOW", "includes": {"arches": ["amd64", "arm64"]}},
            {"names": ["clone"], "action": "SCMP_ACT_ALLOW",
             "args": [{"index": 0, "value": 2114060288, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ"}]}
        ]
    }"#;
    let resolved = resolve_profile(json, &["CAP_CHOWN"], (6, 1)).unwrap();
    let names: Vec<&str> = resolved
        .syscalls
        .iter()
        .flat_map(|one| &one.names)
        .map(String::as_str)
        .collect();
    assert_eq!(names, ["read", "write", "ptrace", "arch_prctl", "clone"]);
    assert_eq!(resolved.architectures.len(), 3);
    assert_eq!(resolved.default_errno_ret, Some(38));
    let filter = compile(&resolved).unwrap();
    assert_eq!(verdict(&filter, Architecture::X86_64, "mount", &[]), ENOSYS);
    assert_eq!(
        verdict(&filter, Architecture::X86_64, "clone", &[17]),
        ALLOW
    );
}

#[test]
fn contradictory_profiles_are_refused() {
    for (json, text) in [
        (
            r#"{"architectures": ["SCMP_ARCH_X86"], "archMap": [{"architecture": "SCMP_ARCH_X86_64"}]}"#,
            "both 'architectures' and 'archMap' are specified",
        ),
        (
            r#"{"syscalls": [{"name": "read", "names": ["write"]}]}"#,
            "both 'name' and 'names' are specified",
        ),
        ("{", "Decoding seccomp profile failed: "),
        (
            r#"{"syscalls": [{"names": [], "includes": {"minKernel": "x"}}]}"#,
            "Decoding seccomp profile failed: ",
        ),
    ] {
        let error = resolve_profile(json, &[], (6, 1)).unwrap_err().to_string();
        assert!(error.starts_with(text), "{error}");
    }
}

#[test]
fn the_kernel_takes_the_default_profile() {
    use rustix::io::Errno;
    use rustix::mount::{UnmountFlags, unmount};
    // Without TSYNC a filter holds for its thread alone, so that the other tests go on.
    let missing = "/no/such/mount";
    let inside = std::thread::spawn(move || {
        let filter = compile(&default_profile(DOCKER, (6, 1))).unwrap();
        gantry_sys::seccomp::load(&filter.program, filter.flags).unwrap();
        // Joining needs clone's and futex's verdicts, and files and memory must work on.
        let read = std::fs::read_to_string("/proc/self/stat").is_ok();
        (unmount(missing, UnmountFlags::empty()), read)
    })
    .join()
    .unwrap();
    assert_eq!(inside, (Err(Errno::PERM), true));
    assert_eq!(unmount(missing, UnmountFlags::empty()), Err(Errno::NOENT));
}
