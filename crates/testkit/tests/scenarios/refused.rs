//! What Gantry does not have: every command and every flag of it is refused, with its name in the words.

use gantry_testkit::session::{Client, Session};

gantry_testkit::scenarios![
    commands_are_refused_by_name,
    flags_of_run_and_create_are_refused_by_name,
    flags_of_other_commands_are_refused_by_name,
    zero_values_of_refused_flags_pass,
    an_empty_build_cache_is_pruned,
];

/// Commands, and the words with which the engine refuses them to either client. The engine answers.
const BY_THE_ENGINE: &[(&str, &str)] = &[
    (
        "commit -a author -c 'CMD x' -m message -p=false @c x:1",
        "commit is not supported by this engine",
    ),
    ("diff @c", "container diff is not supported by this engine"),
    (
        "export -o out.tar @c",
        "container export is not supported by this engine",
    ),
    (
        "cp @c:/etc/passwd out",
        "container cp is not supported by this engine",
    ),
    (
        "cp -a -L -q here @c:/tmp/here",
        "container cp is not supported by this engine",
    ),
];

/// Commands that Gantry's client refuses itself. With the last word `docker` Docker's client asks the engine, which refuses
/// too; the others it carries out or refuses alone.
const BY_THE_CLIENT: &[(&str, &str)] = &[
    ("build .", ""),
    ("checkpoint create --leave-running @c x", ""),
    ("checkpoint ls @c", ""),
    ("checkpoint rm @c x", ""),
    ("context export default out.tar", ""),
    ("context import @x in.tar", ""),
    ("plugin create x .", ""),
    ("plugin disable -f x", "docker"),
    ("plugin enable --timeout 1 x", "docker"),
    ("plugin inspect x", ""),
    ("plugin install --grant-all-permissions x", "docker"),
    ("plugin push x", ""),
    ("plugin rm -f x", ""),
    ("plugin set x a=b", "docker"),
    ("plugin upgrade x", ""),
    ("trust key generate x", ""),
    ("trust key load key", ""),
    ("trust signer add --key key x a/b", ""),
    ("trust signer remove -f x a/b", ""),
    ("trust inspect a/b:1", ""),
    ("trust revoke -y a/b:1", ""),
    ("trust sign a/b:1", ""),
    ("volume update --availability pause x", ""),
    ("config create -l a=b x -", ""),
    ("config inspect x", "docker"),
    ("config ls -q", "docker"),
    ("config rm x", "docker"),
    ("node demote x", "docker"),
    ("node inspect x", "docker"),
    ("node ls -q", "docker"),
    ("node promote x", "docker"),
    ("node ps x", ""),
    ("node rm -f x", "docker"),
    ("node update --role worker x", "docker"),
    ("secret create -l a=b x -", ""),
    ("secret inspect x", "docker"),
    ("secret ls -q", "docker"),
    ("secret rm x", "docker"),
    ("service create --name x --replicas 2 @bb", "docker"),
    ("service inspect x", "docker"),
    ("service logs -f x", "docker"),
    ("service ls -q", "docker"),
    ("service ps -q x", "docker"),
    ("service rm x", "docker"),
    ("service rollback -q x", "docker"),
    ("service scale x=2", "docker"),
    ("service update --replicas 2 x", "docker"),
    ("stack config -c f", ""),
    ("stack deploy -c f x", ""),
    ("stack ls", "docker"),
    ("stack ps x", "docker"),
    ("stack rm x", "docker"),
    ("stack services x", "docker"),
    ("swarm ca -q", "docker"),
    ("swarm init --autolock", "docker"),
    ("swarm join --token x 127.0.0.1:1", "docker"),
    ("swarm join-token -q worker", "docker"),
    ("swarm leave -f", "docker"),
    ("swarm unlock", ""),
    ("swarm unlock-key -q", "docker"),
    ("swarm update --autolock", "docker"),
];

