//! `top`: ps(1) of the host, asked for the container's processes.

use std::process::Command;

use super::Status;
use crate::{Engine, Error, Result};

/// A table of processes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Top {
    pub titles: Vec<String>,
    pub processes: Vec<Vec<String>>,
}

impl Engine {
    /// Lists a container's processes as the host's ps(1) shows them; `arguments` are its own, `-ef` by default.
    ///
    /// # Errors
    /// Not running; no ps on the host; arguments that ps refuses or that show no PID column.
    pub async fn top(&self, name: &str, arguments: &str) -> Result<Top> {
        let container = self.container(name)?;
        let record = container.record();
        match record.state.status {
            Status::Running | Status::Paused => {}
            Status::Restarting => {
                return Err(Error::conflict(format!(
                    "Container {} is restarting, wait until the container is running",
                    record.id
                )));
            }
            _ => return Err(super::not_running(&record.id)),
        }
        let arguments = if arguments.is_empty() {
            "-ef"
        } else {
            arguments
        }
        .to_owned();
        let layout = self.inner.cgroups.clone();
        let path = record.acquired.cgroup.clone().unwrap_or_default();
        crate::blocking::run(move || {
            let pids = gantry_sys::cgroup::Cgroup::open(&layout, &path)
                .and_then(|cgroup| cgroup.pids())
                .map_err(|error| Error::io("list a container's processes", error))?;
            let output = Command::new("ps")
                .args(arguments.split_whitespace())
                .output()
                .map_err(|error| Error::io("run ps", error))?;
            if !output.status.success() {
                let words = String::from_utf8_lossy(&output.stderr);
                return Err(Error::system(format!(
                    "ps: {}",
                    words.lines().next().unwrap_or("failed")
                )));
            }
            parse(&String::from_utf8_lossy(&output.stdout), &pids)
        })
        .await?
    }
}

/// Picks the lines of `pids` out of what ps printed.
fn parse(output: &str, pids: &[i32]) -> Result<Top> {
    let mut lines = output.lines();
    let titles: Vec<String> = lines
        .next()
        .unwrap_or("")
        .split_whitespace()
        .map(str::to_owned)
        .collect();
    let column = titles
        .iter()
        .position(|title| title == "PID")
        .ok_or_else(|| Error::system("Couldn't find PID field in ps output"))?;
    let mut processes = Vec::new();
    for line in lines {
        let words: Vec<&str> = line.split_whitespace().collect();
        let Some(pid) = words.get(column).and_then(|word| word.parse::<i32>().ok()) else {
            continue;
        };
        if !pids.contains(&pid) {
            continue;
        }
        // The last column is a command line and has spaces of its own.
        let last = titles.len() - 1;
        let mut row: Vec<String> = words
            .iter()
            .take(last)
            .map(|word| (*word).to_owned())
            .collect();
        row.push(words.get(last..).unwrap_or_default().join(" "));
        processes.push(row);
    }
    Ok(Top { titles, processes })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_containers_lines_are_kept_and_commands_keep_their_spaces() {
        let output = "UID   PID CMD\nroot    1 init\nroot   42 sleep 100 x\n";
        let top = parse(output, &[42]).unwrap();
        assert_eq!(top.processes, [["root", "42", "sleep 100 x"]]);
        assert!(parse("UID CMD\nroot init\n", &[1]).is_err());
    }
}
