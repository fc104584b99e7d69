//! Bad input of many kinds: exit code and every byte of both streams, as the reference gives them.

use gantry_testkit::golden::Recording;
use gantry_testkit::session::{Client, Session};

gantry_testkit::scenarios![wrong_flags_and_values, wrong_objects_and_states];

/// Lines that the reference takes though they mean nothing, or refuses with the kernel's words alone, and the words with
/// which Gantry refuses them.
const REFUSED: &[(&str, &str)] = &[
    ("run --expose 80/abc @bb true", "invalid proto: abc"),
    (
        "run --rm --network name=@n,driver-opt=com.docker.network.endpoint.ifname=../x @bb true",
        "invalid interface name: ../x",
    ),
];

/// Runs `lines` and compares exit code, standard output and standard error with the recording.
pub fn check(s: &Session, file: &str, lines: &[&str]) {
    let mut recording = Recording::open(file, s.engine);
    let mut differences = Vec::new();
    for line in lines {
        let outcome = s.d(line);
        if outcome.code == 0 && line.starts_with("network create ") {
            let name = line.rsplit(' ').next().unwrap_or_default();
            s.d(&format!("network rm {name}")).ok();
        }
        if let Some((_, words)) = REFUSED.iter().find(|(refused, _)| refused == line)
            && !s.engine.is_reference()
        {
            let code = if line.starts_with("run ") { 125 } else { 1 };
            outcome.exits(code).warns(words);
            continue;
        }
        let actual = format!(
            "exit {}\n--- stdout\n{}--- stderr\n{}",
            outcome.code, outcome.stdout, outcome.stderr
        );
        let actual = actual
            .replace(&s.dir().display().to_string(), "@dir")
            .replace(&s.x("@prefix"), "@prefix");
        let actual = mask_processors(&mask_ids(&mask_interfaces(&actual)));
        differences.extend(recording.compare(line, &actual));
    }
    if s.client == Client::Docker {
        recording.save();
    }
    assert!(
        differences.is_empty(),
        "{} of {} differ:\n{}",
        differences.len(),
        lines.len(),
        differences.join("\n")
    );
}

/// Replaces what depends on the number of processors.
fn mask_processors(text: &str) -> String {
    let count = std::thread::available_parallelism().map_or(1, usize::from);
    text.replace(
        &format!("0.01 to {count}.00, as there are only {count} CPUs"),
        "<processors>",
    )
    .replace(
        &format!("available: 0-{}", count - 1),
        "available: <processors>",
    )
}

/// Replaces the names of virtual interfaces on the host.
fn mask_interfaces(text: &str) -> String {
    let mut parts = text.split("veth");
    let mut result = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let rest = part.trim_start_matches(|letter: char| letter.is_ascii_hexdigit());
        result.push_str("<veth>");
        result.push_str(rest);
    }
    result
}

/// Replaces runs of 64 or 12 hexadecimal digits.
fn mask_ids(text: &str) -> String {
    let mut result = String::new();
    let mut run = String::new();
    let flush = |run: &mut String, result: &mut String| {
        result.push_str(match run.len() {
            64 => "<id>",
            12 if run.chars().any(|character| character.is_ascii_digit()) => "<short id>",
            _ => run.as_str(),
        });
        run.clear();
    };
    for character in text.chars() {
        if character.is_ascii_digit() || ('a'..='f').contains(&character) {
            run.push(character);
        } else {
            flush(&mut run, &mut result);
            result.push(character);
        }
    }
    flush(&mut run, &mut result);
    result
}

