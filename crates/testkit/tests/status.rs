//! docs/status is true: every command and flag of docker's client and every field of the API has a row there, every row is
//! of something that the client or the API still has, and names a test that is there and speaks of it.
//!
//! The client is the one that `tests/docker-client` finds, asked without a daemon: beside one it hides what that lacks.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// The project's directory.
fn project() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// One flag as the help shows it: `--memory`, `-m`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Flag {
    long: String,
    short: Option<String>,
}

/// One command as the help shows it.
#[derive(Debug)]
struct Entry {
    /// Every way to call it, the canonical one first.
    names: Vec<String>,
    flags: BTreeSet<Flag>,
}

/// What the help of a program says of a command.
fn help(program: &Path, words: &[String]) -> String {
    let output = Command::new(program)
        .args(words)
        .arg("--help")
        .env("DOCKER_HOST", "unix:///nonexistent.sock")
        .env("DOCKER_CONFIG", "/nonexistent")
        .env_remove("DOCKER_CONTEXT")
        .output()
        .unwrap_or_else(|error| panic!("run {}: {error}", program.display()));
    assert!(output.status.success(), "{words:?}: {output:?}");
    String::from_utf8(output.stdout).expect("UTF-8")
}

/// Reads the options of a help text.
fn options(help: &str) -> BTreeSet<Flag> {
    let mut section = "";
    let mut flags = BTreeSet::new();
    for line in help.lines() {
        if !line.starts_with(' ') && line.ends_with(':') {
            section = line;
        }
        let mut words = line.trim_start().split(' ').peekable();
        // What goes on from the line before is indented further.
        let indented = line.len() - line.trim_start().len();
        if !section.contains("Options") || !matches!(indented, 2 | 6) {
            continue;
        }
        let short = words
            .next_if(|word| word.len() == 3 && word.ends_with(','))
            .map(|word| word.trim_end_matches(',').to_owned());
        if let Some(long) = words.next().filter(|word| word.starts_with("--")) {
            let long = long.to_owned();
            flags.insert(Flag { long, short });
        }
    }
    flags
}

/// Reads the sub-commands of a help text.
fn children(help: &str) -> Vec<String> {
    let mut inside = false;
    let mut children = Vec::new();
    for line in help.lines() {
        if !line.starts_with(' ') {
            inside = line.ends_with("Commands:");
        } else if inside && line.starts_with("  ") && !line.starts_with("   ") {
            let name = line.split_whitespace().next().unwrap_or_default();
            children.push(name.trim_end_matches('*').to_owned());
        }
    }
    children
}

/// The real client, as `make test` finds it.
fn client() -> PathBuf {
    let output = Command::new(project().join("tests/docker-client"))
        .output()
        .expect("tests/docker-client");
    assert!(
        output.status.success(),
        "no docker client: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    PathBuf::from(String::from_utf8(output.stdout).expect("a path").trim())
}

/// Walks the help of the client: the help text of each command by its words.
fn walk(program: &Path, words: Vec<String>, found: &mut BTreeMap<Vec<String>, String>) {
    let text = help(program, &words);
    for child in children(&text) {
        let mut below = words.clone();
        below.push(child);
        walk(program, below, found);
    }
    found.insert(words, text);
}

/// All help texts of the client, asked for once.
fn helps() -> &'static BTreeMap<Vec<String>, String> {
    static HELPS: OnceLock<BTreeMap<Vec<String>, String>> = OnceLock::new();
    HELPS.get_or_init(|| {
        let mut found = BTreeMap::new();
        walk(&client(), Vec::new(), &mut found);
        found
    })
}

/// The commands of the client that do something, by their canonical words. The program itself is `docker`.
fn commands(texts: &BTreeMap<Vec<String>, String>) -> BTreeMap<String, Entry> {
    let mut all = BTreeMap::new();
    for (words, text) in texts {
        if !words.is_empty() && !children(text).is_empty() {
            continue;
        }
        let called = ["docker".to_owned()]
            .iter()
            .chain(words)
            .cloned()
            .collect::<Vec<_>>()
            .join(" ");
        let mut lines = text.lines().skip_while(|line| *line != "Aliases:").skip(1);
        let names: Vec<String> = match lines.next() {
            Some(aliases) => aliases.trim().split(", ").map(str::to_owned).collect(),
            None => vec![called],
        };
        let flags = options(text);
        all.insert(names[0].clone(), Entry { names, flags });
    }
    all
}

