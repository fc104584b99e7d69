//! The real machine: cgroups of our own, with a unique name.
#![allow(unsafe_code)]

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;

use super::*;

static NUMBER: AtomicU32 = AtomicU32::new(0);

/// A cgroup that is emptied and removed whatever the test does.
struct Guard(Cgroup);

impl Guard {
    fn new(limits: &Limits) -> Self {
        Self(Cgroup::create(&layout(), &unique(), limits).unwrap())
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.remove();
        for hierarchy in &self.0.layout().hierarchies {
            if let Some(parent) = directory_of(hierarchy, self.0.path()).parent() {
                let _ = rustix::fs::rmdir(parent);
            }
        }
    }
}

fn layout() -> Layout {
    Layout::detect().unwrap()
}

fn unique() -> String {
    format!(
        "/gantry-test-{}-{}/leaf",
        std::process::id(),
        NUMBER.fetch_add(1, Ordering::Relaxed)
    )
}

/// A child that has joined the cgroup as containers do and then runs `body`; the body's result is its exit code.
struct Child(libc::pid_t);

impl Child {
    fn new(cgroup: &Cgroup, body: extern "C" fn() -> i32) -> Self {
        let join = cgroup.prepare_join().unwrap();
        // struct clone_args of clone(2), up to its `cgroup`.
        let mut arguments = [0u64; 11];
        arguments[4] = libc::SIGCHLD.unsigned_abs().into();
        if let Some(unified) = &join.unified {
            use std::os::fd::AsRawFd;
            arguments[0] = 0x2_0000_0000; // CLONE_INTO_CGROUP, which does not fit the constant in libc
            arguments[10] = u64::from(unified.as_raw_fd().unsigned_abs());
        }
        // SAFETY: a fork in all but name; the child calls only async-signal-safe functions before `_exit`.
        let pid = unsafe { libc::syscall(libc::SYS_clone3, arguments.as_mut_ptr(), 88usize) };
        assert!(pid >= 0, "{}", io::Error::last_os_error());
        if pid == 0 {
            let code = if join.enter().is_ok() { body() } else { 99 };
            // SAFETY: ends the child without running anything of the parent's.
            unsafe { libc::_exit(code) };
        }
        Self(libc::pid_t::try_from(pid).unwrap())
    }

    fn wait(self) -> i32 {
        let mut status = 0;
        // SAFETY: our own child, and a live status.
        unsafe { libc::waitpid(self.0, &raw mut status, 0) };
        std::mem::forget(self);
        status
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        let mut status = 0;
        // SAFETY: our own child, not yet waited for.
        unsafe {
            libc::kill(self.0, libc::SIGKILL);
            libc::waitpid(self.0, &raw mut status, 0);
        }
    }
}

extern "C" fn sleep_for_ever() -> i32 {
    loop {
        // SAFETY: pause(2) has no arguments.
        unsafe { libc::pause() };
    }
}

/// The child has entered every hierarchy: it is in version 2 from its birth and joins the others one by one.
fn is_joined(cgroup: &Cgroup, child: &Child) -> bool {
    let membership = std::fs::read_to_string(format!("/proc/{}/cgroup", child.0)).unwrap();
    membership.matches(cgroup.path()).count() == layout().hierarchies.len()
}

