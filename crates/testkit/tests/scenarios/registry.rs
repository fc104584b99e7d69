//! Images that go to a registry and come back: push, pull, their texts, digests and errors. The registry is Debian's
//! docker-registry on the engine's host.

use gantry_testkit::peer::{DockerRegistry, digest, fresh};
use gantry_testkit::registry::{Access, Registry, TokenServer};
use gantry_testkit::session::Session;

gantry_testkit::scenarios![
    push_and_pull_tell_each_step,
    pull_by_digest,
    all_tags_together,
    quiet_says_the_name_alone,
    what_is_not_there_is_named,
    a_registry_that_does_not_answer,
    platforms_that_do_not_match,
    an_image_that_is_missing_is_pulled_by_run,
    pull_policies_of_run,
    transfers_are_events,
    a_pulled_image_is_removed_with_its_digest,
    a_pulled_image_is_the_pushed_one,
    an_index_is_pulled_for_this_machine,
    dangling_images_after_a_new_pull,
    space_of_pulled_images,
    headers_for_the_registry_are_passed_on,
];

/// Takes out what depends on chance: a registry that is fast is not waited for.
fn steps(text: &str) -> Vec<String> {
    let by_chance =
        |line: &&str| !line.ends_with(": Waiting") && !line.ends_with(": Verifying Checksum");
    text.lines().filter(by_chance).map(str::to_owned).collect()
}

fn push_and_pull_tell_each_step(s: &Session) {
    let registry = DockerRegistry::open(s);
    let name = format!("{}/{}", registry.host(), s.x("@i"));
    fresh(s, &format!("{name}:1"));
    let layer = s
        .d(&format!(
            "image inspect -f '{{{{index .RootFS.Layers 0}}}}' {name}:1"
        ))
        .ok()
        .text();
    let layer = &layer["sha256:".len()..][..12];
    let pushed = s.d(&format!("push {name}:1")).ok();
    let digest = digest(&pushed.stdout);
    let size = pushed
        .text()
        .rsplit(' ')
        .next()
        .unwrap_or_default()
        .to_owned();
    let end = format!("1: digest: {digest} size: {size}");
    assert_eq!(
        steps(&pushed.stdout),
        [
            format!("The push refers to repository [{name}]"),
            format!("{layer}: Preparing"),
            format!("{layer}: Pushed"),
            end.clone(),
        ]
    );
    assert_eq!(
        steps(&s.d(&format!("push {name}:1")).ok().stdout),
        [
            format!("The push refers to repository [{name}]"),
            format!("{layer}: Preparing"),
            format!("{layer}: Layer already exists"),
            end,
        ]
    );
    s.d(&format!("rmi {name}:1")).ok();
    let pulled = s.d(&format!("pull {name}:1")).ok();
    let lines = steps(&pulled.stdout);
    let blob = lines[1].split(':').next().unwrap_or_default().to_owned();
    assert_eq!(blob.len(), 12, "{lines:?}");
    assert_eq!(
        lines,
        [
            format!("1: Pulling from {}", s.x("@i")),
            format!("{blob}: Pulling fs layer"),
            format!("{blob}: Download complete"),
            format!("{blob}: Pull complete"),
            format!("Digest: {digest}"),
            format!("Status: Downloaded newer image for {name}:1"),
            format!("{name}:1"),
        ]
    );
    s.d(&format!("pull {name}:1")).prints(&format!(
        "1: Pulling from @i\nDigest: {digest}\nStatus: Image is up to date for {name}:1\n{name}:1\n"
    ));
    s.d(&format!(
        "image inspect -f '{{{{.RepoTags}}}} {{{{.RepoDigests}}}}' {name}:1"
    ))
    .prints(&format!("[{name}:1] [{name}@@{digest}]\n"));
    s.d(&format!(
        "images --digests --format '{{{{.Repository}}}} {{{{.Tag}}}} {{{{.Digest}}}}' {name}"
    ))
    .prints(&format!("{name} 1 {digest}\n"));
}

