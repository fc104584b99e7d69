//! `exec`: more processes in a running container.
//!
//! The shim starts them, serves their clients and remembers how they ended, so an exec outlives the daemon; what is
//! kept here is what a user said of it. After a restart of the daemon the shim's memory fills this one again.

use std::collections::HashMap;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Arc, Mutex};

use gantry_api::oci::runtime::{Process, User};
use gantry_shim::protocol::{self, Attach, ExecRequest, FailureKind, Reply, Request};

use crate::container::{AttachIo, Container, Status};
use crate::failpoint::{around, around_async};
use crate::{Engine, Error, Result};

/// Ended execs that are kept for `inspect`, per engine.
const ENDED_MAX: usize = 2048;

/// What to run.
#[derive(Clone, Debug, Default)]
pub struct ExecConfig {
    pub cmd: Vec<String>,
    pub user: String,
    pub env: Vec<String>,
    pub working_dir: String,
    pub privileged: bool,
    pub tty: bool,
    pub attach_stdin: bool,
    pub attach_stdout: bool,
    pub attach_stderr: bool,
    pub detach_keys: Option<String>,
    /// Rows and columns.
    pub console_size: Option<[u16; 2]>,
}

/// How to start it.
#[derive(Clone, Copy, Debug, Default)]
pub struct StartOptions {
    pub detach: bool,
    pub tty: bool,
    pub console_size: Option<[u16; 2]>,
}

/// An exec as `inspect` shows it.
#[derive(Clone, Debug, Default)]
pub struct ExecView {
    pub id: String,
    pub container_id: String,
    pub config: ExecConfig,
    pub running: bool,
    /// `None` before the process ended.
    pub exit_code: Option<i32>,
    pub pid: i32,
    pub open_stdin: bool,
    pub open_stdout: bool,
    pub open_stderr: bool,
}

/// All execs of the engine.
#[derive(Debug, Default)]
pub(crate) struct Execs {
    by_id: Mutex<HashMap<String, Entry>>,
}

#[derive(Clone, Debug)]
struct Entry {
    view: ExecView,
    detach_keys: Vec<u8>,
    started: bool,
    /// Order of creation, so that the oldest ended ones are forgotten first.
    number: u64,
}

/// An exec that is checked and waits for its client's upgrade.
pub struct Starting {
    engine: Engine,
    id: String,
    options: StartOptions,
    /// The exec has a terminal, so output is not framed.
    pub tty: bool,
    /// Why it does not start: it did already. Docker tells that in the stream.
    refused: Option<String>,
}

impl Engine {
    /// Describes a process that [`Engine::exec_start`] will run.
    ///
    /// # Errors
    /// Not found; the container does not run or is paused (conflict); no command.
    pub async fn exec_create(&self, name: &str, config: ExecConfig) -> Result<String> {
        let container = self.container(name)?;
        let record = container.record();
        check_running(&record)?;
        if config.cmd.is_empty() {
            return Err(Error::invalid("No exec command specified"));
        }
        let keys = config.detach_keys.as_deref();
        let detach_keys = crate::container::detach_keys(keys).map_err(|error| {
            let text = format!("Invalid escape keys ({}) provided", keys.unwrap_or(""));
            Error::system(text).caused_by(error)
        })?;
        if !config.user.is_empty() {
            // The runtime looks the names up again; here it is early enough for an answer of the API.
            let mut user = User::default();
            crate::container::name_user(&mut user, &config.user, &record.host.group_add);
            let pid = record.state.pid;
            crate::blocking::run(move || gantry_shim::check_user(pid, &user))
                .await?
                .map_err(|error| Error::invalid(error.runc_text()).caused_by(error))?;
        }
        // Its environment tells of the linked containers, so those have to run.
        self.linked(&record)?;
        let id = crate::random_id();
        let action = format!("exec_create: {}", config.cmd.join(" "));
        let entry = Entry {
            view: ExecView {
                id: id.clone(),
                container_id: container.id.clone(),
                open_stdin: config.attach_stdin,
                open_stdout: config.attach_stdout,
                open_stderr: config.attach_stderr,
                config,
                ..ExecView::default()
            },
            detach_keys,
            started: false,
            number: 0,
        };
        self.inner.execs.insert(id.clone(), entry);
        self.container_event(&action, &record, &[("execID", &id)], None);
        Ok(id)
    }

