//! Classic BPF, assembled from the end to the beginning.
//!
//! Jumps only go forward and a conditional one reaches 255 instructions, so emitting backwards means that each target is
//! known and its distance exact when the jump is made; a longer way goes over an unconditional jump put in between.
//! Every block ends in a jump or a verdict, so blocks may be laid out in any order.

use std::collections::HashMap;

/// `struct sock_filter` of linux/filter.h.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Instruction {
    pub(super) code: u16,
    pub(super) jump_true: u8,
    pub(super) jump_false: u8,
    pub(super) value: u32,
}

pub(super) const LOAD: u16 = 0x20; // BPF_LD | BPF_W | BPF_ABS
pub(super) const AND: u16 = 0x54; // BPF_ALU | BPF_AND | BPF_K
pub(super) const JUMP: u16 = 0x05; // BPF_JMP | BPF_JA
pub(super) const JUMP_EQUAL: u16 = 0x15; // BPF_JMP | BPF_JEQ | BPF_K
pub(super) const JUMP_GREATER: u16 = 0x25; // BPF_JMP | BPF_JGT | BPF_K
pub(super) const JUMP_GREATER_EQUAL: u16 = 0x35; // BPF_JMP | BPF_JGE | BPF_K
pub(super) const RETURN: u16 = 0x06; // BPF_RET | BPF_K

/// Place of an instruction, counted from the end of the program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Label(usize);

/// A program under construction.
#[derive(Default)]
pub(super) struct Assembler {
    reversed: Vec<Instruction>,
    verdicts: HashMap<u32, Label>,
}

impl Assembler {
    fn push(&mut self, code: u16, value: u32) -> Label {
        self.reversed.push(Instruction {
            code,
            jump_true: 0,
            jump_false: 0,
            value,
        });
        Label(self.reversed.len() - 1)
    }

    /// Instructions to skip from one that is pushed `more` places from now.
    fn distance(&self, target: Label, more: usize) -> usize {
        self.reversed.len() + more - 1 - target.0
    }

    /// A verdict, shared with the last equal one where that is near.
    pub(super) fn verdict(&mut self, value: u32) -> Label {
        match self.verdicts.get(&value) {
            Some(label) if self.distance(*label, 0) < 200 => *label,
            _ => {
                let label = self.push(RETURN, value);
                self.verdicts.insert(value, label);
                label
            }
        }
    }

    /// Puts a load of the word at `offset` of `struct seccomp_data` before the instruction at `next`, which must be the
    /// last one made.
    pub(super) fn load(&mut self, offset: u32, next: Label) -> Label {
        let next = self.adjacent(next);
        debug_assert_eq!(next.0 + 1, self.reversed.len());
        self.push(LOAD, offset)
    }

    /// Masks the accumulator before the instruction at `next`.
    pub(super) fn mask(&mut self, mask: u32, next: Label) -> Label {
        let next = self.adjacent(next);
        debug_assert_eq!(next.0 + 1, self.reversed.len());
        self.push(AND, mask)
    }

    /// Makes `next` follow what is pushed after this.
    fn adjacent(&mut self, next: Label) -> Label {
        if next.0 + 1 == self.reversed.len() {
            next
        } else {
            self.jump(next)
        }
    }

    fn jump(&mut self, target: Label) -> Label {
        let distance = self.distance(target, 0);
        self.push(JUMP, u32::try_from(distance).unwrap_or(u32::MAX))
    }

    /// A conditional jump on the accumulator.
    pub(super) fn branch(
        &mut self,
        code: u16,
        value: u32,
        mut to: Label,
        mut otherwise: Label,
    ) -> Label {
        if to == otherwise {
            return to;
        }
        // The other branch's jump may come in between: up to two more places.
        if self.distance(to, 2) > 255 {
            to = self.jump(to);
        }
        if self.distance(otherwise, 2) > 255 {
            otherwise = self.jump(otherwise);
        }
        let near = |distance: usize| u8::try_from(distance).unwrap_or(u8::MAX);
        let (jump_true, jump_false) = (
            near(self.distance(to, 0)),
            near(self.distance(otherwise, 0)),
        );
        self.reversed.push(Instruction {
            code,
            jump_true,
            jump_false,
            value,
        });
        Label(self.reversed.len() - 1)
    }

    /// Ends the program: execution begins at `entry`.
    pub(super) fn finish(mut self, entry: Label) -> Vec<Instruction> {
        self.adjacent(entry);
        self.reversed.reverse();
        self.reversed
    }
}

/// Lays a program out as the kernel reads it.
pub(super) fn encode(program: &[Instruction]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(program.len() * 8);
    for one in program {
        bytes.extend(one.code.to_ne_bytes());
        bytes.extend([one.jump_true, one.jump_false]);
        bytes.extend(one.value.to_ne_bytes());
    }
    bytes
}
