//! Docker's default profile as data, grouped by what the calls are for.
//!
//! What is not named here fails with `EPERM`. Left out on purpose, besides what only an administrator needs: io_uring
//! (its operations pass over every filter), userfaultfd and keyrings (not in any namespace), and new namespaces.

use gantry_api::oci::runtime::{LinuxSeccomp, LinuxSeccompArg, LinuxSyscall};

use super::profile::has_capability;

/// Opening, reading, writing and moving the contents of files.
#[rustfmt::skip]
const FILES: &[&str] = &[
    "cachestat", "close", "close_range", "copy_file_range", "creat", "dup", "dup2", "dup3", "fadvise64",
    "fadvise64_64", "fallocate", "fcntl", "fcntl64", "fdatasync", "flock", "fsync", "ftruncate", "ftruncate64",
    "ioctl", "_llseek", "lseek", "memfd_create", "memfd_secret", "open", "openat", "openat2", "pipe", "pipe2",
    "pread64", "preadv", "preadv2", "pwrite64", "pwritev", "pwritev2", "read", "readahead", "readv", "sendfile",
    "sendfile64", "splice", "sync", "sync_file_range", "syncfs", "tee", "truncate", "truncate64", "vmsplice", "write",
    "writev",
];

/// Names in the file system, and what is known of files.
#[rustfmt::skip]
const NAMES: &[&str] = &[
    "access", "chdir", "chmod", "chown", "chown32", "faccessat", "faccessat2", "fchdir", "fchmod", "fchmodat",
    "fchmodat2", "fchown", "fchown32", "fchownat", "fgetxattr", "flistxattr", "fremovexattr", "fsetxattr", "fstat",
    "fstat64", "fstatat64", "fstatfs", "fstatfs64", "futimesat", "getcwd", "getdents", "getdents64", "getxattr",
    "getxattrat", "lchown", "lchown32", "lgetxattr", "link", "linkat", "listmount", "listxattr", "listxattrat",
    "llistxattr", "lremovexattr", "lsetxattr", "lstat", "lstat64", "mkdir", "mkdirat", "mknod", "mknodat",
    "name_to_handle_at", "newfstatat", "readlink", "readlinkat", "removexattr", "removexattrat", "rename", "renameat",
    "renameat2", "rmdir", "setxattr", "setxattrat", "stat", "stat64", "statfs", "statfs64", "statmount", "statx",
    "symlink", "symlinkat", "umask", "unlink", "unlinkat", "utime", "utimensat", "utimensat_time64", "utimes",
];

/// Waiting for descriptors and watching files.
#[rustfmt::skip]
const EVENTS: &[&str] = &[
    "epoll_create", "epoll_create1", "epoll_ctl", "epoll_ctl_old", "epoll_pwait", "epoll_pwait2", "epoll_wait",
    "epoll_wait_old", "eventfd", "eventfd2", "fanotify_mark", "inotify_add_watch", "inotify_init", "inotify_init1",
    "inotify_rm_watch", "_newselect", "poll", "ppoll", "ppoll_time64", "pselect6", "pselect6_time64", "select",
    "signalfd", "signalfd4",
];

/// The older asynchronous I/O; io_uring is left out, it passes over every rule here.
#[rustfmt::skip]
const ASYNCHRONOUS_IO: &[&str] = &[
    "io_cancel", "io_destroy", "io_getevents", "io_pgetevents", "io_pgetevents_time64", "io_setup", "io_submit",
];

/// Address space.
#[rustfmt::skip]
const MEMORY: &[&str] = &[
    "brk", "madvise", "map_shadow_stack", "mincore", "mlock", "mlock2", "mlockall", "mmap", "mmap2", "mprotect",
    "mremap", "mseal", "msync", "munlock", "munlockall", "munmap", "pkey_alloc", "pkey_free", "pkey_mprotect",
    "process_mrelease", "remap_file_pages",
];

/// Making, running, finding and ending processes and threads.
#[rustfmt::skip]
const PROCESSES: &[&str] = &[
    "execve", "execveat", "exit", "exit_group", "fork", "get_robust_list", "get_thread_area", "getpgid", "getpgrp",
    "getpid", "getppid", "getrlimit", "getrusage", "getsid", "gettid", "membarrier", "pidfd_open", "prctl",
    "prlimit64", "restart_syscall", "riscv_hwprobe", "rseq", "set_robust_list", "set_thread_area", "set_tid_address",
    "setpgid", "setrlimit", "setsid", "ugetrlimit", "uretprobe", "vfork", "wait4", "waitid", "waitpid",
];

/// Sending, blocking and waiting for signals.
#[rustfmt::skip]
const SIGNALS: &[&str] = &[
    "kill", "pause", "pidfd_send_signal", "rt_sigaction", "rt_sigpending", "rt_sigprocmask", "rt_sigqueueinfo",
    "rt_sigreturn", "rt_sigsuspend", "rt_sigtimedwait", "rt_sigtimedwait_time64", "rt_tgsigqueueinfo", "sigaltstack",
    "sigprocmask", "sigreturn", "tgkill", "tkill",
];