    /// Checks that an exec may start now.
    ///
    /// # Errors
    /// Not found; its container does not run (conflict); started already and to be detached (conflict). A client that
    /// attaches is told the last in its stream.
    pub async fn exec_start(&self, id: &str, options: StartOptions) -> Result<Starting> {
        let known = self.inner.execs.entry(id).ok_or_else(|| no_such_exec(id))?;
        if known.started {
            // Its client may have seen its end before the word of it came here.
            self.exec_inspect(id).await?;
        }
        let mut by_id = self.inner.execs.by_id.lock().expect("no holder panics");
        let entry = by_id.get_mut(id).ok_or_else(|| no_such_exec(id))?;
        let container = self.container(&entry.view.container_id)?;
        check_running(&container.record())?;
        let refused = entry.started.then(|| {
            let what = if entry.view.running {
                "is already running"
            } else {
                "has already run"
            };
            format!("exec command {id} {what}")
        });
        if let Some(text) = refused.as_ref().filter(|_| options.detach) {
            return Err(Error::conflict(text.clone()));
        }
        entry.started = true;
        // What refuses a second start is written as its client reads, whatever the exec has.
        let tty = match refused {
            Some(_) => options.tty,
            None => entry.view.config.tty,
        };
        Ok(Starting {
            engine: self.clone(),
            id: id.to_owned(),
            options,
            tty,
            refused,
        })
    }

    /// Inspects an exec.
    ///
    /// The client asks for the exit code as soon as its stream ends, which may be before the shim's word of the end has
    /// come here; so of an exec that seems to run the shim is asked.
    pub async fn exec_inspect(&self, id: &str) -> Result<ExecView> {
        let Entry { view, started, .. } =
            self.inner.execs.entry(id).ok_or_else(|| no_such_exec(id))?;
        // Not `running`: the word of its start may be on its way as well.
        if !started || view.exit_code.is_some() {
            return Ok(view);
        }
        let Ok(shim) = self
            .container(&view.container_id)
            .and_then(|container| self.shim(&container))
        else {
            return Ok(view);
        };
        if let Ok((Reply::ExecState(state), _)) = shim
            .call(
                Request::ExecInspect {
                    exec: id.to_owned(),
                },
                Vec::new(),
            )
            .await
            && !state.running
        {
            self.inner.execs.change(id, |view| {
                view.running = false;
                view.exit_code = state.exit_code;
            });
        }
        self.inner.execs.view(id).ok_or_else(|| no_such_exec(id))
    }

    /// Sets the size of an exec's terminal.
    pub async fn exec_resize(&self, id: &str, rows: u16, cols: u16) -> Result<()> {
        let view = self.inner.execs.view(id).ok_or_else(|| no_such_exec(id))?;
        let container = self.container(&view.container_id)?;
        let resize = Request::Resize {
            exec: Some(id.to_owned()),
            rows,
            cols,
        };
        match self.shim(&container)?.call(resize, Vec::new()).await?.0 {
            Reply::Error { message } => Err(Error::system(message)),
            _ => Ok(()),
        }
    }

    /// Sets the size of a container's terminal.
    pub async fn resize(&self, name: &str, rows: u16, cols: u16) -> Result<()> {
        let container = self.container(name)?;
        if !container.record().state.status.has_process() {
            return Err(crate::container::not_running(&container.id));
        }
        match self
            .shim(&container)?
            .call(
                Request::Resize {
                    exec: None,
                    rows,
                    cols,
                },
                Vec::new(),
            )
            .await?
            .0
        {
            Reply::Error { message } => Err(Error::system(message)),
            _ => {
                let more = [("height", rows.to_string()), ("width", cols.to_string())];
                let more = more.each_ref().map(|(key, value)| (*key, value.as_str()));
                self.container_event("resize", &container.record(), &more, None);
                Ok(())
            }
        }
    }