/// One row of a table in docs/status.
#[derive(Debug)]
struct Row {
    place: String,
    section: String,
    subjects: Vec<String>,
    verdict: String,
    /// The client's flag that sets a field; empty in the tables of commands.
    flag: Option<String>,
    tests: Vec<String>,
}

/// The words in backticks of a cell.
fn quoted(cell: &str) -> Vec<String> {
    cell.split('`')
        .skip(1)
        .step_by(2)
        .map(str::to_owned)
        .collect()
}

/// Reads the tables of a file. A row is `| subjects | verdict | tests |`, with a flag before the tests where there are four.
fn rows(file: &str) -> Vec<Row> {
    let text = read(&project().join("docs/status").join(file));
    let mut section = String::new();
    let mut rows = Vec::new();
    for (number, line) in text.lines().enumerate() {
        if let Some(title) = line.strip_prefix("## ") {
            section = title.trim().to_owned();
        }
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        let heading =
            cells.len() < 3 || cells[0].starts_with("--") || !cells[0].contains(['`', '*']);
        if !line.starts_with('|') || heading {
            continue;
        }
        let subjects = match cells[0] {
            "*the command*" => vec![COMMAND.to_owned()],
            cell => quoted(cell),
        };
        rows.push(Row {
            place: format!("{file}:{}", number + 1),
            section: section.clone(),
            subjects,
            verdict: cells[1].to_owned(),
            flag: (cells.len() > 3).then(|| quoted(cells[2]).concat()),
            tests: quoted(cells[cells.len() - 1]),
        });
    }
    rows
}

/// The subject of a command's first row.
const COMMAND: &str = "the command";

/// Compares what there is with what the rows speak of; returns what is missing, gone or there twice.
fn compare(expected: &BTreeSet<(String, String)>, rows: &[Row]) -> Vec<String> {
    let mut seen = BTreeSet::new();
    let mut faults = Vec::new();
    for row in rows {
        for subject in &row.subjects {
            let key = (row.section.clone(), subject.clone());
            if !expected.contains(&key) {
                faults.push(format!("{}: there is no {key:?}", row.place));
            }
            if !seen.insert(key) {
                faults.push(format!("{}: a second row of `{subject}`", row.place));
            }
        }
    }
    faults.extend(
        expected
            .difference(&seen)
            .map(|(section, subject)| format!("no row of `{subject}` in section `{section}`")),
    );
    faults
}

/// Fails with all faults.
fn none(faults: Vec<String>) {
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn every_command_and_flag_of_the_client_has_a_row() {
    let texts = helps();
    assert!(texts.len() > 150, "{} commands", texts.len());
    let mut expected = BTreeSet::new();
    for (name, entry) in commands(texts) {
        if name != "docker" {
            expected.insert((name.clone(), COMMAND.to_owned()));
        }
        for flag in entry.flags {
            expected.insert((name.clone(), flag.long));
        }
    }
    none(compare(&expected, &rows("commands.md")));
}

#[test]
fn every_field_of_the_api_has_a_row() {
    let list = read(&project().join("crates/testkit/tests/data/api-1.51-fields"));
    let expected = list
        .lines()
        .map(|line| line.split_once('.').expect("an object and a field"))
        .map(|(object, field)| (object.to_owned(), field.to_owned()))
        .collect();
    none(compare(&expected, &rows("fields.md")));
}

/// The help of Gantry's client is the real one's, byte by byte: `--help` of every command.
#[test]
fn help_is_dockers() {
    let directory = tempfile::tempdir().expect("a directory");
    let gantry = directory.path().join("docker");
    std::os::unix::fs::symlink(gantry_testkit::engine::binary(), &gantry).expect("a link");
    let texts = helps();
    let different: Vec<String> = texts
        .iter()
        .filter(|(words, text)| help(&gantry, words) != **text)
        .map(|(words, _)| words.join(" "))
        .collect();
    assert!(different.is_empty(), "{different:?}");
}

/// Gives the file of a test's name: `scenarios::GROUP…::NAME`, `status::NAME` or `CRATE::MODULE…::NAME`.
fn file_of(test: &str) -> Option<(PathBuf, String)> {
    let mut parts: Vec<&str> = test.split("::").collect();
    let name = parts.pop()?.to_owned();
    let crates = project().join("crates");
    let candidates = match parts.as_slice() {
        ["scenarios", group @ ..] => {
            let file = format!("testkit/tests/scenarios/{}.rs", group.join("/"));
            vec![crates.join(file)]
        }
        ["status"] => vec![crates.join("testkit/tests/status.rs")],
        [krate, modules @ ..] => {
            let below = modules.join("/");
            vec![
                crates.join(format!("{krate}/src/{below}.rs")),
                crates.join(format!("{krate}/src/{below}/mod.rs")),
                crates.join(format!("{krate}/src/{below}/tests.rs")),
                crates.join(format!("{krate}/tests/{below}.rs")),
                crates.join(format!("{krate}/tests/{below}/main.rs")),
            ]
        }
        [] => return None,
    };
    let found = candidates.into_iter().find(|file| {
        std::fs::read_to_string(file).is_ok_and(|text| text.contains(&format!("fn {name}(")))
    })?;
    Some((found, name))
}

/// The text of an item: from `start` to the line that closes it at the same depth.
fn item<'a>(text: &'a str, start: &str) -> Option<&'a str> {
    let at = text.find(start)?;
    let line = text[..at].rfind('\n').map_or(0, |newline| newline + 1);
    let depth = at - line;
    let indent = " ".repeat(if text[line..at].trim().is_empty() {
        depth
    } else {
        0
    });
    let rest = &text[line..];
    let ends = [format!("\n{indent}}}"), format!("\n{indent}];")];
    let end = ends.iter().filter_map(|end| rest.find(end)).min();
    Some(&rest[..end.unwrap_or(rest.len())])
}

