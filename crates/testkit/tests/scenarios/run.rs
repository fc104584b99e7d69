//! `run` and `create`: what the process gets and what the client returns.

use gantry_testkit::session::Session;

gantry_testkit::scenarios![
    output_and_exit_code_come_back,
    standard_error_is_kept_apart,
    standard_input_is_passed_on,
    standard_input_without_i_is_empty,
    a_missing_command_gives_127,
    a_missing_path_gives_127,
    a_file_that_is_not_executable_gives_126,
    a_directory_as_command_gives_126,
    death_by_signal_is_128_and_its_number,
    the_images_configuration_is_used,
    the_command_replaces_the_images_command,
    entrypoint_and_arguments,
    an_empty_entrypoint_is_none,
    environment_is_merged,
    hostname_and_domain,
    working_directory_is_made,
    users_by_name_number_and_group,
    additional_groups,
    a_wrong_user_is_named,
    names_are_unique,
    a_name_is_chosen,
    cidfile_holds_the_id,
    a_cidfile_that_exists_is_refused,
    rm_removes_after_the_end,
    detached_run_prints_the_id,
    init_reaps_and_forwards,
    create_then_start_attached,
    create_prints_the_id_and_starts_nothing,
    label_file_and_labels,
    a_switched_off_out_of_memory_killer_is_warned_of,
    quiet_container_ids_by_filters,
    stop_signal_and_timeout_are_kept,
    a_sysctl_is_set,
    ulimits_are_set,
    shared_memory_size,
    read_only_root,
    home_is_set,
    term_is_set_with_a_terminal,
    two_at_once,
    attach_streams_can_be_chosen,
    platform_of_this_machine,
    annotations_are_kept,
    a_proxy_of_the_configuration_is_handed_in,
    large_output_is_complete,
];

fn output_and_exit_code_come_back(s: &Session) {
    s.d("run --rm @bb sh -c 'echo out; exit 42'")
        .exits(42)
        .shows("out\n");
    s.d("run --rm @bb true").prints("");
    s.d("run --rm @bb false").fails(1, "");
}

fn standard_error_is_kept_apart(s: &Session) {
    let outcome = s
        .d("run --rm @bb sh -c 'echo one; echo two >&2; echo three'")
        .ok();
    assert_eq!(
        (outcome.stdout.as_str(), outcome.stderr.as_str()),
        ("one\nthree\n", "two\n")
    );
}

fn standard_input_is_passed_on(s: &Session) {
    let input: Vec<u8> = (0..200_000_u32)
        .flat_map(|number| format!("{number}\n").into_bytes())
        .collect();
    s.d_with("run --rm -i @bb sh -c 'wc -c; echo end'", &input)
        .prints(&format!("{}\nend\n", input.len()));
    s.d_with("run --rm -i @bb md5sum", b"abc")
        .prints("900150983cd24fb0d6963f7d28e17f72  -\n");
}

fn standard_input_without_i_is_empty(s: &Session) {
    s.d_with("run --rm @bb wc -c", b"ignored").prints("0\n");
}

const RUN_HELP: &str = "\n\nRun 'docker run --help' for more information\n";

fn start_failure(name: &str, rest: &str) -> String {
    format!(
        "docker: Error response from daemon: failed to create task for container: failed to create shim task: OCI runtime create failed: runc create failed: unable to start container process: error during container init: exec: \"{name}\": {rest}{RUN_HELP}"
    )
}

fn a_missing_command_gives_127(s: &Session) {
    s.d("run --rm @bb nosuch").fails(
        127,
        &start_failure("nosuch", "executable file not found in $PATH"),
    );
    s.d("run --name @c @bb nosuch arg").exits(127);
    s.d("inspect -f '{{.State.Status}} {{.State.ExitCode}}' @c")
        .prints("created 127\n");
    s.d("start @c")
        .fails_with(1, "executable file not found in $PATH");
}

fn a_missing_path_gives_127(s: &Session) {
    s.d("run --rm @bb /no/such").fails(
        127,
        &start_failure("/no/such", "stat /no/such: no such file or directory"),
    );
}

