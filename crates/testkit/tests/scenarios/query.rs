//! What is shown: ps, inspect, info, version, formats; the shape of every answer as the reference gives it.

use std::collections::BTreeMap;

use gantry_testkit::golden::Recording;
use gantry_testkit::session::{Client, Session};
use serde_json::Value;

gantry_testkit::scenarios![
    answers_have_the_references_shape,
    inspect_by_type,
    inspect_of_several_with_one_missing,
    ps_formats,
    ps_statuses,
    version_and_info,
    top_with_options,
    formats_as_json_and_table,
    templates_with_functions,
    ids_can_be_cut,
    an_ambiguous_id_is_refused,
    stats_as_json,
    sizes_are_shown,
    everything_of_a_container_as_json,
    disk_usage_as_json,
    an_image_that_lost_its_name_is_shown_by_id,
    plugins_are_listed,
    words_are_completed,
    bash_completes,
];

/// The paths in `value` and the kind of what is there. Maps whose keys are data are cut.
fn shape(value: &Value, path: &str, found: &mut BTreeMap<String, &'static str>) {
    let data = [
        "Labels",
        "Ports",
        "ExposedPorts",
        "Volumes",
        "Networks",
        "Containers",
        "Attributes",
        "Options",
        "Runtimes",
        "Data",
        "Config.Env",
    ];
    let kind = match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    found.insert(path.to_owned(), kind);
    match value {
        Value::Object(map) => {
            let is_data = data.iter().any(|name| path.ends_with(name));
            for (key, value) in map {
                let key = if is_data { "*" } else { key };
                shape(value, &format!("{path}.{key}"), found);
            }
        }
        Value::Array(list) => list
            .iter()
            .take(1)
            .for_each(|value| shape(value, &format!("{path}[]"), found)),
        _ => {}
    }
}

/// The answers were recorded on version 1 of control groups. Version 2 has no switch for the OOM killer, no time per CPU
/// and no peak of memory, and Docker leaves them out there: so must this engine, before they are filled in as recorded.
fn as_on_version_1(name: &str, found: &mut BTreeMap<String, &'static str>) {
    let of_containers = [(".HostConfig.OomKillDisable", "bool")];
    let of_statistics = [
        (".cpu_stats.cpu_usage.percpu_usage", "array"),
        (".cpu_stats.cpu_usage.percpu_usage[]", "number"),
        (".memory_stats.max_usage", "number"),
    ];
    for (path, kind) in of_containers {
        if found.get(path) == Some(&"null") {
            found.insert(path.to_owned(), kind);
        }
    }
    for (path, kind) in of_statistics {
        if name == "statistics" {
            let there = found.insert(path.to_owned(), kind);
            assert_eq!(there, None, "`{path}` is not counted on version 2");
        }
    }
}

