//! Start, stop, kill, restart, pause, rename, wait, update, remove, and restart policies.

use std::time::{Duration, Instant};

use gantry_testkit::session::Session;
use gantry_testkit::wait::{eventually, eventually_within};

gantry_testkit::scenarios![
    stop_sends_the_signal_and_waits,
    stop_kills_after_the_timeout,
    stop_of_a_stopped_container_is_a_no_op,
    stop_with_another_signal,
    kill_sends_any_signal,
    kill_of_a_stopped_container_is_an_error,
    restart_makes_a_new_process,
    start_of_a_running_container_is_a_no_op,
    a_container_can_be_started_again,
    pause_freezes_and_unpause_thaws,
    rename_keeps_the_container,
    wait_gives_the_code,
    wait_for_several,
    rm_of_a_running_container_needs_force,
    rm_of_several_goes_on_after_an_error,
    on_failure_stops_after_the_count,
    on_failure_does_not_restart_success,
    always_restarts_success,
    a_stop_ends_the_restarting,
    update_changes_limits_and_policy,
    a_memory_limit_brings_one_of_swap,
    the_out_of_memory_kill_is_reported,
    a_fork_bomb_is_held,
    times_are_truthful,
    a_writable_layer_survives_restart,
    attach_gives_the_exit_code,
    a_signal_to_the_client_reaches_the_process,
    auto_removal_and_policy_exclude_each_other,
];

fn stop_sends_the_signal_and_waits(s: &Session) {
    s.d("run -d --name @c @bb sh -c 'trap \"echo bye; exit 5\" TERM; echo up; while :; do sleep 0.02; done'").ok();
    s.until_logged("@c", "up");
    s.d("stop @c").prints("@c\n");
    s.d("inspect -f '{{.State.Status}} {{.State.ExitCode}}' @c")
        .prints("exited 5\n");
    s.d("logs @c").prints("up\nbye\n");
}

fn stop_kills_after_the_timeout(s: &Session) {
    s.d("run -d --name @c @bb sh -c 'trap \"\" TERM; echo up; while :; do sleep 0.02; done'")
        .ok();
    s.until_logged("@c", "up");
    let begin = Instant::now();
    s.d("stop -t 1 @c").prints("@c\n");
    assert!(
        begin.elapsed() >= Duration::from_secs(1) && begin.elapsed() < Duration::from_secs(8),
        "{:?}",
        begin.elapsed()
    );
    s.d("inspect -f '{{.State.ExitCode}} {{.State.OOMKilled}}' @c")
        .prints("137 false\n");
}

fn stop_of_a_stopped_container_is_a_no_op(s: &Session) {
    s.d("create --name @c @bb true").ok();
    s.d("stop @c").prints("@c\n");
    let name = s.x("@c");
    assert_eq!(
        s.engine
            .api("POST", &format!("/containers/{name}/stop"), None)
            .status,
        304
    );
}

fn stop_with_another_signal(s: &Session) {
    s.d("run -d --name @c @bb sh -c 'trap \"exit 8\" USR2; echo up; while :; do sleep 0.02; done'")
        .ok();
    s.until_logged("@c", "up");
    s.d("stop -s SIGUSR2 @c").ok();
    s.d("inspect -f '{{.State.ExitCode}}' @c").prints("8\n");
}

fn kill_sends_any_signal(s: &Session) {
    s.d("run -d --name @c @bb sh -c 'trap \"echo got it\" USR1; echo up; while :; do sleep 0.02; done'").ok();
    s.until_logged("@c", "up");
    s.d("kill -s USR1 @c").prints("@c\n");
    s.until_logged("@c", "got it");
    s.d("inspect -f '{{.State.Running}}' @c").prints("true\n");
    s.d("kill @c").prints("@c\n");
    s.until_status("@c", "exited");
    s.d("inspect -f '{{.State.ExitCode}}' @c").prints("137\n");
}

