//! Tags, repositories, referrers, search.

use gantry_distribution::Credentials;
use gantry_testkit::registry::{Fault, Registry, Times};

use crate::{config, digest, registries, repository, user};

#[tokio::test]
async fn all_pages_of_a_list_are_read() {
    let registry = Registry::start();
    for tag in ["a", "b", "c", "d", "e"] {
        registry.push_image("x/y", tag, &[tag.as_bytes()]);
    }
    registry.push_image("z", "1", &[b"z"]);
    // The registry gives two at a time.
    let two = |path: &str, last: &str| Fault::Answer {
        status: 200,
        headers: vec![(
            "Link".to_owned(),
            format!("<{path}?n=2&last={last}>; rel=\"next\""),
        )],
        body: r#"{"tags":["a","b"],"repositories":["x/y"]}"#.to_owned(),
    };
    registry.misbehave(
        "GET",
        "/tags/list",
        Times::Only(1),
        two("/v2/x/y/tags/list", "b"),
    );
    registry.misbehave("GET", "/_catalog", Times::Only(1), two("_catalog", "x/y"));
    let tags = repository(&registry.host(), "x/y")
        .tags()
        .await
        .expect("tags");
    assert_eq!(tags, ["a", "b", "c", "d", "e"]);
    assert_eq!(registry.requests_of("GET", "/tags/list").len(), 3);
    let nobody = Credentials::default();
    let repositories = registries(config())
        .catalog(&registry.host(), &nobody)
        .await;
    assert_eq!(repositories.expect("repositories"), ["x/y", "z"]);
}

#[tokio::test]
async fn a_repository_without_tags_has_none() {
    let registry = Registry::start();
    registry.misbehave(
        "GET",
        "/tags/list",
        Times::Always,
        Fault::status(200, r#"{"tags":null}"#),
    );
    let tags = repository(&registry.host(), "x")
        .tags()
        .await
        .expect("tags");
    assert!(tags.is_empty());
}

#[tokio::test]
async fn referrers_are_listed_and_filtered() {
    let registry = Registry::start();
    let subject = digest(&registry.push_image("a", "1", &[b"x"]).manifest);
    for kind in ["application/x-one", "application/x-two"] {
        let manifest = format!(
            r#"{{"schemaVersion":2,"artifactType":"{kind}","subject":{{"digest":"{subject}","size":1}}}}"#
        );
        registry.push_manifest(
            "a",
            kind,
            "application/vnd.oci.image.manifest.v1+json",
            manifest.as_bytes(),
        );
    }
    let repository = repository(&registry.host(), "a");
    let all = repository
        .referrers(&subject, None)
        .await
        .expect("referrers");
    assert_eq!(all.manifests.len(), 2);
    let one = repository
        .referrers(&subject, Some("application/x-one"))
        .await;
    assert_eq!(one.expect("referrers").manifests.len(), 1);
    // Registries without the interface have an index under a tag, or nothing.
    registry.misbehave("GET", "/referrers/", Times::Always, Fault::status(404, ""));
    let none = repository
        .referrers(&subject, None)
        .await
        .expect("referrers");
    assert!(none.manifests.is_empty());
    let index = format!(
        r#"{{"schemaVersion":2,"manifests":[{{"mediaType":"a/b","digest":"{subject}","size":1,"artifactType":"application/x-one"}}]}}"#
    );
    let tag = subject.as_str().replace(':', "-");
    registry.push_manifest(
        "a",
        &tag,
        "application/vnd.oci.image.index.v1+json",
        index.as_bytes(),
    );
    let found = repository
        .referrers(&subject, Some("application/x-one"))
        .await;
    assert_eq!(found.expect("referrers").manifests.len(), 1);
    let other = repository
        .referrers(&subject, Some("application/x-two"))
        .await;
    assert!(other.expect("referrers").manifests.is_empty());
}

#[tokio::test]
async fn a_search_asks_the_host_before_the_term() {
    let registry = Registry::start();
    let answer = r#"{"num_results":1,"results":[{"name":"nginx","description":"web","star_count":5,"is_official":true}]}"#;
    registry.misbehave(
        "GET",
        "/v1/search",
        Times::Only(1),
        Fault::status(200, answer),
    );
    let registries = registries(config());
    let term = format!("{}/web server", registry.host());
    let found = registries
        .search(&term, 25, &user(), &[])
        .await
        .expect("results");
    assert_eq!(found.len(), 1);
    assert_eq!((found[0].name.as_str(), found[0].star_count), ("nginx", 5));
    assert!(found[0].is_official && !found[0].is_automated);
    let request = &registry.requests_of("GET", "/v1/search")[0];
    assert_eq!(request.path, "/v1/search?q=web+server&n=25");
    let error = registries
        .search(&term, 25, &user(), &[])
        .await
        .expect_err("no index");
    assert_eq!(error.to_string(), "Unexpected status code 404");
}

#[tokio::test]
async fn a_host_without_an_index_is_told_in_docker_s_words() {
    let registries = registries(config());
    let error = registries
        .search("127.0.0.1:1/x", 25, &Credentials::default(), &[])
        .await;
    assert_eq!(
        error.expect_err("nobody").to_string(),
        "invalid registry endpoint \"http://127.0.0.1:1/v1/\". HTTPS attempt: Get \"https://127.0.0.1:1/v1/_ping\": dial tcp 127.0.0.1:1: connect: connection refused. HTTP attempt: Get \"http://127.0.0.1:1/v1/_ping\": dial tcp 127.0.0.1:1: connect: connection refused"
    );
    let error = registries
        .search("http://a/b", 25, &Credentials::default(), &[])
        .await;
    assert_eq!(
        error.expect_err("a scheme").to_string(),
        "invalid repository name: repository name (http://a/b) should not have a scheme"
    );
}
