//! Flags that no other group has a use for: each by its effect.

use gantry_testkit::session::Session;
use gantry_testkit::wait::eventually;
use rustix::process::Signal;

gantry_testkit::scenarios![
    a_block_device_is_throttled,
    block_weights_hold_or_are_discarded_aloud,
    rarer_limits_are_seen_in_the_cgroup,
    rarer_limits_are_updated,
    the_parent_of_the_cgroup_is_chosen,
    the_stop_signal_and_its_timeout_hold,
    a_runtime_is_chosen_by_name,
    a_volume_driver_is_chosen_by_name,
    values_that_change_nothing_are_taken,
    signals_stay_with_the_client,
    detach_keys_everywhere,
    the_newest_containers,
    sizes_by_inspect,
    a_restart_with_another_signal,
    a_link_is_removed,
    statistics_of_all,
    images_in_other_forms,
    images_of_one_platform,
    images_are_pruned_and_kept,
    networks_in_other_forms,
    everything_is_pruned_by_label,
    cluster_volumes_are_none,
    the_clients_own_flags,
    the_daemon_is_chosen,
    contexts_are_kept,
    what_takes_a_context_to_another_machine_is_refused,
];

/// Prints a file of the container's own cgroup, of either version.
fn cgroup_file(v1: &str, v2: &str) -> String {
    format!("sh -c 'cat /sys/fs/cgroup/{v1} 2>/dev/null || cat /sys/fs/cgroup/{v2}'")
}

/// A disk of this machine, by its device file and its numbers.
fn disk() -> Option<(String, String)> {
    let disks = std::fs::read_dir("/sys/block").ok()?;
    disks.flatten().find_map(|entry| {
        let name = entry.file_name().into_string().ok()?;
        let numbers = std::fs::read_to_string(entry.path().join("dev")).ok()?;
        let device = format!("/dev/{name}");
        let real = !name.starts_with("loop") && !name.starts_with("ram");
        (real && std::path::Path::new(&device).exists())
            .then(|| (device, numbers.trim().to_owned()))
    })
}

fn a_block_device_is_throttled(s: &Session) {
    let Some((device, numbers)) = disk() else {
        println!("skipped: this machine has no disk");
        return;
    };
    for (flag, value, file, number) in [
        ("--device-read-bps", "1mb", "read_bps_device", "1048576"),
        ("--device-write-bps", "2mb", "write_bps_device", "2097152"),
        ("--device-read-iops", "300", "read_iops_device", "300"),
        ("--device-write-iops", "400", "write_iops_device", "400"),
    ] {
        let cat = cgroup_file(&format!("blkio/blkio.throttle.{file}"), "io.max");
        s.d(&format!("run --rm {flag} {device}:{value} @bb {cat}"))
            .ok()
            .shows(&numbers)
            .shows(number);
    }
}

fn block_weights_hold_or_are_discarded_aloud(s: &Session) {
    let mut options = vec![("--blkio-weight 300".to_owned(), "Weight discarded.")];
    if let Some((device, _)) = disk() {
        let option = format!("--blkio-weight-device {device}:300");
        options.push((option, "Weight-device discarded."));
    }
    for (option, words) in options {
        let cat = "sh -c 'cat /sys/fs/cgroup/blkio/blkio.*weight* /sys/fs/cgroup/io.*weight 2>/dev/null; true'";
        let outcome = s.d(&format!("run --rm {option} @bb {cat}")).ok();
        if !outcome.stderr.contains(words) {
            outcome.shows("300");
        }
    }
    s.d("run -d --name @c @bb sleep 1000").ok();
    let outcome = s.d("update --blkio-weight 300 @c").ok();
    if !outcome.stdout.contains("Weight discarded.") {
        assert_eq!(s.inspect("@c")["HostConfig"]["BlkioWeight"], 300);
    }
}

