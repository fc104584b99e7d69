//! Compiles rules to BPF: the architecture, then a binary search over ranges of numbers with equal verdicts, then, for
//! the few calls that have conditions, their arguments.

use std::collections::BTreeMap;

use gantry_api::oci::runtime::{LinuxSeccomp, LinuxSeccompArg, LinuxSyscall};

use super::assembler::{Assembler, JUMP_EQUAL, JUMP_GREATER, JUMP_GREATER_EQUAL, Label, encode};
use super::{Architecture, Error, Filter, X32_BIT, syscalls};

// SECCOMP_RET_* of linux/seccomp.h.
const KILL_PROCESS: u32 = 0x8000_0000;
const KILL_THREAD: u32 = 0;
const TRAP: u32 = 0x0003_0000;
const ERRNO: u32 = 0x0005_0000;
const TRACE: u32 = 0x7ff0_0000;
const LOG: u32 = 0x7ffc_0000;
const ALLOW: u32 = 0x7fff_0000;
/// The kernel cuts larger ones.
const ERRNO_MAX: u32 = 4095;

const FLAG_TSYNC: u32 = 1;
const FLAG_LOG: u32 = 2;
const FLAG_SPEC_ALLOW: u32 = 4;

/// BPF_MAXINSNS.
const LENGTH_MAX: usize = 4096;

// Offsets in struct seccomp_data; arguments are little-endian pairs of words on all architectures served.
const NUMBER: u32 = 0;
const AUDIT_ARCHITECTURE: u32 = 4;

pub(super) fn compile(profile: &LinuxSeccomp) -> Result<Filter, Error> {
    if !profile.listener_path.is_empty() {
        return Err(Error::Unsupported {
            what: "listenerPath",
            value: profile.listener_path.clone(),
        });
    }
    let default = action(&profile.default_action, profile.default_errno_ret)?;
    let rules: Vec<Rule> = profile
        .syscalls
        .iter()
        .map(Rule::read)
        .collect::<Result<_, _>>()?;
    let architectures = architectures(&profile.architectures)?;
    let mut assembler = Assembler::default();
    // Architectures that are not named are killed by the thread, libseccomp's answer.
    let mut entry = assembler.verdict(KILL_THREAD);
    let mut done: Vec<u32> = Vec::new();
    // Built from the end: the native architecture comes out nearest to the entry.
    for architecture in architectures.iter().rev().copied() {
        let audit = architecture.audit();
        if done.contains(&audit) {
            continue;
        }
        done.push(audit);
        let section = if audit == Architecture::X86_64.audit() {
            x86_64_section(&mut assembler, &architectures, &rules, default)
        } else {
            let tree = tree(&mut assembler, architecture, &rules, default);
            assembler.load(NUMBER, tree)
        };
        entry = assembler.branch(JUMP_EQUAL, audit, section, entry);
    }
    let entry = assembler.load(AUDIT_ARCHITECTURE, entry);
    let program = assembler.finish(entry);
    if program.len() > LENGTH_MAX {
        return Err(Error::TooLong(program.len()));
    }
    Ok(Filter {
        program: encode(&program),
        flags: flags(&profile.flags)?,
    })
}

/// x32 and x86_64 share their audit architecture and are told apart by bit 30; one that is not named is killed. The number
/// -1, by which a tracer skips a call, belongs to neither.
fn x86_64_section(
    assembler: &mut Assembler,
    architectures: &[Architecture],
    rules: &[Rule],
    default: u32,
) -> Label {
    let x32 = if architectures.contains(&Architecture::X32) {
        tree(assembler, Architecture::X32, rules, default)
    } else {
        let kill = assembler.verdict(KILL_THREAD);
        let skipped = assembler.verdict(default);
        assembler.branch(JUMP_EQUAL, u32::MAX, skipped, kill)
    };
    let x86_64 = if architectures.contains(&Architecture::X86_64) {
        tree(assembler, Architecture::X86_64, rules, default)
    } else {
        assembler.verdict(KILL_THREAD)
    };
    let split = assembler.branch(JUMP_GREATER_EQUAL, X32_BIT, x32, x86_64);
    assembler.load(NUMBER, split)
}

