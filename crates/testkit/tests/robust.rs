//! What the engine does when the machine fails it: a disk that is full, a control group that cannot be removed, verbs
//! that cross each other, starts that fail half-way.
//!
//! Only for Gantry: the reference engine's disk is not ours to fill.

use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use gantry_testkit::engine::{Engine, ORACLE_SOCKET, images_directory, pids};
use gantry_testkit::http::{self, Response};
use gantry_testkit::leak;
use gantry_testkit::wait::eventually_within;
use rustix::process::Signal;
use serde_json::{Value, json};

const BUSYBOX: &str = "localhost/test/busybox:1";
/// How long anything may take that needs no more than a retry or two.
const SOON: Duration = Duration::from_secs(20);

fn is_reference() -> bool {
    let reference = std::env::var_os(ORACLE_SOCKET).is_some();
    if reference {
        println!("skipped: the reference engine is not ours to break");
    }
    reference
}

/// Runs a shell script where the engine's mounts are.
fn on_host(engine: &Engine, script: &str) {
    let words = engine.host_words();
    let status = Command::new(&words[0])
        .args(&words[1..])
        .args(["sh", "-ec", script])
        .status()
        .expect("start nsenter");
    assert!(status.success(), "`{script}` failed");
}

fn load(engine: &Engine, image: &str) {
    let archive = std::fs::read(images_directory().join(image)).expect("an archive");
    let body = Some(("application/x-tar", archive.as_slice()));
    let loaded = http::unix(&engine.socket, "POST", "/images/load?quiet=1", body).expect("load");
    assert!(loaded.text().contains("Loaded image"), "{}", loaded.text());
}

#[track_caller]
fn created(response: &Response) -> String {
    response.json().expect("JSON")["Id"]
        .as_str()
        .unwrap_or_else(|| panic!("{} {}", response.status, response.text()))
        .to_owned()
}

#[track_caller]
fn run(engine: &Engine, name: &str, body: &Value) -> String {
    let id = created(&engine.api(
        "POST",
        &format!("/containers/create?name={name}"),
        Some(body),
    ));
    let started = engine.api("POST", &format!("/containers/{id}/start"), None);
    assert_eq!(started.status, 204, "{}", started.text());
    id
}

fn state(engine: &Engine, id: &str) -> Value {
    engine
        .api("GET", &format!("/containers/{id}/json"), None)
        .json()
        .expect("JSON")["State"]
        .clone()
}

/// A container that ends with `code` when it gets SIGUSR1.
fn ends_with(code: u8) -> Value {
    let script = format!("trap 'exit {code}' USR1; while :; do sleep 0.05; done");
    json!({"Image": BUSYBOX, "Cmd": ["sh", "-c", script]})
}

/// Waits until a container's shell would do something at SIGUSR1: before that a first process is not ended by it.
fn await_trap(engine: &Engine, id: &str) -> i32 {
    eventually_within(SOON, "its signal is caught", || {
        let pid = record(engine, id)["state"]["pid"].as_i64()?;
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        let caught = status
            .lines()
            .find_map(|line| line.strip_prefix("SigCgt:"))?;
        let caught = u64::from_str_radix(caught.trim(), 16).ok()?;
        let is_caught = caught & 1 << (Signal::USR1.as_raw() - 1) != 0;
        is_caught.then(|| i32::try_from(pid).ok()).flatten()
    })
}

fn end(engine: &Engine, id: &str) {
    await_trap(engine, id);
    let killed = engine.api("POST", &format!("/containers/{id}/kill?signal=USR1"), None);
    assert_eq!(killed.status, 204, "{}", killed.text());
}

/// As [`end`], without the engine: it does not count as a stop by hand.
fn end_by_itself(engine: &Engine, id: &str) {
    let pid = rustix::process::Pid::from_raw(await_trap(engine, id));
    rustix::process::kill_process(pid.expect("a pid"), Signal::USR1).expect("kill");
}