fn answers_have_the_references_shape(s: &Session) {
    let port = s.port();
    s.d(&format!(
        "run -d --name @c -p {port}:80 -v @v:/v --memory 64m --restart on-failure:2 -e A=1 @web"
    ))
    .ok();
    s.d("create --name @d --network none @app").ok();
    s.d("run --name @e @bb false").exits(1);
    let version_2 = s.d("info -f '{{.CgroupVersion}}'").ok().text() == "2";
    let mut recording = Recording::open("shapes", s.engine);
    let mut differences = Vec::new();
    let filter = format!(
        "filters={{%22label%22:[%22gantry.test={}%22]}}",
        s.x("@prefix")
    );
    for version in ["", "/v1.24", "/v1.40", "/v1.43", "/v1.47", "/v1.51"] {
        for (name, path) in [
            ("running container", s.x("/containers/@c/json")),
            (
                "running container with size",
                s.x("/containers/@c/json?size=1"),
            ),
            ("created container", s.x("/containers/@d/json")),
            ("exited container", s.x("/containers/@e/json")),
            ("containers", format!("/containers/json?all=1&{filter}")),
            (
                "containers with size",
                format!("/containers/json?all=1&size=1&{filter}"),
            ),
            ("image", "/images/localhost/test/app:1/json".to_owned()),
            (
                "images",
                "/images/json?filters={%22reference%22:[%22localhost/test/app:1%22]}".to_owned(),
            ),
            ("history", "/images/localhost/test/app:1/history".to_owned()),
            ("volume", s.x("/volumes/@v")),
            ("volumes", s.x("/volumes?filters={%22name%22:[%22@v%22]}")),
            ("network", "/networks/bridge".to_owned()),
            (
                "networks",
                "/networks?filters={%22name%22:[%22bridge%22]}".to_owned(),
            ),
            ("processes", s.x("/containers/@c/top")),
            ("version", "/version".to_owned()),
            (
                "statistics",
                s.x("/containers/@c/stats?stream=0&one-shot=1"),
            ),
        ] {
            let response = s.engine.api("GET", &format!("{version}{path}"), None);
            let mut found = BTreeMap::new();
            match response.json() {
                Ok(value) => shape(&value, "", &mut found),
                Err(_) => found.extend([(format!("status {}", response.status), "text")]),
            }
            if version_2 {
                as_on_version_1(name, &mut found);
            }
            // What depends on the machine and not on the engine.
            found.retain(|path, _| {
                ![
                    "blkio_stats",
                    "Components",
                    "networks",
                    "GraphDriver.Data",
                    "IPAM.Options",
                    "[].Options",
                    "precpu_stats",
                    "memory_stats.stats",
                    "storage_stats",
                ]
                .iter()
                .any(|part| path.contains(part))
            });
            let text: Vec<String> = found
                .iter()
                .map(|(path, kind)| format!("{path} {kind}"))
                .collect();
            differences.extend(recording.compare_lines(&format!("{version} {name}"), &text));
        }
    }
    recording.save();
    assert!(
        differences.is_empty(),
        "{} differences:\n{}",
        differences.len(),
        differences.join("\n")
    );
}

fn inspect_by_type(s: &Session) {
    s.d("create --name @same @bb").ok();
    s.d("volume create @same").ok();
    s.d("inspect -f '{{.Name}}' @same").prints("/@same\n");
    s.d("inspect --type volume -f '{{.Name}}' @same")
        .prints("@same\n");
    s.d("inspect --type image @same")
        .fails_with(1, "Error response from daemon: No such image: @same:latest");
    s.d("inspect --type nosuch @same").fails(1, "unknown type: \"nosuch\": must be one of \"config\", \"container\", \"image\", \"network\", \"node\", \"plugin\", \"secret\", \"service\", \"task\", \"volume\"\n");
    s.d("inspect -f '{{index .RepoTags 0}}' @bb")
        .prints("@bb\n");
    s.d("inspect -f '{{.Driver}}' host").prints("host\n");
}

fn inspect_of_several_with_one_missing(s: &Session) {
    s.d("create --name @c @bb").ok();
    let outcome = s.d("inspect -f '{{.Name}}' @c @none @c").exits(1);
    assert_eq!(outcome.stdout, s.x("/@c\n/@c\n"));
    assert_eq!(outcome.stderr, s.x("Error: No such object: @none\n"));
    s.d("inspect @none").exits(1).shows("[]\n");
    s.d("container inspect @none")
        .exits(1)
        .shows("[]\n")
        .warns("Error response from daemon: No such container: @none\n");
}