/// User and group ids and capabilities: the kernel itself guards the changes.
#[rustfmt::skip]
const IDENTITY: &[&str] = &[
    "capget", "capset", "getegid", "getegid32", "geteuid", "geteuid32", "getgid", "getgid32", "getgroups",
    "getgroups32", "getresgid", "getresgid32", "getresuid", "getresuid32", "getuid", "getuid32", "setfsgid",
    "setfsgid32", "setfsuid", "setfsuid32", "setgid", "setgid32", "setgroups", "setgroups32", "setregid",
    "setregid32", "setresgid", "setresgid32", "setresuid", "setresuid32", "setreuid", "setreuid32", "setuid",
    "setuid32",
];

/// Priorities and processors.
#[rustfmt::skip]
const SCHEDULING: &[&str] = &[
    "getcpu", "getpriority", "ioprio_get", "ioprio_set", "sched_get_priority_max", "sched_get_priority_min",
    "sched_getaffinity", "sched_getattr", "sched_getparam", "sched_getscheduler", "sched_rr_get_interval",
    "sched_rr_get_interval_time64", "sched_setaffinity", "sched_setattr", "sched_setparam", "sched_setscheduler",
    "sched_yield", "setpriority",
];

/// Clocks and timers; adjtimex and its kin only read without CAP_SYS_TIME.
#[rustfmt::skip]
const TIME: &[&str] = &[
    "adjtimex", "alarm", "clock_adjtime", "clock_adjtime64", "clock_getres", "clock_getres_time64", "clock_gettime",
    "clock_gettime64", "clock_nanosleep", "clock_nanosleep_time64", "getitimer", "gettimeofday", "nanosleep",
    "setitimer", "time", "timer_create", "timer_delete", "timer_getoverrun", "timer_gettime", "timer_gettime64",
    "timer_settime", "timer_settime64", "timerfd_create", "timerfd_gettime", "timerfd_gettime64", "timerfd_settime",
    "timerfd_settime64", "times",
];

/// Locks between threads.
#[rustfmt::skip]
const LOCKS: &[&str] = &[
    "futex", "futex_requeue", "futex_time64", "futex_wait", "futex_waitv", "futex_wake",
];

/// Sockets once they are made; making one depends on its family.
#[rustfmt::skip]
const NETWORK: &[&str] = &[
    "accept", "accept4", "bind", "connect", "getpeername", "getsockname", "getsockopt", "listen", "recv", "recvfrom",
    "recvmmsg", "recvmmsg_time64", "recvmsg", "send", "sendmmsg", "sendmsg", "sendto", "setsockopt", "shutdown",
    "socketcall", "socketpair",
];

/// System V and POSIX queues, semaphores, shared memory: each IPC namespace has its own.
#[rustfmt::skip]
const MESSAGES: &[&str] = &[
    "ipc", "mq_getsetattr", "mq_notify", "mq_open", "mq_timedreceive", "mq_timedreceive_time64", "mq_timedsend",
    "mq_timedsend_time64", "mq_unlink", "msgctl", "msgget", "msgrcv", "msgsnd", "semctl", "semget", "semop",
    "semtimedop", "semtimedop_time64", "shmat", "shmctl", "shmdt", "shmget",
];

/// What a process may forbid itself.
#[rustfmt::skip]
const CONFINEMENT: &[&str] = &[
    "landlock_add_rule", "landlock_create_ruleset", "landlock_restrict_self", "seccomp",
];

/// What the machine is.
#[rustfmt::skip]
const SYSTEM: &[&str] = &[
    "getrandom", "sysinfo", "uname",
];

/// Every group that is allowed whatever the container may do.
const ALWAYS: &[&[&str]] = &[
    FILES,
    NAMES,
    EVENTS,
    ASYNCHRONOUS_IO,
    MEMORY,
    PROCESSES,
    SIGNALS,
    IDENTITY,
    SCHEDULING,
    TIME,
    LOCKS,
    NETWORK,
    MESSAGES,
    CONFINEMENT,
    SYSTEM,
];

/// Calls that a capability opens: without it the kernel would refuse them too, or most of what they do, and the filter
/// keeps their code out of reach.
const BY_CAPABILITY: &[(&str, &[&str])] = &[
    ("BPF", &["bpf"]),
    ("DAC_READ_SEARCH", &["open_by_handle_at"]),
    ("PERFMON", &["perf_event_open"]),
    (
        "SYS_ADMIN",
        &[
            // namespaces
            "clone",
            "clone3",
            "setns",
            "unshare",
            "sethostname",
            "setdomainname",
            // mounts
            "fsconfig",
            "fsmount",
            "fsopen",
            "fspick",
            "mount",
            "mount_setattr",
            "move_mount",
            "open_tree",
            "umount",
            "umount2",
            "quotactl",
            "quotactl_fd",
            // watching and tracing the machine
            "bpf",
            "fanotify_init",
            "lookup_dcookie",
            "perf_event_open",
            "syslog",
            // security modules
            "lsm_get_self_attr",
            "lsm_list_modules",
            "lsm_set_self_attr",
        ],
    ),
    ("SYS_BOOT", &["reboot"]),
    ("SYS_CHROOT", &["chroot"]),
    (
        "SYS_MODULE",
        &["delete_module", "finit_module", "init_module"],
    ),
    (
        "SYS_NICE",
        &[
            "get_mempolicy",
            "mbind",
            "set_mempolicy",
            "set_mempolicy_home_node",
        ],
    ),
    ("SYS_PACCT", &["acct"]),
    ("SYS_PTRACE", &["kcmp", "pidfd_getfd", "process_madvise"]),
    ("SYS_PTRACE", TRACING),
    ("SYS_RAWIO", &["ioperm", "iopl"]),
    (
        "SYS_TIME",
        &["clock_settime", "clock_settime64", "settimeofday", "stime"],
    ),
    ("SYS_TTY_CONFIG", &["vhangup"]),
    ("SYSLOG", &["syslog"]),
];