/// What a test says: its body, and the functions and constants of its file that the body names.
fn body_of(test: &str) -> Result<String, String> {
    let (file, name) = file_of(test).ok_or_else(|| format!("there is no test `{test}`"))?;
    let text = read(&file);
    let declared = [
        format!("#[test]\nfn {name}()"),
        format!("#[test]\n    fn {name}()"),
        format!("\n    {name},\n"),
        format!("(\"{name}\", {name})"),
        format!("\"{name}\",\n        {name},"),
    ];
    let is_scenario = test.starts_with("scenarios::");
    if !declared.iter().any(|form| text.contains(form))
        || is_scenario && !text.contains(&format!("fn {name}(s: &Session)"))
    {
        return Err(format!("`{test}` is a function but no test"));
    }
    let body = item(&text, &format!("fn {name}(")).unwrap_or_default();
    let mut all = body.to_owned();
    let names: BTreeSet<&str> = body
        .split(|letter: char| !letter.is_alphanumeric() && letter != '_')
        .filter(|word| word.len() > 2 && *word != name)
        .collect();
    for name in names {
        for start in [format!("const {name}: "), format!("\nfn {name}(")] {
            all.push_str(
                item(&text, start.trim_start())
                    .filter(|_| text.contains(&start))
                    .unwrap_or_default(),
            );
        }
    }
    Ok(all)
}

/// Says whether `text` holds `word` with nothing of a word around it.
fn holds(text: &str, word: &str) -> bool {
    let part = |letter: Option<char>| {
        letter.is_some_and(|letter| letter.is_alphanumeric() || letter == '-' || letter == '_')
    };
    text.match_indices(word).any(|(at, _)| {
        !part(text[..at].chars().next_back()) && !part(text[at + word.len()..].chars().next())
    })
}

/// Says whether a command line in `text` gives a flag, by its long or its short name.
fn gives(text: &str, flag: &Flag) -> bool {
    let short = flag.short.as_deref().and_then(|short| short.chars().nth(1));
    let cluster = |word: &str| {
        let Some(letters) = word.trim_start_matches(['"', '\'']).strip_prefix('-') else {
            return false;
        };
        let end = letters
            .find(|letter: char| !letter.is_ascii_alphabetic())
            .unwrap_or(letters.len());
        short.is_some_and(|short| letters[..end].contains(short))
            && !letters[end..].starts_with(['-', '_'])
    };
    holds(text, &flag.long) || text.split_whitespace().any(cluster)
}