fn ps_formats(s: &Session) {
    s.d("run -d --name @c -l a=b @bb sleep 1000").ok();
    s.d("ps --filter name=@c")
        .ok()
        .such_that("the known heading", |text| {
            text.starts_with("CONTAINER ID   IMAGE ")
                && text.contains("COMMAND")
                && text.contains("\"sleep 1000\"")
                && text.contains("Up ")
        });
    s.d("ps --filter name=@c --format 'table {{.Names}}\\t{{.State}}'")
        .such_that("a table", |text| {
            let lines: Vec<Vec<&str>> = text
                .lines()
                .map(|line| line.split_whitespace().collect())
                .collect();
            lines == [vec!["NAMES", "STATE"], vec![s.x("@c").as_str(), "running"]]
        });
    s.d("ps --filter name=@c --format '{{.Label \"a\"}} {{.Command}} {{.Networks}} {{.Mounts}} {{.LocalVolumes}}'").prints("b \"sleep 1000\" bridge  0\n");
    s.d("ps --filter name=@c --no-trunc --format '{{.ID}}'")
        .such_that("the long id", |text| text.len() == 65);
    s.d("ps --filter name=@c --format '{{.Nosuch}}'")
        .exits(1)
        .warns("can't evaluate field Nosuch");
    s.d("ps --filter name=@c --format '{{.Names'")
        .exits(1)
        .warns("failed to parse template: template: :1: unclosed action\n");
}

fn ps_statuses(s: &Session) {
    s.d("create --name @created @bb").ok();
    s.d("run --name @exited @bb sh -c 'exit 2'").exits(2);
    s.d("run -d --name @running @bb sleep 1000").ok();
    let status = |name: &str| {
        s.d(&format!(
            "ps -a --filter name={name} --format '{{{{.Status}}}}|{{{{.State}}}}'"
        ))
        .ok()
        .text()
    };
    assert_eq!(status("@created"), "Created|created");
    assert!(
        status("@exited").starts_with("Exited (2) ") && status("@exited").ends_with(" ago|exited"),
        "{}",
        status("@exited")
    );
    assert!(
        status("@running").starts_with("Up ") && status("@running").ends_with("|running"),
        "{}",
        status("@running")
    );
    s.d("ps --filter name=@created -q").prints("");
}

fn version_and_info(s: &Session) {
    s.d("version --format '{{.Server.APIVersion}} {{.Server.MinAPIVersion}} {{.Server.Os}} {{.Server.Arch}}'").prints("1.51 1.24 linux amd64\n");
    s.d("info --format '{{.OSType}} {{.Driver}} {{.LoggingDriver}} {{.CgroupDriver}} {{.DefaultRuntime}}'").ok().such_that("the known defaults", |text| {
        text.starts_with("linux overlay2 json-file cgroupfs ") || text.starts_with("linux overlay2 local cgroupfs ")
    });
    s.d("info")
        .ok()
        .shows("Storage Driver: overlay2")
        .shows(" Containers: ")
        .shows("Kernel Version: ");
    s.d("--version").ok();
}

fn top_with_options(s: &Session) {
    s.d("run -d --name @c -u 1000 @bb sleep 777").ok();
    s.d("top @c").ok().such_that("the known heading", |text| {
        text.lines().next().is_some_and(|line| {
            line.split_whitespace()
                .eq(["UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD"])
        }) && text.contains("sleep 777")
    });
    s.d("top @c -o pid,comm")
        .ok()
        .such_that("two columns", |text| {
            text.lines()
                .next()
                .is_some_and(|line| line.split_whitespace().eq(["PID", "COMMAND"]))
        });
    s.d("top @c -o comm")
        .exits(1)
        .warns("Couldn't find PID field in ps output");
    s.d("create --name @d @bb").ok();
    s.d("top @d").fails_with(1, "is not running");
}

fn formats_as_json_and_table(s: &Session) {
    s.d("create --name @c @bb").ok();
    let listed = s.d("ps -a --filter name=@c --format json").ok().json();
    assert_eq!(
        (listed["Names"].as_str(), listed["State"].as_str()),
        (Some(s.x("@c").as_str()), Some("created"))
    );
    s.d("volume create @v").ok();
    let volume = s.d("volume ls --filter name=@v --format json").ok().json();
    assert_eq!(volume["Name"], s.x("@v").as_str());
    let image = s.d("images --format json @bb").ok().json();
    assert_eq!(image["Repository"], "localhost/test/busybox");
    let network = s.d("network ls --filter name=bridge --format json").ok();
    assert!(
        network
            .stdout
            .lines()
            .next()
            .is_some_and(|line| line.contains("\"Name\":\"bridge\""))
    );
    s.d("volume ls --filter name=@v")
        .ok()
        .such_that("a table", |text| {
            text.starts_with("DRIVER    VOLUME NAME\nlocal     ")
        });
}

