//! The commands of the user guide that need no build, pull, user-defined network, health check or compose.

use std::net::Ipv4Addr;

use gantry_testkit::session::Session;
use gantry_testkit::wait::eventually;

gantry_testkit::scenarios![
    three_containers_of_one_image_on_three_ports,
    host_network_serves_on_the_hosts_addresses,
    no_network_has_a_loopback_only,
    several_ports_and_one_on_loopback,
    a_named_volume_outlives_its_container,
    a_database_keeps_its_data_in_a_volume,
    a_bind_mount_shows_changes_at_once,
    tmpfs_is_memory,
    a_process_runs_as_an_unprivileged_user,
    cpu_and_memory_limits_are_set,
    stats_show_a_running_container,
    crash_at_start_is_told_by_the_logs,
    prune_removes_stopped_containers_and_unused_volumes,
    containers_reach_each_other_by_address,
    whoami_and_id_in_a_container,
    permissions_are_repaired_by_root_in_a_users_container,
    nginx_syntax_is_checked_with_a_bound_file,
    nginx_answers_through_a_published_port,
    environment_is_seen_inside,
    a_shell_in_a_new_container,
    a_shell_in_a_running_container,
    the_entrypoint_gives_way_to_a_shell,
    processes_are_listed_inside,
    system_calls_of_the_first_process_are_traced,
    a_link_gives_a_name,
    labels_limits_and_restart_policy_together,
    environment_from_a_file_and_the_command_line,
    disk_usage_is_shown,
];

fn three_containers_of_one_image_on_three_ports(s: &Session) {
    let first = s.ports(3);
    for number in 1..=3_u16 {
        s.d(&format!(
            "run -d --name @app{number} -p {}:80 @web",
            first + number - 1
        ))
        .ok();
    }
    for number in 0..3 {
        assert!(
            s.get(Ipv4Addr::LOCALHOST, first + number, "/passwd")
                .starts_with("root:")
        );
    }
    s.d("ps --filter name=@prefix --format '{{.Names}} {{.Image}}'")
        .prints("@app3 @web\n@app2 @web\n@app1 @web\n");
    s.d("stop -t 1 @app1 @app2 @app3")
        .prints("@app1\n@app2\n@app3\n");
}

fn host_network_serves_on_the_hosts_addresses(s: &Session) {
    let port = s.port();
    s.d(&format!("run -d --name @c --network host @web {port}"))
        .ok();
    assert!(
        s.get(Ipv4Addr::LOCALHOST, port, "/passwd")
            .starts_with("root:")
    );
    s.d("inspect -f '{{.HostConfig.NetworkMode}} {{len .NetworkSettings.Networks}} {{.NetworkSettings.Networks.host.IPAddress}}' @c")
        .prints("host 1 \n");
}

fn no_network_has_a_loopback_only(s: &Session) {
    s.d("run --rm --network none @bb sh -c 'ls /sys/class/net; ip -4 -o addr show lo | grep -c 127.0.0.1; ip route | wc -l'")
        .prints("lo\n1\n0\n");
}

fn several_ports_and_one_on_loopback(s: &Session) {
    let first = s.ports(3);
    let (a, b, c) = (first, first + 1, first + 2);
    s.d(&format!(
        "run -d --name @c -p {a}:80 -p {b}:80 -p 127.0.0.1:{c}:80 @web"
    ))
    .ok();
    for port in [a, b, c] {
        assert!(
            s.get(Ipv4Addr::LOCALHOST, port, "/group")
                .starts_with("root:")
        );
    }
    s.d("port @c").prints(&format!("80/tcp -> 0.0.0.0:{a}\n80/tcp -> 0.0.0.0:{b}\n80/tcp -> 127.0.0.1:{c}\n80/tcp -> [::]:{a}\n80/tcp -> [::]:{b}\n"));
    assert!(s.get_from_outside(a, "/group").starts_with("root:"));
    let refused = s
        .engine
        .outside
        .within(|| std::net::TcpStream::connect((s.engine.address, c)).is_err());
    assert!(
        refused,
        "a port published on loopback answered another machine"
    );
}

