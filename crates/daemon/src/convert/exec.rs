//! Execs.

use gantry_api::exec::{ExecInspect, ExecProcessConfig};
use gantry_engine::exec::ExecView;

/// Writes an exec as inspect shows it.
pub fn inspect(view: &ExecView) -> ExecInspect {
    let mut words = view.config.cmd.iter().cloned();
    ExecInspect {
        id: view.id.clone(),
        running: view.running,
        exit_code: view.exit_code.map(i64::from),
        process_config: ExecProcessConfig {
            tty: view.config.tty,
            entrypoint: words.next().unwrap_or_default(),
            arguments: words.collect(),
            privileged: Some(view.config.privileged),
            user: view.config.user.clone(),
        },
        open_stdin: view.open_stdin,
        open_stderr: view.open_stderr,
        open_stdout: view.open_stdout,
        can_remove: false,
        container_id: view.container_id.clone(),
        detach_keys: String::new(),
        pid: view.pid.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gantry_engine::exec::ExecConfig;

    #[test]
    fn a_running_exec_is_dockers() {
        let view = ExecView {
            id: "41fd".to_owned(),
            container_id: "1765".to_owned(),
            config: ExecConfig {
                cmd: vec!["sleep".to_owned(), "5".to_owned()],
                ..ExecConfig::default()
            },
            running: true,
            pid: 25738,
            ..ExecView::default()
        };
        assert_eq!(
            serde_json::to_string(&inspect(&view)).unwrap(),
            r#"{"ID":"41fd","Running":true,"ExitCode":null,"ProcessConfig":{"tty":false,"entrypoint":"sleep","arguments":["5"],"privileged":false},"OpenStdin":false,"OpenStderr":false,"OpenStdout":false,"CanRemove":false,"ContainerID":"1765","DetachKeys":"","Pid":25738}"#
        );
    }
}