/// Waits until the engine says that a container has ended with `code`.
#[track_caller]
fn await_exit(engine: &Engine, id: &str, code: u8) {
    let deadline = Instant::now() + SOON;
    loop {
        let now = state(engine, id);
        if now["Status"] == "exited" && now["ExitCode"] == code {
            return;
        }
        assert!(
            Instant::now() < deadline,
            "{id} is {now}, not exited with {code}; the daemon's log ends:\n{}",
            engine.daemon_log_tail()
        );
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The record as it is on disk.
fn record(engine: &Engine, id: &str) -> Value {
    let path = engine
        .places()
        .data_root
        .join(format!("records/container/{id}.json"));
    let text = std::fs::read(engine_path(engine, &path)).unwrap_or_default();
    serde_json::from_slice::<Value>(&text).unwrap_or_default()["data"].clone()
}

/// A path of the engine's mounts as this process can open it.
fn engine_path(engine: &Engine, path: &Path) -> std::path::PathBuf {
    let root = format!("/proc/{}/root", engine.places().host_pid);
    Path::new(&root).join(path.strip_prefix("/").expect("an absolute path"))
}

/// The container's control group in one hierarchy.
fn cgroup_of(engine: &Engine, id: &str) -> String {
    let path = format!("{}/{id}", engine.places().cgroup_parent);
    let groups = gantry_testkit::engine::cgroups(&path);
    groups
        .last()
        .expect("a control group")
        .display()
        .to_string()
}

fn dies(engine: &Engine, id: &str) -> usize {
    told(engine, "die", id)
}

/// How often an event of a container was told.
fn told(engine: &Engine, event: &str, id: &str) -> usize {
    let filters = format!(
        "%7B%22type%22%3A%5B%22container%22%5D%2C%22event%22%3A%5B%22{event}%22%5D%2C%22container%22%3A%5B%22{id}%22%5D%7D"
    );
    let until = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .expect("after 1970")
        .as_secs()
        + 1;
    let path = format!("/events?since=1&until={until}&filters={filters}");
    engine.api("GET", &path, None).text().lines().count()
}

#[track_caller]
fn no_leaks(engine: &Engine) {
    engine.remove_all_containers();
    let leaks = leak::settled(&engine.places());
    assert!(leaks.is_empty(), "{leaks:#?}");
}

/// Leaves not a byte of the engine's disk, whatever was freed since it was full the last time.
fn fill(engine: &Engine) {
    let data = engine.places().data_root.display().to_string();
    on_host(
        engine,
        &format!(
            "for block in 65536 4096 1; do
               dd if=/dev/zero bs=$block status=none 2>/dev/null >>{data}/fill || :
             done
             ! dd if=/dev/zero of={data}/more bs=1 count=1 status=none 2>/dev/null"
        ),
    );
}

#[test]
fn a_full_disk_hides_no_end_and_loses_none() {
    if is_reference() {
        return;
    }
    let engine = Engine::private_empty(&[]);
    let data = engine.places().data_root.display().to_string();
    on_host(
        &engine,
        &format!("mkdir {data}; mount -t tmpfs -o size=48m data {data}"),
    );
    engine.start_daemon(&[]);
    load(&engine, "busybox.tar");
    let kept = run(&engine, "kept", &ends_with(7));
    let later = run(&engine, "later", &ends_with(8));
    let freed = run(&engine, "freed", &ends_with(6));
    let mut removed = ends_with(9);
    removed["HostConfig"] = json!({"AutoRemove": true});
    let removed = run(&engine, "removed", &removed);
    let stopped = run(&engine, "stopped", &ends_with(0));
    let idle = json!({"Image": BUSYBOX, "Cmd": ["true"]});
    let other = created(&engine.api("POST", "/containers/create?name=other", Some(&idle)));
    fill(&engine);

    // Who waits is told the truth at once.
    for (id, condition, code) in [(&kept, "not-running", 7), (&removed, "removed", 9)] {
        let answer = std::thread::scope(|scope| {
            let path = format!("/containers/{id}/wait?condition={condition}");
            let engine = &engine;
            let waiter = scope.spawn(move || engine.api("POST", &path, None));
            std::thread::sleep(Duration::from_millis(200));
            end(engine, id);
            waiter.join().expect("a waiter")
        });
        assert_eq!(
            answer.json().expect("JSON")["StatusCode"],
            code,
            "{}",
            answer.text()
        );
        if id == &kept {
            let now = state(&engine, id);
            assert_eq!(
                (&now["Status"], &now["ExitCode"]),
                (&json!("exited"), &json!(7))
            );
            assert_eq!(record(&engine, id)["state"]["status"], "running");
        }
    }
    let gone = engine.api("GET", &format!("/containers/{removed}/json"), None);
    assert_eq!(gone.status, 404, "{}", gone.text());
    fill(&engine);
    let stop = engine.api("POST", &format!("/containers/{stopped}/stop?t=0"), None);
    assert_eq!(stop.status, 204, "{}", stop.text());

    // Of an end that is not on disk its shim tells the next daemon, though what the run held is free meanwhile.
    let group = cgroup_of(&engine, &freed);
    on_host(&engine, &format!("mount -t tmpfs none {group}"));
    end(&engine, &freed);
    await_exit(&engine, &freed, 6);
    on_host(&engine, &format!("umount -l {group}"));
    eventually_within(SOON, "it is freed in the background", || {
        (!engine_path(&engine, Path::new(&group)).exists()).then_some(())
    });
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(record(&engine, &freed)["state"]["status"], "running");

    // What fills a disk can be removed from it.
    let other = engine.api("DELETE", &format!("/containers/{other}?v=1"), None);
    assert_eq!(other.status, 204, "{}", other.text());

    // Whoever comes next learns of it from the shim, whether the exit came before or after the daemon's death.
    engine.end_daemon(Signal::KILL);
    end_by_itself(&engine, &later);
    std::thread::sleep(Duration::from_millis(300));
    engine.start_daemon(&[]);
    for (id, code) in [(&kept, 7), (&later, 8), (&freed, 6), (&stopped, 137)] {
        await_exit(&engine, id, code);
        assert_eq!(dies(&engine, id), 1, "the end of {id} is told once");
    }

    // As soon as there is room, the disk has it too and nobody needs to keep it any longer.
    on_host(&engine, &format!("rm -f {data}/fill {data}/more"));
    for (id, code) in [(&kept, 7), (&later, 8)] {
        eventually_within(SOON, "the record is on disk", || {
            let record = record(&engine, id);
            (record["state"]["status"] == "exited" && record["state"]["exit_code"] == code)
                .then_some(())
        });
    }
    eventually_within(SOON, "the shims are released", || {
        engine.processes_of_role("shim").is_empty().then_some(())
    });
    no_leaks(&engine);
}

#[test]
fn what_cannot_be_freed_is_remembered_and_freed_later() {
    if is_reference() {
        return;
    }
    let engine = Engine::private(&[]);
    // A directory that something is mounted on cannot be removed.
    let hold = |id: &str| {
        let group = cgroup_of(&engine, id);
        on_host(&engine, &format!("mount -t tmpfs none {group}"));
        group
    };
    let release = |group: &str| on_host(&engine, &format!("umount -l {group}"));
    let left = |id: &str| record(&engine, id)["acquired"]["over"] == true;
    let is_left = |id: &str| {
        eventually_within(SOON, "the record tells what is left", || {
            left(id).then_some(())
        });
    };
    let free = |id: &str| record(&engine, id)["acquired"]["shim"] == false;

    // Given back as soon as it can be; until then neither a start nor a removal forgets it.
    let id = run(&engine, "busy", &ends_with(3));
    let group = hold(&id);
    end(&engine, &id);
    await_exit(&engine, &id, 3);
    is_left(&id);
    let started = engine.api("POST", &format!("/containers/{id}/start"), None);
    assert!(
        started.status == 500 && started.text().contains("still holds the cgroup"),
        "{} {}",
        started.status,
        started.text()
    );
    let removed = engine.api("DELETE", &format!("/containers/{id}"), None);
    assert!(
        removed.status == 500 && removed.text().contains("still holds the cgroup"),
        "{} {}",
        removed.status,
        removed.text()
    );
    assert_eq!(state(&engine, &id)["Status"], "dead");
    release(&group);
    eventually_within(SOON, "it is freed in the background", || {
        free(&id).then_some(())
    });
    let removed = engine.api("DELETE", &format!("/containers/{id}"), None);
    assert_eq!(removed.status, 204, "{}", removed.text());

    // The next daemon goes on with it.
    let mut body = ends_with(4);
    body["HostConfig"] = json!({"AutoRemove": true});
    let id = run(&engine, "rm", &body);
    let group = hold(&id);
    end(&engine, &id);
    eventually_within(SOON, "the removal fails for now", || {
        (state(&engine, &id)["Status"] == "dead").then_some(())
    });
    engine.end_daemon(Signal::KILL);
    engine.start_daemon(&[]);
    is_left(&id);
    release(&group);
    eventually_within(SOON, "the removal is finished", || {
        let status = engine
            .api("GET", &format!("/containers/{id}/json"), None)
            .status;
        (status == 404).then_some(())
    });

    // A restart policy waits for it and goes on.
    let mut body = ends_with(5);
    body["HostConfig"] = json!({"RestartPolicy": {"Name": "on-failure"}});
    let id = run(&engine, "again", &body);
    let group = hold(&id);
    end_by_itself(&engine, &id);
    eventually_within(SOON, "it waits for its restart", || {
        (state(&engine, &id)["Status"] == "restarting" && left(&id)).then_some(())
    });
    std::thread::sleep(Duration::from_secs(2));
    release(&group);
    eventually_within(SOON, "the policy goes on", || {
        (state(&engine, &id)["Running"] == true && !left(&id)).then_some(())
    });

    // So does the policy that starts a container with the daemon.
    let mut body = ends_with(6);
    body["HostConfig"] = json!({"RestartPolicy": {"Name": "always"}});
    let id = run(&engine, "always", &body);
    let group = hold(&id);
    let stop = engine.api("POST", &format!("/containers/{id}/stop?t=0"), None);
    assert_eq!(stop.status, 204, "{}", stop.text());
    is_left(&id);
    engine.end_daemon(Signal::KILL);
    engine.start_daemon(&[]);
    eventually_within(SOON, "it waits for its start", || {
        (state(&engine, &id)["Status"] == "restarting").then_some(())
    });
    // As long as it is held it goes on to wait.
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!(state(&engine, &id)["Status"], "restarting");
    release(&group);
    eventually_within(SOON, "the policy goes on", || {
        (state(&engine, &id)["Running"] == true && !left(&id)).then_some(())
    });
    no_leaks(&engine);
}

#[test]
fn a_start_that_the_disk_cuts_off_is_ended_and_keeps_no_port() {
    if is_reference() {
        return;
    }
    let engine = Engine::private_empty(&[]);
    let data = engine.places().data_root.display().to_string();
    on_host(
        &engine,
        &format!("mkdir {data}; mount -t tmpfs -o size=32m data {data}"),
    );
    engine.start_daemon(&[]);
    load(&engine, "busybox.tar");
    let mut body = ends_with(0);
    let bindings: serde_json::Map<_, _> = (0..80)
        .map(|port| {
            let bound = json!([{"HostIp": "127.0.0.1", "HostPort": (18000 + port).to_string()}]);
            (format!("{}/udp", 1000 + port), bound)
        })
        .collect();
    body["HostConfig"] = json!({"PortBindings": bindings});
    // The last write of a start adds little to the record. It needs a page more than the one before if that little passes the
    // end of a page: as much is added as the record of one that runs lacks to it, and so much that no other file is as large.
    body["Labels"] = json!({"pad": ""});
    let probe = created(&engine.api("POST", "/containers/create?name=probe", Some(&body)));
    let started = engine.api("POST", &format!("/containers/{probe}/start"), None);
    assert_eq!(started.status, 204, "{}", started.text());
    let host = engine.places().host_pid;
    let path = format!("/proc/{host}/root{data}/records/container/{probe}.json");
    let size = std::fs::metadata(&path).expect("a record").len() as usize;
    let removed = engine.api("DELETE", &format!("/containers/{probe}?force=1"), None);
    assert_eq!(removed.status, 204, "{}", removed.text());
    body["Labels"] = json!({"pad": "x".repeat(11 * 4096 - size % 4096 + 12)});
    let id = created(&engine.api("POST", "/containers/create?name=short", Some(&body)));
    // From no room at all to enough: each write of the start is once the one that fails.
    let mut failed = Vec::new();
    for pages in 0.. {
        on_host(&engine, &format!("rm -f {data}/more"));
        fill(&engine);
        on_host(
            &engine,
            &format!("truncate -s -{} {data}/fill", pages * 4096),
        );
        let started = engine.api("POST", &format!("/containers/{id}/start"), None);
        if started.status == 204 {
            break;
        }
        failed.push(format!("{pages} pages: {}", started.text()));
        assert!(pages < 200, "{failed:#?}");
        assert!(
            started.text().contains("No space left") || started.text().contains("no space left"),
            "{failed:#?}"
        );
        assert_eq!(
            dies(&engine, &id),
            told(&engine, "start", &id),
            "{failed:#?}"
        );
    }
    assert!(
        dies(&engine, &id) > 0,
        "no start came to its last write: {failed:#?}"
    );
    assert_eq!(state(&engine, &id)["Running"], true);
    on_host(&engine, &format!("rm -f {data}/fill {data}/more"));
    no_leaks(&engine);
}

#[test]
fn a_container_that_removes_itself_goes_when_its_restart_fails() {
    if is_reference() {
        return;
    }
    let engine = Engine::private(&[]);
    let source = format!("{}/source", engine.places().data_root.display());
    on_host(&engine, &format!("mkdir {source}"));
    let mut body = ends_with(0);
    body["HostConfig"] = json!({"AutoRemove": true, "Mounts": [
        {"Type": "bind", "Source": source, "Target": "/source"}]});
    let id = run(&engine, "gone", &body);
    on_host(&engine, &format!("rmdir {source}"));
    std::thread::scope(|scope| {
        let path = format!("/containers/{id}/wait?condition=removed");
        let engine = &engine;
        let waiter = scope.spawn(move || engine.api("POST", &path, None));
        std::thread::sleep(Duration::from_millis(200));
        let restarted = engine.api("POST", &format!("/containers/{id}/restart?t=0"), None);
        assert!(restarted.status >= 400, "it has nothing to mount");
        eventually_within(SOON, "it is removed", || {
            let path = format!("/containers/{id}/json");
            (engine.api("GET", &path, None).status == 404).then_some(())
        });
        assert_eq!(waiter.join().expect("a waiter").status, 200);
    });
    no_leaks(&engine);
}

/// The children that nobody has waited for: their lines of proc_pid_stat(5), which have their names.
fn zombies(parent: u32) -> Vec<String> {
    let stat = |pid: u32| std::fs::read_to_string(format!("/proc/{pid}/stat")).ok();
    let is_zombie = |stat: &String| {
        let rest = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
        let mut fields = rest.split_ascii_whitespace();
        fields.next() == Some("Z") && fields.next() == Some(parent.to_string().as_str())
    };
    pids().filter_map(stat).filter(is_zombie).collect()
}

#[test]
fn a_failed_start_leaves_no_zombie() {
    if is_reference() {
        return;
    }
    let engine = Engine::private(&[]);
    let daemon = engine.daemon_pid().expect("a daemon");
    for (number, body) in [
        json!({"Cmd": ["/no/such/program"]}),
        json!({"Cmd": ["/etc"]}),
        json!({"Cmd": ["true"], "User": "nobody-at-all"}),
        // A file where the image has a directory.
        json!({"Cmd": ["true"], "HostConfig": {"Binds": ["/etc/passwd:/bin"]}}),
        // The shim waits for its start already when the kernel refuses such an address for an interface.
        json!({"Cmd": ["true"], "MacAddress": "01:02:03:04:05:06"}),
    ]
    .into_iter()
    .cycle()
    .take(25)
    .enumerate()
    {
        let mut body = body;
        body["Image"] = BUSYBOX.into();
        let id = created(&engine.api(
            "POST",
            &format!("/containers/create?name=fails{number}"),
            Some(&body),
        ));
        let started = engine.api("POST", &format!("/containers/{id}/start"), None);
        assert!(started.status >= 400, "{body} started");
    }
    eventually_within(SOON, "no shim is left", || {
        engine.processes_of_role("shim").is_empty().then_some(())
    });
    // None ends any more, so none becomes a zombie between two looks.
    let deadline = Instant::now() + SOON;
    let left = loop {
        let zombies = zombies(daemon);
        if zombies.is_empty() || Instant::now() > deadline {
            break zombies;
        }
        std::thread::sleep(Duration::from_millis(50));
    };
    assert_eq!(left, [""; 0], "of 25 failed starts");
    no_leaks(&engine);
}

#[test]
fn a_volume_does_not_go_while_its_container_is_being_made() {
    if is_reference() {
        return;
    }
    let engine = Engine::private(&[]);
    let done = AtomicBool::new(false);
    // Each create copies the image's /bin into its volumes, which gives the removals time.
    let lost: Vec<String> = std::thread::scope(|scope| {
        let removers: Vec<_> = ["prune", "rm", "rm"]
            .into_iter()
            .map(|how| {
                let (engine, done) = (&engine, &done);
                scope.spawn(move || {
                    while !done.load(Ordering::Relaxed) {
                        if how == "prune" {
                            let all = "%7B%22all%22%3A%5B%22true%22%5D%7D";
                            let path = format!("/volumes/prune?filters={all}");
                            engine.api("POST", &path, None);
                        } else {
                            for number in 0..3 {
                                engine.api("DELETE", &format!("/volumes/shared{number}"), None);
                            }
                        }
                    }
                })
            })
            .collect();
        let makers: Vec<_> = (0..3)
            .map(|maker| {
                let engine = &engine;
                scope.spawn(move || {
                    let mut lost = Vec::new();
                    for round in 0..20 {
                        let body = json!({"Image": BUSYBOX, "Cmd": ["true"], "Volumes": {"/bin": {}}, "HostConfig": {
                            "Binds": [format!("shared{}:/data", round % 3), format!("own{maker}-{round}:/usr/bin")]}});
                        let path = format!("/containers/create?name=maker{maker}-{round}");
                        let id = created(&engine.api("POST", &path, Some(&body)));
                        lost.extend(missing_volumes(engine, &id));
                        let path = format!("/containers/{id}?v=1");
                        assert_eq!(engine.api("DELETE", &path, None).status, 204);
                    }
                    lost
                })
            })
            .collect();
        let lost: Vec<_> = makers.into_iter().map(|maker| maker.join()).collect();
        done.store(true, Ordering::Relaxed);
        removers
            .into_iter()
            .for_each(|remover| remover.join().expect("a remover"));
        lost.into_iter()
            .flat_map(|lost| lost.expect("a maker"))
            .collect()
    });
    assert!(lost.is_empty(), "{lost:#?}");
    no_leaks(&engine);
}

/// The volumes of a container that are not there, or have lost their files.
fn missing_volumes(engine: &Engine, id: &str) -> Vec<String> {
    let inspect = engine
        .api("GET", &format!("/containers/{id}/json"), None)
        .json()
        .expect("JSON");
    let mut lost = Vec::new();
    for mount in inspect["Mounts"].as_array().expect("mounts") {
        let name = mount["Name"].as_str().expect("a name");
        let known = engine.api("GET", &format!("/volumes/{name}"), None).status == 200;
        let is_there = Path::new(mount["Source"].as_str().expect("a source")).is_dir();
        if !known || !is_there {
            lost.push(format!("{id}: {name} known: {known}, there: {is_there}"));
        }
    }
    lost
}

#[test]
fn an_image_does_not_go_while_a_container_is_made_of_it() {
    if is_reference() {
        return;
    }
    let engine = Engine::private(&[]);
    let archive = small_archive();
    let (mut made, mut refused) = (0, 0);
    for round in 0..60 {
        let body = Some(("application/x-tar", archive.as_slice()));
        let path = format!("/images/create?fromSrc=-&repo=race&tag={round}");
        let imported = http::unix(&engine.socket, "POST", &path, body).expect("import");
        assert_eq!(imported.status, 200, "{}", imported.text());
        let image = format!("race:{round}");
        let create = json!({"Image": image, "Cmd": ["true"], "Volumes": {"/data": {}}});
        let name = format!("/containers/create?name=of{round}");
        let (answer, removal) = std::thread::scope(|scope| {
            let maker = scope.spawn(|| engine.api("POST", &name, Some(&create)));
            let remover = scope.spawn(|| {
                // Now a little before, now a little after.
                std::thread::sleep(Duration::from_micros(100 * (round % 30)));
                let path = if round % 2 == 0 {
                    format!("/images/{image}")
                } else {
                    "/images/prune?filters=%7B%22dangling%22%3A%5B%22false%22%5D%7D".to_owned()
                };
                let method = if round % 2 == 0 { "DELETE" } else { "POST" };
                engine.api(method, &path, None)
            });
            (
                maker.join().expect("a maker"),
                remover.join().expect("a remover"),
            )
        });
        if answer.status == 404 {
            refused += 1;
            continue;
        }
        let id = created(&answer);
        made += 1;
        let of = engine
            .api("GET", &format!("/containers/{id}/json"), None)
            .json()
            .expect("JSON")["Image"]
            .as_str()
            .expect("an image")
            .to_owned();
        let status = engine
            .api("GET", &format!("/images/{of}/json"), None)
            .status;
        assert_eq!(status, 200, "round {round}: {}", removal.text());
        engine.api("DELETE", &format!("/containers/{id}?v=1"), None);
    }
    println!("{made} made, {refused} refused");
    assert!(made > 0, "no create ever came first");
    no_leaks(&engine);
}

/// A tar archive with one file.
fn small_archive() -> Vec<u8> {
    let directory = tempfile::tempdir_in("/var/tmp").expect("a directory");
    std::fs::write(directory.path().join("file"), "content").expect("a file");
    let output = Command::new("tar")
        .arg("-cC")
        .arg(directory.path())
        .arg("file")
        .output()
        .expect("tar");
    assert!(output.status.success());
    output.stdout
}

#[test]
fn a_daemon_that_ends_with_nothing_to_run_leaves_the_kernel_as_it_was() {
    if is_reference() {
        return;
    }
    let engine = Engine::private_empty(&[]);
    let forwarding = |value: &str| {
        let path = "/proc/sys/net/ipv4/ip_forward";
        on_host(&engine, &format!("[ \"$(cat {path})\" = {value} ]"));
    };
    on_host(&engine, "echo 0 >/proc/sys/net/ipv4/ip_forward");
    engine.start_daemon(&[]);
    load(&engine, "busybox.tar");
    let mut body = ends_with(0);
    body["HostConfig"] = json!({"PortBindings": {"80/tcp": [{"HostPort": "18070"}]}});
    let id = run(&engine, "one", &body);
    forwarding("1");

    // With a container that runs, everything stays.
    engine.end_daemon(Signal::TERM);
    on_host(
        &engine,
        "nft list tables | grep -q gantry && ip link show docker0 >/dev/null",
    );
    assert_eq!(engine.processes_of_role("netd").len(), 1);
    engine.start_daemon(&[]);
    assert_eq!(state(&engine, &id)["Running"], true);
    engine.remove_all_containers();

    engine.end_daemon(Signal::TERM);
    on_host(
        &engine,
        "[ -z \"$(nft list ruleset)\" ] && [ -z \"$(ip -o link show type bridge)\" ]",
    );
    forwarding("0");
    assert_eq!(engine.processes(), [0; 0]);
    let groups = gantry_testkit::engine::cgroups(&engine.places().cgroup_parent);
    assert!(groups.is_empty(), "{groups:?}");

    // The next daemon makes it all again.
    engine.start_daemon(&[]);
    let id = run(&engine, "two", &body);
    forwarding("1");
    assert_eq!(state(&engine, &id)["Running"], true);
    no_leaks(&engine);
}

/// What the test below kills: an engine with a container, for ever.
#[test]
#[ignore = "it is the victim of another test"]
fn victim() {
    let engine = Engine::private_empty(&[]);
    engine.start_daemon(&[]);
    load(&engine, "busybox.tar");
    run(&engine, "victim", &ends_with(0));
    let places = engine.places();
    println!(
        "victim {} {}",
        places.cgroup_parent,
        places.data_root.display()
    );
    std::thread::sleep(Duration::from_secs(600));
}

#[test]
fn a_test_that_is_killed_leaves_nothing_behind() {
    use std::io::BufRead;
    if is_reference() {
        return;
    }
    let mut test = Command::new(std::env::current_exe().expect("the test's own path"))
        .args(["--ignored", "--exact", "--nocapture", "victim"])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .expect("start the victim");
    let lines = std::io::BufReader::new(test.stdout.take().expect("a pipe")).lines();
    let line = lines
        .map(|line| line.expect("a line"))
        .find(|line| line.contains("victim gantry-test-"))
        .expect("the victim runs");
    let words: Vec<&str> = line.split_whitespace().collect();
    let (parent, data_root) = (words[words.len() - 2], words[words.len() - 1]);
    let directory = Path::new(data_root).parent().expect("a directory");
    let mentions = || {
        pids()
            .filter(|pid| {
                let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
                String::from_utf8_lossy(&line).contains(data_root)
            })
            .count()
    };
    assert!(mentions() > 0 && !gantry_testkit::engine::cgroups(parent).is_empty());
    test.kill().expect("kill");
    test.wait().expect("wait");
    eventually_within(SOON, "everything of it is gone", || {
        let groups = gantry_testkit::engine::cgroups(parent);
        (mentions() == 0 && groups.is_empty() && !directory.exists()).then_some(())
    });
}
