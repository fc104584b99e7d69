//! Execs.

use gantry_api::exec::{ExecCreateRequest, ExecCreateResponse, ExecStartRequest};
use gantry_engine::exec::{ExecConfig, StartOptions};
use hyper::StatusCode;

use super::container::size;
use super::done;
use super::stream::{hijack_head, hijacked, stream_type};
use crate::convert;
use crate::server::request::Request;
use crate::server::respond::{self, Reply};

pub async fn create(mut request: Request, name: &str) -> Reply {
    let body = request.json_or_default::<ExecCreateRequest>().await?;
    let config = ExecConfig {
        cmd: body.cmd.unwrap_or_default(),
        user: body.user,
        env: body.env.unwrap_or_default(),
        working_dir: body.working_dir,
        privileged: body.privileged,
        tty: body.tty,
        attach_stdin: body.attach_stdin,
        attach_stdout: body.attach_stdout,
        attach_stderr: body.attach_stderr,
        detach_keys: Some(body.detach_keys).filter(|keys| !keys.is_empty()),
        console_size: body
            .console_size
            .filter(|_| !request.version.is_before(42))
            .and_then(convert::console_size),
    };
    let id = request.daemon.engine.exec_create(name, config).await?;
    respond::json(StatusCode::CREATED, &ExecCreateResponse { id })
}

pub async fn start(mut request: Request, id: &str) -> Reply {
    let upgrade = request.wants_upgrade();
    let body = request.json_or_default::<ExecStartRequest>().await?;
    let options = StartOptions {
        detach: body.detach,
        tty: body.tty,
        console_size: body
            .console_size
            .filter(|_| body.tty && !request.version.is_before(42))
            .and_then(convert::console_size),
    };
    let starting = request.daemon.engine.exec_start(id, options).await?;
    if body.detach {
        starting.detached().await?;
        return done();
    }
    let tty = starting.tty;
    let head = hijack_head(
        upgrade,
        stream_type(request.version, tty),
        &respond::common_header_lines(),
    );
    let never = request
        .connection
        .take_over(move |taken| async move {
            if let Some(io) = hijacked(taken, &[], head, !tty)
                && let Err(error) = starting.give(io).await
            {
                tracing::error!("Error running exec in container: {error}");
            }
            None
        })
        .await;
    match never {}
}

pub async fn resize(request: Request, id: &str) -> Reply {
    let (rows, columns) = size(&request)?;
    request.daemon.engine.exec_resize(id, rows, columns).await?;
    done()
}

pub async fn inspect(request: Request, id: &str) -> Reply {
    let view = request.daemon.engine.exec_inspect(id).await?;
    respond::ok(&convert::exec::inspect(&view))
}
