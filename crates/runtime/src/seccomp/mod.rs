//! Seccomp: from a profile to a loadable filter.
//!
//! ```text
//! Docker's JSON ─ resolve_profile ─▶ LinuxSeccomp ─ compile ─▶ Filter ─ sys::seccomp::load ─▶ kernel
//! default_profile ──────────────────┘
//! ```
//! All of it is pure; only the loading, in `gantry-sys`, speaks to the kernel. The semantics are libseccomp's as runc
//! uses it, so that a profile written for Docker means the same here:
//! - the conditions of one rule must all hold, several rules of one call are alternatives; an unconditional rule beats
//!   the conditional ones of its call, the first unconditional one the later;
//! - names that no known architecture has are passed over, so that new profiles load;
//! - a process of an architecture that is not named is killed;
//! - a call newer than any the profile names fails with `ENOSYS` and not with the default error, so that programs fall
//!   back to an older call.

mod assembler;
mod compiler;
mod default;
#[cfg(test)]
mod interpreter;
mod profile;
mod syscalls;

use gantry_api::oci::runtime::LinuxSeccomp;

pub use default::default_profile;
pub use profile::resolve_profile;

/// Bit of a system call number that tells x32 from x86_64.
const X32_BIT: u32 = 0x4000_0000;

/// A compiled program with the flags it is loaded with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filter {
    /// An array of `struct sock_filter` in the machine's byte order.
    pub program: Vec<u8>,
    /// `SECCOMP_FILTER_FLAG_*`.
    pub flags: u32,
}

impl Filter {
    /// Number of instructions.
    pub fn len(&self) -> usize {
        self.program.len() / 8
    }

    /// A filter without instructions, which no kernel loads.
    pub fn is_empty(&self) -> bool {
        self.program.is_empty()
    }
}

/// What is wrong with a profile: the caller corrects it or goes without.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("unknown seccomp {what} `{value}`")]
    Unknown { what: &'static str, value: String },
    #[error("the seccomp {what} `{value}` is not supported")]
    Unsupported { what: &'static str, value: String },
    #[error("seccomp rule for `{name}`: argument index {index} is above 5")]
    Index { name: String, index: u32 },
    #[error("the compiled seccomp filter has {0} instructions, and the kernel takes 4096")]
    TooLong(usize),
    #[error("Decoding seccomp profile failed: {0}")]
    Decode(#[source] serde_json::Error),
    #[error("{0}")]
    Profile(&'static str),
}

/// Compiles a profile for this machine.
///
/// # Errors
/// `Unknown` for an action, architecture, operator or flag that does not exist, `Unsupported` for those that exist and
/// are not served: the action `SCMP_ACT_NOTIFY` with its listener, and tables for 32-bit arm on aarch64.
pub fn compile(profile: &LinuxSeccomp) -> Result<Filter, Error> {
    compiler::compile(profile)
}

/// An architecture with a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Architecture {
    X86_64,
    X86,
    X32,
    Aarch64,
}

impl Architecture {
    #[cfg(target_arch = "x86_64")]
    const NATIVE: Self = Self::X86_64;
    #[cfg(target_arch = "aarch64")]
    const NATIVE: Self = Self::Aarch64;

    /// `AUDIT_ARCH_*` of linux/audit.h, which x32 shares with x86_64.
    fn audit(self) -> u32 {
        match self {
            Self::X86_64 | Self::X32 => 0xc000_003e,
            Self::X86 => 0x4000_0003,
            Self::Aarch64 => 0xc000_00b7,
        }
    }

    /// Says whether arguments have 32 bits: the upper half is not compared then.
    fn is_narrow(self) -> bool {
        matches!(self, Self::X86 | Self::X32)
    }
}

#[cfg(test)]
mod tests;