fn pull_by_digest(s: &Session) {
    let registry = DockerRegistry::open(s);
    let name = format!("{}/{}", registry.host(), s.x("@i"));
    s.d(&format!("tag @bb {name}:1")).ok();
    let digest = digest(&s.d(&format!("push {name}:1")).ok().stdout);
    s.d(&format!("rmi {name}:1")).ok();
    s.d(&format!("pull {name}@@{digest}")).prints(&format!(
        "{name}@@{digest}: Pulling from @i\nDigest: {digest}\nStatus: Downloaded newer image for {name}@@{digest}\n{name}@@{digest}\n"
    ));
    s.d(&format!(
        "images --digests --format '{{{{.Tag}}}} {{{{.Digest}}}}' {name}"
    ))
    .prints(&format!("<none> {digest}\n"));
    // A tag beside a digest is not looked at, and not made.
    s.d(&format!("pull {name}:7@@{digest}")).prints(&format!(
        "{name}@@{digest}: Pulling from @i\nDigest: {digest}\nStatus: Image is up to date for {name}@@{digest}\n{name}:7@@{digest}\n"
    ));
    s.d(&format!("run --rm {name}@@{digest} echo by digest"))
        .prints("by digest\n");
    let other = digest.replace(&digest[60..], &"0".repeat(digest.len() - 60));
    s.d(&format!("pull {name}@@{other}")).fails(
        1,
        &format!("Error response from daemon: manifest for {name}@@{other} not found: manifest unknown: manifest unknown\n"),
    );
    s.d(&format!("push {name}@@{digest}"))
        .fails(1, "cannot push a digest reference\n");
    s.d(&format!("rmi {name}@@{digest}"))
        .prints(&format!("Untagged: {name}@@{digest}\n"));
}

fn all_tags_together(s: &Session) {
    let registry = DockerRegistry::open(s);
    let name = format!("{}/{}", registry.host(), s.x("@i"));
    s.d(&format!("tag @bb {name}:1")).ok();
    s.d(&format!("tag @app {name}:2")).ok();
    let pushed = s.d(&format!("push -a {name}")).ok().stdout;
    let ends: Vec<&str> = pushed
        .lines()
        .filter(|line| line.contains(": digest: "))
        .collect();
    assert_eq!(ends.len(), 2, "{pushed}");
    assert!(
        ends[0].starts_with("1: ") && ends[1].starts_with("2: "),
        "{pushed}"
    );
    assert_eq!(pushed.matches("The push refers to").count(), 1);
    s.d(&format!("rmi {name}:1 {name}:2")).ok();
    let pulled = s.d(&format!("pull --all-tags {name}")).ok().stdout;
    for tag in ["1", "2"] {
        assert!(
            pulled.contains(&format!("{tag}: Pulling from {}\n", s.x("@i"))),
            "{pulled}"
        );
    }
    assert!(
        pulled.ends_with(&format!(
            "Status: Downloaded newer image for {name}\n{name}\n"
        )),
        "{pulled}"
    );
    let tags = s.d(&format!("images --format '{{{{.Tag}}}}' {name}")).ok();
    let mut tags: Vec<&str> = tags.stdout.lines().collect();
    tags.sort_unstable();
    assert_eq!(tags, ["1", "2"]);
    for verb in ["pull", "push"] {
        s.d(&format!("{verb} -a {name}:1"))
            .fails(1, "tag can't be used with --all-tags/-a\n");
    }
}

fn quiet_says_the_name_alone(s: &Session) {
    let registry = DockerRegistry::open(s);
    let name = format!("{}/{}", registry.host(), s.x("@i"));
    s.d(&format!("tag @bb {name}")).ok();
    s.d(&format!("push -q {name}"))
        .prints(&format!("{name}:latest\n"));
    s.d(&format!("push -q -a {name}"))
        .prints(&format!("{name}\n"));
    s.d(&format!("pull -q --disable-content-trust {name}"))
        .prints(&format!("{name}:latest\n"));
    s.d(&format!("image pull --quiet -a {name}"))
        .prints(&format!("{name}\n"));
    s.d(&format!("pull {name}"))
        .shows("Using default tag: latest\nlatest: Pulling from ");
}

fn what_is_not_there_is_named(s: &Session) {
    let registry = DockerRegistry::open(s);
    let name = format!("{}/{}", registry.host(), s.x("@i"));
    let unknown = "not found: manifest unknown: manifest unknown\n";
    s.d(&format!("pull {name}:9")).fails(
        1,
        &format!("Error response from daemon: manifest for {name}:9 {unknown}"),
    );
    s.d(&format!("push {name}:9")).fails(
        1,
        &format!("An image does not exist locally with the tag: {name}\n"),
    );
    s.d(&format!("tag @bb {name}:1")).ok();
    s.d(&format!("push {name}:1")).ok();
    s.d(&format!("pull {name}:9")).fails(
        1,
        &format!("Error response from daemon: manifest for {name}:9 {unknown}"),
    );
    s.d(&format!("push {name}:9"))
        .fails(1, &format!("tag does not exist: {name}:9\n"));
    for verb in ["pull", "push"] {
        s.d(&format!("{verb} BAD")).fails(
            1,
            "invalid reference format: repository name (library/BAD) must be lowercase\n",
        );
    }
}

