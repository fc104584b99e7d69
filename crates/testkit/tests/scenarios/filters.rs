//! Filters of lists and prunes: which objects they find, and the texts for those that make no sense are in `errors.rs`.

use gantry_testkit::session::Session;

gantry_testkit::scenarios![
    names_are_patterns,
    published_and_exposed_ports_are_found,
    a_prune_of_images_takes_several_values,
];

fn names_are_patterns(s: &Session) {
    for name in ["site-1", "site-22", "database"] {
        s.d(&format!("create --name @{name} @bb")).ok();
        s.d(&format!("volume create @{name}")).ok();
    }
    for (pattern, found) in [
        ("^@site-[0-9]$", "@site-1\n"),
        ("^/@site-[0-9]+$", "@site-22\n@site-1\n"),
        ("@site-1|@data", "@database\n@site-1\n"),
        ("base$", "@database\n"),
        ("(", ""),
    ] {
        s.d(&format!(
            "ps -a --filter label=gantry.test=@prefix --filter 'name={pattern}' --format '{{{{.Names}}}}'"
        ))
        .prints(found);
    }
    for (pattern, found) in [
        ("^@site-[0-9]$", "@site-1\n"),
        ("@prefix-data", "@database\n"),
        ("@site-1|base$", "@database\n@site-1\n"),
    ] {
        s.d(&format!(
            "volume ls -q --filter label=gantry.test=@prefix --filter 'name={pattern}'"
        ))
        .prints(found);
    }
    s.d("network ls --filter name=^br --filter driver=bridge --format '{{.Name}}'")
        .ok()
        .shows("bridge\n");
    s.d("network ls --filter name=^ridge --format '{{.Name}}'")
        .prints("");
}

fn published_and_exposed_ports_are_found(s: &Session) {
    let port = s.port();
    s.d(&format!(
        "run -d --name @c -p {port}:80 --expose 9000 --expose 53/udp @web"
    ))
    .ok();
    s.d(&format!("create --name @created -p {port}:80 @web"))
        .ok();
    let list = |filter: &str| {
        s.d(&format!(
            "ps -a --filter label=gantry.test=@prefix --filter {filter} --format '{{{{.Names}}}}'"
        ))
    };
    list(&format!("publish={port}")).prints("@c\n");
    list(&format!("publish={}-{}/tcp", port - 1, port)).prints("@c\n");
    list(&format!("publish={port}/udp")).prints("");
    // Not the host's port: the container's.
    list("publish=80").prints("");
    list("expose=80").prints("@c\n");
    list("expose=8999-9001").prints("@c\n");
    list("expose=53/udp").prints("@c\n");
    list("expose=53").prints("");
}

fn a_prune_of_images_takes_several_values(s: &Session) {
    // The client adds `dangling=true` to what it is given.
    s.d("image prune -f --filter dangling=x --filter label=@nobody")
        .prints("Total reclaimed space: 0B\n");
}