fn a_named_volume_outlives_its_container(s: &Session) {
    s.d("volume create @data").prints("@data\n");
    s.d("run --name @one -v @data:/app/data @bb sh -c 'echo kept > /app/data/file'")
        .ok();
    s.d("rm @one").prints("@one\n");
    s.d("volume ls -q --filter name=@data").prints("@data\n");
    s.d("run --rm -v @data:/app/data @bb cat /app/data/file")
        .prints("kept\n");
}

fn a_database_keeps_its_data_in_a_volume(s: &Session) {
    let serve = "run -d --name @redis -v @store:/var/lib/redis -w /var/lib/redis @deb redis-server --save 900 1 --bind 127.0.0.1";
    s.d(serve).ok();
    s.until_logged("@redis", "eady to accept connections");
    s.d("exec @redis redis-cli set color green").prints("OK\n");
    s.d("stop @redis").prints("@redis\n");
    s.d("rm @redis").prints("@redis\n");
    s.d(serve).ok();
    s.until_logged("@redis", "eady to accept connections");
    s.d("exec @redis redis-cli get color").prints("green\n");
}

fn a_bind_mount_shows_changes_at_once(s: &Session) {
    s.file("page", "first\n");
    s.d("run -d --name @c -v @dir:/app @bb sleep 1000").ok();
    s.d("exec @c cat /app/page").prints("first\n");
    s.file("page", "second\n");
    s.d("exec @c cat /app/page").prints("second\n");
    s.d("exec @c sh -c 'echo back > /app/made'").ok();
    assert_eq!(
        std::fs::read_to_string(s.dir().join("made")).expect("a file"),
        "back\n"
    );
}

fn tmpfs_is_memory(s: &Session) {
    s.d("run --rm --tmpfs /scratch @bb sh -c 'grep \" /scratch \" /proc/mounts | cut -d\" \" -f3; echo x > /scratch/x; ls /scratch'")
        .prints("tmpfs\nx\n");
}

fn a_process_runs_as_an_unprivileged_user(s: &Session) {
    s.d("run --rm --user 1000:1000 @bb id")
        .prints("uid=1000(user) gid=1000(user) groups=1000(user)\n");
}

fn cpu_and_memory_limits_are_set(s: &Session) {
    s.d("run -d --name @c --cpus=1.5 --memory=1g --memory-swap=2g @bb sleep 1000")
        .ok();
    s.d("inspect -f '{{.HostConfig.NanoCpus}} {{.HostConfig.Memory}} {{.HostConfig.MemorySwap}}' @c").prints("1500000000 1073741824 2147483648\n");
    let memory = "cat /sys/fs/cgroup/memory/memory.limit_in_bytes 2>/dev/null || cat /sys/fs/cgroup/memory.max";
    s.d(&format!("exec @c sh -c '{memory}'"))
        .prints("1073741824\n");
    let quota = "cat /sys/fs/cgroup/cpu/cpu.cfs_quota_us 2>/dev/null || cut -d\" \" -f1 /sys/fs/cgroup/cpu.max";
    s.d(&format!("exec @c sh -c '{quota}'")).prints("150000\n");
}

fn stats_show_a_running_container(s: &Session) {
    s.d("run -d --name @c --memory 64m @bb sh -c 'while :; do :; done'")
        .ok();
    s.d("stats --no-stream --format '{{.Name}} {{.CPUPerc}} {{.MemUsage}}' @c")
        .such_that(
            "it names the container, a busy processor and the limit",
            |text| {
                let words: Vec<&str> = text.split_whitespace().collect();
                let busy = words
                    .get(1)
                    .and_then(|word| word.trim_end_matches('%').parse::<f32>().ok());
                words.first() == Some(&s.x("@c").as_str())
                    && busy.is_some_and(|percent| percent > 1.0)
                    && text.contains("/ 64MiB")
            },
        );
}

fn crash_at_start_is_told_by_the_logs(s: &Session) {
    s.d("run -d --name @c @bb sh -c 'echo starting; echo no configuration >&2; exit 3'")
        .ok();
    s.until_status("@c", "exited");
    let logs = s.d("logs @c").ok();
    assert_eq!(
        (logs.stdout.as_str(), logs.stderr.as_str()),
        ("starting\n", "no configuration\n")
    );
    s.d("inspect -f '{{.State.Status}} {{.State.ExitCode}} {{.State.Running}}' @c")
        .prints("exited 3 false\n");
    s.d("ps -a --filter name=@c --format '{{.Status}}'")
        .such_that("it tells the code", |text| text.starts_with("Exited (3) "));
}