    async fn run_exec(
        &self,
        id: &str,
        options: StartOptions,
        mut io: Option<AttachIo>,
    ) -> Result<()> {
        let entry = self.inner.execs.entry(id).ok_or_else(|| no_such_exec(id))?;
        let config = &entry.view.config;
        let container = self.container(&entry.view.container_id)?;
        let record = container.record();
        // Filters and the files of linked containers may have to be read.
        let (engine, own, wanted) = (self.clone(), container.clone(), config.clone());
        let (process, seccomp_filter) = crate::blocking::run(move || {
            let process = engine.exec_process(&own, &wanted)?;
            let filter = engine.exec_seccomp(&own.record(), &wanted)?;
            Ok::<_, Error>((process, filter))
        })
        .await??;
        let client = match &io {
            Some(io) => Some(
                io.fd
                    .try_clone()
                    .map_err(|error| Error::io("duplicate a client's socket", error))?,
            ),
            None => None,
        };
        let multiplexed = io.as_ref().is_some_and(|io| io.multiplexed);
        if let Some(io) = &mut io {
            io.write_head()?;
        }
        let mut fds = Vec::new();
        let attach = io.map(|io| {
            fds.push(io.fd);
            Attach {
                exec: Some(id.to_owned()),
                stdin: config.attach_stdin,
                stdout: config.attach_stdout,
                stderr: config.attach_stderr,
                multiplexed: io.multiplexed,
                detach_keys: entry.detach_keys.clone(),
                early: io.early,
                from: None,
                version: protocol::VERSION,
            }
        });
        let request = ExecRequest {
            exec: id.to_owned(),
            process: serde_json::to_value(&process)
                .map_err(|error| Error::system("encode a process").caused_by(error))?,
            tty: config.tty,
            stdin: config.attach_stdin && attach.is_some(),
            console_size: options.console_size.or(config.console_size),
            seccomp_filter,
            attach,
        };
        let action = format!("exec_start: {}", config.cmd.join(" "));
        self.container_event(&action, &record, &[("execID", id)], None);
        let shim = self.shim(&container)?;
        let answer = match hopeless(config) {
            Some(failure) => Reply::ExecFailed(failure),
            None => {
                let call = shim.call(Request::Exec(Box::new(request)), fds);
                around_async("exec.start", call).await?.0
            }
        };
        let failure = match answer {
            Reply::ExecStarted { pid } => {
                around("exec.commit", || {
                    self.inner.execs.change(id, |view| {
                        view.pid = pid;
                        // It may have ended before its start was told.
                        view.running = view.exit_code.is_none();
                    });
                });
                return Ok(());
            }
            Reply::ExecFailed(failure) => failure,
            Reply::Error { message } => protocol::Failure {
                kind: FailureKind::Other,
                message,
                errno: None,
            },
            _ => {
                return Err(Error::system(
                    "the container's shim does not understand an exec",
                ));
            }
        };
        let (words, code) = crate::container::in_dockers_words(&failure);
        self.inner.execs.change(id, |view| {
            view.running = false;
            view.exit_code = Some(code);
        });
        let text = format!("OCI runtime exec failed: exec failed: {words}");
        if let Some(client) = client {
            // The client's stream has begun, so the text goes there, as Docker does.
            tell(client.as_fd(), multiplexed, &text);
        }
        Err(Error::invalid(text))
    }

    fn exec_process(&self, container: &Container, config: &ExecConfig) -> Result<Process> {
        let record = container.record();
        let host = &record.host;
        let privileged = config.privileged || host.privileged;
        let capabilities =
            crate::container::effective_capabilities(&host.cap_add, &host.cap_drop, privileged)?;
        let security = crate::container::security_options(
            &host.security_opt,
            self.inner.config.no_new_privileges,
        )?;
        let mut env = self.environment(&record, &record.config.hostname, config.tty)?;
        crate::container::overlay_environment(&mut env, &config.env);
        let mut user = User::default();
        let name = if config.user.is_empty() {
            &record.config.user
        } else {
            &config.user
        };
        crate::container::name_user(&mut user, name, &host.group_add);
        let cwd = [
            config.working_dir.as_str(),
            record.config.working_dir.as_str(),
            "/",
        ];
        Ok(Process {
            terminal: config.tty,
            user,
            args: config.cmd.clone(),
            env,
            cwd: cwd
                .into_iter()
                .find(|path| !path.is_empty())
                .unwrap_or("/")
                .to_owned(),
            capabilities: Some(crate::container::oci_capabilities(&capabilities)),
            no_new_privileges: security.no_new_privileges,
            ..Process::default()
        })
    }

