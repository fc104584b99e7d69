//! Tells the crate when it is built; `SOURCE_DATE_EPOCH` replaces the clock, so that a build can be repeated exactly
//! (reproducible-builds.org, "SOURCE_DATE_EPOCH specification").

use std::time::{SystemTime, UNIX_EPOCH};

fn main() {
    println!("cargo::rerun-if-env-changed=SOURCE_DATE_EPOCH");
    println!("cargo::rerun-if-changed=src");
    let seconds = match std::env::var("SOURCE_DATE_EPOCH") {
        Ok(text) => text
            .parse()
            .unwrap_or_else(|error| panic!("SOURCE_DATE_EPOCH is `{text}`: {error}")),
        Err(_) => SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| since.as_secs()),
    };
    println!("cargo::rustc-env=GANTRY_BUILD_SECONDS={seconds}");
}