fn prune_removes_stopped_containers_and_unused_volumes(s: &Session) {
    let id = s.d("run -d --name @done @bb true").ok().text();
    s.until_status("@done", "exited");
    s.d("run -d --name @alive @bb sleep 1000").ok();
    s.d("container prune -f --filter label=gantry.test=@prefix")
        .ok()
        .shows(&format!("Deleted Containers:\n{id}\n"))
        .shows("Total reclaimed space: 0B\n");
    s.d("ps -aq --no-trunc --filter name=@alive")
        .ok()
        .such_that("the running one stays", |text| text.len() == 65);
    s.d("volume create @unused").ok();
    s.d("volume prune -a -f --filter label=gantry.test=@prefix")
        .ok()
        .shows("Deleted Volumes:\n@unused\n");
    s.d("volume inspect @unused").fails(
        1,
        "Error response from daemon: get @unused: no such volume\n",
    );
}

fn containers_reach_each_other_by_address(s: &Session) {
    s.d("run -d --name @one @web").ok();
    let address = s
        .d("inspect -f '{{.NetworkSettings.Networks.bridge.IPAddress}}' @one")
        .ok()
        .text();
    s.d(&format!("run --rm @bb ping -c 1 -w 5 {address}"))
        .ok()
        .shows("1 packets transmitted, 1 packets received");
    s.d(&format!("run --rm @bb wget -q -O - http://{address}/group"))
        .ok()
        .shows("root:x:0:\n");
    s.d("network inspect bridge -f '{{range .Containers}}{{.Name}} {{end}}'")
        .ok()
        .shows("@one");
}

fn whoami_and_id_in_a_container(s: &Session) {
    s.d("run -d --name @c @deb sleep 1000").ok();
    s.d("exec @c whoami").prints("root\n");
    s.d("exec @c id")
        .prints("uid=0(root) gid=0(root) groups=0(root)\n");
}

fn permissions_are_repaired_by_root_in_a_users_container(s: &Session) {
    s.d("run -d --name @c --user 1000 @deb sleep 1000").ok();
    s.d("exec --user root @c sh -c 'mkdir /app; touch /app/file; chmod 700 /app'")
        .ok();
    s.d("exec @c ls /app").exits(2).warns("Permission denied");
    s.d("exec --user root @c chown -R 1000:1000 /app")
        .prints("");
    s.d("exec @c ls /app").prints("file\n");
}

fn nginx_syntax_is_checked_with_a_bound_file(s: &Session) {
    s.file(
        "good.conf",
        "server { listen 8099; location / { return 200 \"hello\\n\"; } }\n",
    );
    s.file(
        "bad.conf",
        "server { listen 8099; location ~ ^/(a|b{3,}$ { return 200; } }\n",
    );
    let check = |name: &str| {
        s.d(&format!(
            "run --rm -v @dir/{name}:/etc/nginx/conf.d/default.conf @deb nginx -t"
        ))
    };
    check("good.conf")
        .ok()
        .warns("syntax is ok")
        .warns("test is successful");
    check("bad.conf").exits(1).warns("[emerg]");
}

fn nginx_answers_through_a_published_port(s: &Session) {
    s.file(
        "site.conf",
        "server { listen 8099; access_log /dev/stdout; location / { return 200 \"hello\\n\"; } }\n",
    );
    let port = s.port();
    s.d(&format!("run -d --name @c -p {port}:8099 -v @dir/site.conf:/etc/nginx/conf.d/site.conf:ro @deb nginx -g 'daemon off;'")).ok();
    assert_eq!(s.get(Ipv4Addr::LOCALHOST, port, "/it"), "hello\n");
    assert_eq!(s.get_from_outside(port, "/it"), "hello\n");
    s.until_logged("@c", "GET /it HTTP/1.1");
    s.d("stop @c").prints("@c\n");
    s.d("inspect -f '{{.State.ExitCode}}' @c").prints("0\n");
}

fn environment_is_seen_inside(s: &Session) {
    s.d("run -d --name @c -e REDIS_HOST=redis -e REDIS_PORT=6379 @bb sleep 1000")
        .ok();
    s.d("exec @c env")
        .ok()
        .shows("REDIS_HOST=redis\n")
        .shows("REDIS_PORT=6379\n");
}