fn flags(names: &[String]) -> Result<u32, Error> {
    if names.is_empty() {
        // runc's default where a profile has no flags: no speculation barriers on behalf of the filter.
        return Ok(FLAG_SPEC_ALLOW);
    }
    names.iter().try_fold(0, |flags, name| {
        Ok(flags
            | match name.as_str() {
                "SECCOMP_FILTER_FLAG_TSYNC" => FLAG_TSYNC,
                "SECCOMP_FILTER_FLAG_LOG" => FLAG_LOG,
                "SECCOMP_FILTER_FLAG_SPEC_ALLOW" => FLAG_SPEC_ALLOW,
                "SECCOMP_FILTER_FLAG_NEW_LISTENER" | "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV" => {
                    return Err(Error::Unsupported {
                        what: "flag",
                        value: name.clone(),
                    });
                }
                _ => {
                    return Err(Error::Unknown {
                        what: "flag",
                        value: name.clone(),
                    });
                }
            })
    })
}

fn action(name: &str, errno: Option<u32>) -> Result<u32, Error> {
    let number = errno.unwrap_or(libc::EPERM.unsigned_abs());
    Ok(match name {
        "SCMP_ACT_ALLOW" => ALLOW,
        "SCMP_ACT_ERRNO" => ERRNO | number.min(ERRNO_MAX),
        "SCMP_ACT_KILL" | "SCMP_ACT_KILL_THREAD" => KILL_THREAD,
        "SCMP_ACT_KILL_PROCESS" => KILL_PROCESS,
        "SCMP_ACT_TRAP" => TRAP,
        "SCMP_ACT_TRACE" => TRACE | (number & 0xffff),
        "SCMP_ACT_LOG" => LOG,
        "SCMP_ACT_NOTIFY" => {
            return Err(Error::Unsupported {
                what: "action",
                value: name.to_owned(),
            });
        }
        _ => {
            return Err(Error::Unknown {
                what: "action",
                value: name.to_owned(),
            });
        }
    })
}

/// Reads the architectures, the native one first. None named means the native one; those that this processor cannot be
/// in are passed over, the kernel never reports them.
fn architectures(names: &[String]) -> Result<Vec<Architecture>, Error> {
    let native = Architecture::NATIVE;
    let mut found = Vec::new();
    for name in names {
        let architecture = match name.as_str() {
            "SCMP_ARCH_NATIVE" => native,
            "SCMP_ARCH_X86_64" => Architecture::X86_64,
            "SCMP_ARCH_X86" => Architecture::X86,
            "SCMP_ARCH_X32" => Architecture::X32,
            "SCMP_ARCH_AARCH64" => Architecture::Aarch64,
            "SCMP_ARCH_ARM" if native == Architecture::Aarch64 => {
                return Err(Error::Unsupported {
                    what: "architecture",
                    value: name.clone(),
                });
            }
            "SCMP_ARCH_ARM"
            | "SCMP_ARCH_MIPS"
            | "SCMP_ARCH_MIPS64"
            | "SCMP_ARCH_MIPS64N32"
            | "SCMP_ARCH_MIPSEL"
            | "SCMP_ARCH_MIPSEL64"
            | "SCMP_ARCH_MIPSEL64N32"
            | "SCMP_ARCH_PPC"
            | "SCMP_ARCH_PPC64"
            | "SCMP_ARCH_PPC64LE"
            | "SCMP_ARCH_S390"
            | "SCMP_ARCH_S390X"
            | "SCMP_ARCH_PARISC"
            | "SCMP_ARCH_PARISC64"
            | "SCMP_ARCH_RISCV64"
            | "SCMP_ARCH_LOONGARCH64"
            | "SCMP_ARCH_M68K"
            | "SCMP_ARCH_SH"
            | "SCMP_ARCH_SHEB" => continue,
            _ => {
                return Err(Error::Unknown {
                    what: "architecture",
                    value: name.clone(),
                });
            }
        };
        let possible = (architecture == Architecture::Aarch64) == (native == Architecture::Aarch64);
        if possible && !found.contains(&architecture) {
            found.push(architecture);
        }
    }
    if found.is_empty() {
        found.push(native);
    }
    found.sort_by_key(|architecture| *architecture != native);
    Ok(found)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operator {
    Equal,
    NotEqual,
    Less,
    LessEqual,
    Greater,
    GreaterEqual,
    MaskedEqual,
}

/// A comparison; `mask` counts for `MaskedEqual` alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Condition {
    index: u32,
    operator: Operator,
    value: u64,
    mask: u64,
}

