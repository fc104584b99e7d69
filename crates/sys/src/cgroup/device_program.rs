//! Device control on version 2: an eBPF program at the cgroup's directory that the kernel asks for each open and mknod
//! (Documentation/admin-guide/cgroup-v2.rst, "Device controller").
//!
//! The last rule that matches decides, for each of read, write and mknod on its own. So the program runs the rules from
//! the last to the first and keeps the accesses that no rule has decided yet; what is left at the end is denied.
#![allow(unsafe_code)]

use std::io;
use std::mem;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use super::limits::{DeviceAccess, DeviceKind, DeviceRule};

/// One eBPF instruction as the kernel lays it out (`struct bpf_insn`).
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Instruction {
    pub(super) code: u8,
    /// Destination in the low four bits, source in the high ones.
    pub(super) registers: u8,
    pub(super) offset: i16,
    pub(super) immediate: i32,
}

// uapi/linux/bpf_common.h and bpf.h.
pub(super) const LOAD_WORD: u8 = 0x61; // BPF_LDX | BPF_MEM | BPF_W
pub(super) const MOVE: u8 = 0xb7; // BPF_ALU64 | BPF_MOV | BPF_K
pub(super) const MOVE_REGISTER: u8 = 0xbf; // BPF_ALU64 | BPF_MOV | BPF_X
pub(super) const AND: u8 = 0x57; // BPF_ALU64 | BPF_AND | BPF_K
pub(super) const SHIFT_RIGHT: u8 = 0x77; // BPF_ALU64 | BPF_RSH | BPF_K
pub(super) const JUMP_EQUAL: u8 = 0x15; // BPF_JMP | BPF_JEQ | BPF_K
pub(super) const JUMP_NOT_EQUAL: u8 = 0x55; // BPF_JMP | BPF_JNE | BPF_K
pub(super) const EXIT: u8 = 0x95; // BPF_JMP | BPF_EXIT

const RESULT: u8 = 0;
const CONTEXT: u8 = 1;
const KIND: u8 = 2;
const UNDECIDED: u8 = 3;
const MAJOR: u8 = 4;
const MINOR: u8 = 5;

const KIND_BLOCK: i32 = 1;
const KIND_CHAR: i32 = 2;
const ACCESS_MKNOD: i32 = 1;
const ACCESS_READ: i32 = 2;
const ACCESS_WRITE: i32 = 4;
const ACCESS_ALL: i32 = ACCESS_MKNOD | ACCESS_READ | ACCESS_WRITE;

fn immediate(code: u8, register: u8, value: i32) -> Instruction {
    Instruction {
        code,
        registers: register,
        offset: 0,
        immediate: value,
    }
}

fn load(register: u8, offset: i16) -> Instruction {
    Instruction {
        code: LOAD_WORD,
        registers: register | (CONTEXT << 4),
        offset,
        immediate: 0,
    }
}

fn copy(to: u8, from: u8) -> Instruction {
    Instruction {
        code: MOVE_REGISTER,
        registers: to | (from << 4),
        offset: 0,
        immediate: 0,
    }
}

fn verdict(allow: bool) -> [Instruction; 2] {
    [
        immediate(MOVE, RESULT, i32::from(allow)),
        immediate(EXIT, 0, 0),
    ]
}

fn bits(access: DeviceAccess) -> i32 {
    let bit = |set: bool, bit: i32| if set { bit } else { 0 };
    bit(access.mknod, ACCESS_MKNOD)
        | bit(access.read, ACCESS_READ)
        | bit(access.write, ACCESS_WRITE)
}

