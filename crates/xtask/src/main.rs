//! Chores of the project, run as `cargo xtask NAME`.
//!
//! `images DIR [NAME...]` makes the image archives that the tests and the demo load; an archive that is there is kept.
//! `size` prints the size of the release binary. Everything here may use the network (Debian's packages) and needs root for
//! the Debian image; nothing here is part of the product.

mod archive;
mod images;

use std::path::Path;
use std::process::ExitCode;

const USAGE: &str =
    "usage: cargo xtask images DIR [busybox|app|web|debian]...\n       cargo xtask size";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let result = match words.as_slice() {
        ["images", directory, names @ ..] => images::make(Path::new(directory), names),
        ["size"] => size(),
        _ => {
            eprintln!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn size() -> anyhow::Result<()> {
    let target = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../target/x86_64-unknown-linux-gnu/release/gantry");
    let bytes = std::fs::metadata(&target)?.len();
    println!("{bytes} bytes ({:.1} MiB)", bytes as f64 / 1048576.0);
    Ok(())
}
