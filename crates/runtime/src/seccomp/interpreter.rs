//! Runs a compiled program as the kernel would, for tests.

use super::Filter;
use super::assembler::{AND, JUMP, JUMP_EQUAL, JUMP_GREATER, JUMP_GREATER_EQUAL, LOAD, RETURN};

/// The verdict and the number of instructions it took.
pub(super) fn run(filter: &Filter, audit: u32, number: u32, arguments: [u64; 6]) -> (u32, usize) {
    let mut data = Vec::new();
    data.extend(number.to_ne_bytes());
    data.extend(audit.to_ne_bytes());
    data.extend(0u64.to_ne_bytes());
    for argument in arguments {
        data.extend(argument.to_ne_bytes());
    }
    let word = |at: usize| u32::from_ne_bytes(data[at..at + 4].try_into().unwrap());
    let mut accumulator = 0;
    let mut at = 0;
    let mut steps = 0;
    loop {
        let bytes = &filter.program[at * 8..at * 8 + 8];
        let code = u16::from_ne_bytes([bytes[0], bytes[1]]);
        let value = u32::from_ne_bytes(bytes[4..8].try_into().unwrap());
        steps += 1;
        at += 1;
        let taken = match code {
            LOAD => {
                accumulator = word(value as usize);
                continue;
            }
            AND => {
                accumulator &= value;
                continue;
            }
            JUMP => {
                at += value as usize;
                continue;
            }
            RETURN => return (value, steps),
            JUMP_EQUAL => accumulator == value,
            JUMP_GREATER => accumulator > value,
            JUMP_GREATER_EQUAL => accumulator >= value,
            code => panic!("unknown instruction {code:#x}"),
        };
        at += usize::from(if taken { bytes[2] } else { bytes[3] });
    }
}