fn templates_with_functions(s: &Session) {
    s.d("create --name @c -e A=1 -e B=2 -l up=low @bb one two")
        .ok();
    s.d("inspect -f '{{range $i, $e := .Config.Cmd}}{{$i}}={{$e}},{{end}}' @c")
        .prints("0=one,1=two,\n");
    s.d("inspect -f '{{join .Config.Cmd \"+\"}} {{upper .State.Status}} {{len .Config.Cmd}}' @c")
        .prints("one+two CREATED 2\n");
    s.d("inspect -f '{{if .State.Running}}yes{{else}}no{{end}} {{printf \"%s-%d\" .Name .RestartCount}}' @c").prints("no /@c-0\n");
    s.d("inspect -f '{{json .Config.Cmd}} {{index .Config.Cmd 1}} {{println \"x\"}}' @c")
        .prints("[\"one\",\"two\"] two x\n\n");
    s.d("inspect -f '{{with index .Config.Labels \"up\"}}<{{.}}>{{end}}{{title \"word\"}} {{lower \"ABC\"}} {{split \"a,b\" \",\"}} {{truncate \"abcdef\" 3}}' @c")
        .prints("<low>Word abc [a b] abc\n");
    s.d("inspect -f '{{.Nosuch}}' @c")
        .fails_with(1, "template parsing error");
    s.d("inspect -f '{{eq .RestartCount 0}} {{and true false}} {{or \"\" \"x\"}} {{not true}} {{gt 2 1}}' @c").prints("true false x false true\n");
}

fn ids_can_be_cut(s: &Session) {
    let id = s.d("create --name @c @bb").ok().text();
    for length in [12, 20, 64] {
        s.d(&format!("inspect -f '{{{{.Id}}}}' {}", &id[..length]))
            .prints(&format!("{id}\n"));
    }
    s.d("inspect -f '{{.Id}}' /@c").prints(&format!("{id}\n"));
}

fn an_ambiguous_id_is_refused(s: &Session) {
    // Seventeen ids: two of them begin with the same digit.
    let ids: Vec<String> = (0..17).map(|_| s.d("create @bb").ok().text()).collect();
    let digit = ids
        .iter()
        .map(|id| &id[..1])
        .find(|digit| ids.iter().filter(|id| id.starts_with(digit)).count() > 1)
        .expect("a shared digit");
    s.d(&format!("inspect --type container {digit}"))
        .exits(1)
        .warns(&format!("multiple IDs found with provided prefix: {digit}"));
}

fn stats_as_json(s: &Session) {
    s.d("run -d --name @c --memory 32m --pids-limit 9 @bb sleep 1000")
        .ok();
    let stats = s.d("stats --no-stream --format json @c").ok().json();
    assert_eq!(stats["Name"], s.x("@c").as_str());
    assert!(
        stats["MemUsage"]
            .as_str()
            .is_some_and(|text| text.ends_with("/ 32MiB")),
        "{stats}"
    );
    assert_eq!(stats["PIDs"], "1");
    let raw = s
        .engine
        .api("GET", &s.x("/containers/@c/stats?stream=0"), None)
        .json()
        .expect("JSON");
    assert_eq!(raw["memory_stats"]["limit"], 33_554_432);
    assert_eq!(raw["pids_stats"]["limit"], 9);
    assert!(raw["networks"]["eth0"]["rx_bytes"].is_number(), "{raw}");
    assert!(
        raw["precpu_stats"]["cpu_usage"]["total_usage"].as_u64()
            <= raw["cpu_stats"]["cpu_usage"]["total_usage"].as_u64()
    );
}