fn a_file_that_is_not_executable_gives_126(s: &Session) {
    s.d("run --rm @bb /etc/not-executable").fails(
        126,
        &start_failure("/etc/not-executable", "permission denied"),
    );
}

fn a_directory_as_command_gives_126(s: &Session) {
    s.d("run --rm @bb /etc").exits(126).warns("exec: \"/etc\":");
}

fn death_by_signal_is_128_and_its_number(s: &Session) {
    s.d("run --rm @bb sh -c 'kill -9 $$'").exits(0);
    s.d("run --rm --init @bb sh -c 'kill -9 $$'").exits(137);
    s.d("run --rm --init @bb sh -c 'kill -15 $$'").exits(143);
}

fn the_images_configuration_is_used(s: &Session) {
    s.d("run --rm @app").prints("entry default\n");
    s.d("run --rm --entrypoint sh @app -c 'pwd; id -u; echo $FROM_IMAGE $SHARED; cat owned data 2>/dev/null; cat /data/seed'")
        .prints("/app\n1000\nyes image\nof the user\nseed\n");
    s.d("create --name @c @app").ok();
    s.d("inspect -f '{{.Config.StopSignal}} {{.Config.User}} {{.Config.WorkingDir}} {{.Path}} {{.Args}} {{index .Config.Labels \"from.image\"}} {{len .Mounts}}' @c")
        .prints("SIGUSR1 1000:1000 /app /bin/echo [entry default] yes 1\n");
}

fn the_command_replaces_the_images_command(s: &Session) {
    s.d("run --rm @app other words")
        .prints("entry other words\n");
}

fn entrypoint_and_arguments(s: &Session) {
    s.d("run --rm --entrypoint echo @app a b").prints("a b\n");
    s.d("run --rm --entrypoint echo @app").prints("\n");
}

fn an_empty_entrypoint_is_none(s: &Session) {
    s.d("run --rm --entrypoint '' @app echo bare")
        .prints("bare\n");
}

fn environment_is_merged(s: &Session) {
    s.d_env(
        "run --rm --entrypoint env -e SHARED=mine -e EMPTY= -e PASSED -e ABSENT @app",
        &[("PASSED", "through")],
    )
    .ok()
    .shows("SHARED=mine\n")
    .shows("FROM_IMAGE=yes\n")
    .shows("EMPTY=\n")
    .shows("PASSED=through\n")
    .hides("ABSENT")
    .shows("PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\n");
}

fn hostname_and_domain(s: &Session) {
    s.d("run --rm --hostname box @bb sh -c 'hostname; cat /etc/hostname; echo $HOSTNAME; grep -c box /etc/hosts'").prints("box\nbox\nbox\n1\n");
    s.d("run --rm --hostname box --domainname example.test @bb sh -c 'hostname; grep -o \"box.example.test.*\" /etc/hosts'")
        .prints("box\nbox.example.test box\n");
    let id = s.d("run -d --name @c @bb sleep 1000").ok().text();
    s.d("exec @c hostname").prints(&format!("{}\n", &id[..12]));
}

fn working_directory_is_made(s: &Session) {
    s.d("run --rm -w /a/new/one @bb pwd").prints("/a/new/one\n");
    s.d("run --rm --workdir /etc @bb ls hostname")
        .prints("hostname\n");
    s.d("run --rm -w relative @bb pwd").fails(125, "docker: Error response from daemon: the working directory 'relative' is invalid, it needs to be an absolute path\n\nRun 'docker run --help' for more information\n");
}

fn users_by_name_number_and_group(s: &Session) {
    s.d("run --rm -u user @bb id")
        .prints("uid=1000(user) gid=1000(user) groups=50(staff),1000(user)\n");
    s.d("run --rm -u user:staff @bb id")
        .prints("uid=1000(user) gid=50(staff) groups=50(staff)\n");
    s.d("run --rm -u 1234 @bb id")
        .prints("uid=1234 gid=0(root) groups=0(root)\n");
    s.d("run --rm -u 1234:4321 @bb id")
        .prints("uid=1234 gid=4321 groups=4321\n");
}

