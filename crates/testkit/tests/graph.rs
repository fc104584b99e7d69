//! The crates know whom they may know, and depend on what may be depended on: read from `cargo metadata`.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::path::Path;
use std::process::Command;

use serde_json::Value;

fn metadata() -> Value {
    let run = |offline: bool| {
        let mut command = Command::new(env!("CARGO"));
        command.args([
            "metadata",
            "--format-version",
            "1",
            "--filter-platform",
            "x86_64-unknown-linux-gnu",
        ]);
        if offline {
            command.arg("--offline");
        }
        command
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .output()
            .expect("start cargo")
    };
    let mut output = run(true);
    if !output.status.success() {
        output = run(false);
    }
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    serde_json::from_slice(&output.stdout).expect("JSON")
}

/// The short name of one of the project's crates.
fn short(package: &str) -> Option<&str> {
    if package == "gantry" {
        Some(package)
    } else {
        package.strip_prefix("gantry-")
    }
}

/// Crate to the crates that it uses, without those used by tests alone.
fn actual(metadata: &Value) -> BTreeMap<String, BTreeSet<String>> {
    let mut graph = BTreeMap::new();
    for package in metadata["packages"].as_array().expect("packages") {
        let Some(name) = package["name"].as_str().and_then(short) else {
            continue;
        };
        let uses = package["dependencies"]
            .as_array()
            .expect("dependencies")
            .iter()
            .filter(|dependency| dependency["kind"].is_null())
            .filter_map(|dependency| short(dependency["name"].as_str()?).map(str::to_owned))
            .collect();
        graph.insert(name.to_owned(), uses);
    }
    graph
}

/// The table of ARCHITECTURE.md.
fn documented() -> BTreeMap<String, BTreeSet<String>> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../ARCHITECTURE.md");
    let text = std::fs::read_to_string(path).expect("ARCHITECTURE.md");
    let table = text
        .split_once("| may use |")
        .expect("the table")
        .1
        .split_once("\n\n")
        .expect("its end")
        .0;
    table
        .lines()
        .filter_map(|line| {
            let cells: Vec<&str> = line.split('|').map(str::trim).collect();
            let name = cells.get(1)?.strip_prefix('`')?.strip_suffix('`')?;
            let uses = cells
                .get(3)?
                .split(", ")
                .filter(|word| *word != "–")
                .map(str::to_owned)
                .collect();
            Some((name.to_owned(), uses))
        })
        .collect()
}

#[test]
fn the_crates_use_whom_the_table_allows() {
    let (actual, documented) = (actual(&metadata()), documented());
    let mut problems = Vec::new();
    for (name, uses) in &actual {
        let Some(allowed) = documented.get(name) else {
            if !matches!(name.as_str(), "testkit" | "xtask") {
                problems.push(format!("`{name}` is not in the table"));
            } else if uses.iter().any(|used| used != "api") {
                problems.push(format!(
                    "`{name}` uses {uses:?}: it must see what a user sees"
                ));
            }
            continue;
        };
        problems.extend(
            uses.difference(allowed)
                .map(|used| format!("`{name}` uses `{used}` and may not")),
        );
        problems.extend(
            allowed
                .difference(uses)
                .map(|used| format!("the table lets `{name}` use `{used}`, which it does not")),
        );
    }
    problems.extend(
        documented
            .keys()
            .filter(|name| !actual.contains_key(*name))
            .map(|name| format!("`{name}` is in the table alone")),
    );
    assert!(
        problems.is_empty(),
        "{}\nthe graph is {actual:#?}",
        problems.join("\n")
    );
}