fn sizes_are_shown(s: &Session) {
    s.d("run --name @c @bb sh -c 'head -c 5000 /dev/zero > /f'")
        .ok();
    let state = s
        .engine
        .api("GET", &s.x("/containers/@c/json?size=1"), None)
        .json()
        .expect("JSON");
    assert_eq!(state["SizeRw"], 5000);
    assert!(
        state["SizeRootFs"]
            .as_u64()
            .is_some_and(|bytes| bytes > 1_000_000)
    );
}

fn everything_of_a_container_as_json(s: &Session) {
    s.d("create --name @c @bb").ok();
    let list = |format: &str| {
        s.d(&format!("ps -a --filter name=@c --format '{format}'"))
            .ok()
            .json()
    };
    // A template that shows everything has the sizes counted; the word `json` has not.
    let (all, word) = (list("{{json .}}"), list("json"));
    assert_eq!(word["Size"], "0B");
    let size = all["Size"].as_str().unwrap_or_default();
    assert!(size.starts_with("0B (virtual "), "{size}");
    assert_eq!(
        (&all["Platform"], &word["Platform"]),
        (&Value::Null, &Value::Null)
    );
    s.d("ps -a --filter name=@c --format '[{{.Platform}}]'")
        .prints("[<nil>]\n");
}

fn disk_usage_as_json(s: &Session) {
    s.d("create --name @c @bb").ok();
    s.d("volume create @v").ok();
    let usage = s.d("system df -v --format json").ok().json();
    let find = |kind: &str, field: &str, value: &str| {
        let items = usage[kind].as_array().cloned().unwrap_or_default();
        let found = items.into_iter().find(|item| item[field] == value);
        found.unwrap_or_else(|| panic!("no {value} among {kind}"))
    };
    let container = find("Containers", "Names", &s.x("@c"));
    assert_eq!(
        (&container["Size"], &container["State"]),
        (&Value::from("0B"), &Value::from("created"))
    );
    let volume = find("Volumes", "Name", &s.x("@v"));
    assert_eq!(
        (&volume["Links"], &volume["Size"]),
        (&Value::from("0"), &Value::from("0B"))
    );
    // Known by what it has alone: other scenarios give it more names.
    let image = find("Images", "UniqueSize", "26B");
    assert_eq!(image["VirtualSize"], "1.984MB");
    assert_eq!(usage["BuildCache"], Value::Array(Vec::new()));
}

fn an_image_that_lost_its_name_is_shown_by_id(s: &Session) {
    s.d("tag @app @named:1").ok();
    s.d("create --name @c @named:1").ok();
    let shown = |more: &str| {
        s.d(&format!(
            "ps -a {more} --filter name=@c --format '{{{{.Image}}}}'"
        ))
        .ok()
        .text()
    };
    let id = s.d("image inspect -f '{{.Id}}' @app").ok().text();
    assert_eq!(shown(""), s.x("@named:1"));
    s.d("rmi -f @named:1").ok();
    assert_eq!(shown("--no-trunc"), id);
    // The name is another image's now.
    s.d("tag @bb @named:1").ok();
    assert_eq!(shown("--no-trunc"), id);
    assert_eq!(shown(""), id["sha256:".len()..][..12]);
    s.d("inspect -f '{{.Config.Image}}' @c")
        .prints("@named:1\n");
}

fn plugins_are_listed(s: &Session) {
    let table = "ID        NAME      DESCRIPTION   ENABLED\n";
    for flags in [
        "",
        "--no-trunc",
        "--filter enabled=true",
        "--filter capability=volumedriver",
    ] {
        s.d(&format!("plugin ls {flags}")).prints(table);
    }
    s.d("plugin list --format 'table {{.Name}}\\t{{.PluginReference}}'")
        .prints("NAME      IMAGE\n");
    for flags in [
        "--quiet",
        "--format json",
        "--format '{{.ID}}'",
        "-q --format raw",
    ] {
        s.d(&format!("plugin ls {flags}")).prints("");
    }
    s.d("plugin ls --filter nosuch=1")
        .fails(1, "Error response from daemon: invalid filter 'nosuch'\n");
    s.d("plugin ls --filter enabled=x").fails(
        1,
        "Error response from daemon: invalid filter 'enabled=[x]'\n",
    );
}