fn kill_of_a_stopped_container_is_an_error(s: &Session) {
    let id = s.d("create --name @c @bb true").ok().text();
    s.d("kill @c").fails(
        1,
        &format!(
            "Error response from daemon: cannot kill container: @c: container {id} is not running\n"
        ),
    );
    s.d("run -d --name @d @bb sleep 1000").ok();
    s.d("kill -s NOSUCH @d").fails(
        1,
        "Error response from daemon: cannot kill container: @d: invalid signal: NOSUCH\n",
    );
}

fn restart_makes_a_new_process(s: &Session) {
    s.d("run -d --name @c @bb sh -c 'trap \"exit 0\" TERM; while :; do sleep 0.02; done'")
        .ok();
    let pid = |s: &Session| s.inspect("@c")["State"]["Pid"].as_i64().expect("a pid");
    let before = pid(s);
    s.d("restart -t 5 @c").prints("@c\n");
    assert_ne!(before, pid(s));
    s.d("inspect -f '{{.State.Running}} {{.RestartCount}}' @c")
        .prints("true 0\n");
    s.d("create --name @d @bb sleep 1000").ok();
    s.d("restart @d").ok();
    s.d("inspect -f '{{.State.Running}}' @d").prints("true\n");
}

fn start_of_a_running_container_is_a_no_op(s: &Session) {
    s.d("run -d --name @c @bb sleep 1000").ok();
    s.d("start @c").prints("@c\n");
    let name = s.x("@c");
    assert_eq!(
        s.engine
            .api("POST", &format!("/containers/{name}/start"), None)
            .status,
        304
    );
}

fn a_container_can_be_started_again(s: &Session) {
    s.d("run --name @c @bb sh -c 'echo run >> /count; wc -l < /count'")
        .prints("1\n");
    s.d("start -a @c").prints("2\n");
    s.d("start -a @c").prints("3\n");
    s.d("logs @c").prints("1\n2\n3\n");
}

fn pause_freezes_and_unpause_thaws(s: &Session) {
    s.d("run -d --name @c @bb sh -c 'i=0; while :; do i=$((i+1)); echo $i > /n; done'")
        .ok();
    s.d("pause @c").prints("@c\n");
    s.d("inspect -f '{{.State.Status}} {{.State.Running}} {{.State.Paused}}' @c")
        .prints("paused true true\n");
    s.d("ps --filter name=@c --format '{{.Status}}'")
        .such_that("it says so", |text| text.trim().ends_with("(Paused)"));
    s.d("pause @c")
        .fails_with(1, "Error response from daemon: Container ");
    s.d("pause @c").fails_with(1, " is already paused\n");
    s.d("unpause @c").prints("@c\n");
    s.d("unpause @c").fails_with(1, "is not paused");
    s.d("exec @c true").ok();
    s.d("pause @c").ok();
    s.d("stop -t 1 @c").ok();
    s.d("inspect -f '{{.State.Status}}' @c").prints("exited\n");
}

fn rename_keeps_the_container(s: &Session) {
    let id = s.d("run -d --name @old @bb sleep 1000").ok().text();
    s.d("rename @old @new").prints("");
    s.d("inspect -f '{{.Id}} {{.Name}}' @new")
        .prints(&format!("{id} /@new\n"));
    s.d("inspect @old").exits(1);
    s.d("create --name @other @bb").ok();
    s.d("rename @new @other")
        .fails_with(1, "is already in use by container");
    s.d("rename @new '!'").fails_with(1, "Error when allocating new name: Invalid container name (/!), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed\nError: failed to rename container named @new\n");
    s.d("create --name @old @bb").ok();
}

fn wait_gives_the_code(s: &Session) {
    s.d("run -d --name @c @bb sh -c 'sleep 0.3; exit 11'").ok();
    s.d("wait @c").prints("11\n");
    s.d("wait @c").prints("11\n");
    s.d("wait @none")
        .fails(1, "Error response from daemon: No such container: @none\n");
}