fn a_registry_that_does_not_answer(s: &Session) {
    let name = format!("127.0.0.1:{}/{}", s.port(), s.x("@i"));
    let host = name.split('/').next().unwrap_or_default();
    let refused =
        format!("Get \"http://{host}/v2/\": dial tcp {host}: connect: connection refused\n");
    s.d(&format!("tag @bb {name}:1")).ok();
    s.d(&format!("pull {name}:1"))
        .fails(1, &format!("Error response from daemon: {refused}"));
    s.d(&format!("push {name}:1"))
        .fails(1, &refused)
        .shows(&format!("The push refers to repository [{name}]\n"));
}

fn platforms_that_do_not_match(s: &Session) {
    let registry = DockerRegistry::open(s);
    let name = format!("{}/{}", registry.host(), s.x("@i"));
    s.d(&format!("tag @bb {name}:1")).ok();
    s.d(&format!("push {name}:1")).ok();
    let mismatch = format!(
        "image with reference {name}:1 was found but its platform (linux/amd64) does not match the specified platform (linux/arm64)\n"
    );
    s.d(&format!("push --platform linux/arm64 {name}:1"))
        .fails(1, &format!("Error response from daemon: {mismatch}"))
        .shows("\n Info -> Using --platform pushes only the specified platform manifest of a multi-platform image index.\n         Other components, like attestations, will not be included.\n         To push the complete multi-platform image, remove the --platform flag.\n         \n");
    s.d(&format!("push --platform linux/amd64 {name}:1"))
        .ok()
        .shows("1: digest: ");
    s.d(&format!("pull --platform linux/arm64 {name}:1"))
        .ok()
        .shows(&format!("WARNING: {mismatch}"));
    s.d(&format!("pull --platform a/b/c/d {name}:1")).fails(
        1,
        "Error response from daemon: \"a/b/c/d\": cannot parse platform specifier: invalid argument\n",
    );
    s.d(&format!("push --platform a/b/c/d {name}:1")).fails(
        1,
        "Invalid platform a/b/c/d\"a/b/c/d\": cannot parse platform specifier: invalid argument\n",
    );
}

fn an_image_that_is_missing_is_pulled_by_run(s: &Session) {
    let registry = DockerRegistry::open(s);
    let name = format!("{}/{}", registry.host(), s.x("@i"));
    s.d(&format!("tag @bb {name}:1")).ok();
    s.d(&format!("push {name}:1")).ok();
    s.d(&format!("rmi {name}:1")).ok();
    let ran = s
        .d(&format!("run --rm {name}:1 echo it runs"))
        .prints("it runs\n");
    let lines: Vec<&str> = ran.stderr.lines().collect();
    assert_eq!(lines[0], format!("Unable to find image '{name}:1' locally"));
    assert_eq!(lines[1], format!("1: Pulling from {}", s.x("@i")));
    assert_eq!(
        *lines.last().expect("lines"),
        format!("Status: Downloaded newer image for {name}:1")
    );
    s.d(&format!("rmi {name}:1")).ok();
    let ran = s
        .d(&format!("run --rm -q {name}:1 echo quiet"))
        .prints("quiet\n");
    assert_eq!(ran.stderr, "");
    s.d(&format!("create --name @c {name}:9"))
        .exits(1)
        .warns(&format!(
            "Unable to find image '{name}:9' locally\nError response from daemon: manifest for {name}:9 not found"
        ));
}

fn pull_policies_of_run(s: &Session) {
    let registry = DockerRegistry::open(s);
    let name = format!("{}/{}", registry.host(), s.x("@i"));
    s.d(&format!("tag @bb {name}:1")).ok();
    s.d(&format!("push {name}:1")).ok();
    s.d(&format!("run --rm --pull always {name}:1 true"))
        .ok()
        .warns(&format!("Status: Image is up to date for {name}:1\n"));
    let quiet = s
        .d(&format!("run --rm --pull always -q {name}:1 true"))
        .ok();
    assert_eq!(quiet.stderr, "");
    let missing = s.d(&format!("run --rm --pull missing {name}:1 true")).ok();
    assert_eq!(missing.stderr, "");
    s.d(&format!("rmi {name}:1")).ok();
    s.d(&format!("run --rm --pull never {name}:1 true"))
        .exits(125)
        .warns(&format!("No such image: {name}:1"));
}

