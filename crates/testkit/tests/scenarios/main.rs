//! What a user does, through the docker client and through Gantry's, on Gantry or on the reference engine.
//!
//! Every scenario was proved on the real Docker (`make oracle`) before it judges Gantry. Command lines name objects with
//! `@`, see `gantry_testkit::session::Session`.

mod errors;
mod events;
mod exec;
mod fields;
mod filters;
mod guide;
mod images;
mod interactive;
mod isolation;
mod lifecycle;
mod login;
mod logs;
mod manifest;
mod network;
mod networks;
mod options;
mod protocol;
mod query;
mod refused;
mod registry;
mod repair;
mod run;
mod search;
mod storage;
mod transfer;
mod volumes;
mod wire;

use std::process::ExitCode;

fn main() -> ExitCode {
    gantry_testkit::runner::run(&[
        ("guide", guide::ALL),
        ("repair", repair::ALL),
        ("run", run::ALL),
        ("exec", exec::ALL),
        ("lifecycle", lifecycle::ALL),
        ("isolation", isolation::ALL),
        ("storage", storage::ALL),
        ("volumes", volumes::ALL),
        ("network", network::ALL),
        ("networks::guide", networks::guide::ALL),
        ("networks::commands", networks::commands::ALL),
        ("networks::connect", networks::connect::ALL),
        ("networks::names", networks::names::ALL),
        ("networks::links", networks::links::ALL),
        ("networks::walls", networks::walls::ALL),
        ("networks::errors", networks::errors::ALL),
        ("networks::wire", networks::wire::ALL),
        ("logs", logs::ALL),
        ("events", events::ALL),
        ("images", images::ALL),
        ("registry", registry::ALL),
        ("transfer", transfer::ALL),
        ("login", login::ALL),
        ("manifest", manifest::ALL),
        ("search", search::ALL),
        ("interactive", interactive::ALL),
        ("query", query::ALL),
        ("options", options::ALL),
        ("fields", fields::ALL),
        ("refused", refused::ALL),
        ("errors", errors::ALL),
        ("wire", wire::ALL),
        ("filters", filters::ALL),
        ("protocol", protocol::ALL),
    ])
}