fn additional_groups(s: &Session) {
    s.d("run --rm -u 1234:4321 --group-add staff --group-add 777 @bb id -G")
        .prints("4321 50 777\n");
}

fn a_wrong_user_is_named(s: &Session) {
    s.d("run --rm -u nobodyx @bb true")
        .fails(125, &format!("docker: Error response from daemon: unable to find user nobodyx: no matching entries in passwd file{RUN_HELP}"));
    s.d("run --rm -u 0:nogroupx @bb true")
        .fails(125, &format!("docker: Error response from daemon: unable to find group nogroupx: no matching entries in group file{RUN_HELP}"));
}

fn names_are_unique(s: &Session) {
    let id = s.d("create --name @c @bb").ok().text();
    s.d("create --name @c @bb").fails(
        1,
        &format!("Error response from daemon: Conflict. The container name \"/@c\" is already in use by container \"{id}\". You have to remove (or rename) that container to be able to reuse that name.\n"),
    );
    s.d("run --name @c @bb").fails(
        125,
        &format!("docker: Error response from daemon: Conflict. The container name \"/@c\" is already in use by container \"{id}\". You have to remove (or rename) that container to be able to reuse that name.{RUN_HELP}"),
    );
}

fn a_name_is_chosen(s: &Session) {
    let id = s.d("create @bb").ok().text();
    s.d(&format!("inspect -f '{{{{.Name}}}}' {id}"))
        .such_that("two words", |text| {
            let words: Vec<&str> = text.trim().trim_start_matches('/').split('_').collect();
            words.len() == 2 && words.iter().all(|word| !word.is_empty())
        });
}

fn cidfile_holds_the_id(s: &Session) {
    let id = s
        .d("run -d --name @c --cidfile @dir/cid @bb sleep 1000")
        .ok()
        .text();
    assert_eq!(
        std::fs::read_to_string(s.dir().join("cid")).expect("a file"),
        id
    );
}

fn a_cidfile_that_exists_is_refused(s: &Session) {
    s.file("cid", "x");
    s.d("run --name @c --cidfile @dir/cid @bb true")
        .fails(125, &format!("docker: container ID file found, make sure the other container isn't running or delete @dir/cid{RUN_HELP}"));
}

fn rm_removes_after_the_end(s: &Session) {
    s.d("run --rm --name @c @bb true").ok();
    s.d("inspect @c").exits(1);
    s.d("run --rm -d --name @d @bb true").ok();
    gantry_testkit::wait::eventually("the container is gone", || s.d("inspect @d").code == 1);
}

fn detached_run_prints_the_id(s: &Session) {
    s.d("run -d --name @c @bb sleep 1000")
        .ok()
        .such_that("an id", |text| {
            text.len() == 65
                && text
                    .trim_end()
                    .chars()
                    .all(|character| character.is_ascii_hexdigit())
        });
    s.d("inspect -f '{{.State.Running}} {{.State.Pid}}' @c")
        .such_that("it runs", |text| {
            text.starts_with("true ") && text.trim() != "true 0"
        });
}

fn init_reaps_and_forwards(s: &Session) {
    s.d("run -d --init --name @c @bb sh -c 'trap \"exit 9\" TERM; echo up; while :; do sleep 0.05; done'").ok();
    s.until_logged("@c", "up");
    s.d("exec @c cat /proc/1/comm")
        .such_that("an init is the first", |text| text.contains("init"));
    s.d("exec @c sh -c '(sleep 0.1 &) ; exit 0'").ok();
    s.d("stop -t 20 @c").ok();
    s.d("inspect -f '{{.State.ExitCode}}' @c").prints("9\n");
}

fn create_then_start_attached(s: &Session) {
    s.d("create -i --name @c @bb sh -c 'cat; exit 7'").ok();
    s.d_with("start -ai @c", b"typed\n")
        .exits(7)
        .shows("typed\n");
    s.d("create --name @d @bb sh -c 'echo once'").ok();
    s.d("start -a @d").prints("once\n");
    s.d("start @d").prints("@d\n");
}

