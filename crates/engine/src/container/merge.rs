//! A user's configuration laid over an image's. Pure.

use std::collections::BTreeMap;

use super::config::Config;

/// Environment of a container that neither its user nor its image gave a `PATH`.
pub(crate) const DEFAULT_PATH: &str =
    "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Fills in what `user` left open from `image`.
pub(crate) fn merge(user: &mut Config, image: &Config) {
    if user.user.is_empty() {
        user.user.clone_from(&image.user);
    }
    user.exposed_ports
        .extend(image.exposed_ports.iter().cloned());
    let mut env: Vec<String> = Vec::with_capacity(image.env.len() + user.env.len());
    for entry in &image.env {
        let name = variable_name(entry);
        if !user.env.iter().any(|own| variable_name(own) == name) {
            env.push(entry.clone());
        }
    }
    // Docker keeps the user's variables first.
    let mut merged = std::mem::take(&mut user.env);
    merged.append(&mut env);
    user.env = merged;
    for (key, value) in &image.labels {
        user.labels
            .entry(key.clone())
            .or_insert_with(|| value.clone());
    }
    let entrypoint_given = user
        .entrypoint
        .as_ref()
        .is_some_and(|list| !list.is_empty());
    if !entrypoint_given {
        if user.cmd.as_ref().is_none_or(Vec::is_empty) {
            user.cmd.clone_from(&image.cmd);
        }
        if user.entrypoint.is_none() {
            user.entrypoint.clone_from(&image.entrypoint);
        }
    } else if user.entrypoint.as_deref() == Some(&[String::new()]) {
        // `--entrypoint ""` takes the image's entrypoint away and, as a side effect in Docker, its command as well.
        user.entrypoint = None;
    }
    if user.working_dir.is_empty() {
        user.working_dir.clone_from(&image.working_dir);
    }
    user.volumes.extend(image.volumes.iter().cloned());
    if user.stop_signal.is_none() {
        user.stop_signal.clone_from(&image.stop_signal);
    }
    if user.healthcheck.is_none() {
        user.healthcheck.clone_from(&image.healthcheck);
    }
    if user.shell.is_none() {
        user.shell.clone_from(&image.shell);
    }
    if user.on_build.is_none() {
        user.on_build.clone_from(&image.on_build);
    }
}

/// Returns the program and its arguments; `None` when nothing was given.
pub(crate) fn command(config: &Config) -> Option<(String, Vec<String>)> {
    let mut words = config
        .entrypoint
        .iter()
        .flatten()
        .chain(config.cmd.iter().flatten())
        .cloned();
    let path = words.next()?;
    Some((path, words.collect()))
}

/// Returns the environment of the first process: defaults and what `links` tell, then `env` over them, in Docker's order.
pub(crate) fn environment(
    env: &[String],
    hostname: &str,
    tty: bool,
    links: &[String],
) -> Vec<String> {
    let mut all = vec![DEFAULT_PATH.to_owned(), format!("HOSTNAME={hostname}")];
    if tty {
        all.push("TERM=xterm".to_owned());
    }
    all.extend_from_slice(links);
    overlay(&mut all, env);
    all
}

/// Lays `changes` over `env`: `NAME=value` sets, a bare `NAME` takes away.
pub(crate) fn overlay(env: &mut Vec<String>, changes: &[String]) {
    let mut position: BTreeMap<String, usize> = env
        .iter()
        .enumerate()
        .map(|(index, entry)| (variable_name(entry).to_owned(), index))
        .collect();
    let mut gone = Vec::new();
    for change in changes {
        let name = variable_name(change).to_owned();
        match (position.get(&name), change.contains('=')) {
            (Some(&index), true) => env[index].clone_from(change),
            (Some(&index), false) => gone.push(index),
            (None, true) => {
                position.insert(name, env.len());
                env.push(change.clone());
            }
            (None, false) => {}
        }
    }
    gone.sort_unstable();
    gone.dedup();
    for index in gone.into_iter().rev() {
        env.remove(index);
    }
}

fn variable_name(entry: &str) -> &str {
    entry.split_once('=').map_or(entry, |(name, _)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Option<Vec<String>> {
        Some(text.split_whitespace().map(str::to_owned).collect())
    }

    #[test]
    fn entrypoint_and_command_merge_as_docker_does() {
        // (user entrypoint, user cmd, image entrypoint, image cmd) -> words
        for (user_entrypoint, user_cmd, image_entrypoint, image_cmd, expected) in [
            (None, None, None, words("sh"), "sh"),
            (None, words("ls"), None, words("sh"), "ls"),
            (None, None, words("/e"), words("-x"), "/e -x"),
            (None, words("-y"), words("/e"), words("-x"), "/e -y"),
            (words("/mine"), None, words("/e"), words("-x"), "/mine"),
            (
                words("/mine"),
                words("a"),
                words("/e"),
                words("-x"),
                "/mine a",
            ),
            (
                Some(vec![String::new()]),
                words("a b"),
                words("/e"),
                words("-x"),
                "a b",
            ),
        ] {
            let mut user = Config {
                entrypoint: user_entrypoint,
                cmd: user_cmd,
                ..Config::default()
            };
            let image = Config {
                entrypoint: image_entrypoint,
                cmd: image_cmd,
                ..Config::default()
            };
            merge(&mut user, &image);
            let (path, args) = command(&user).unwrap();
            assert_eq!([vec![path], args].concat().join(" "), expected);
        }
        assert!(command(&Config::default()).is_none());
    }

    #[test]
    fn the_users_variables_win_and_a_bare_name_takes_away() {
        let mut user = Config {
            env: vec!["A=1".into()],
            ..Config::default()
        };
        let image = Config {
            env: vec!["A=0".into(), "PATH=/bin".into()],
            ..Config::default()
        };
        merge(&mut user, &image);
        assert_eq!(user.env, ["A=1", "PATH=/bin"]);
        assert_eq!(
            environment(&user.env, "h", false, &["DB_NAME=/a/db".into()]),
            ["PATH=/bin", "HOSTNAME=h", "DB_NAME=/a/db", "A=1"]
        );
        assert_eq!(
            environment(&["HOSTNAME".into()], "h", true, &[]),
            [DEFAULT_PATH, "TERM=xterm"]
        );
    }
}