fn rarer_limits_are_seen_in_the_cgroup(s: &Session) {
    let check = |options: &str, v1: &str, v2: &str, expected: &str| {
        let outcome = s.d(&format!("run --rm {options} @bb {}", cgroup_file(v1, v2)));
        // The kernel or its version of cgroups may not have it: then it is told.
        if outcome.stderr.is_empty() {
            outcome.ok().shows(expected);
        } else {
            outcome.warns("ernel does not support");
        }
    };
    check("--cpuset-mems 0", "cpuset/cpuset.mems", "cpuset.mems", "0");
    check(
        "--cpu-rt-period 900000",
        "cpu/cpu.rt_period_us",
        "cpu.max",
        "900000",
    );
    check(
        "--memory 32m --memory-swappiness 7",
        "memory/memory.swappiness",
        "none",
        "7",
    );
    check(
        "--memory 32m --oom-kill-disable",
        "memory/memory.oom_control",
        "none",
        "oom_kill_disable 1",
    );
    // No group above gives a part of the real time on.
    s.d("run --rm --cpu-rt-runtime 1000 @bb true").exits(125);
}

fn rarer_limits_are_updated(s: &Session) {
    s.d("run -d --name @c --memory 64m @bb sleep 1000").ok();
    s.d("update --cpu-period 50000 --cpu-quota 20000 --cpuset-cpus 0 --cpuset-mems 0 --memory-reservation 32m @c")
        .prints("@c\n");
    for (v1, v2, expected) in [
        ("cpu/cpu.cfs_period_us", "cpu.max", "50000"),
        ("cpu/cpu.cfs_quota_us", "cpu.max", "20000"),
        ("cpuset/cpuset.cpus", "cpuset.cpus", "0"),
        ("cpuset/cpuset.mems", "cpuset.mems", "0"),
        (
            "memory/memory.soft_limit_in_bytes",
            "memory.low",
            "33554432",
        ),
    ] {
        s.d(&format!("exec @c {}", cgroup_file(v1, v2)))
            .ok()
            .shows(expected);
    }
    // The reference notes a period of real time and does not set it.
    if std::path::Path::new("/sys/fs/cgroup/cpu/cpu.rt_period_us").exists()
        && !s.engine.is_reference()
    {
        s.d("update --cpu-rt-period 900000 @c").ok();
        s.d("exec @c cat /sys/fs/cgroup/cpu/cpu.rt_period_us")
            .prints("900000\n");
        s.d("update --cpu-rt-runtime 1000 @c").exits(1);
    }
}

fn the_parent_of_the_cgroup_is_chosen(s: &Session) {
    s.d("run --rm --cgroup-parent /@parent --cgroupns host @bb cat /proc/self/cgroup")
        .ok()
        .shows("/@parent/");
}

fn the_stop_signal_and_its_timeout_hold(s: &Session) {
    s.d("run -d --name @c --stop-signal USR1 @bb sh -c 'trap \"exit 9\" USR1; echo up; while :; do sleep 0.02; done'")
        .ok();
    s.until_logged("@c", "up");
    s.d("stop @c").ok();
    assert_eq!(s.inspect("@c")["State"]["ExitCode"], 9);
    s.d("run -d --name @d --stop-timeout 1 @bb sh -c 'trap \"\" TERM; echo up; while :; do sleep 0.02; done'")
        .ok();
    s.until_logged("@d", "up");
    let begin = std::time::Instant::now();
    s.d("stop @d").ok();
    assert!(begin.elapsed().as_secs() < 8, "{:?}", begin.elapsed());
    assert_eq!(s.inspect("@d")["State"]["ExitCode"], 137);
}

fn a_runtime_is_chosen_by_name(s: &Session) {
    let own = s.d("info -f '{{.DefaultRuntime}}'").ok().text();
    s.d(&format!("run --rm --runtime {own} @bb echo ran"))
        .prints("ran\n");
    s.d("run --rm --runtime nosuch @bb true")
        .exits(125)
        .warns("nosuch");
}

fn a_volume_driver_is_chosen_by_name(s: &Session) {
    s.d("run --rm --volume-driver local -v @v:/v @bb touch /v/x")
        .ok();
    s.d("volume inspect -f '{{.Driver}}' @v").prints("local\n");
    let outcome = s.d("create --pull never --volume-driver nosuch -v @w:/v @bb");
    outcome.exits(1).warns("nosuch");
}