fn create_prints_the_id_and_starts_nothing(s: &Session) {
    s.d("create --name @c @bb true")
        .ok()
        .such_that("an id", |text| text.len() == 65);
    s.d("ps -a --filter name=@c --format '{{.Status}}'")
        .prints("Created\n");
}

fn label_file_and_labels(s: &Session) {
    // A name without a value counts on the command line alone.
    s.file("labels", "from.file=1\nboth=file\nno.value\n");
    s.d("create --name @c --label-file labels -l both=line -l bare @app")
        .ok();
    s.d("inspect -f '{{json .Config.Labels}}' @c")
        .ok()
        .such_that("all are there", |text| {
            let labels: serde_json::Value = serde_json::from_str(text).expect("JSON");
            labels["from.file"] == "1"
                && labels["both"] == "line"
                && labels["bare"] == ""
                && labels["no.value"].is_null()
                && labels["from.image"] == "yes"
        });
}

fn a_switched_off_out_of_memory_killer_is_warned_of(s: &Session) {
    let version_1 = s.d("info -f '{{.CgroupVersion}}'").ok().text() == "1";
    let words = if version_1 {
        "WARNING: OOM killer is disabled for the container, but no memory limit is set, this can result in the system running out of resources.\n"
    } else {
        "WARNING: Your kernel does not support OomKillDisable. OomKillDisable discarded.\n"
    };
    let warned = s.d("create --name @c --oom-kill-disable @bb").ok();
    assert_eq!(warned.stderr, words);
    s.d("inspect -f '{{json .HostConfig.OomKillDisable}}' @c")
        .prints(if version_1 { "true\n" } else { "null\n" });
}

fn quiet_container_ids_by_filters(s: &Session) {
    let one = s
        .d("run -d --name @one -l tier=a @bb sleep 1000")
        .ok()
        .text();
    let two = s.d("create --name @two -l tier=b @bb").ok().text();
    let check = |filter: &str, expected: &str| {
        s.d(&format!(
            "ps -aq --no-trunc --filter label=gantry.test=@prefix {filter}"
        ))
        .prints(expected);
    };
    check("", &format!("{two}\n{one}\n"));
    check("--filter status=running", &format!("{one}\n"));
    check("--filter status=created", &format!("{two}\n"));
    check("--filter label=tier", &format!("{two}\n{one}\n"));
    check("--filter label=tier=b", &format!("{two}\n"));
    check("--filter name=@one", &format!("{one}\n"));
    check(&format!("--filter id={}", &one[..12]), &format!("{one}\n"));
    check(
        "--filter ancestor=@bb --filter status=created",
        &format!("{two}\n"),
    );
    check("--filter before=@two", &format!("{one}\n"));
    check("--filter since=@one", &format!("{two}\n"));
    check("-n 1", &format!("{two}\n"));
    check("--filter exited=0", "");
}

fn stop_signal_and_timeout_are_kept(s: &Session) {
    s.d("create --name @c --stop-signal SIGINT --stop-timeout 3 @bb")
        .ok();
    s.d("inspect -f '{{.Config.StopSignal}} {{.Config.StopTimeout}}' @c")
        .prints("SIGINT 3\n");
}

fn a_sysctl_is_set(s: &Session) {
    s.d("run --rm --sysctl net.core.somaxconn=321 --sysctl kernel.msgmax=9000 @bb cat /proc/sys/net/core/somaxconn /proc/sys/kernel/msgmax")
        .prints("321\n9000\n");
    s.d("run --rm @bb cat /proc/sys/net/ipv4/ip_unprivileged_port_start /proc/sys/net/ipv4/ping_group_range").prints("0\n0\t2147483647\n");
}

fn ulimits_are_set(s: &Session) {
    s.d("run --rm --ulimit nofile=100:200 --ulimit core=0 @bb sh -c 'ulimit -Sn; ulimit -Hn; ulimit -c'").prints("100\n200\n0\n");
    s.d("run --rm --ulimit nofile=10:5 @bb true")
        .exits(125)
        .warns("ulimit soft limit must be less than or equal to hard limit: 10 > 5");
}