/// Assembles the program of `rules`.
pub(super) fn assemble(rules: &[DeviceRule]) -> Vec<Instruction> {
    // struct bpf_cgroup_dev_ctx { u32 access_type /* (access << 16) | kind */; u32 major; u32 minor; }
    let mut program = vec![
        load(KIND, 0),
        copy(UNDECIDED, KIND),
        immediate(AND, KIND, 0xffff),
        immediate(SHIFT_RIGHT, UNDECIDED, 16),
        load(MAJOR, 4),
        load(MINOR, 8),
    ];
    for rule in rules.iter().rev() {
        if rule.is_total() {
            // Nothing behind it can be reached, and the verifier refuses what cannot be reached.
            program.extend(verdict(rule.allow));
            return program;
        }
        append(&mut program, rule);
    }
    program.extend(verdict(false));
    program
}

fn append(program: &mut Vec<Instruction>, rule: &DeviceRule) {
    let access = bits(rule.access);
    if access == 0 {
        return;
    }
    let mut conditions = Vec::new();
    match rule.kind {
        DeviceKind::All => {}
        DeviceKind::Char => conditions.push(immediate(JUMP_NOT_EQUAL, KIND, KIND_CHAR)),
        DeviceKind::Block => conditions.push(immediate(JUMP_NOT_EQUAL, KIND, KIND_BLOCK)),
    }
    for (number, register) in [(rule.major, MAJOR), (rule.minor, MINOR)] {
        if let Some(number) = number {
            // Immediates are sign-extended to 64 bits; device numbers have at most 20 bits, so a larger one never
            // matches, which is right.
            conditions.push(immediate(JUMP_NOT_EQUAL, register, number.cast_signed()));
        }
    }
    let mut body = Vec::new();
    if rule.allow {
        body.push(immediate(AND, UNDECIDED, ACCESS_ALL & !access));
        body.push(Instruction {
            offset: 2,
            ..immediate(JUMP_NOT_EQUAL, UNDECIDED, 0)
        });
        body.extend(verdict(true));
    } else {
        body.push(copy(RESULT, UNDECIDED));
        body.push(immediate(AND, RESULT, access));
        body.push(Instruction {
            offset: 2,
            ..immediate(JUMP_EQUAL, RESULT, 0)
        });
        body.extend(verdict(false));
    }
    let count = conditions.len();
    for (index, condition) in conditions.iter_mut().enumerate() {
        // At most three conditions and five instructions.
        condition.offset = i16::try_from(count - index - 1 + body.len()).unwrap_or(i16::MAX);
    }
    program.append(&mut conditions);
    program.append(&mut body);
}

// uapi/linux/bpf.h.
const PROG_LOAD: libc::c_int = 5;
const PROG_ATTACH: libc::c_int = 8;
const PROG_DETACH: libc::c_int = 9;
const PROG_GET_FD_BY_ID: libc::c_int = 13;
const PROG_QUERY: libc::c_int = 16;
const TYPE_CGROUP_DEVICE: u32 = 15;
const ATTACH_CGROUP_DEVICE: u32 = 6;
const ALLOW_MULTI: u32 = 2;

#[repr(C)]
#[derive(Default)]
struct LoadAttributes {
    kind: u32,
    instruction_count: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log: u64,
    kernel_version: u32,
    flags: u32,
    name: [u8; 16],
}

#[repr(C)]
#[derive(Default)]
struct AttachAttributes {
    target: u32,
    program: u32,
    kind: u32,
    flags: u32,
    replace: u32,
}

#[repr(C)]
#[derive(Default)]
struct QueryAttributes {
    target: u32,
    kind: u32,
    query_flags: u32,
    attach_flags: u32,
    programs: u64,
    program_count: u32,
}

#[repr(C)]
#[derive(Default)]
struct IdAttributes {
    id: u32,
    next: u32,
    open_flags: u32,
}

/// bpf(2). `Attributes` is one of the structs above, laid out as the variant of `union bpf_attr` that `command` reads.
fn bpf<Attributes>(command: libc::c_int, attributes: &mut Attributes) -> io::Result<RawFd> {
    let size = mem::size_of::<Attributes>();
    // SAFETY: the kernel reads and writes at most `size` bytes behind the pointer, which a live exclusive borrow of that
    // many bytes backs; addresses inside the attributes were taken by the callers from buffers that outlive the call.
    let result =
        unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attributes), size) };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(RawFd::try_from(result).unwrap_or(RawFd::MAX))
    }
}

