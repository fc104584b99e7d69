//! The commands. One file per verb or object; this one finds them and holds what several of them need.

pub mod attach;
pub mod container;
pub mod context;
pub mod copy;
pub mod events;
pub mod exec;
pub mod image;
pub mod images;
pub mod info;
pub mod inspect;
pub mod list;
pub mod login;
pub mod logs;
pub mod manifest;
pub mod network;
pub mod plugin;
pub mod prune;
pub mod pull;
pub mod push;
pub mod registry;
pub mod search;
pub mod signals;
pub mod start;
pub mod stats;
pub mod system;
pub mod tree;
pub mod update;
pub mod upkeep;
pub mod usage;
pub mod version;
pub mod volume;

use crate::cli::Cli;
use crate::failure::{Failure, Outcome};
use crate::grammar::Matches;
use crate::interrupt::{self, Course};
use crate::output;
use gantry_client::request::Path;
use gantry_client::{Client, Error, Query, Request};
use serde_json::Value;
use std::future::Future;
use std::pin::Pin;
use std::task::Poll;

/// Runs the command with these canonical words.
pub async fn dispatch(cli: &Cli, path: &str, matches: &Matches) -> Outcome {
    match path {
        "container run" => Box::pin(crate::run::run(cli, matches)).await,
        "container create" => Box::pin(crate::run::create(cli, matches)).await,
        "container exec" => Box::pin(exec::exec(cli, matches)).await,
        "container attach" => Box::pin(attach::attach(cli, matches)).await,
        "container start" => Box::pin(start::start(cli, matches)).await,
        "container ls" => Box::pin(list::list(cli, matches)).await,
        "container logs" => Box::pin(logs::logs(cli, matches)).await,
        "container stats" => Box::pin(stats::stats(cli, matches)).await,
        "container cp" => Box::pin(copy::copy(cli, matches)).await,
        "container update" => Box::pin(update::update(cli, matches)).await,
        "container commit" | "container diff" | "container export" | "container kill"
        | "container pause" | "container port" | "container rename" | "container restart"
        | "container rm" | "container stop" | "container top" | "container unpause"
        | "container wait" => Box::pin(container::dispatch(cli, path, matches)).await,
        "inspect" | "container inspect" | "image inspect" | "volume inspect"
        | "network inspect" => Box::pin(inspect::inspect(cli, path, matches)).await,
        "container prune" | "image prune" | "volume prune" | "network prune" | "system prune" => {
            Box::pin(prune::prune(cli, path, matches)).await
        }
        "builder prune" => Box::pin(prune::build_cache(cli, matches)).await,
        "image ls" => Box::pin(images::images(cli, matches)).await,
        "image pull" => Box::pin(pull::command(cli, matches)).await,
        "image push" => Box::pin(push::push(cli, matches)).await,
        "image gc" => Box::pin(upkeep::collect(cli, matches)).await,
        "login" => Box::pin(login::login(cli, matches)).await,
        "logout" => login::logout(cli, matches),
        "search" => Box::pin(search::search(cli, matches)).await,
        "manifest annotate" | "manifest create" | "manifest inspect" | "manifest push"
        | "manifest rm" => Box::pin(manifest::dispatch(cli, path, matches)).await,
        "system check" => Box::pin(upkeep::check(cli, matches)).await,
        "image history" | "image import" | "image load" | "image rm" | "image save"
        | "image tag" => Box::pin(image::dispatch(cli, path, matches)).await,
        "volume create" | "volume ls" | "volume rm" => {
            Box::pin(volume::dispatch(cli, path, matches)).await
        }
        "network create" | "network ls" | "network rm" | "network connect"
        | "network disconnect" => Box::pin(network::dispatch(cli, path, matches)).await,
        "completion bash" => {
            output::out(&crate::completion::script(&cli.program));
            Ok(())
        }
        "plugin ls" => Box::pin(plugin::list(cli, matches)).await,
        "system df" => Box::pin(usage::usage(cli, matches)).await,
        "system events" => Box::pin(events::events(cli, matches)).await,
        "system info" => Box::pin(info::info(cli, matches)).await,
        "system dial-stdio" => Box::pin(system::dial_stdio(cli)).await,
        "version" => Box::pin(version::version(cli, matches)).await,
        path if path.starts_with("registry ") => {
            Box::pin(registry::dispatch(cli, path, matches)).await
        }
        path if path.starts_with("context ") => context::dispatch(cli, path, matches),
        path => Err(Failure::new(format!(
            "{}: '{} {path}' is not supported yet",
            cli.program, cli.program
        ))),
    }
}

/// Makes a path under `/containers/NAME`.
pub fn container_path(name: &str, rest: &str) -> Path {
    Path::object("container", name, rest)
}

/// Gets a JSON answer.
pub async fn get(client: &Client, path: impl Into<Path>, query: Query) -> Result<Value, Error> {
    client
        .send(Request::get(path).query(query))
        .await?
        .json()
        .await
}

/// Inspects a container.
pub async fn inspect_container(client: &Client, name: &str) -> Result<Value, Error> {
    get(client, container_path(name, "/json"), Query::new()).await
}

/// Runs an operation on all names at once, prints each name that succeeded, in order, and reports all errors.
pub async fn each<'a, F>(names: &'a [String], operation: impl Fn(&'a str) -> F) -> Outcome
where
    F: Future<Output = Outcome<Option<String>>> + 'a,
{
    let mut work: Vec<_> = names.iter().map(|name| Box::pin(operation(name))).collect();
    let mut done: Vec<Option<Outcome<Option<String>>>> = names.iter().map(|_| None).collect();
    let mut printed = 0;
    let mut errors: Vec<String> = Vec::new();
    std::future::poll_fn(|context| {
        for (at, future) in work.iter_mut().enumerate() {
            if done[at].is_none()
                && let Poll::Ready(outcome) = Pin::new(future).poll(context)
            {
                done[at] = Some(outcome);
            }
        }
        while let Some(Some(outcome)) = done.get_mut(printed) {
            match outcome {
                Ok(Some(line)) => output::line(line),
                Ok(None) => {}
                Err(failure) => errors.push(std::mem::take(&mut failure.text)),
            }
            printed += 1;
        }
        if printed == done.len() {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    })
    .await;
    if errors.is_empty() {
        Ok(())
    } else {
        Err(Failure::new(errors.join("\n")))
    }
}

/// Asks a yes-or-no question on standard output; no answer is no.
pub async fn confirmed(question: &str) -> Outcome<bool> {
    output::out(&format!("{question} [y/N] "));
    let answer = typed_line().await?;
    Ok(answer.trim().eq_ignore_ascii_case("y"))
}

/// Reads a line of standard input that answers a question. A signal meanwhile is no answer.
pub async fn typed_line() -> Outcome<String> {
    let _within = interrupt::within(Course::Decline);
    interrupt::blocking(|| {
        let mut line = String::new();
        std::io::stdin().read_line(&mut line)?;
        Ok(line)
    })
    .await
}

/// Returns a text field of a JSON object, empty if it is missing.
pub fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value[field].as_str().unwrap_or_default()
}
