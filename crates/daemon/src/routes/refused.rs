//! Operations of Docker that this engine does not have: each is refused by name, so that a client knows what it misses.

use gantry_api::error::{ApiError, ErrorKind};

use crate::server::respond::Reply;

/// Refuses an operation that Docker has; `None` for one that it has not.
pub fn answer(method: &str, segments: &[&str]) -> Option<Reply> {
    let refuse = |what: &str| {
        Some(Err(ApiError::not_implemented(format!(
            "{what} is not supported by this engine"
        ))
        .into()))
    };
    match (method, segments) {
        ("POST", ["commit"]) => refuse("commit"),
        ("POST", ["build"]) | ("POST", ["build", "cancel"]) => refuse("image build"),
        ("POST", ["session"] | ["grpc"]) => refuse("the build session"),
        ("GET", ["containers", _, "changes"]) => refuse("container diff"),
        ("GET", ["containers", _, "export"]) => refuse("container export"),
        ("GET" | "HEAD" | "PUT", ["containers", _, "archive"]) => refuse("container cp"),
        ("GET", ["containers", _, "attach", "ws"]) => refuse("attach by websocket"),
        ("GET" | "POST", ["containers", _, "checkpoints"])
        | ("DELETE", ["containers", _, "checkpoints", _]) => refuse("container checkpoint"),
        ("PUT", ["volumes", _]) => refuse("volume update"),
        ("GET", ["plugins", "privileges"] | ["plugins", .., "json"])
        | ("POST", ["plugins", ..])
        | ("DELETE", ["plugins", ..]) => refuse("a managed plugin"),
        ("POST", ["swarm", "init" | "join"]) => refuse("swarm mode"),
        (
            "GET" | "POST" | "DELETE",
            [
                "swarm" | "nodes" | "services" | "tasks" | "secrets" | "configs",
                ..,
            ],
        ) => Some(Err(
            ApiError::new(ErrorKind::Unavailable, NOT_A_MANAGER).into()
        )),
        _ => None,
    }
}

const NOT_A_MANAGER: &str = "This node is not a swarm manager. Use \"docker swarm init\" or \"docker swarm join\" to connect this node to swarm and try again.";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_docker_has_is_refused_by_name_and_the_rest_is_unknown() {
        let message = |method: &str, path: &str| {
            let segments: Vec<&str> = path.split('/').collect();
            answer(method, &segments).map(|reply| match reply {
                Ok(_) => panic!("answered {path}"),
                Err(failure) => (failure.error.kind.status(), failure.error.message),
            })
        };
        assert_eq!(
            message("POST", "commit"),
            Some((501, "commit is not supported by this engine".to_owned()))
        );
        assert_eq!(message("POST", "plugins/pull").unwrap().0, 501);
        assert_eq!(message("GET", "services").unwrap().0, 503);
        assert_eq!(message("GET", "nope"), None);
        assert_eq!(message("PUT", "info"), None);
    }
}