fn number(descriptor: BorrowedFd<'_>) -> u32 {
    descriptor.as_raw_fd().cast_unsigned()
}

/// Puts the program of `rules` at the cgroup `directory` and takes away the device programs that were there. Programs of
/// ancestors go on to hold: the kernel allows an access that all of them allow.
///
/// # Errors
/// Those of bpf(2): `EPERM` without `CAP_BPF` and `CAP_NET_ADMIN`, `EINVAL` without CONFIG_CGROUP_BPF.
pub(super) fn attach(directory: BorrowedFd<'_>, rules: &[DeviceRule]) -> io::Result<()> {
    let program = load_program(&assemble(rules))?;
    let previous = attached(directory)?;
    let mut attributes = AttachAttributes {
        target: number(directory),
        program: number(program.as_fd()),
        kind: ATTACH_CGROUP_DEVICE,
        flags: ALLOW_MULTI,
        replace: 0,
    };
    bpf(PROG_ATTACH, &mut attributes)?;
    for old in previous {
        let mut attributes = AttachAttributes {
            target: number(directory),
            program: number(old.as_fd()),
            kind: ATTACH_CGROUP_DEVICE,
            ..AttachAttributes::default()
        };
        bpf(PROG_DETACH, &mut attributes)?;
    }
    Ok(())
}