fn wait_for_several(s: &Session) {
    s.d("run -d --name @a @bb sh -c 'exit 1'").ok();
    s.d("run -d --name @b @bb sh -c 'sleep 0.2; exit 2'").ok();
    s.d("wait @a @b").prints("1\n2\n");
}

fn rm_of_a_running_container_needs_force(s: &Session) {
    let id = s.d("run -d --name @c @bb sleep 1000").ok().text();
    s.d("rm @c").fails(1, "Error response from daemon: cannot remove container \"@c\": container is running: stop the container before removing or force remove\n");
    s.d("rm -f @c").prints("@c\n");
    s.d(&format!("inspect {id}")).exits(1);
    s.d("rm -f @c")
        .fails(0, "Error response from daemon: No such container: @c\n");
}

fn rm_of_several_goes_on_after_an_error(s: &Session) {
    s.d("create --name @a @bb").ok();
    s.d("create --name @b @bb").ok();
    let outcome = s.d("rm @a @none @b").exits(1);
    assert_eq!(outcome.stdout, s.x("@a\n@b\n"));
    assert_eq!(
        outcome.stderr,
        s.x("Error response from daemon: No such container: @none\n")
    );
}

fn on_failure_stops_after_the_count(s: &Session) {
    s.d("run -d --name @c --restart on-failure:3 @bb sh -c 'echo try; exit 6'")
        .ok();
    eventually_within(Duration::from_secs(30), "three restarts", || {
        let state = s.inspect("@c");
        (state["RestartCount"] == 3 && state["State"]["Status"] == "exited").then_some(())
    });
    s.d("logs @c").prints("try\ntry\ntry\ntry\n");
    s.d("inspect -f '{{.State.ExitCode}}' @c").prints("6\n");
}

fn on_failure_does_not_restart_success(s: &Session) {
    s.d("run -d --name @c --restart on-failure @bb true").ok();
    s.until_status("@c", "exited");
    std::thread::sleep(Duration::from_millis(400));
    s.d("inspect -f '{{.State.Status}} {{.RestartCount}}' @c")
        .prints("exited 0\n");
}

fn always_restarts_success(s: &Session) {
    s.d("run -d --name @c --restart always @bb sh -c 'echo try'")
        .ok();
    eventually("a restart", || {
        s.inspect("@c")["RestartCount"].as_i64() >= Some(2)
    });
    s.d("stop -t 1 @c").ok();
}

fn a_stop_ends_the_restarting(s: &Session) {
    s.d("run -d --name @c --restart always @bb sh -c 'exit 1'")
        .ok();
    eventually("a restart", || {
        s.inspect("@c")["RestartCount"].as_i64() >= Some(2)
    });
    s.d("stop -t 1 @c").ok();
    let count = s.inspect("@c")["RestartCount"].clone();
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(s.inspect("@c")["RestartCount"], count);
    s.d("inspect -f '{{.State.Status}}' @c").prints("exited\n");
}

fn update_changes_limits_and_policy(s: &Session) {
    s.d("run -d --name @c --memory 64m @bb sleep 1000").ok();
    s.d("update --memory 128m --memory-swap 128m --cpus 0.5 --pids-limit 50 --restart on-failure:2 @c").prints("@c\n");
    s.d("inspect -f '{{.HostConfig.Memory}} {{.HostConfig.NanoCpus}} {{.HostConfig.PidsLimit}} {{.HostConfig.RestartPolicy.Name}} {{.HostConfig.RestartPolicy.MaximumRetryCount}}' @c")
        .prints("134217728 500000000 50 on-failure 2\n");
    s.d("exec @c sh -c 'cat /sys/fs/cgroup/memory/memory.limit_in_bytes 2>/dev/null || cat /sys/fs/cgroup/memory.max'").prints("134217728\n");
    s.d("exec @c sh -c 'cat /sys/fs/cgroup/pids/pids.max 2>/dev/null || cat /sys/fs/cgroup/pids.max'").prints("50\n");
}

