//! The registry that misbehaves: it is where it was started, and faults come when their turn is.

use gantry_testkit::http;
use gantry_testkit::registry::{Fault, Registry, Times, digest_of};
use gantry_testkit::space::Space;

#[test]
fn it_is_in_the_namespace_in_which_it_was_started() {
    let space = Space::hold();
    let registry = space.within(Registry::start);
    let digest = registry.push_blob(b"here");
    let path = format!("/v2/a/blobs/{digest}");
    let answer = space
        .within(|| http::get(registry.address(), &path))
        .expect("an answer");
    assert_eq!((answer.status, answer.body), (200, b"here".to_vec()));
    assert!(http::get(registry.address(), &path).is_err(), "not outside");
    let address = registry.address();
    drop(registry);
    assert!(
        space.within(|| http::get(address, &path)).is_err(),
        "it has ended"
    );
}

#[test]
fn faults_are_counted_over_the_requests_that_match() {
    let registry = Registry::start();
    let digest = registry.push_blob(b"0123456789");
    let path = format!("/v2/a/blobs/{digest}");
    registry.misbehave("GET", "/blobs/", Times::Only(2), Fault::status(500, ""));
    registry.misbehave("GET", "/blobs/", Times::First(3), Fault::WrongBytes);
    registry.misbehave("POST", "", Times::Always, Fault::status(500, ""));
    let seen: Vec<(u16, bool)> = (0..4)
        .map(|_| http::get(registry.address(), &path).expect("an answer"))
        .map(|answer| (answer.status, digest_of(&answer.body) == digest))
        .collect();
    assert_eq!(
        seen,
        [(200, false), (500, false), (200, false), (200, true)]
    );
    let requests = registry.requests_of("GET", "/blobs/");
    assert_eq!(requests.len(), 4);
    assert_eq!((requests[1].status, requests[3].sent), (500, 10));
    registry.forget_requests();
    assert!(registry.requests().is_empty());
}