fn load_program(program: &[Instruction]) -> io::Result<OwnedFd> {
    let license = c"Apache-2.0";
    let mut attributes = LoadAttributes {
        kind: TYPE_CGROUP_DEVICE,
        instruction_count: u32::try_from(program.len()).unwrap_or(u32::MAX),
        instructions: program.as_ptr() as u64,
        license: license.as_ptr() as u64,
        name: *b"gantry_devices\0\0",
        ..LoadAttributes::default()
    };
    let descriptor = bpf(PROG_LOAD, &mut attributes)?;
    // SAFETY: BPF_PROG_LOAD has just made this descriptor (close-on-exec), and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

fn attached(directory: BorrowedFd<'_>) -> io::Result<Vec<OwnedFd>> {
    // Up to 64 programs may hang at one cgroup (BPF_CGROUP_MAX_PROGS).
    let mut ids = [0u32; 64];
    let mut attributes = QueryAttributes {
        target: number(directory),
        kind: ATTACH_CGROUP_DEVICE,
        programs: ids.as_mut_ptr() as u64,
        program_count: 64,
        ..QueryAttributes::default()
    };
    bpf(PROG_QUERY, &mut attributes)?;
    let count = usize::try_from(attributes.program_count)
        .unwrap_or(0)
        .min(ids.len());
    let mut programs = Vec::with_capacity(count);
    for id in &ids[..count] {
        let mut attributes = IdAttributes {
            id: *id,
            ..IdAttributes::default()
        };
        let descriptor = bpf(PROG_GET_FD_BY_ID, &mut attributes)?;
        // SAFETY: BPF_PROG_GET_FD_BY_ID has just made this descriptor, and nobody else knows it.
        programs.push(unsafe { OwnedFd::from_raw_fd(descriptor) });
    }
    Ok(programs)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs a device program as the kernel would; panics on whatever its verifier would refuse.
    fn run(program: &[Instruction], kind: i32, access: i32, major: u32, minor: u32) -> bool {
        let context = [
            (access << 16 | kind) as u64,
            u64::from(major),
            u64::from(minor),
        ];
        let mut registers = [0u64; 11];
        let mut at = 0;
        loop {
            let one = program[at];
            let to = usize::from(one.registers & 15);
            let from = usize::from(one.registers >> 4);
            let value = i64::from(one.immediate).cast_unsigned();
            let mut jump = false;
            match one.code {
                LOAD_WORD => registers[to] = context[usize::try_from(one.offset).unwrap() / 4],
                MOVE => registers[to] = value,
                MOVE_REGISTER => registers[to] = registers[from],
                AND => registers[to] &= value,
                SHIFT_RIGHT => registers[to] >>= value,
                JUMP_EQUAL => jump = registers[to] == value,
                JUMP_NOT_EQUAL => jump = registers[to] != value,
                EXIT => return registers[0] != 0,
                code => panic!("unknown instruction {code:#x}"),
            }
            at += 1;
            if jump {
                at += usize::try_from(one.offset).unwrap();
            }
        }
    }

    fn rule(
        allow: bool,
        kind: DeviceKind,
        major: Option<u32>,
        minor: Option<u32>,
        access: &str,
    ) -> DeviceRule {
        DeviceRule {
            allow,
            kind,
            major,
            minor,
            access: DeviceAccess::parse(access).unwrap(),
        }
    }

    #[test]
    fn the_last_matching_rule_decides_each_access() {
        use DeviceKind::{All, Block, Char};
        let rules = [
            DeviceRule::DENY_ALL,
            rule(true, Char, Some(1), Some(3), "rwm"),
            rule(true, Char, Some(1), Some(5), "r"),
            rule(true, Char, Some(1), Some(5), "w"),
            rule(true, Char, Some(136), None, "rw"),
            rule(false, Char, Some(136), Some(7), "w"),
            rule(true, All, None, None, "m"),
            rule(true, Block, Some(8), Some(0), "r"),
        ];
        let program = assemble(&rules);
        for (kind, access, major, minor, allowed) in [
            (KIND_CHAR, ACCESS_READ | ACCESS_WRITE, 1, 3, true),
            (KIND_BLOCK, ACCESS_READ, 1, 3, false),
            (KIND_CHAR, ACCESS_READ | ACCESS_WRITE, 1, 5, true),
            (KIND_CHAR, ACCESS_READ, 1, 4, false),
            (KIND_CHAR, ACCESS_MKNOD, 9, 9, true),
            (KIND_CHAR, ACCESS_MKNOD | ACCESS_READ, 9, 9, false),
            (KIND_CHAR, ACCESS_READ | ACCESS_WRITE, 136, 4, true),
            (KIND_CHAR, ACCESS_READ, 136, 7, true),
            (KIND_CHAR, ACCESS_WRITE, 136, 7, false),
            (KIND_BLOCK, ACCESS_READ, 8, 0, true),
            (KIND_BLOCK, ACCESS_WRITE, 8, 0, false),
        ] {
            assert_eq!(
                run(&program, kind, access, major, minor),
                allowed,
                "{kind} {access} {major}:{minor}"
            );
        }
    }

    #[test]
    fn a_total_rule_hides_the_earlier_ones() {
        let hidden = rule(true, DeviceKind::Char, Some(1), Some(3), "rwm");
        let program = assemble(&[hidden.clone(), DeviceRule::DENY_ALL]);
        assert_eq!(program.len(), 8);
        assert!(!run(&program, KIND_CHAR, ACCESS_READ, 1, 3));
        let all = DeviceRule {
            allow: true,
            ..DeviceRule::DENY_ALL
        };
        assert!(run(
            &assemble(&[hidden, all]),
            KIND_BLOCK,
            ACCESS_WRITE,
            8,
            0
        ));
        assert!(!run(&assemble(&[]), KIND_CHAR, ACCESS_READ, 1, 3));
    }

    #[test]
    fn the_kernels_verifier_accepts_the_programs() {
        use DeviceKind::{All, Char};
        for rules in [
            vec![],
            vec![DeviceRule::DENY_ALL],
            vec![
                rule(true, Char, Some(1), Some(3), "rwm"),
                rule(false, All, None, None, "w"),
            ],
            vec![
                DeviceRule::DENY_ALL,
                rule(true, Char, None, Some(3), "m"),
                rule(true, All, Some(5), None, "rw"),
            ],
        ] {
            load_program(&assemble(&rules)).unwrap_or_else(|error| panic!("{rules:?}: {error}"));
        }
    }
}