fn now() -> String {
    let time = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .expect("after 1970");
    format!("{}.{:09}", time.as_secs(), time.subsec_nanos())
}

fn transfers_are_events(s: &Session) {
    let registry = DockerRegistry::open(s);
    let name = format!("{}/{}", registry.host(), s.x("@i"));
    let begin = now();
    s.d(&format!("tag @bb {name}:1")).ok();
    s.d(&format!("push {name}:1")).ok();
    s.d(&format!("rmi {name}:1")).ok();
    s.d(&format!("pull {name}:1")).ok();
    let until = now();
    let events = s
        .d(&format!(
            "events --since {begin} --until {until} --filter type=image --format '{{{{.Action}}}} {{{{.Actor.Attributes.name}}}} {{{{.Actor.ID}}}}'"
        ))
        .ok()
        .stdout;
    let id = s.d("image inspect -f '{{.Id}}' @bb").ok().text();
    let own: Vec<&str> = events.lines().filter(|line| line.contains(&name)).collect();
    assert_eq!(
        own,
        [
            format!("tag {name}:1 {id}"),
            format!("push {name} {name}:1"),
            format!("pull {name} {name}:1"),
        ]
    );
}

fn a_pulled_image_is_removed_with_its_digest(s: &Session) {
    let registry = DockerRegistry::open(s);
    let name = format!("{}/{}", registry.host(), s.x("@i"));
    fresh(s, &format!("{name}:1"));
    let digest = digest(&s.d(&format!("push {name}:1")).ok().stdout);
    let id = s
        .d(&format!("image inspect -f '{{{{.Id}}}}' {name}:1"))
        .ok()
        .text();
    let layer = s
        .d(&format!(
            "image inspect -f '{{{{index .RootFS.Layers 0}}}}' {name}:1"
        ))
        .ok()
        .text();
    s.d(&format!("rmi {name}:1")).prints(&format!(
        "Untagged: {name}:1\nUntagged: {name}@@{digest}\nDeleted: {id}\nDeleted: {layer}\n"
    ));
}

fn a_pulled_image_is_the_pushed_one(s: &Session) {
    let registry = DockerRegistry::open(s);
    let name = format!("{}/{}", registry.host(), s.x("@i"));
    fresh(s, &format!("{name}:1"));
    let format = "'{{.Id}} {{.RootFS.Layers}} {{.Config.Cmd}} {{.Created}} {{.Size}}'";
    let inspect = format!("image inspect -f {format} {name}:1");
    let history = format!(
        "history --no-trunc --format '{{{{.ID}}}} {{{{.CreatedBy}}}} {{{{.Size}}}} {{{{.Comment}}}}' {name}:1"
    );
    s.d(&format!("push {name}:1")).ok();
    let before = (s.d(&inspect).ok().text(), s.d(&history).ok().text());
    s.d(&format!("rmi {name}:1")).ok();
    s.d(&format!("pull {name}:1")).ok();
    assert_eq!(
        (s.d(&inspect).ok().text(), s.d(&history).ok().text()),
        before
    );
    // Pushed under another name it keeps its digest.
    let first = digest(&s.d(&format!("pull {name}:1")).ok().stdout);
    s.d(&format!("tag {name}:1 {name}-copy:1")).ok();
    let second = s.d(&format!("push {name}-copy:1")).ok().stdout;
    assert_eq!(digest(&second), first);
    assert!(
        second.contains(&format!(": Mounted from {}\n", s.x("@i"))),
        "{second}"
    );
}

fn an_index_is_pulled_for_this_machine(s: &Session) {
    let registry = DockerRegistry::open(s);
    let name = format!("{}/{}", registry.host(), s.x("@i"));
    s.d(&format!("tag @bb {name}:amd64")).ok();
    s.d(&format!("tag @app {name}:arm64")).ok();
    s.d(&format!("push -a {name}")).ok();
    s.d(&format!(
        "manifest create --insecure {name}:1 {name}:amd64 {name}:arm64"
    ))
    .ok();
    s.d(&format!(
        "manifest annotate --arch arm64 {name}:1 {name}:arm64"
    ))
    .ok();
    let index = s
        .d(&format!("manifest push --insecure {name}:1"))
        .ok()
        .text();
    let pulled = s.d(&format!("pull {name}:1")).ok();
    assert_eq!(digest(&pulled.stdout), index);
    let id = s.d("image inspect -f '{{.Id}}' @bb").ok().text();
    s.d(&format!(
        "image inspect -f '{{{{.Id}}}} {{{{.RepoDigests}}}}' {name}:1"
    ))
    .shows(&id)
    .shows(&index);
    s.d(&format!("pull --platform linux/s390x {name}:1")).fails(
        1,
        "no matching manifest for linux/s390x in the manifest list entries\n",
    );
}