fn a_memory_limit_brings_one_of_swap(s: &Session) {
    let limits = |name: &str, expected: &str| {
        s.d(&format!(
            "inspect -f '{{{{.HostConfig.Memory}}}} {{{{.HostConfig.MemorySwap}}}}' {name}"
        ))
        .prints(expected);
    };
    const REFUSED: &str = "Memory limit should be smaller than already set memoryswap limit, update the memoryswap at the same time\n";
    s.d("run -d --name @limited -m 64m @bb sleep 1000").ok();
    limits("@limited", "67108864 134217728\n");
    s.d("update --memory 100m @limited").prints("@limited\n");
    limits("@limited", "104857600 134217728\n");
    s.d("update --memory 200m @limited").fails_with(1, REFUSED);
    s.d("update --memory 200m --memory-swap 300m @limited")
        .prints("@limited\n");
    limits("@limited", "209715200 314572800\n");
    s.d("run -d --name @free @bb sleep 1000").ok();
    limits("@free", "0 0\n");
    s.d("update --memory 64m @free").fails_with(1, REFUSED);
}

fn the_out_of_memory_kill_is_reported(s: &Session) {
    s.d("run --name @c --memory 16m --memory-swap 16m @deb python3 -c 'x = bytearray(200000000); print(len(x))'").exits(137);
    s.d("inspect -f '{{.State.OOMKilled}} {{.State.ExitCode}}' @c")
        .prints("true 137\n");
    s.d("start -a @c").exits(137);
}

fn a_fork_bomb_is_held(s: &Session) {
    s.d("run --rm --pids-limit 10 @bb sh -c 'for i in 1 2 3 4 5 6 7 8 9 10 11 12 13; do sleep 5 & done; echo all'").warns("can't fork");
}

fn times_are_truthful(s: &Session) {
    s.d("run --name @c @bb sleep 0.5").ok();
    let state = &s.inspect("@c")["State"];
    let second = |value: &serde_json::Value| -> f64 {
        let text = value.as_str().expect("a time");
        let clock = text.split(['T', 'Z']).nth(1).expect("a time of day");
        clock.split(':').fold(0.0, |sum, part| {
            sum * 60.0 + part.parse::<f64>().expect("a number")
        })
    };
    let ran = (second(&state["FinishedAt"]) - second(&state["StartedAt"])).rem_euclid(86_400.0);
    assert!((0.45..3.0).contains(&ran), "{ran} {state}");
}

fn a_writable_layer_survives_restart(s: &Session) {
    s.d("run -d --name @c @bb sleep 1000").ok();
    s.d("exec @c sh -c 'echo mine > /etc/mine'").ok();
    s.d("restart -t 0 @c").ok();
    s.d("exec @c cat /etc/mine").prints("mine\n");
}

fn attach_gives_the_exit_code(s: &Session) {
    // Long enough for the client to start on an emulated machine.
    s.d("run -d --name @c @bb sh -c 'sleep 3; echo said; exit 12'")
        .ok();
    s.d("attach --no-stdin @c").exits(12).shows("said\n");
    s.d("attach @c").fails(
        1,
        "You cannot attach to a stopped container, start it first\n",
    );
}

fn a_signal_to_the_client_reaches_the_process(s: &Session) {
    let mut client = s.background("run", "run --rm --name @c @bb sh -c 'trap \"echo caught; exit 21\" TERM; echo up; while :; do sleep 0.02; done'");
    client.until_shows("up");
    client.signal(rustix::process::Signal::TERM);
    assert_eq!(client.wait(), 21);
    assert_eq!(client.stdout(), "up\ncaught\n");
}

fn auto_removal_and_policy_exclude_each_other(s: &Session) {
    s.d("run --rm --restart always @bb true").fails(125, "docker: conflicting options: cannot specify both --restart and --rm\n\nRun 'docker run --help' for more information\n");
}