fn values_that_change_nothing_are_taken(s: &Session) {
    s.d("run --rm --userns host --isolation default --no-healthcheck --disable-content-trust -q @bb echo ran")
        .prints("ran\n");
    s.d("run --rm --security-opt apparmor=unconfined --security-opt label=disable @bb echo ran")
        .prints("ran\n");
    s.d("create --name @c --no-healthcheck @bb").ok();
    s.d("inspect -f '{{.Config.Healthcheck.Test}}' @c")
        .prints("[NONE]\n");
    s.file("f", "bound\n");
    for consistency in ["consistent", "cached", "delegated"] {
        s.d(&format!("run --rm --mount type=bind,src=@dir,dst=/m,consistency={consistency} -v @dir:/n:{consistency} @bb cat /m/f /n/f"))
            .prints("bound\nbound\n");
    }
}

fn signals_stay_with_the_client(s: &Session) {
    let script = "sh -c 'trap \"echo caught\" TERM; echo up; while :; do sleep 0.02; done'";
    let run = s.background(
        "run",
        &format!("run --sig-proxy=false --name @c @bb {script}"),
    );
    run.until_shows("up");
    run.signal(Signal::TERM);
    let attach = s.background("attach", "attach --no-stdin --sig-proxy=false @c");
    std::thread::sleep(std::time::Duration::from_millis(500));
    attach.signal(Signal::TERM);
    std::thread::sleep(std::time::Duration::from_millis(500));
    s.d("logs @c").prints("up\n");
    s.d("inspect -f '{{.State.Running}}' @c").prints("true\n");
}

fn detach_keys_everywhere(s: &Session) {
    s.d("run -dit --name @c @bb cat").ok();
    let mut exec = s.terminal("exec -it --detach-keys ctrl-a,x @c cat");
    exec.send(b"in exec\n");
    exec.expect("in exec");
    exec.send(b"\x01x");
    exec.wait();
    let mut attach = s.terminal("attach --detach-keys ctrl-a,x @c");
    attach.send(b"attached\n");
    attach.expect("attached");
    attach.send(b"\x01x");
    attach.wait();
    s.d("inspect -f '{{.State.Running}}' @c").prints("true\n");
    s.d("create -it --name @d @bb cat").ok();
    let mut start = s.terminal("start -ai --detach-keys ctrl-a,x @d");
    start.send(b"started\n");
    start.expect("started");
    start.send(b"\x01x");
    start.wait();
    s.d("inspect -f '{{.State.Running}}' @d").prints("true\n");
}

fn the_newest_containers(s: &Session) {
    let ids: Vec<String> = (0..3).map(|_| s.d("create @bb").ok().text()).collect();
    let own = "-q --no-trunc --filter label=gantry.test=@prefix";
    s.d(&format!("ps --last 2 {own}"))
        .prints(&format!("{}\n{}\n", ids[2], ids[1]));
    s.d(&format!("ps --latest {own}"))
        .prints(&format!("{}\n", ids[2]));
}

fn sizes_by_inspect(s: &Session) {
    s.d("run --name @c @bb sh -c 'head -c 5000 /dev/zero > /f'")
        .ok();
    s.d("inspect --size -f '{{.SizeRw}}' @c").prints("5000\n");
    s.d("container inspect --size -f '{{.SizeRw}}' @c")
        .prints("5000\n");
}

fn a_restart_with_another_signal(s: &Session) {
    s.d("run -d --name @c @bb sh -c 'trap \"echo usr; exit 0\" USR2; echo up; while :; do sleep 0.02; done'")
        .ok();
    s.until_logged("@c", "up");
    s.d("restart --signal USR2 @c").prints("@c\n");
    s.d("logs @c").ok().shows("usr\n");
}

fn a_link_is_removed(s: &Session) {
    s.d("run -d --name @db @bb sleep 1000").ok();
    s.d("run -d --name @front --link @db:store @bb sleep 1000")
        .ok();
    s.d("exec @front grep -c store /etc/hosts").ok();
    s.d("rm --link @front/store").prints("@front/store\n");
    s.d("inspect -f '{{.HostConfig.Links}}' @front")
        .prints("[]\n");
    s.d("rm --link @front/store").exits(1);
}

