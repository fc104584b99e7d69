//! Networks that a user makes: their commands, names, addresses, links and walls.

pub mod commands;
pub mod connect;
pub mod errors;
pub mod guide;
pub mod links;
pub mod names;
pub mod walls;
pub mod wire;

use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use gantry_testkit::session::Session;

/// Held by a scenario whose recorded words name the networks that it makes: nobody else may have these now.
fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    // Whoever failed with it held has told so.
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The time as `events` takes it.
fn now() -> String {
    let time = SystemTime::now().duration_since(UNIX_EPOCH);
    let time = time.expect("after 1970");
    format!("{}.{:09}", time.as_secs(), time.subsec_nanos())
}

/// What a container has of one network.
fn endpoint(s: &Session, container: &str, network: &str) -> serde_json::Value {
    s.inspect(container)["NetworkSettings"]["Networks"][s.x(network)].clone()
}

/// Asks for a file of the web server at `host` from inside a container.
fn fetches(s: &Session, from: &str, host: &str) -> bool {
    let line = format!("exec {from} timeout 3 wget -q -O - http://{host}/group");
    s.d(&line).stdout.starts_with("root:")
}

fn parse_address(text: &serde_json::Value) -> IpAddr {
    let text = text.as_str().expect("a text");
    text.parse()
        .unwrap_or_else(|_| panic!("{text:?} is no address"))
}