/// All packages that `root` is built from, without those of tests and build scripts.
fn tree<'a>(metadata: &'a Value, root: &str) -> HashSet<&'a str> {
    let names: BTreeMap<&str, &str> = metadata["packages"]
        .as_array()
        .expect("packages")
        .iter()
        .map(|package| {
            (
                package["id"].as_str().expect("an id"),
                package["name"].as_str().expect("a name"),
            )
        })
        .collect();
    let nodes: BTreeMap<&str, &Value> = metadata["resolve"]["nodes"]
        .as_array()
        .expect("nodes")
        .iter()
        .map(|node| (node["id"].as_str().expect("an id"), node))
        .collect();
    let mut pending: Vec<&str> = names
        .iter()
        .filter(|(_, name)| **name == root)
        .map(|(id, _)| *id)
        .collect();
    let mut seen = HashSet::new();
    while let Some(id) = pending.pop() {
        if !seen.insert(id) {
            continue;
        }
        for dependency in nodes[id]["deps"].as_array().expect("deps") {
            let normal = dependency["dep_kinds"]
                .as_array()
                .expect("kinds")
                .iter()
                .any(|kind| kind["kind"].is_null());
            if normal {
                pending.push(dependency["pkg"].as_str().expect("an id"));
            }
        }
    }
    seen.into_iter().map(|id| names[id]).collect()
}

#[test]
fn the_shim_has_no_async_runtime_and_no_http() {
    let metadata = metadata();
    for root in ["gantry-shim", "gantry-runtime", "gantry-netd"] {
        let tree = tree(&metadata, root);
        assert!(
            tree.contains("rustix"),
            "the tree of {root} was not read: {tree:?}"
        );
        for banned in [
            "tokio",
            "hyper",
            "hyper-util",
            "hickory-proto",
            "hickory-server",
            "axum",
            "clap",
        ] {
            assert!(!tree.contains(banned), "{root} depends on {banned}");
        }
    }
}

#[test]
fn every_licence_is_a_permissive_one() {
    let allowed = [
        "MIT",
        "Apache-2.0",
        "BSD-2-Clause",
        "BSD-3-Clause",
        "ISC",
        "Zlib",
        "Unicode-3.0",
        "Unicode-DFS-2016",
        "CC0-1.0",
        "Unlicense",
        "0BSD",
        "MIT-0",
        "BSL-1.0",
    ];
    let metadata = metadata();
    let mut problems = Vec::new();
    let mut count = 0;
    for package in metadata["packages"].as_array().expect("packages") {
        let (name, licence) = (
            package["name"].as_str().expect("a name"),
            package["license"].as_str().unwrap_or("none"),
        );
        count += 1;
        if !permits(licence, &allowed) {
            problems.push(format!("{name}: {licence}"));
        }
    }
    assert!(count > 20, "only {count} packages were read");
    assert!(
        problems.is_empty(),
        "licences that are not allowed:\n{}",
        problems.join("\n")
    );
}

/// Whether a choice allowed by `expression` (SPDX) is among `allowed`. `AND` binds closer than `OR`; parentheses as written
/// by crates today hold alternatives within a conjunction.
fn permits(expression: &str, allowed: &[&str]) -> bool {
    let expression = expression.replace('/', " OR ");
    if let Some(open) = expression.find('(') {
        let close = expression[open..]
            .find(')')
            .map_or(expression.len(), |offset| open + offset);
        let inner = if permits(&expression[open + 1..close], allowed) {
            "MIT"
        } else {
            "none"
        };
        let rest = expression.get(close + 1..).unwrap_or("");
        return permits(&format!("{}{inner}{rest}", &expression[..open]), allowed);
    }
    expression.split(" OR ").any(|choice| {
        choice.split(" AND ").all(|part| {
            let licence = part.split(" WITH ").next().unwrap_or("").trim();
            allowed.contains(&licence)
        })
    })
}

#[test]
fn licence_expressions_are_understood() {
    let allowed = ["MIT", "Apache-2.0"];
    for (expression, expected) in [
        ("MIT", true),
        ("GPL-3.0", false),
        ("GPL-2.0 OR MIT", true),
        ("MIT/GPL-2.0", true),
        ("MIT AND GPL-2.0", false),
        ("(MIT OR GPL-2.0) AND Apache-2.0", true),
        ("(GPL-2.0 OR LGPL-2.1) AND MIT", false),
        ("Apache-2.0 WITH LLVM-exception", true),
        ("none", false),
    ] {
        assert_eq!(permits(expression, &allowed), expected, "{expression}");
    }
}