fn statistics_of_all(s: &Session) {
    let id = s.d("create --name @c @bb").ok().text();
    let row = s.x(&format!("{id} @c\n"));
    // A container of another scenario that ends meanwhile fails the whole command.
    eventually("the stopped container has a row", || {
        s.d("stats --all --no-stream --no-trunc --format '{{.ID}} {{.Name}}'")
            .stdout
            .contains(&row)
    });
    s.d("stats --no-stream --format '{{.Name}}'").hides("@c\n");
}

fn images_in_other_forms(s: &Session) {
    s.d("images --all --format '{{.Repository}}:{{.Tag}}'")
        .ok()
        .shows("@bb\n");
    s.d("images --digests @bb")
        .ok()
        .such_that("a column more", |text| text.contains("DIGEST"));
    let id = s.d("images -q @bb").ok().text();
    s.d("images --tree @bb")
        .ok()
        .shows("DISK USAGE")
        .shows("localhost/test/busybox:1")
        .shows(&id);
}

fn images_of_one_platform(s: &Session) {
    let refused = "was found but its platform (linux/amd64) does not match the specified platform (linux/s390x)";
    for verb in ["image inspect", "history"] {
        s.d(&format!("{verb} --platform linux/amd64 @bb")).ok();
        s.d(&format!("{verb} --platform linux/s390x @bb"))
            .exits(1)
            .warns(refused);
    }
    s.d("save --platform linux/amd64 -o one.tar @bb").ok();
    s.d("save --platform linux/s390x -o two.tar @bb")
        .exits(1)
        .warns("linux/s390x");
    s.d("load --platform linux/amd64 -i one.tar")
        .prints("Loaded image: @bb\n");
    s.d("load --platform linux/s390x -i one.tar")
        .hides("Loaded image");
    let tar = std::process::Command::new("sh")
        .current_dir(s.dir())
        .args(["-c", "echo x > f; tar -cf t.tar f"])
        .status()
        .expect("tar");
    assert!(tar.success());
    s.d("import --platform linux/s390x t.tar @i:1").ok();
    s.d("image inspect -f '{{.Architecture}}' @i:1")
        .prints("s390x\n");
}

fn images_are_pruned_and_kept(s: &Session) {
    std::fs::write(s.dir().join("one"), s.x("@prefix")).expect("a file");
    let tar = std::process::Command::new("tar")
        .current_dir(s.dir())
        .args(["-cf", "one.tar", "one"])
        .status()
        .expect("tar");
    assert!(tar.success());
    let id = s
        .d("import -c 'LABEL gone=@prefix' one.tar @i:1")
        .ok()
        .text();
    s.d("image prune -f --filter label=gone=@prefix")
        .ok()
        .hides(&id);
    s.d("image prune --all -f --filter label=gone=@prefix")
        .ok()
        .shows("untagged: @i:1\n")
        .shows(&format!("deleted: {id}\n"));
    let id = s
        .d("import -c 'LABEL gone=@prefix' one.tar @i:2")
        .ok()
        .text();
    s.d("rmi --no-prune @i:2")
        .ok()
        .shows(&format!("Untagged: @i:2\nDeleted: {id}\n"));
}

fn networks_in_other_forms(s: &Session) {
    let plain = s.d("network inspect bridge").ok().json()[0]["Id"].clone();
    let verbose = s.d("network inspect --verbose bridge").ok().json()[0]["Id"].clone();
    assert_eq!(plain, verbose);
    let long = s
        .d("network ls --no-trunc --quiet --filter name=bridge")
        .ok()
        .stdout;
    assert!(
        long.lines().any(|line| Some(line) == plain.as_str()),
        "{long}"
    );
    s.d("network prune --force --filter label=@prefix")
        .prints("");
    s.d("network rm --force @none").ok();
    s.d("network rm @none").exits(1).warns("not found");
}