fn eventually(mut condition: impl FnMut() -> bool) -> bool {
    for _ in 0..2000 {
        if condition() {
            return true;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    false
}

#[test]
fn limits_arrive_and_change_in_both_directions() {
    let mib = 1 << 20;
    let limits = |memory: i64, swap: i64| Limits {
        memory_bytes: Some(memory),
        memory_swap_bytes: Some(swap),
        pids_max: Some(20),
        ..Limits::default()
    };
    let guard = Guard::new(&limits(64 * mib, 128 * mib));
    let stats = guard.0.stats().unwrap();
    assert_eq!(stats.memory.limit_bytes, Some(64 << 20));
    assert_eq!(
        stats.pids,
        stats::PidsStats {
            current: 0,
            limit: Some(20)
        }
    );
    for (memory, swap) in [(256, 512), (32, 40), (300, 300), (16, 16)] {
        guard.0.update(&limits(memory * mib, swap * mib)).unwrap();
        let stats = guard.0.stats().unwrap();
        assert_eq!(stats.memory.limit_bytes, Some(memory.unsigned_abs() << 20));
    }
    guard
        .0
        .update(&Limits {
            memory_bytes: Some(-1),
            ..Limits::default()
        })
        .unwrap();
    assert_eq!(guard.0.stats().unwrap().memory.limit_bytes, None);
}

#[test]
fn quotas_change_in_both_directions() {
    let guard = Guard::new(&Limits {
        cpu_quota_us: Some(10_000),
        cpu_period_us: Some(20_000),
        ..Limits::default()
    });
    for (quota, period) in [(500_000, 1_000_000), (1000, 2000), (-1, 100_000)] {
        guard
            .0
            .update(&Limits {
                cpu_quota_us: Some(quota),
                cpu_period_us: Some(period),
                ..Limits::default()
            })
            .unwrap();
    }
}

#[test]
fn a_child_joins_everywhere_and_is_frozen_and_killed() {
    let guard = Guard::new(&Limits::default());
    let child = Child::new(&guard.0, sleep_for_ever);
    assert!(eventually(|| is_joined(&guard.0, &child)));
    assert_eq!(guard.0.pids().unwrap(), [child.0]);
    assert_eq!(
        Cgroup::create(&layout(), guard.0.path(), &Limits::default())
            .unwrap_err()
            .kind(),
        io::ErrorKind::AlreadyExists
    );
    guard.0.freeze().unwrap();
    assert!(guard.0.is_frozen().unwrap());
    guard.0.thaw().unwrap();
    assert!(!guard.0.is_frozen().unwrap());
    guard.0.freeze().unwrap();
    guard.0.kill().unwrap();
    let status = child.wait();
    assert!(libc::WIFSIGNALED(status) && libc::WTERMSIG(status) == libc::SIGKILL);
    assert_eq!(guard.0.pids().unwrap(), Vec::<i32>::new());
    guard.0.remove().unwrap();
    guard.0.remove().unwrap();
    assert_eq!(
        Cgroup::open(&layout(), guard.0.path()).unwrap_err().kind(),
        io::ErrorKind::NotFound
    );
    assert_eq!(guard.0.stats().unwrap_err().kind(), io::ErrorKind::NotFound);
}

#[test]
fn kill_and_remove_reach_the_cgroups_beneath() {
    let guard = Guard::new(&Limits::default());
    let inner = Cgroup::create(
        &layout(),
        &format!("{}/inner", guard.0.path()),
        &Limits::default(),
    )
    .unwrap();
    let child = Child::new(&inner, sleep_for_ever);
    assert!(eventually(|| is_joined(&inner, &child)));
    assert_eq!(guard.0.pids().unwrap(), [child.0]);
    assert_eq!(
        guard.0.remove().unwrap_err().kind(),
        io::ErrorKind::ResourceBusy
    );
    guard.0.kill().unwrap();
    child.wait();
    guard.0.remove().unwrap();
}

extern "C" fn open_devices() -> i32 {
    // SAFETY: literal paths.
    let opened = |path: &std::ffi::CStr| unsafe { libc::open(path.as_ptr(), libc::O_RDWR) } >= 0;
    i32::from(opened(c"/dev/null")) | i32::from(opened(c"/dev/zero")) << 1
}

fn null_only() -> Vec<DeviceRule> {
    vec![
        DeviceRule::DENY_ALL,
        DeviceRule {
            allow: true,
            kind: DeviceKind::Char,
            major: Some(1),
            minor: Some(3),
            access: DeviceAccess::ALL,
        },
    ]
}

#[test]
fn device_rules_hold() {
    let guard = Guard::new(&Limits {
        devices: null_only(),
        ..Limits::default()
    });
    let status = Child::new(&guard.0, open_devices).wait();
    assert_eq!(
        (libc::WIFEXITED(status), libc::WEXITSTATUS(status)),
        (true, 1)
    );
    let free = Guard::new(&Limits::default());
    let status = Child::new(&free.0, open_devices).wait();
    assert_eq!(libc::WEXITSTATUS(status), 3);
}

#[test]
fn the_device_program_holds_and_is_replaced() {
    let guard = Guard::new(&Limits::default());
    let Some(member) = guard.0.unified() else {
        panic!("this machine has no cgroup version 2 to try the program on");
    };
    let directory = file::open_directory_for_reading(&member.path).unwrap();
    device_program::attach(directory.as_fd(), &null_only()).unwrap();
    assert_eq!(
        libc::WEXITSTATUS(Child::new(&guard.0, open_devices).wait()),
        1
    );
    let all = DeviceRule {
        allow: true,
        ..DeviceRule::DENY_ALL
    };
    device_program::attach(directory.as_fd(), &[all]).unwrap();
    assert_eq!(
        libc::WEXITSTATUS(Child::new(&guard.0, open_devices).wait()),
        3
    );
}

extern "C" fn eat_memory() -> i32 {
    for _ in 0..64 {
        // SAFETY: a fresh private mapping, written within its length.
        unsafe {
            let length = 1 << 20;
            let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_POPULATE;
            let place = libc::mmap(
                std::ptr::null_mut(),
                length,
                libc::PROT_READ | libc::PROT_WRITE,
                flags,
                -1,
                0,
            );
            if place != libc::MAP_FAILED {
                std::ptr::write_bytes(place.cast::<u8>(), 1, length);
            }
        }
    }
    0
}

#[test]
fn an_oom_kill_is_counted_and_wakes() {
    let limit = Some(16 << 20);
    let guard = Guard::new(&Limits {
        memory_bytes: limit,
        memory_swap_bytes: limit,
        ..Limits::default()
    });
    let event = guard.0.oom_event().unwrap();
    assert_eq!(guard.0.oom_kills(), 0);
    let status = Child::new(&guard.0, eat_memory).wait();
    assert_eq!(libc::WTERMSIG(status), libc::SIGKILL);
    assert_eq!(guard.0.oom_kills(), 1);
    let mut polled = [rustix::event::PollFd::new(
        &event,
        rustix::event::PollFlags::IN,
    )];
    let timeout = rustix::event::Timespec {
        tv_sec: 5,
        tv_nsec: 0,
    };
    assert_eq!(rustix::event::poll(&mut polled, Some(&timeout)).unwrap(), 1);
}

#[test]
fn an_empty_leftover_is_replaced_and_bad_limits_leave_nothing() {
    let guard = Guard::new(&Limits {
        pids_max: Some(3),
        ..Limits::default()
    });
    let again = Cgroup::create(&layout(), guard.0.path(), &Limits::default()).unwrap();
    assert_eq!(again.stats().unwrap().pids.limit, None);
    again.remove().unwrap();
    let bad = Limits {
        cpuset_cpus: Some("4000".to_owned()),
        ..Limits::default()
    };
    assert!(Cgroup::create(&layout(), guard.0.path(), &bad).is_err());
    assert_eq!(
        Cgroup::open(&layout(), guard.0.path()).unwrap_err().kind(),
        io::ErrorKind::NotFound
    );
}

#[test]
fn what_a_parent_with_processes_cannot_hand_down_is_named() {
    let parent = Guard::new(&Limits::default());
    let child = Child::new(&parent.0, sleep_for_ever);
    assert!(eventually(|| is_joined(&parent.0, &child)));
    let inner = format!("{}/inner", parent.0.path());
    let limits = Limits {
        pids_max: Some(5),
        ..Limits::default()
    };
    let made = Cgroup::create(&layout(), &inner, &limits);
    if layout().version() == Version::V1 {
        made.unwrap().remove().unwrap();
    } else {
        let error = made.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::Unsupported);
        let text = error.to_string();
        assert!(text.contains("`pids` is not handed down"), "{text}");
    }
    Cgroup::create(&layout(), &inner, &Limits::default())
        .unwrap()
        .remove()
        .unwrap();
}

#[test]
fn roots_and_escapes_are_no_cgroups() {
    for path in ["", "/", "//", "/a/../b", "..", "/."] {
        assert_eq!(
            Cgroup::open(&layout(), path).unwrap_err().kind(),
            io::ErrorKind::InvalidInput,
            "{path}"
        );
    }
}

#[test]
fn a_turn_is_quick() {
    let layout = layout();
    let limits = Limits {
        memory_bytes: Some(64 << 20),
        pids_max: Some(10),
        devices: null_only(),
        ..Limits::default()
    };
    let guard = Guard::new(&Limits::default());
    let parent = guard.0.path().trim_end_matches("/leaf").to_owned();
    let turns = (0..20).map(|turn| {
        let start = Instant::now();
        let cgroup = Cgroup::create(&layout, &format!("{parent}/turn{turn}"), &limits).unwrap();
        cgroup.prepare_join().unwrap();
        let made = start.elapsed();
        cgroup.remove().unwrap();
        (start.elapsed(), made)
    });
    let (whole, made) = turns.min().unwrap();
    println!("create, limit and open: {made:?}; with removal: {whole:?}");
    // The best turn, so that a busy machine passes; one RCU grace period alone would be 6 ms.
    assert!(whole < Duration::from_millis(5), "{whole:?}");
}