#[test]
fn every_row_names_a_test_that_speaks_of_it() {
    let texts = helps();
    let commands = commands(texts);
    let mut faults = Vec::new();
    for row in rows("commands.md").iter().chain(&rows("fields.md")) {
        let fault = |text: String| format!("{}: {text}", row.place);
        if row.verdict != "works" && row.verdict != "is refused" {
            faults.push(fault(format!("`{}` is no verdict", row.verdict)));
        }
        if row.tests.is_empty() {
            faults.push(fault("no test".to_owned()));
        }
        let mut said = String::new();
        for test in &row.tests {
            match body_of(test) {
                Ok(text) => said.push_str(&text),
                Err(text) => faults.push(fault(text)),
            }
        }
        // A command that is refused takes its flags with it; a test that goes through all flags names none.
        let whole = row.verdict == "is refused"
            && row.tests == ["scenarios::refused::commands_are_refused_by_name"];
        let every = row.tests.iter().any(|test| test == EVERY_FLAG);
        for subject in &row.subjects {
            let entry = commands.get(&row.section);
            let spoken = match (entry, &row.flag) {
                (Some(entry), None) if subject == COMMAND => entry
                    .names
                    .iter()
                    .filter_map(|name| name.strip_prefix("docker "))
                    .any(|name| holds(&said, name)),
                (Some(_), None) if whole || every => true,
                (Some(entry), None) => entry
                    .flags
                    .iter()
                    .filter(|flag| flag.long == *subject)
                    .any(|flag| gives(&said, flag)),
                (_, Some(flag)) => {
                    let field = subject.rsplit('.').next().unwrap_or(subject);
                    holds(&said, field) || (!flag.is_empty() && holds(&said, flag))
                }
                (None, None) => false,
            };
            if !spoken {
                faults.push(fault(format!(
                    "{:?} do not speak of `{subject}`",
                    row.tests
                )));
            }
        }
    }
    none(faults);
}

/// The test that goes through all flags of `create` and compares them with those of `run`.
const EVERY_FLAG: &str = "cli::run::options::create_sends_what_run_sends";

/// The summary names tests as well.
#[test]
fn the_summary_names_tests_that_are_there() {
    let text = read(&project().join("docs/status.md"));
    let tests: Vec<String> = quoted(&text)
        .into_iter()
        .filter(|word| word.contains("::"))
        .collect();
    assert!(!tests.is_empty());
    none(
        tests
            .iter()
            .filter_map(|test| body_of(test).err())
            .collect(),
    );
}

#[test]
fn missing_and_foreign_rows_are_faults() {
    let row = |subject: &str| Row {
        place: "here".to_owned(),
        section: "docker x".to_owned(),
        subjects: vec![subject.to_owned()],
        verdict: "works".to_owned(),
        flag: None,
        tests: Vec::new(),
    };
    let expected = [("docker x".to_owned(), "--all".to_owned())].into();
    assert!(compare(&expected, &[row("--all")]).is_empty());
    assert_eq!(compare(&expected, &[]).len(), 1, "a missing row");
    let foreign = compare(&expected, &[row("--all"), row("--gone")]);
    assert_eq!(foreign.len(), 1, "a row of a flag that is no more");
    let twice = compare(&expected, &[row("--all"), row("--all")]);
    assert_eq!(twice.len(), 1, "two rows of one flag");
}

#[test]
fn the_reading_of_rows_and_helps_is_right() {
    let help = "Usage:  docker x\n\nOptions:\n  -a, --all                Show --nothing\n      --long-one list      Text\n                           --no-flag here\n\nManagement Commands:\n  y*   Do y\n       more\n";
    let names: Vec<String> = options(help).into_iter().map(|flag| flag.long).collect();
    assert_eq!(names, ["--all", "--long-one"]);
    assert_eq!(children(help), ["y"]);
    let flag = Flag {
        long: "--all".to_owned(),
        short: Some("-a".to_owned()),
    };
    assert!(gives("s.d(\"ps --all\")", &flag) && gives("s.d(\"ps -qa x\")", &flag));
    assert!(!gives("s.d(\"ps --all-tags -q alpha -b\")", &flag));
    assert!(body_of("scenarios::run::no_such_test").is_err());
    assert!(
        body_of("scenarios::storage::volumes_of").is_err(),
        "a helper is no test"
    );
    assert!(body_of("scenarios::run::a_sysctl_is_set").is_ok_and(|text| text.contains("--sysctl")));
}