fn wrong_flags_and_values(s: &Session) {
    s.file("badenv", "=novalue\n");
    check(
        s,
        "flags",
        &[
            "run",
            "run --nosuch @bb",
            "run -X @bb",
            "run --memory",
            "run --memory lots @bb true",
            "run --memory 1 @bb true",
            "run --memory 5m @bb true",
            "run --memory 64m --memory-swap 32m @bb true",
            "run --memory-swap 64m @bb true",
            "run --memory 64m --memory-reservation 128m @bb true",
            "run --memory-swappiness 500 @bb true",
            "run --cpus -1 @bb true",
            "run --cpus many @bb true",
            "run --cpus 1000 @bb true",
            "run --cpus 1 --cpu-quota 1000 @bb true",
            "run --cpu-period 10 @bb true",
            "run --cpu-quota 10 @bb true",
            "run --cpuset-cpus 99 @bb true",
            "run --cpuset-cpus x @bb true",
            "run --cpuset-mems 9 @bb true",
            "run --pids-limit x @bb true",
            "run --restart sometimes @bb true",
            "run --restart on-failure:x @bb true",
            "run --restart on-failure:-1 @bb true",
            "run --restart always:3 @bb true",
            "run -p x @bb true",
            "run -p 99999:80 @bb true",
            "run -p 80:99999 @bb true",
            "run -p 80:80/abc @bb true",
            "run -p 1.2.3:80:80 @bb true",
            "run -p 1.2.3.4:80:80:80 @bb true",
            "run -p 8000-7000:80 @bb true",
            "run --expose x @bb true",
            "run --expose 80/abc @bb true",
            "run -v '' @bb true",
            "run -v :/x @bb true",
            "run -v /x: @bb true",
            "run -v relative:relative @bb true",
            "run -v a/b:/x @bb true",
            "run -v /:/ @bb true",
            "run -v /tmp:/x:ro,rw @bb true",
            "run -v a:b:c:d @bb true",
            "run --mount '' @bb true",
            "run --mount type=bind @bb true",
            "run --mount nosuch=1 @bb true",
            "run --mount type=tmpfs,dst=/t,src=/x @bb true",
            "run --mount type=volume,dst=/t,tmpfs-size=1m @bb true",
            "run --mount type=tmpfs,dst=/t,tmpfs-mode=abc @bb true",
            "run --mount type=bind,src=/tmp,dst=/t,readonly=maybe @bb true",
            "run --mount type=bind,src=/tmp,dst=/t,bind-propagation=sideways @bb true",
            "run --tmpfs relative @bb true",
            "run --env-file absent @bb true",
            "run --env-file badenv @bb true",
            "run -e '' @bb true",
            "run -e =x @bb true",
            "run --label-file absent @bb true",
            "run --name 'bad name' @bb true",
            "run --name -x @bb true",
            "run --name a @bb true",
            "run --hostname 'a b' @bb true",
            "run --add-host x:y:z:not-an-ip @bb true",
            "run --add-host x: @bb true",
            "run --dns 1.2.3 @bb true",
            "run --ip 1.2.3 @bb true",
            "run --mac-address 1:2 @bb true",
            "run --network container: @bb true",
            "run --network host -p 80:80 --rm @bb true",
            "run --network none --network-alias x @bb true",
            "run --link nosuchcontainer @bb true",
            "run --ipc nosuch @bb true",
            "run --pid nosuch @bb true",
            "run --uts nosuch @bb true",
            "run --userns nosuch @bb true",
            "run --cgroupns nosuch @bb true",
            "run --isolation hyperv @bb true",
            "run --ulimit nofile @bb true",
            "run --ulimit nosuch=1 @bb true",
            "run --ulimit nofile=x @bb true",
            "run --sysctl x @bb true",
            "run --sysctl kernel.hostname=x @bb true",
            "run --sysctl net.core.somaxconn=5 --network host @bb true",
            "run --shm-size x @bb true",
            "run --shm-size -1 @bb true",
            "run --device relative @bb true",
            "run --device /dev/null:/x:abc @bb true",
            "run --device-read-bps /dev/nosuch:1mb @bb true",
            "run --device-cgroup-rule x @bb true",
            "run --stop-signal NOSUCH @bb true",
            "run --stop-timeout x @bb true",
            "run --user '' @bb id -u",
            "run --user a:b:c @bb true",
            "run --group-add nosuch @bb true",
            "run --cap-add '' @bb true",
            "run --security-opt x @bb true",
            "run --security-opt seccomp @bb true",
            "run --runtime nosuch @bb true",
            "run --log-driver '' --rm @bb true",
            "run --log-opt max-file=0 @bb true",
            "run --log-opt max-size=-1 @bb true",
            "run --log-opt mode=nosuch @bb true",
            "run --platform linux @bb true",
            "run --pull sometimes @bb true",
            "run --detach-keys nosuch -d @bb true",
            "run -d --rm --restart always @bb true",
            "run -a nosuch @bb true",
            "run --health-cmd true --no-healthcheck @bb true",
            "run --health-interval 1x @bb true",
            "run --health-retries -1 @bb true",
            "run --volumes-from @none:abc @bb true",
            "run --oom-score-adj x @bb true",
            "run --read-only=maybe @bb true",
            "create",
            "create --nosuch @bb",
            "exec",
            "exec --nosuch @c true",
            "stop",
            "stop -t x @c",
            "stop --time 1 --timeout 1 @c",
            "logs",
            "logs --tail x @none",
            "logs --nosuch @none",
            "logs one two",
            "ps extra",
            "ps --filter nosuch=1",
            "ps --filter x",
            "ps --filter status=nosuch",
            "ps --filter exited=x",
            "ps --filter health=nosuch",
            "ps -n x",
            "images one two",
            "images --filter dangling=maybe",
            "volume ls --filter nosuch=1",
            "volume ls --filter dangling=maybe",
            "network ls --filter nosuch=1",
            "events --since x",
            "events --filter x",
            "wait",
            "rename one",
            "rename one two three",
            "nosuch",
            "container nosuch",
            "volume nosuch",
            "image nosuch",
            "network nosuch",
            "system nosuch",
            "inspect",
            "tag one",
            "rmi",
            "load extra",
            "import",
            "attach",
            "port",
            "top",
            "update @c",
            "update",
            "kill",
            "--nosuch",
            "-X ps",
            "container prune -f --filter until=bad",
            "image prune -f --filter until=bad",
            "images --filter until=bad",
            "ps --filter publish=x:y",
            "ps --filter publish=99999",
            "ps --filter publish=x",
            "ps --filter publish=80/nosuch",
            "ps --filter expose=5-3",
            "events --since 0 --until 1",
            "volume prune",
            "-H tcp://x:1 ps",
            "run --rm --network bridge --network host @bb true",
        ],
    );
}

