//! Compression of rotated files, in a short-lived child so that the shim's memory stays as it is.
//!
//! The shim runs its own executable as `shim --compress GENERATION` with the rotated file as standard input and the new
//! file as standard output, and renames the result when the child has ended well (see [`super::writer`]).

use std::fs::File;
use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode, Stdio};

use flate2::{Compression, GzBuilder};

/// The identifier of our subfield in gzip's extra field (RFC 1952 section 2.3.1.1).
const SUBFIELD: [u8; 2] = *b"GN";

/// Starts the child and returns its process id. It lowers its own priority.
pub fn spawn(input: File, output: File, generation: u64) -> io::Result<i32> {
    let child = Command::new("/proc/self/exe")
        .arg0("gantry-shim")
        .args(["shim", "--compress", &generation.to_string()])
        .env_clear()
        .stdin(input)
        .stdout(output)
        .stderr(Stdio::null())
        .spawn()?;
    // Not waited for here: the loop reaps every child.
    Ok(child.id() as i32)
}

/// The child: standard input to standard output.
pub fn run(generation: &str) -> ExitCode {
    let Ok(generation) = generation.parse::<u64>() else {
        return ExitCode::from(2);
    };
    let _ = rustix::process::nice(10);
    let result = (|| -> io::Result<()> {
        let output = rustix::io::dup(rustix::stdio::stdout())?;
        let mut encoder = GzBuilder::new()
            .extra(extra(generation))
            .write(File::from(output), Compression::fast());
        let mut input = File::from(rustix::io::dup(rustix::stdio::stdin())?);
        io::copy(&mut input, &mut encoder)?;
        encoder.finish()?;
        Ok(())
    })();
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

/// Returns the extra field that names the identity of the file that was compressed.
fn extra(generation: u64) -> Vec<u8> {
    let mut field = SUBFIELD.to_vec();
    field.extend_from_slice(&8u16.to_le_bytes());
    field.extend_from_slice(&generation.to_le_bytes());
    field
}

/// Finds the identity in an extra field.
pub(super) fn generation(mut extra: &[u8]) -> Option<u64> {
    while let [first, second, low, high, rest @ ..] = extra {
        let (data, after) =
            rest.split_at_checked(usize::from(u16::from_le_bytes([*low, *high])))?;
        if [*first, *second] == SUBFIELD {
            return Some(u64::from_le_bytes(data.try_into().ok()?));
        }
        extra = after;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_identity_is_found_among_other_subfields() {
        let mut field = b"XY\x03\0abc".to_vec();
        field.extend(extra(0x1234_5678_9abc_def0));
        assert_eq!(generation(&field), Some(0x1234_5678_9abc_def0));
        assert_eq!(generation(b"XY\x03\0abc"), None);
        assert_eq!(generation(b"GN\x08\0abc"), None);
    }
}
