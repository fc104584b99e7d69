//! The troubleshooting chapter of the user guide: what does not start, why, and what cleans up after it.

use std::net::Ipv4Addr;

use gantry_testkit::session::Session;

gantry_testkit::scenarios![
    a_port_in_use_is_told_and_free_again,
    a_server_without_rights_says_so_in_its_log,
    a_missing_variable_is_seen_from_inside,
    events_tell_what_happened,
    one_cleanup_takes_all_that_is_unused,
    a_log_driver_without_its_server_fails_the_run,
];

fn a_port_in_use_is_told_and_free_again(s: &Session) {
    let port = s.port();
    s.d(&format!("run -d --name @first -p {port}:80 @web")).ok();
    s.d(&format!("run -d --name @second -p {port}:80 @web"))
        .exits(125)
        .warns(&format!(":{port} failed: port is already allocated"));
    s.d("ps -a --filter name=@second --format '{{.Status}}{{.Ports}}'")
        .prints("Created\n");
    s.d("stop -t 0 @first").ok();
    s.d("start @second").prints("@second\n");
    assert!(
        s.get(Ipv4Addr::LOCALHOST, port, "/group")
            .starts_with("root:")
    );
    s.d("start @first")
        .exits(1)
        .warns("port is already allocated");
}

fn a_server_without_rights_says_so_in_its_log(s: &Session) {
    s.d("run -d --name @c --user 1000 @deb nginx -g 'daemon off; error_log stderr;'")
        .ok();
    s.until_status("@c", "exited");
    s.d("logs @c").ok().warns("(13: Permission denied)");
    s.d("inspect -f '{{.State.ExitCode}}' @c").prints("1\n");
    // Its files elsewhere, as the guide advises.
    s.file(
        "nginx.conf",
        "pid /tmp/nginx.pid; error_log stderr; events {} http { access_log off; client_body_temp_path /tmp/b; proxy_temp_path /tmp/p; fastcgi_temp_path /tmp/f; uwsgi_temp_path /tmp/u; scgi_temp_path /tmp/s; server { listen 8099; location / { return 200 \"as a user\\n\"; } } }",
    );
    let port = s.port();
    s.d(&format!(
        "run -d --name @mended --user 1000 -p {port}:8099 -v @dir/nginx.conf:/etc/nginx/nginx.conf:ro @deb nginx -g 'daemon off;'"
    ))
    .ok();
    assert_eq!(s.get(Ipv4Addr::LOCALHOST, port, "/"), "as a user\n");
    s.d("exec @mended id -u").prints("1000\n");
}

fn a_missing_variable_is_seen_from_inside(s: &Session) {
    s.file(
        "main.py",
        "host = os.getenv(\"REDIS_HOST\", \"localhost\")\n",
    );
    s.d("run -d --name @c -e REDIS_URL=redis://redis:6379/0 -v @dir/main.py:/app/main.py @deb sleep 1000")
        .ok();
    s.d("exec @c sh -c 'env | grep REDIS'")
        .prints("REDIS_URL=redis://redis:6379/0\n");
    s.d("exec @c grep -A5 REDIS /app/main.py")
        .prints("host = os.getenv(\"REDIS_HOST\", \"localhost\")\n");
    s.d("exec @c printenv REDIS_HOST").exits(1);
}

fn events_tell_what_happened(s: &Session) {
    s.d("run --name @c @bb sh -c 'exit 7'").exits(7);
    s.d("rm @c").ok();
    s.d("system events --since 1m --until -1s --filter label=gantry.test=@prefix --filter type=container --format '{{.Action}} {{.Actor.Attributes.exitCode}}'")
        .prints("create <no value>\nattach <no value>\nstart <no value>\ndie 7\ndestroy <no value>\n");
}

fn one_cleanup_takes_all_that_is_unused(s: &Session) {
    let id = s
        .d("run -d --name @done -v /anonymous @bb true")
        .ok()
        .text();
    s.until_status("@done", "exited");
    s.d("run -d --name @alive @bb sleep 1000").ok();
    s.d("volume create @kept").ok();
    s.d("system prune -a -f --filter label=gantry.test=@prefix")
        .prints(&format!(
            "Deleted Containers:\n{id}\n\nTotal reclaimed space: 0B\n"
        ));
    s.d("ps -aq --no-trunc --filter name=@done").prints("");
    s.d("exec @alive true").prints("");
    s.d("volume inspect -f '{{.Name}}' @kept").prints("@kept\n");
    s.d("network prune -f --filter label=gantry.test=@prefix")
        .prints("");
    s.d("image inspect -f '{{len .RepoTags}}' @bb").ok();
}

fn a_log_driver_without_its_server_fails_the_run(s: &Session) {
    // Docker fails for want of the server, Gantry for want of the driver; both by name.
    s.d("run --rm --log-driver=fluentd --log-opt fluentd-address=127.0.0.1:9 @bb true")
        .exits(125)
        .warns(if s.engine.is_reference() {
            "failed to initialize logging driver"
        } else {
            "fluentd"
        });
}