    fn exec_seccomp(
        &self,
        record: &crate::container::Record,
        config: &ExecConfig,
    ) -> Result<Option<std::path::PathBuf>> {
        let security = crate::container::security_options(
            &record.host.security_opt,
            self.inner.config.no_new_privileges,
        )?;
        let privileged = record.host.privileged;
        let capabilities = crate::container::effective_capabilities(
            &record.host.cap_add,
            &record.host.cap_drop,
            privileged || config.privileged,
        )?;
        match self.seccomp_for(&security, privileged, &capabilities, false)? {
            crate::container::seccomp::Chosen::File(path) => Ok(Some(path)),
            _ => Ok(None),
        }
    }

    /// Notes the end of an exec.
    pub(crate) fn exec_exited(&self, container: &Arc<Container>, id: &str, code: i32, at_ns: i64) {
        self.inner.execs.change(id, |view| {
            view.running = false;
            view.exit_code = Some(code);
        });
        let code = code.to_string();
        self.container_event(
            "exec_die",
            &container.record(),
            &[("execID", id), ("exitCode", &code)],
            Some(at_ns),
        );
    }

    pub(crate) fn exec_detached(&self, container: &Arc<Container>, id: &str) {
        self.container_event("exec_detach", &container.record(), &[("execID", id)], None);
    }

    /// Ends all execs of a container that has ended: nothing of them lives on.
    pub(crate) fn execs_ended(&self, container: &Container) {
        let mut by_id = self.inner.execs.by_id.lock().expect("no holder panics");
        for entry in by_id
            .values_mut()
            .filter(|entry| entry.view.container_id == container.id)
        {
            entry.view.running = false;
            entry.view.exit_code.get_or_insert(137);
        }
    }

    /// The execs of a container that have not ended, also those that were not started yet.
    pub(crate) fn exec_ids(&self, container_id: &str) -> Vec<String> {
        let by_id = self.inner.execs.by_id.lock().expect("no holder panics");
        let mut all: Vec<(u64, String)> = by_id
            .values()
            .filter(|entry| {
                entry.view.container_id == container_id && entry.view.exit_code.is_none()
            })
            .map(|entry| (entry.number, entry.view.id.clone()))
            .collect();
        all.sort_unstable();
        all.into_iter().map(|(_, id)| id).collect()
    }

    /// Takes the shim's memory of execs over after a restart of the daemon.
    pub(crate) fn adopt_execs(&self, container: &Container, states: Vec<protocol::ExecState>) {
        for state in states {
            let view = ExecView {
                id: state.exec.clone(),
                container_id: container.id.clone(),
                running: state.running,
                exit_code: state.exit_code,
                pid: state.pid,
                ..ExecView::default()
            };
            self.inner.execs.insert(
                state.exec,
                Entry {
                    view,
                    detach_keys: Vec::new(),
                    started: true,
                    number: 0,
                },
            );
        }
    }
}

impl Starting {
    /// Runs the process with the client attached.
    ///
    /// # Errors
    /// Refused, or failed; the client was told.
    pub async fn give(self, mut io: AttachIo) -> Result<()> {
        let Starting {
            engine,
            id,
            options,
            tty: _,
            refused,
        } = self;
        if let Some(text) = refused {
            io.write_head()?;
            tell(io.fd.as_fd(), io.multiplexed, &text);
            return Err(Error::conflict(text));
        }
        let task = tokio::spawn(async move { engine.run_exec(&id, options, Some(io)).await });
        task.await
            .map_err(|error| Error::system("an engine task died").caused_by(error))?
    }

