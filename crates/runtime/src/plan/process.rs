//! The process: identity, limits, capabilities and arguments in the forms that the system calls take.

use std::ffi::CString;

use gantry_api::oci::runtime::{Linux, LinuxCapabilities, Process, Scheduler};
use gantry_sys::caps::{Capability, Set};
use gantry_sys::process::SchedulingAttributes;

use crate::error::Error;

/// Sets of capabilities(7).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Capabilities {
    pub bounding: Set,
    pub effective: Set,
    pub permitted: Set,
    pub inheritable: Set,
    pub ambient: Set,
}

/// One limit of getrlimit(2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rlimit {
    pub name: String,
    pub resource: u32,
    pub soft: u64,
    pub hard: u64,
}

/// A process.
#[derive(Clone, Debug)]
pub struct ProcessPlan {
    pub terminal: bool,
    /// `(rows, columns)`.
    pub console_size: Option<(u16, u16)>,
    pub arguments: Vec<CString>,
    pub environment: Vec<CString>,
    /// Has a `HOME` of its own: none is looked up in the container's `/etc/passwd`.
    pub has_home: bool,
    /// The last `PATH` of the environment.
    pub search_path: Option<String>,
    pub cwd: String,
    pub uid: u32,
    pub gid: u32,
    pub groups: Vec<u32>,
    pub umask: u32,
    pub capabilities: Capabilities,
    pub rlimits: Vec<Rlimit>,
    pub no_new_privileges: bool,
    pub oom_score_adj: Option<i32>,
    pub apparmor_profile: String,
    pub selinux_label: String,
    pub scheduler: Option<SchedulingAttributes>,
    /// Class and level of ioprio_set(2).
    pub io_priority: Option<(u32, u32)>,
}

/// Plans a process.
///
/// # Errors
/// [`Error::Invalid`] with the field's name.
pub fn plan(process: &Process) -> Result<ProcessPlan, Error> {
    if process.args.is_empty() {
        return Err(Error::invalid("process: `args` must not be empty"));
    }
    if !process.cwd.starts_with('/') {
        return Err(Error::invalid(format!(
            "process: cwd `{}` is not an absolute path",
            process.cwd
        )));
    }
    if process
        .exec_cpu_affinity
        .as_ref()
        .is_some_and(|value| !value.is_null())
    {
        return Err(Error::unsupported("`process.execCPUAffinity`"));
    }
    let strings = |field: &str, list: &[String]| {
        list.iter()
            .map(|string| CString::new(string.as_bytes()))
            .collect::<Result<Vec<_>, _>>()
            .map_err(|_| Error::invalid(format!("process: a NUL byte in `{field}`")))
    };
    Ok(ProcessPlan {
        terminal: process.terminal,
        console_size: process.console_size.and_then(|size| {
            Some((
                u16::try_from(size.height).ok()?,
                u16::try_from(size.width).ok()?,
            ))
        }),
        arguments: strings("args", &process.args)?,
        environment: strings("env", &process.env)?,
        has_home: process.env.iter().any(|variable| {
            variable
                .strip_prefix("HOME=")
                .is_some_and(|home| !home.is_empty())
        }),
        search_path: process
            .env
            .iter()
            .rev()
            .find_map(|variable| variable.strip_prefix("PATH="))
            .map(str::to_owned),
        cwd: process.cwd.clone(),
        uid: process.user.uid,
        gid: process.user.gid,
        groups: process.user.additional_gids.clone(),
        umask: process.user.umask.unwrap_or(0o022),
        capabilities: capabilities(process.capabilities.as_ref())?,
        rlimits: rlimits(process)?,
        no_new_privileges: process.no_new_privileges,
        oom_score_adj: process.oom_score_adj,
        apparmor_profile: process.apparmor_profile.clone(),
        selinux_label: process.selinux_label.clone(),
        scheduler: process.scheduler.as_ref().map(scheduler).transpose()?,
        io_priority: process
            .io_priority
            .as_ref()
            .map(|priority| io_priority(&priority.class, priority.priority))
            .transpose()?,
    })
}

fn capabilities(sets: Option<&LinuxCapabilities>) -> Result<Capabilities, Error> {
    let Some(sets) = sets else {
        return Ok(Capabilities::default());
    };
    let set = |names: &[String]| {
        names
            .iter()
            .map(|name| {
                name.parse::<Capability>()
                    .map_err(|_| Error::invalid(format!("process: unknown capability `{name}`")))
            })
            .collect::<Result<Set, _>>()
    };
    Ok(Capabilities {
        bounding: set(&sets.bounding)?,
        effective: set(&sets.effective)?,
        permitted: set(&sets.permitted)?,
        inheritable: set(&sets.inheritable)?,
        ambient: set(&sets.ambient)?,
    })
}

const RESOURCES: [&str; 16] = [
    "RLIMIT_CPU",
    "RLIMIT_FSIZE",
    "RLIMIT_DATA",
    "RLIMIT_STACK",
    "RLIMIT_CORE",
    "RLIMIT_RSS",
    "RLIMIT_NPROC",
    "RLIMIT_NOFILE",
    "RLIMIT_MEMLOCK",
    "RLIMIT_AS",
    "RLIMIT_LOCKS",
    "RLIMIT_SIGPENDING",
    "RLIMIT_MSGQUEUE",
    "RLIMIT_NICE",
    "RLIMIT_RTPRIO",
    "RLIMIT_RTTIME",
];

/// The number of a limit by its name.
pub(crate) fn resource_number(name: &str) -> Option<u32> {
    RESOURCES
        .iter()
        .position(|one| *one == name)
        .map(|number| number as u32)
}