impl Condition {
    fn read(name: &str, argument: &LinuxSeccompArg) -> Result<Self, Error> {
        let operator = match argument.op.as_str() {
            "SCMP_CMP_EQ" => Operator::Equal,
            "SCMP_CMP_NE" => Operator::NotEqual,
            "SCMP_CMP_LT" => Operator::Less,
            "SCMP_CMP_LE" => Operator::LessEqual,
            "SCMP_CMP_GT" => Operator::Greater,
            "SCMP_CMP_GE" => Operator::GreaterEqual,
            "SCMP_CMP_MASKED_EQ" => Operator::MaskedEqual,
            other => {
                return Err(Error::Unknown {
                    what: "operator",
                    value: other.to_owned(),
                });
            }
        };
        if argument.index > 5 {
            return Err(Error::Index {
                name: name.to_owned(),
                index: argument.index,
            });
        }
        // In a masked comparison `value` is the mask and `valueTwo` what must come out.
        let (value, mask) = match operator {
            Operator::MaskedEqual => (argument.value_two, argument.value),
            _ => (argument.value, u64::MAX),
        };
        Ok(Self {
            index: argument.index,
            operator,
            value,
            mask,
        })
    }
}

/// One entry of the profile, read.
struct Rule<'a> {
    names: &'a [String],
    verdict: u32,
    /// Alternatives of conditions that must all hold; empty means unconditional.
    alternatives: Vec<Vec<Condition>>,
}

impl<'a> Rule<'a> {
    fn read(call: &'a LinuxSyscall) -> Result<Self, Error> {
        let verdict = action(&call.action, call.errno_ret)?;
        let name = call.names.first().map_or("", String::as_str);
        let conditions: Vec<Condition> = call
            .args
            .iter()
            .map(|argument| Condition::read(name, argument))
            .collect::<Result<_, _>>()?;
        let repeated = conditions.iter().enumerate().any(|(at, one)| {
            conditions[..at]
                .iter()
                .any(|other| other.index == one.index)
        });
        let alternatives = if conditions.is_empty() {
            Vec::new()
        } else if repeated {
            // Two conditions on one argument are alternatives: runc has done so from the beginning.
            conditions.into_iter().map(|one| vec![one]).collect()
        } else {
            vec![conditions]
        };
        Ok(Self {
            names: &call.names,
            verdict,
            alternatives,
        })
    }
}

/// What becomes of one system call.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Decision {
    Verdict(u32),
    /// The first alternative whose conditions all hold gives the verdict; if none does, the default.
    Conditions(Vec<(Vec<Condition>, u32)>),
}

fn decisions(architecture: Architecture, rules: &[Rule], default: u32) -> BTreeMap<u32, Decision> {
    let mut decisions = BTreeMap::new();
    for rule in rules {
        // A rule that does what happens anyway is none, not even one that beats conditions.
        if rule.verdict == default {
            continue;
        }
        for name in rule.names {
            if let Some(number) = syscalls::number(architecture, name) {
                add(&mut decisions, number, &rule.alternatives, rule.verdict);
            }
            if architecture == Architecture::X86 {
                multiplexed(&mut decisions, name, rule);
            }
        }
    }
    decisions
}