    /// Runs the process without a client.
    pub async fn detached(self) -> Result<()> {
        let Starting {
            engine,
            id,
            options,
            ..
        } = self;
        let task = tokio::spawn(async move { engine.run_exec(&id, options, None).await });
        task.await
            .map_err(|error| Error::system("an engine task died").caused_by(error))?
    }
}

/// Writes a line into a client's stream, on standard output. One that does not read is not waited for.
fn tell(client: BorrowedFd<'_>, multiplexed: bool, text: &str) {
    let line = format!("{text}\r\n");
    let mut bytes = Vec::with_capacity(line.len() + 8);
    if multiplexed {
        bytes.extend([1, 0, 0, 0]);
        bytes.extend(u32::try_from(line.len()).unwrap_or(u32::MAX).to_be_bytes());
    }
    bytes.extend(line.as_bytes());
    let _ = gantry_sys::unix::send(client, &bytes);
}

impl Execs {
    fn insert(&self, id: String, mut entry: Entry) {
        let mut by_id = self.by_id.lock().expect("no holder panics");
        entry.number = by_id.values().map(|entry| entry.number).max().unwrap_or(0) + 1;
        by_id.insert(id, entry);
        let ended = by_id
            .values()
            .filter(|entry| entry.view.exit_code.is_some())
            .count();
        if ended > ENDED_MAX {
            let oldest = by_id
                .values()
                .filter(|entry| entry.view.exit_code.is_some())
                .min_by_key(|entry| entry.number);
            if let Some(id) = oldest.map(|entry| entry.view.id.clone()) {
                by_id.remove(&id);
            }
        }
    }

    fn entry(&self, id: &str) -> Option<Entry> {
        self.by_id
            .lock()
            .expect("no holder panics")
            .get(id)
            .cloned()
    }

    fn view(&self, id: &str) -> Option<ExecView> {
        self.by_id
            .lock()
            .expect("no holder panics")
            .get(id)
            .map(|entry| entry.view.clone())
    }

    fn change(&self, id: &str, change: impl FnOnce(&mut ExecView)) {
        if let Some(entry) = self.by_id.lock().expect("no holder panics").get_mut(id) {
            change(&mut entry.view);
        }
    }
}

/// Finds what no process can be made of; Docker takes it at the create and fails at the start.
fn hopeless(config: &ExecConfig) -> Option<protocol::Failure> {
    let (kind, message) = if !matches!(config.working_dir.as_bytes(), [] | [b'/', ..]) {
        (FailureKind::Other, "Cwd must be an absolute path")
    } else if config.cmd.first().is_none_or(String::is_empty) {
        (
            FailureKind::NotFound,
            "unable to start container process: exec: \"\": executable file not found in $PATH",
        )
    } else {
        return None;
    };
    Some(protocol::Failure {
        kind,
        message: message.into(),
        errno: None,
    })
}

fn no_such_exec(id: &str) -> Error {
    Error::not_found(format!("No such exec instance: {id}"))
}

fn check_running(record: &crate::container::Record) -> Result<()> {
    match record.state.status {
        Status::Running => Ok(()),
        Status::Paused => Err(Error::conflict(format!(
            "Container {} is paused, unpause the container before exec",
            record.name
        ))),
        Status::Restarting => Err(Error::conflict(format!(
            "Container {} is restarting, wait until the container is running",
            record.id
        ))),
        _ => Err(crate::container::not_running(&record.id)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_command_and_a_relative_directory_are_hopeless() {
        let code = |command: &str, directory: &str| {
            let config = ExecConfig {
                cmd: vec![command.into(), "x".into()],
                working_dir: directory.into(),
                ..ExecConfig::default()
            };
            hopeless(&config).map(|failure| crate::container::in_dockers_words(&failure).1)
        };
        assert_eq!(code("true", ""), None);
        assert_eq!(code("true", "/x"), None);
        assert_eq!(code("", "/x"), Some(127));
        assert_eq!(code("true", "x"), Some(128));
    }
}