fn rlimits(process: &Process) -> Result<Vec<Rlimit>, Error> {
    let mut limits: Vec<Rlimit> = Vec::with_capacity(process.rlimits.len());
    for limit in &process.rlimits {
        let resource = resource_number(&limit.kind)
            .ok_or_else(|| Error::invalid(format!("process: rlimit type `{}`", limit.kind)))?;
        if limits.iter().any(|other| other.name == limit.kind) {
            return Err(Error::invalid(format!(
                "process: rlimit `{}` given twice",
                limit.kind
            )));
        }
        limits.push(Rlimit {
            name: limit.kind.clone(),
            resource,
            soft: limit.soft,
            hard: limit.hard,
        });
    }
    Ok(limits)
}

fn scheduler(scheduler: &Scheduler) -> Result<SchedulingAttributes, Error> {
    let policy = match scheduler.policy.as_str() {
        "SCHED_OTHER" => 0,
        "SCHED_FIFO" => 1,
        "SCHED_RR" => 2,
        "SCHED_BATCH" => 3,
        "SCHED_ISO" => 4,
        "SCHED_IDLE" => 5,
        "SCHED_DEADLINE" => 6,
        other => {
            return Err(Error::invalid(format!(
                "process: scheduler policy `{other}`"
            )));
        }
    };
    let mut flags = 0;
    for flag in &scheduler.flags {
        flags |= match flag.as_str() {
            "SCHED_FLAG_RESET_ON_FORK" => 0x01,
            "SCHED_FLAG_RECLAIM" => 0x02,
            "SCHED_FLAG_DL_OVERRUN" => 0x04,
            "SCHED_FLAG_KEEP_POLICY" => 0x08,
            "SCHED_FLAG_KEEP_PARAMS" => 0x10,
            "SCHED_FLAG_UTIL_CLAMP_MIN" => 0x20,
            "SCHED_FLAG_UTIL_CLAMP_MAX" => 0x40,
            other => return Err(Error::invalid(format!("process: scheduler flag `{other}`"))),
        };
    }
    Ok(SchedulingAttributes {
        policy,
        flags,
        nice: scheduler.nice.unwrap_or(0),
        priority: scheduler
            .priority
            .and_then(|priority| u32::try_from(priority).ok())
            .unwrap_or(0),
        runtime: scheduler.runtime.unwrap_or(0),
        deadline: scheduler.deadline.unwrap_or(0),
        period: scheduler.period.unwrap_or(0),
    })
}

fn io_priority(class: &str, level: i32) -> Result<(u32, u32), Error> {
    let class = match class {
        "IOPRIO_CLASS_RT" => 1,
        "IOPRIO_CLASS_BE" => 2,
        "IOPRIO_CLASS_IDLE" => 3,
        other => {
            return Err(Error::invalid(format!(
                "process: ioPriority class `{other}`"
            )));
        }
    };
    let level = u32::try_from(level)
        .ok()
        .filter(|level| *level < 8)
        .ok_or_else(|| Error::invalid(format!("process: ioPriority level {level}")))?;
    Ok((class, level))
}

/// Plans `linux.personality`.
pub fn personality(linux: &Linux) -> Result<Option<u64>, Error> {
    let Some(personality) = &linux.personality else {
        return Ok(None);
    };
    if !personality.flags.is_empty() {
        return Err(Error::unsupported("`linux.personality.flags`"));
    }
    match personality.domain.as_str() {
        "LINUX" => Ok(Some(0)),
        "LINUX32" => Ok(Some(8)),
        other => Err(Error::invalid(format!("personality domain `{other}`"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn planned(json: &str) -> Result<ProcessPlan, Error> {
        plan(&serde_json::from_str(json).expect("json"))
    }

    #[test]
    fn a_process_in_the_kernels_terms() {
        let process = planned(
            r#"{"args":["sh"],"cwd":"/","env":["PATH=/a","X=1","PATH=/b","HOME="],"user":{"uid":1,"gid":2,"umask":63},
            "capabilities":{"bounding":["CAP_CHOWN","CAP_KILL"]},"rlimits":[{"type":"RLIMIT_NOFILE","soft":1,"hard":2}],
            "ioPriority":{"class":"IOPRIO_CLASS_IDLE","priority":3},"scheduler":{"policy":"SCHED_BATCH","nice":5}}"#,
        )
        .expect("plan");
        assert_eq!(process.search_path.as_deref(), Some("/b"));
        assert!(!process.has_home);
        assert_eq!(process.umask, 0o77);
        assert_eq!(process.capabilities.bounding, Set(1 | 1 << 5));
        assert_eq!(
            (process.rlimits[0].resource, process.rlimits[0].hard),
            (7, 2)
        );
        assert_eq!(process.io_priority, Some((3, 3)));
        assert_eq!(
            process
                .scheduler
                .map(|attributes| (attributes.policy, attributes.nice)),
            Some((3, 5))
        );
    }

    #[test]
    fn wrong_fields_are_named() {
        for (json, word) in [
            (r#"{"cwd":"/"}"#, "args"),
            (r#"{"args":["a"],"cwd":"x"}"#, "cwd"),
            (
                r#"{"args":["a"],"cwd":"/","capabilities":{"bounding":["CAP_FLY"]}}"#,
                "CAP_FLY",
            ),
            (
                r#"{"args":["a"],"cwd":"/","rlimits":[{"type":"RLIMIT_X"}]}"#,
                "RLIMIT_X",
            ),
            (r#"{"args":["a\u0000"],"cwd":"/"}"#, "args"),
            (
                r#"{"args":["a"],"cwd":"/","ioPriority":{"class":"IOPRIO_CLASS_BE","priority":9}}"#,
                "ioPriority",
            ),
        ] {
            let error = planned(json).expect_err(json).to_string();
            assert!(error.contains(word), "{error}");
        }
    }
}