fn shared_memory_size(s: &Session) {
    s.d("run --rm @bb sh -c 'df -k /dev/shm | tail -1 | tr -s \" \" | cut -d\" \" -f2'")
        .prints("65536\n");
    s.d("run --rm --shm-size 10m @bb sh -c 'df -k /dev/shm | tail -1 | tr -s \" \" | cut -d\" \" -f2'").prints("10240\n");
}

fn read_only_root(s: &Session) {
    s.d("run --rm --read-only @bb touch /x")
        .exits(1)
        .warns("Read-only file system");
    s.d("run --rm --read-only --tmpfs /tmp -v @v:/data @bb sh -c 'touch /tmp/x /data/x /dev/shm/x && echo fine'").prints("fine\n");
}

fn home_is_set(s: &Session) {
    s.d("run --rm @bb sh -c 'echo $HOME'").prints("/root\n");
    s.d("run --rm -u user @bb sh -c 'echo $HOME'")
        .prints("/home\n");
    s.d("run --rm -u 4567 @bb sh -c 'echo $HOME'").prints("/\n");
    s.d("run --rm -u user -e HOME=/x @bb sh -c 'echo $HOME'")
        .prints("/x\n");
}

fn term_is_set_with_a_terminal(s: &Session) {
    s.d("run --rm @bb sh -c 'echo ${TERM-none}'")
        .prints("none\n");
    s.d("run --rm -t @bb sh -c 'echo $TERM'")
        .prints("xterm\r\n");
}

fn two_at_once(s: &Session) {
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..6)
            .map(|number| {
                scope.spawn(move || {
                    s.d(&format!(
                        "run --rm @bb sh -c 'echo {number}; exit {number}'"
                    ))
                    .exits(number)
                    .text()
                })
            })
            .collect();
        for (number, thread) in threads.into_iter().enumerate() {
            assert_eq!(thread.join().expect("a thread"), number.to_string());
        }
    });
}

fn attach_streams_can_be_chosen(s: &Session) {
    let outcome = s
        .d("run --rm -a stderr @bb sh -c 'echo out; echo err >&2'")
        .ok();
    assert_eq!(
        (outcome.stdout.as_str(), outcome.stderr.as_str()),
        ("", "err\n")
    );
    s.d("run --rm -d -a stdout @bb true").fails(
        1,
        "conflicting options: cannot specify both --attach and --detach\n",
    );
}

fn platform_of_this_machine(s: &Session) {
    s.d("run --rm --platform linux/amd64 @bb uname -m")
        .prints("x86_64\n");
    s.d("run --rm --pull never --platform linux/s390x @bb uname -m").exits(125).warns("image with reference @bb was found but its platform (linux/amd64) does not match the specified platform (linux/s390x)");
}

fn annotations_are_kept(s: &Session) {
    s.d("create --name @c --annotation one=1 @bb").ok();
    s.d("inspect -f '{{json .HostConfig.Annotations}}' @c")
        .prints("{\"one\":\"1\"}\n");
}

fn a_proxy_of_the_configuration_is_handed_in(s: &Session) {
    std::fs::create_dir_all(s.dir().join(".docker")).expect("a directory");
    s.file(
        ".docker/config.json",
        r#"{"proxies":{"default":{"httpProxy":"http://proxy.test:3128","noProxy":"localhost"}}}"#,
    );
    s.d("run --rm @bb env")
        .ok()
        .shows("HTTP_PROXY=http://proxy.test:3128\n")
        .shows("http_proxy=http://proxy.test:3128\n")
        .shows("no_proxy=localhost\n");
}

fn large_output_is_complete(s: &Session) {
    let outcome = s.d("run --rm @bb seq 1 300000").ok();
    assert_eq!(outcome.stdout.lines().count(), 300_000);
    assert!(outcome.stdout.ends_with("299999\n300000\n"));
}