fn a_shell_in_a_new_container(s: &Session) {
    let mut terminal = s.terminal("run --name @c -it @deb /bin/bash");
    terminal.expect("# ");
    terminal.send(b"echo $((40+2)) $(tty)\n");
    terminal.expect("42 /dev/pts/0");
    terminal.send(b"exit 5\n");
    assert_eq!(terminal.wait(), 5);
}

fn a_shell_in_a_running_container(s: &Session) {
    s.d("run -d --name @c @deb sleep 1000").ok();
    let mut terminal = s.terminal("exec -it @c /bin/bash");
    terminal.expect("# ");
    terminal.send(b"cat /proc/1/comm; test -t 0 && echo on a terminal\n");
    terminal.expect("sleep");
    terminal.expect("on a terminal");
    terminal.send(b"exit 6\n");
    assert_eq!(terminal.wait(), 6);
}

fn the_entrypoint_gives_way_to_a_shell(s: &Session) {
    let mut terminal = s.terminal("run --rm --entrypoint /bin/sh -it @app");
    terminal.expect("$ ");
    terminal.send(b"echo $0 and $FROM_IMAGE\n");
    terminal.expect("/bin/sh and yes");
    terminal.send(b"exit\n");
    assert_eq!(terminal.wait(), 0);
}

fn processes_are_listed_inside(s: &Session) {
    s.d("run -d --name @c @deb sleep 12345").ok();
    s.d("exec @c ps aux")
        .ok()
        .such_that("sleep is the first process", |text| {
            text.lines().any(|line| {
                line.split_whitespace().nth(1) == Some("1") && line.ends_with("sleep 12345")
            })
        });
    s.d("top @c -o pid,args").ok().shows("sleep 12345");
}

fn system_calls_of_the_first_process_are_traced(s: &Session) {
    s.d("run -d --name @c @deb sh -c 'while :; do sleep 0.05; done'")
        .ok();
    let trace = "timeout 2 strace -o /tmp/trace -p 1; grep -c -E \"clone|wait|vfork\" /tmp/trace";
    s.d(&format!("exec @c sh -c '{trace}'"))
        .ok()
        .such_that("calls were seen", |text| text.trim() != "0");
}

fn a_link_gives_a_name(s: &Session) {
    s.d("run -d --name @redis @web").ok();
    s.d("run --rm --link @redis:redis @bb sh -c 'wget -q -O - http://redis/group | head -1'")
        .prints("root:x:0:\n");
}

fn labels_limits_and_restart_policy_together(s: &Session) {
    s.d("run -d --name @c --label service=web --label environment=production --label version=1.2.3 --cpus=0.5 --memory=512m --restart=unless-stopped @bb sleep 1000").ok();
    s.d("inspect -f '{{index .Config.Labels \"service\"}} {{index .Config.Labels \"version\"}} {{.HostConfig.RestartPolicy.Name}}' @c")
        .prints("web 1.2.3 unless-stopped\n");
    s.d("ps -q --filter label=service=web --filter label=gantry.test=@prefix")
        .ok()
        .such_that("one is found", |text| text.lines().count() == 1);
}

fn environment_from_a_file_and_the_command_line(s: &Session) {
    s.file(
        ".env.production",
        "# a comment\nA=from file\nB=two\n\nFROM_CLIENT\n",
    );
    s.d_env(
        "run --rm -e NODE_ENV=production -e B=over --env-file .env.production @bb env",
        &[("FROM_CLIENT", "client")],
    )
    .ok()
    .shows("NODE_ENV=production\n")
    .shows("A=from file\n")
    .shows("B=over\n")
    .shows("FROM_CLIENT=client\n");
}

fn disk_usage_is_shown(s: &Session) {
    s.d("run -d --name @c @bb sh -c 'dd if=/dev/zero of=/big bs=1M count=3 2>/dev/null; sleep 1000'").ok();
    eventually("ps -s shows 3 MB", || {
        s.d("ps -s --filter name=@c --format '{{.Size}}'")
            .stdout
            .starts_with("3.15MB (virtual ")
    });
    s.d("system df --format '{{.Type}}'")
        .prints("Images\nContainers\nLocal Volumes\nBuild Cache\n");
    s.d("system df -v").ok().shows("@c");
}