fn commands_are_refused_by_name(s: &Session) {
    if s.engine.is_reference() {
        return; // it has them
    }
    s.d("create --name @c @bb").ok();
    s.file("here", "x\n");
    for (line, words) in BY_THE_ENGINE {
        let outcome = s.d(line);
        assert_ne!(outcome.code, 0, "{line}");
        outcome.warns(words);
    }
    for (line, asks) in BY_THE_CLIENT {
        let first: Vec<&str> = line.split(' ').collect();
        let command = match first[0] {
            "build" => "image build".to_owned(),
            "trust" if matches!(first[1], "key" | "signer") => first[..3].join(" "),
            _ => first[..2].join(" "),
        };
        match s.client {
            Client::Gantry => {
                let name = format!("'docker {command}' is not supported yet\n");
                s.d(line).exits(1).warns(&name);
            }
            Client::Docker if *asks == "docker" => {
                let outcome = s.d(line);
                let refused = [
                    "is not supported by this engine",
                    "not a swarm manager",
                    "not part of a swarm",
                ];
                assert!(
                    outcome.code != 0 && refused.iter().any(|words| outcome.stderr.contains(words)),
                    "{line}: {} {}",
                    outcome.code,
                    outcome.stderr
                );
            }
            Client::Docker => {}
        }
    }
}

/// Flags of `run` and `create`: the words of Docker's client or of the engine, and those of Gantry's client where they
/// differ. No words: Docker's client keeps the flag to itself.
const OF_RUN: &[(&str, &str, &str)] = &[
    (
        "--gpus all",
        "HostConfig.DeviceRequests is not supported by this engine",
        "",
    ),
    (
        "--device vendor.com/class=name",
        "HostConfig.DeviceRequests is not supported by this engine",
        "",
    ),
    (
        "--health-cmd true",
        "Healthcheck is not supported by this engine",
        "",
    ),
    (
        "--health-interval 5s",
        "Healthcheck is not supported by this engine",
        "",
    ),
    (
        "--health-retries 3",
        "Healthcheck is not supported by this engine",
        "",
    ),
    (
        "--health-timeout 5s",
        "Healthcheck is not supported by this engine",
        "",
    ),
    (
        "--health-start-period 5s",
        "Healthcheck is not supported by this engine",
        "",
    ),
    (
        "--health-start-interval 5s",
        "Healthcheck is not supported by this engine",
        "",
    ),
    (
        "--storage-opt size=1g",
        "HostConfig.StorageOpt is not supported by this engine",
        "",
    ),
    (
        "--ip 172.17.0.9",
        "user specified IP address is supported on user defined networks only",
        "",
    ),
    (
        "--ip6 fd00::9",
        "user specified IP address is supported on user defined networks only",
        "",
    ),
    (
        "--network-alias x",
        "network-scoped aliases are only supported for user-defined networks",
        "",
    ),
    (
        "--mount type=image,src=@bb,dst=/m",
        "mount type \"image\" is not supported by this engine",
        "",
    ),
    (
        "--mount type=cluster,src=x,dst=/m",
        "mount type \"cluster\" is not supported by this engine",
        "",
    ),
    ("--userns keep-id", "--userns: invalid USER mode", ""),
    (
        "--isolation hyperv",
        "invalid isolation (hyperv): linux only supports 'default'",
        "",
    ),
    ("--security-opt apparmor=mine", "apparmor=mine", ""),
    ("--security-opt label=type:mine", "label=type:mine", ""),
    (
        "--log-driver syslog",
        "the log driver \"syslog\" is not supported yet",
        "",
    ),
    (
        "--log-opt labels-regex=x",
        "the log option labels-regex is not supported yet",
        "",
    ),
    (
        "--log-opt env-regex=x",
        "the log option env-regex is not supported yet",
        "",
    ),
    (
        "--cpu-count 1",
        "\"--cpu-count\" is only supported on a Docker daemon running on windows",
        "HostConfig.CpuCount is not supported",
    ),
    (
        "--cpu-percent 1",
        "\"--cpu-percent\" is only supported on a Docker daemon running on windows",
        "HostConfig.CpuPercent is not supported",
    ),
    (
        "--io-maxiops 1",
        "\"--io-maxiops\" is only supported on a Docker daemon running on windows",
        "HostConfig.IOMaximumIOps is not supported",
    ),
    (
        "--io-maxbandwidth 1",
        "\"--io-maxbandwidth\" is only supported on a Docker daemon running on windows",
        "HostConfig.IOMaximumBandwidth is not supported",
    ),
    (
        "--kernel-memory 32m",
        "",
        "--kernel-memory is not supported",
    ),
    ("--use-api-socket", "", "--use-api-socket is not supported"),
    (
        "--disable-content-trust=false",
        "",
        "--disable-content-trust=false is not supported",
    ),
];