fn dangling_images_after_a_new_pull(s: &Session) {
    let registry = DockerRegistry::open(s);
    let name = format!("{}/{}", registry.host(), s.x("@i"));
    fresh(s, &format!("{name}:1"));
    s.d(&format!("push {name}:1")).ok();
    let old = s
        .d(&format!("image inspect -f '{{{{.Id}}}}' {name}:1"))
        .ok()
        .text();
    s.d(&format!("tag {name}:1 {name}:old")).ok();
    fresh(s, &format!("{name}:1"));
    s.d(&format!("push {name}:1")).ok();
    s.d(&format!("tag {name}:old {name}:1")).ok();
    s.d(&format!("rmi {name}:old")).ok();
    s.d(&format!("pull {name}:1"))
        .shows(&format!("Status: Downloaded newer image for {name}:1\n"));
    // The old one has its digest left, and no tag.
    s.d("images --digests --filter dangling=true --format '{{.ID}}' --no-trunc")
        .shows(&old);
    s.d(&format!("rmi {old}")).shows(&format!("Deleted: {old}"));
}

fn space_of_pulled_images(s: &Session) {
    let registry = DockerRegistry::open(s);
    let name = format!("{}/{}", registry.host(), s.x("@i"));
    fresh(s, &format!("{name}:1"));
    s.d(&format!("push {name}:1")).ok();
    s.d(&format!("rmi {name}:1")).ok();
    s.d(&format!("pull {name}:1")).ok();
    let usage = s.d("system df -v").ok().stdout;
    let row = usage
        .lines()
        .find(|line| line.starts_with(&name))
        .unwrap_or_else(|| panic!("{name} is not in {usage}"));
    let columns: Vec<&str> = row
        .split("  ")
        .map(str::trim)
        .filter(|cell| !cell.is_empty())
        .collect();
    // Repository, tag, id, age, size, shared, unique, containers.
    assert_eq!(columns[4..], ["300kB", "0B", "300kB", "0"], "{row}");
}

fn headers_for_the_registry_are_passed_on(s: &Session) {
    let registry = s.engine.on_host(Registry::start);
    registry.set_access(Access::Bearer(TokenServer {
        anonymous: true,
        ..TokenServer::default()
    }));
    let name = format!("{}/{}", registry.host(), s.x("@i"));
    s.d(&format!("tag @bb {name}:1")).ok();
    // A script, not the clients: they send such headers by their configuration alone.
    let headers = "-H 'X-Registry-Auth: e30=' -H 'X-Meta-Foo: first' -H 'x-meta-foo: bar' -H 'X-Meta-Build: 7' -H 'X-Metal: no' -H 'X-Other: no'";
    let socket = s.engine.socket.display();
    for path in [
        format!("-X POST 'http://d/images/{name}/push?tag=1'"),
        format!("-X POST 'http://d/images/create?fromImage={name}&tag=1'"),
        format!("'http://d/images/search?term={name}'"),
    ] {
        registry.forget_requests();
        let answer = s
            .script(&format!("curl -sS --unix-socket {socket} {headers} {path}"))
            .ok();
        let requests = registry.requests();
        assert!(!requests.is_empty(), "{path}: {}", answer.stdout);
        for request in requests {
            let line = format!("{path}: {} {}", request.method, request.path);
            // Docker asks for a search whether there is version 2 without them.
            if path.contains("search") && request.path.starts_with("/v2/") {
                continue;
            }
            let own = request.headers.iter().filter(|(name, _)| {
                let name = name.to_lowercase();
                name.starts_with("x-") && name != "x-docker-token"
            });
            let mut own: Vec<_> = own
                .map(|(name, value)| format!("{}: {value}", name.to_lowercase()))
                .collect();
            own.sort_unstable();
            let wanted = ["x-meta-build: 7", "x-meta-foo: bar", "x-meta-foo: first"];
            assert_eq!(own, wanted, "{line}");
        }
    }
    s.d(&format!("rmi {name}:1")).ok();
}