fn wrong_objects_and_states(s: &Session) {
    s.d("create --name @created @bb").ok();
    s.d("run --name @exited @bb true").ok();
    s.d("run -d --name @running @bb sleep 1000").ok();
    s.d("volume create @v").ok();
    s.file("plain", "no archive\n");
    check(
        s,
        "objects",
        &[
            "start @none",
            "start @created @none",
            "start -a @none",
            "start -a @created @exited",
            "stop @none",
            "stop @running @none -t 0",
            "start @running",
            "restart @none",
            "restart -s NOSUCH @running",
            "stop -s NOSUCH @running",
            "kill @none",
            "kill @exited",
            "kill -s 0 @running",
            "kill -s 99 @running",
            "kill -s '' @exited",
            "pause @none",
            "pause @exited",
            "unpause @running",
            "rename @none @x",
            "rename @running @running",
            "rename @running ''",
            "rename @running 'bad name'",
            "rm @none",
            "rm -l @running",
            "rm @running",
            "attach @none",
            "attach @exited",
            "logs @none",
            "logs --since x @running",
            "logs --tail x @running",
            "port @none",
            "port @running 80",
            "port @running 80/nosuch",
            "port @running x",
            "top @none",
            "top @exited",
            "top @running --nosuch",
            "stats --no-stream @none",
            "stats --no-stream @running @none",
            "wait @none",
            "update --memory 1 @running",
            "update --memory 64m @none",
            "update --restart sometimes @running",
            "update --restart always:2 @running",
            "update --cpus 1000 @running",
            "update --cpuset-cpus 77 @running",
            "exec @none true",
            "exec @exited true",
            "exec -w relative @running true",
            "exec -u nosuchuser @running true",
            "exec -u 0:nosuchgroup @running true",
            "exec -e =x @running true",
            "exec --env-file absent @running true",
            "exec --detach-keys nosuch @running true",
            "exec @running nosuch",
            "exec @running /etc",
            "exec @running ''",
            "inspect @none",
            "inspect --type container @none",
            "inspect --type volume @none",
            "inspect --type network @none",
            "container inspect @none",
            "volume inspect @none",
            "volume rm @none",
            "volume create 'bad name'",
            "volume create --driver nosuch @w",
            "volume create -o type=tmpfs @w",
            "volume create -o x @w",
            "network inspect @none",
            "network rm bridge",
            "network rm @none",
            "image inspect @none",
            "image inspect BAD",
            "history @none",
            "tag @none x",
            "tag @bb BAD",
            "tag @bb ''",
            "rmi @none",
            "rmi BAD",
            "save @none",
            "save",
            "save -o absent/dir/x @bb",
            "load -i absent",
            "load -i plain",
            "load --platform nosuch/x/y/z -i plain",
            "import absent",
            "import -c 'NOSUCH x' plain",
            "import plain BAD",
            "run --rm @none:1@@sha256:xyz true",
            "run --rm -v @v:/x/../y:ro @bb ls /y",
            "run --rm --entrypoint /nosuch @bb",
            "run --rm --entrypoint '' @bb",
            "run --rm -w /etc/passwd @bb true",
            "run --rm --volumes-from @none @bb true",
            "run --rm --link @none:x @bb true",
            "run --rm --network container:@exited @bb true",
            "run --rm --pid container:@exited @bb true",
            "run --rm --ipc container:@exited @bb true",
            "run --rm --user nosuchuser @bb true",
            "run --rm --user 0:nosuchgroup @bb true",
            "run --rm --user 99999999999 @bb true",
        ],
    );
}