fn flags_of_run_and_create_are_refused_by_name(s: &Session) {
    if s.engine.is_reference() {
        return; // it has some of them
    }
    for (flags, docker, gantry) in OF_RUN {
        let words = match s.client {
            Client::Gantry if !gantry.is_empty() => gantry,
            _ => docker,
        };
        if words.is_empty() {
            continue;
        }
        for verb in ["run --rm", "create"] {
            let outcome = s.d(&format!("{verb} --pull never {flags} @bb true"));
            assert_ne!(outcome.code, 0, "{flags}");
            outcome.warns(words);
        }
    }
}

fn flags_of_other_commands_are_refused_by_name(s: &Session) {
    if s.engine.is_reference() {
        return; // it has some of them
    }
    s.d("create --name @c @bb").ok();
    for (line, docker, gantry) in [
        (
            "start --checkpoint x @c",
            "\"--checkpoint\" is only supported on a Docker daemon with experimental features enabled",
            "checkpoints are not supported",
        ),
        (
            "start -a --checkpoint-dir x @c",
            "\"--checkpoint-dir\" is only supported on a Docker daemon with experimental features enabled",
            "checkpoints are not supported",
        ),
        (
            "pull --disable-content-trust=false @none",
            "",
            "--disable-content-trust=false is not supported",
        ),
        (
            "volume create --availability active @v",
            "ClusterVolumeSpec is not supported by this engine",
            "--availability is for cluster volumes",
        ),
        (
            "volume create --group g @v",
            "ClusterVolumeSpec",
            "--group is for cluster volumes",
        ),
        (
            "volume create --limit-bytes 1 @v",
            "ClusterVolumeSpec",
            "--limit-bytes is for cluster volumes",
        ),
        (
            "volume create --required-bytes 1 @v",
            "ClusterVolumeSpec",
            "--required-bytes is for cluster volumes",
        ),
        (
            "volume create --scope single @v",
            "ClusterVolumeSpec",
            "--scope is for cluster volumes",
        ),
        (
            "volume create --secret a=b @v",
            "",
            "--secret is for cluster volumes",
        ),
        (
            "volume create --sharing none @v",
            "ClusterVolumeSpec",
            "--sharing is for cluster volumes",
        ),
        (
            "volume create --topology-preferred a=b @v",
            "",
            "--topology-preferred is for cluster volumes",
        ),
        (
            "volume create --topology-required a=b @v",
            "",
            "--topology-required is for cluster volumes",
        ),
        (
            "volume create --type mount @v",
            "ClusterVolumeSpec",
            "--type is for cluster volumes",
        ),
    ] {
        let words = match s.client {
            Client::Gantry if !gantry.is_empty() => gantry,
            _ => docker,
        };
        if !words.is_empty() {
            let outcome = s.d(line);
            assert_ne!(outcome.code, 0, "{line}");
            outcome.warns(words);
        }
    }
    if s.client == Client::Gantry {
        for flags in [
            "--tls",
            "--tlsverify",
            "--tlscacert x",
            "--tlscert x",
            "--tlskey x",
        ] {
            s.d(&format!("{flags} ps"))
                .exits(1)
                .warns("TLS connections to a daemon are not supported yet");
        }
        for line in ["run --rm @bb true", "create @bb", "pull @none"] {
            s.d_env(line, &[("DOCKER_CONTENT_TRUST", "1")])
                .warns("DOCKER_CONTENT_TRUST is not supported");
        }
        s.d_env(
            "run --rm --disable-content-trust @bb echo ran",
            &[("DOCKER_CONTENT_TRUST", "1")],
        )
        .prints("ran\n");
    }
}

fn zero_values_of_refused_flags_pass(s: &Session) {
    let both = "--health-interval 0s --health-timeout 0s --health-retries 0 --health-start-period 0s --health-start-interval 0s --disable-content-trust";
    s.d(&format!("run --rm {both} @bb echo ran"))
        .prints("ran\n");
    if s.client == Client::Gantry {
        s.d("run --rm --cpu-count 0 --cpu-percent 0 --io-maxiops 0 --io-maxbandwidth 0 --ip '' @bb echo ran")
            .prints("ran\n");
    }
}

fn an_empty_build_cache_is_pruned(s: &Session) {
    if s.engine.is_reference() {
        return; // its cache belongs to others
    }
    s.d("builder prune --force --all --keep-storage 1g --filter until=1h")
        .prints("Total reclaimed space: 0B\n");
    s.d_with("builder prune", b"n\n")
        .ok()
        .shows("WARNING! This will remove all dangling build cache. Are you sure you want to continue? [y/N] ");
}