/// Rules a call of 32-bit x86 also where it goes through `socketcall` or `ipc`: their first argument says which call it is
/// and takes the place of a condition on the call's own first argument, as in libseccomp. The others are kept although
/// they then look at the multiplexer's arguments: what a profile lets through shall not depend on who compiled it.
fn multiplexed(decisions: &mut BTreeMap<u32, Decision>, name: &str, rule: &Rule) {
    for (table, multiplexer) in [(syscalls::SOCKETCALL, "socketcall"), (syscalls::IPC, "ipc")] {
        let subcall = table.iter().find(|(subcall, _)| *subcall == name);
        let (Some((_, value)), Some(number)) =
            (subcall, syscalls::number(Architecture::X86, multiplexer))
        else {
            continue;
        };
        let first = Condition {
            index: 0,
            operator: Operator::Equal,
            value: *value,
            mask: u64::MAX,
        };
        let mut alternatives: Vec<Vec<Condition>> = rule
            .alternatives
            .iter()
            .map(|conditions| {
                let rest = conditions
                    .iter()
                    .filter(|condition| condition.index != 0)
                    .copied();
                std::iter::once(first).chain(rest).collect()
            })
            .collect();
        if alternatives.is_empty() {
            alternatives.push(vec![first]);
        }
        add(decisions, number, &alternatives, rule.verdict);
    }
}

fn add(
    decisions: &mut BTreeMap<u32, Decision>,
    number: u32,
    alternatives: &[Vec<Condition>],
    verdict: u32,
) {
    let present = decisions.get_mut(&number);
    match (present, alternatives.is_empty()) {
        (Some(Decision::Verdict(_)), _) => {}
        (_, true) => {
            decisions.insert(number, Decision::Verdict(verdict));
        }
        (present, false) => {
            let added = alternatives
                .iter()
                .map(|conditions| (conditions.clone(), verdict));
            match present {
                Some(Decision::Conditions(list)) => list.extend(added),
                _ => {
                    decisions.insert(number, Decision::Conditions(added.collect()));
                }
            }
        }
    }
}

/// Ranges of numbers with one decision each: `(first number, decision)`, the first from zero, the last without end.
fn ranges(architecture: Architecture, rules: &[Rule], default: u32) -> Vec<(u32, Decision)> {
    let decisions = decisions(architecture, rules, default);
    // Calls beyond the newest that the profile names were unknown to its author. A default that lets calls pass, or
    // hands them to a tracer, says itself what becomes of them.
    let newest = rules
        .iter()
        .flat_map(|rule| rule.names)
        .filter_map(|name| syscalls::number(architecture, name))
        // A multiplexer may be ruled without being named.
        .chain(decisions.last_key_value().map(|(number, _)| *number))
        .max()
        .filter(|_| !matches!(default & 0xffff_0000, ALLOW | LOG | TRACE));
    let beyond = match newest {
        Some(_) => ERRNO | libc::ENOSYS.unsigned_abs(),
        None => default,
    };
    let mut ranges: Vec<(u32, Decision)> = vec![(0, Decision::Verdict(default))];
    let mut push = |first: u32, decision: Decision| {
        if ranges.last().is_some_and(|(last, _)| *last == first) {
            ranges.pop();
        }
        if ranges.last().is_none_or(|(_, last)| *last != decision) {
            ranges.push((first, decision));
        }
    };
    for (number, decision) in decisions {
        push(number, decision);
        push(number + 1, Decision::Verdict(default));
    }
    if let Some(newest) = newest {
        push(newest + 1, Decision::Verdict(beyond));
    }
    ranges
}

fn tree(
    assembler: &mut Assembler,
    architecture: Architecture,
    rules: &[Rule],
    default: u32,
) -> Label {
    search(
        assembler,
        architecture,
        &ranges(architecture, rules, default),
        default,
    )
}

fn search(
    assembler: &mut Assembler,
    architecture: Architecture,
    ranges: &[(u32, Decision)],
    default: u32,
) -> Label {
    match ranges {
        [] => assembler.verdict(default),
        [(_, Decision::Verdict(verdict))] => assembler.verdict(*verdict),
        [(_, Decision::Conditions(alternatives))] => {
            conditions(assembler, architecture, alternatives, default)
        }
        _ => {
            let (low, high) = ranges.split_at(middle(ranges));
            let above = search(assembler, architecture, high, default);
            let below = search(assembler, architecture, low, default);
            assembler.branch(JUMP_GREATER_EQUAL, high[0].0, above, below)
        }
    }
}