/// Tracing of one's own processes. Before Linux 4.8 a tracer could change a call after the filter had passed it.
const TRACING: &[&str] = &["process_vm_readv", "process_vm_writev", "ptrace"];
const TRACING_KERNEL: (u32, u32) = (4, 8);

#[cfg(target_arch = "x86_64")]
const OF_ARCHITECTURE: &[&str] = &["arch_prctl", "modify_ldt"];
#[cfg(target_arch = "aarch64")]
const OF_ARCHITECTURE: &[&str] = &[
    "arm_fadvise64_64",
    "arm_sync_file_range",
    "breakpoint",
    "cacheflush",
    "set_tls",
    "sync_file_range2",
];

#[cfg(target_arch = "x86_64")]
const ARCHITECTURES: &[&str] = &["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"];
/// 32-bit arm has no table here: its programs are killed.
#[cfg(target_arch = "aarch64")]
const ARCHITECTURES: &[&str] = &["SCMP_ARCH_AARCH64"];

/// CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID and NEWNET.
const CLONE_NAMESPACES: u64 = 0x7e02_0000;

/// Families that sockets are not made of: AF_ALG reaches code of the kernel that nothing in a container needs, AF_VSOCK
/// leads to the hypervisor past every network namespace.
const AF_ALG: u64 = 38;
const AF_VSOCK: u64 = 40;

/// Execution domains that change nothing of the kernel's protections: PER_LINUX, PER_LINUX32, both with UNAME26, and the
/// question for the present one.
const PERSONALITIES: &[u64] = &[0, 0x0008, 0x2_0000, 0x2_0008, 0xffff_ffff];

/// Docker's default profile for a container with these capabilities (with or without `CAP_`) on a kernel of this version.
pub fn default_profile(capabilities: &[&str], kernel: (u32, u32)) -> LinuxSeccomp {
    let mut syscalls = vec![allow(ALWAYS.concat())];
    syscalls.push(allow(OF_ARCHITECTURE.to_vec()));
    if kernel >= TRACING_KERNEL {
        syscalls.push(allow(TRACING.to_vec()));
    }
    for (operator, value) in [
        ("SCMP_CMP_LT", AF_ALG),
        ("SCMP_CMP_EQ", AF_ALG + 1),
        ("SCMP_CMP_GT", AF_VSOCK),
    ] {
        syscalls.push(allow_if("socket", operator, value, 0));
    }
    for value in PERSONALITIES {
        syscalls.push(allow_if("personality", "SCMP_CMP_EQ", *value, 0));
    }
    for (capability, names) in BY_CAPABILITY {
        if has_capability(capabilities, capability) {
            syscalls.push(allow(names.to_vec()));
        }
    }
    if !has_capability(capabilities, "SYS_ADMIN") {
        syscalls.push(allow_if("clone", "SCMP_CMP_MASKED_EQ", CLONE_NAMESPACES, 0));
        // Its flags lie in memory, where a filter cannot look; with ENOSYS the C libraries take clone instead.
        syscalls.push(LinuxSyscall {
            names: vec!["clone3".to_owned()],
            action: "SCMP_ACT_ERRNO".to_owned(),
            errno_ret: Some(libc::ENOSYS.unsigned_abs()),
            args: Vec::new(),
        });
    }
    LinuxSeccomp {
        default_action: "SCMP_ACT_ERRNO".to_owned(),
        default_errno_ret: Some(libc::EPERM.unsigned_abs()),
        architectures: ARCHITECTURES.iter().map(|one| (*one).to_owned()).collect(),
        syscalls,
        ..LinuxSeccomp::default()
    }
}

fn allow(names: Vec<&str>) -> LinuxSyscall {
    LinuxSyscall {
        names: names.into_iter().map(str::to_owned).collect(),
        action: "SCMP_ACT_ALLOW".to_owned(),
        errno_ret: None,
        args: Vec::new(),
    }
}

fn allow_if(name: &str, operator: &str, value: u64, value_two: u64) -> LinuxSyscall {
    LinuxSyscall {
        args: vec![LinuxSeccompArg {
            index: 0,
            value,
            value_two,
            op: operator.to_owned(),
        }],
        ..allow(vec![name])
    }
}