fn words_are_completed(s: &Session) {
    s.d("run -d --name @c @bb sleep 1000").ok();
    s.d("create --name @d @bb").ok();
    s.d("network create @n").ok();
    s.d("volume create @v").ok();
    s.d("tag @bb @i:1").ok();
    let has = |line: &str, wanted: &[&str], others: &[&str]| {
        let answer = s.d(&format!("__complete {line}")).ok();
        let lines: Vec<&str> = answer.stdout.lines().collect();
        for name in wanted {
            assert!(
                lines.contains(&s.x(name).as_str()),
                "{line}: {name} in {lines:?}"
            );
        }
        for name in others {
            assert!(
                !lines.contains(&s.x(name).as_str()),
                "{line}: {name} in {lines:?}"
            );
        }
        assert_eq!(lines.last(), Some(&":4"), "{line}");
    };
    has("stop @prefix", &["@c"], &["@d", "@n"]);
    has("start ''", &["@d"], &["@c"]);
    has("logs ''", &["@c", "@d"], &["@n"]);
    has("rm ''", &["@d"], &["@c"]);
    has("network rm ''", &["@n", "bridge"], &["@c", "@v"]);
    has("network connect @n ''", &["@c", "@d"], &["@n"]);
    has("run --network ''", &["@n", "host"], &[]);
    has("run --network=@n", &["@n"], &[]);
    has("volume rm ''", &["@v"], &["@n"]);
    has("run ''", &["@i:1", "@bb"], &["@c"]);
    has("rmi ''", &["@i:1"], &[]);
    has("context use ''", &[], &["@c"]);
    has(
        "ne",
        &["network\tManage networks"],
        &["volume\tManage volumes"],
    );
    has(
        "network ''",
        &[
            "connect\tConnect a container to a network",
            "rm\tRemove one or more networks",
        ],
        &[],
    );
    has(
        "ps --no",
        &["--no-trunc\tDon't truncate output"],
        &["--quiet\tOnly display container IDs"],
    );
    has("run --restart ''", &["no", "unless-stopped"], &[]);
    s.d("__complete nosuch ''").prints(":0\n");
}

fn bash_completes(s: &Session) {
    if s.client == Client::Docker {
        return; // its script is its own, and wants a package besides
    }
    s.d("run -d --name @c @bb sleep 1000").ok();
    s.d("tag @bb @i:1").ok();
    let completed = |line: &str| {
        s.file(
            "complete",
            &s.x(&format!(
                "source <(docker completion bash)\ncomplete -p docker >&2\nCOMP_LINE='{line}'\nCOMP_POINT=${{#COMP_LINE}}\n_docker_complete\nprintf '%s\\n' \"${{COMPREPLY[@]}}\"\n"
            )),
        );
        let answer = s.script("bash @dir/complete").ok();
        assert_eq!(answer.stderr, "complete -F _docker_complete docker\n");
        answer.stdout
    };
    assert_eq!(completed("docker netw"), "network\n");
    assert_eq!(completed("docker network dis"), "disconnect\n");
    assert_eq!(completed("docker ps --no-t"), "--no-trunc\n");
    assert_eq!(completed("docker stop @prefix"), s.x("@c\n"));
    assert_eq!(completed("docker run --network=bri"), "bridge\n");
    // What stands before a colon is a word of its own for bash.
    assert_eq!(completed("docker rmi @i:"), "1\n");
    assert_eq!(completed("docker run --restart un"), "unless-stopped\n");
    assert_eq!(completed("docker run @bb "), "\n");
}
