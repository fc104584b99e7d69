//! Wire types of execs.

use crate::wire::wire;

wire! {
    /// Is the body of `POST /containers/{id}/exec`.
    pub struct ExecCreateRequest {
        user: String,
        privileged: bool,
        tty: bool,
        /// Rows and columns.
        console_size: Option<[u32; 2]> = omitempty,
        attach_stdin: bool,
        attach_stderr: bool,
        attach_stdout: bool,
        detach: bool,
        detach_keys: String,
        env: Option<Vec<String>>,
        working_dir: String,
        cmd: Option<Vec<String>>,
    }

    /// Answers exec create.
    pub struct ExecCreateResponse {
        id: String,
    }

    /// Is the body of `POST /exec/{id}/start`.
    pub struct ExecStartRequest {
        detach: bool,
        tty: bool,
        /// Rows and columns.
        console_size: Option<[u32; 2]> = omitempty,
    }

    /// Answers `GET /exec/{id}/json`.
    pub struct ExecInspect {
        #[serde(rename = "ID")]
        id: String,
        running: bool,
        /// `null` until the process has ended.
        exit_code: Option<i64>,
        process_config: ExecProcessConfig,
        open_stdin: bool,
        open_stderr: bool,
        open_stdout: bool,
        can_remove: bool,
        #[serde(rename = "ContainerID")]
        container_id: String,
        /// Bytes as Docker keeps them: base64 in JSON, empty unless set.
        detach_keys: String,
        pid: i64,
    }
}

/// Is the process of an exec, with the field names that the API has here alone.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(default)]
pub struct ExecProcessConfig {
    pub tty: bool,
    pub entrypoint: String,
    pub arguments: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub privileged: Option<bool>,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub user: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_exit_code_is_null_while_running() {
        let text = serde_json::to_string(&ExecInspect {
            running: true,
            ..Default::default()
        })
        .unwrap();
        assert!(
            text.contains(r#""Running":true,"ExitCode":null,"ProcessConfig":{"tty":false"#),
            "{text}"
        );
    }
}