/// Where to split so that both halves hold about as many numbers: a call is then found faster the wider its range is,
/// and the oldest and most frequent calls lie in the widest ones. Of a range that nobody calls only its presence counts.
fn middle(ranges: &[(u32, Decision)]) -> usize {
    let weight = |index: usize| {
        let width = ranges
            .get(index + 1)
            .map_or(1, |(next, _)| next - ranges[index].0);
        match ranges[index].1 {
            Decision::Verdict(ALLOW) => u64::from(width),
            _ => 1,
        }
    };
    let total: u64 = (0..ranges.len()).map(weight).sum();
    let mut below = 0;
    for index in 0..ranges.len() - 1 {
        let with = below + weight(index);
        if 2 * with >= total {
            // Before or behind the range that the middle falls into, whichever is nearer.
            return if index > 0 && 2 * with - total > total - 2 * below {
                index
            } else {
                index + 1
            };
        }
        below = with;
    }
    ranges.len() - 1
}

fn conditions(
    assembler: &mut Assembler,
    architecture: Architecture,
    alternatives: &[(Vec<Condition>, u32)],
    default: u32,
) -> Label {
    let mut otherwise = assembler.verdict(default);
    for (conditions, verdict) in alternatives.iter().rev() {
        let mut success = assembler.verdict(*verdict);
        for condition in conditions.iter().rev() {
            success = comparison(
                assembler,
                architecture.is_narrow(),
                condition,
                success,
                otherwise,
            );
        }
        otherwise = success;
    }
    otherwise
}

fn comparison(
    assembler: &mut Assembler,
    narrow: bool,
    condition: &Condition,
    yes: Label,
    no: Label,
) -> Label {
    let offset = 16 + 8 * condition.index;
    #[expect(
        clippy::cast_possible_truncation,
        reason = "the halves are what is wanted"
    )]
    let (low, high) = (condition.value as u32, (condition.value >> 32) as u32);
    let (code, yes, no) = match condition.operator {
        Operator::Equal | Operator::MaskedEqual => (JUMP_EQUAL, yes, no),
        Operator::NotEqual => (JUMP_EQUAL, no, yes),
        Operator::Greater => (JUMP_GREATER, yes, no),
        Operator::LessEqual => (JUMP_GREATER, no, yes),
        Operator::GreaterEqual => (JUMP_GREATER_EQUAL, yes, no),
        Operator::Less => (JUMP_GREATER_EQUAL, no, yes),
    };
    #[expect(
        clippy::cast_possible_truncation,
        reason = "the halves are what is wanted"
    )]
    let (low_mask, high_mask) = (condition.mask as u32, (condition.mask >> 32) as u32);
    let below = half(assembler, offset, low_mask, |assembler| {
        assembler.branch(code, low, yes, no)
    });
    if narrow {
        return below;
    }
    match condition.operator {
        Operator::Equal | Operator::NotEqual | Operator::MaskedEqual => {
            half(assembler, offset + 4, high_mask, |assembler| {
                assembler.branch(JUMP_EQUAL, high, below, no)
            })
        }
        _ => {
            let equal = assembler.branch(JUMP_EQUAL, high, below, no);
            let greater = assembler.branch(JUMP_GREATER, high, yes, equal);
            assembler.load(offset + 4, greater)
        }
    }
}

/// Loads and masks one half of an argument before the test that `test` makes.
fn half(
    assembler: &mut Assembler,
    offset: u32,
    mask: u32,
    test: impl FnOnce(&mut Assembler) -> Label,
) -> Label {
    let mut next = test(assembler);
    if mask != u32::MAX {
        next = assembler.mask(mask, next);
    }
    assembler.load(offset, next)
}