fn everything_is_pruned_by_label(s: &Session) {
    s.d("create --name @c @bb").ok();
    s.d("volume create --label gantry.test=@prefix").ok();
    s.d("volume create --label gantry.test=@prefix @kept").ok();
    let volumes = "volume ls -q --filter label=gantry.test=@prefix";
    s.d("system prune --force --filter label=gantry.test=@prefix")
        .ok()
        .shows("Deleted Containers:");
    s.d(volumes)
        .such_that("both are there", |text| text.lines().count() == 2);
    s.d("system prune --all --volumes --force --filter label=gantry.test=@prefix")
        .ok()
        .shows("Deleted Volumes:");
    s.d(volumes).prints("@kept\n");
}

fn cluster_volumes_are_none(s: &Session) {
    s.d("volume ls --cluster")
        .prints("VOLUME NAME   GROUP     DRIVER    AVAILABILITY   STATUS\n");
}

fn the_clients_own_flags(s: &Session) {
    s.d("--debug info")
        .ok()
        .such_that("the client says so", |text| {
            text.lines().any(|line| line == " Debug Mode: true")
        });
    s.d("--log-level error ps -q --filter name=@none")
        .prints("");
    s.d("--log-level loud ps")
        .fails(1, "Unable to parse logging level: loud\n");
    if s.client == gantry_testkit::session::Client::Gantry {
        for flags in ["--debug", "--log-level debug"] {
            s.d(&format!("{flags} ps -q --filter name=@none"))
                .ok()
                .warns("level=debug msg=\"context default, daemon unix://");
        }
    }
    std::fs::create_dir_all(s.dir().join("other")).expect("a directory");
    s.file("other/config.json", r#"{"psFormat":"named {{.Names}}"}"#);
    s.d("create --name @c @bb").ok();
    s.d("--config other ps -a --filter name=@c")
        .prints("named @c\n");
    s.d("--version").ok();
}

fn the_daemon_is_chosen(s: &Session) {
    let host = format!("unix://{}", s.engine.socket.display());
    s.d_without_host(&format!("--host {host} ps -q --filter name=@none"))
        .prints("");
    s.d_without_host("--host unix:///nosuch.sock ps")
        .exits(1)
        .warns("unix:///nosuch.sock");
    s.d_without_host(&format!("context create @other --docker host={host}"))
        .ok();
    s.d_without_host("--context @other ps -q --filter name=@none")
        .prints("");
    s.d_without_host("--context @none ps")
        .exits(1)
        .warns("context \"@none\"");
    s.d("--context @other ps").fails(
        1,
        "conflicting options: cannot specify both --host and --context\n",
    );
}

fn contexts_are_kept(s: &Session) {
    let d = |line: &str| s.d_without_host(line);
    d("context show").prints("default\n");
    d("context create @one --description 'the first' --docker host=unix:///one.sock")
        .ok()
        .shows("@one\n");
    d("context create @two --from @one").ok();
    for name in ["@one", "@two"] {
        let context = &d(&format!("context inspect {name}")).ok().json()[0];
        assert_eq!(context["Metadata"]["Description"], "the first");
        assert_eq!(context["Endpoints"]["docker"]["Host"], "unix:///one.sock");
    }
    d("context inspect --format '{{.Name}}' @one").prints("@one\n");
    d("context update @two --description other --docker host=unix:///two.sock").ok();
    d("context ls --format '{{.Name}} {{.Description}} {{.DockerEndpoint}}'")
        .ok()
        .shows("@one the first unix:///one.sock\n")
        .shows("@two other unix:///two.sock\n");
    d("context use @two").ok();
    d("context show").prints("@two\n");
    d("context rm @two").exits(1);
    d("context rm --force @two").prints("@two\n");
    d("context use default").ok();
    d("context ls --quiet").prints("default\n@one\n");
    d("context rm @one").prints("@one\n");
}

fn what_takes_a_context_to_another_machine_is_refused(s: &Session) {
    if s.client == gantry_testkit::session::Client::Gantry {
        s.d_without_host("context export default out.tar")
            .exits(1)
            .warns("'docker context export' is not supported yet");
        s.d_without_host("context import @x in.tar")
            .exits(1)
            .warns("'docker context import' is not supported yet");
    }
}
