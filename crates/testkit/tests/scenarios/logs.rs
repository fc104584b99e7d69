//! `logs`: order, streams, limits, following, rotation.

use std::time::Duration;

use gantry_testkit::session::Session;

gantry_testkit::scenarios![
    streams_are_kept_apart,
    tail_counts_lines,
    since_and_until_cut,
    timestamps_and_details,
    follow_shows_what_comes_and_ends_with_the_container,
    a_terminal_has_one_stream,
    a_line_without_end_is_kept,
    long_lines_are_whole,
    many_lines_are_complete_and_in_order,
    the_none_driver_keeps_nothing,
    the_local_driver_reads_back,
    rotation_keeps_the_newest,
    the_mode_is_checked_and_nothing_is_lost,
    a_wrong_driver_or_option_is_refused,
    logs_of_nothing,
    binary_output_survives,
    the_file_has_the_known_format,
];

fn streams_are_kept_apart(s: &Session) {
    s.d("run --name @c @bb sh -c 'echo a; echo b >&2; echo c'")
        .ok();
    let logs = s.d("logs @c").ok();
    assert_eq!(
        (logs.stdout.as_str(), logs.stderr.as_str()),
        ("a\nc\n", "b\n")
    );
}

fn tail_counts_lines(s: &Session) {
    s.d("run --name @c @bb seq 1 1000").ok();
    s.d("logs --tail 3 @c").prints("998\n999\n1000\n");
    s.d("logs -n 1 @c").prints("1000\n");
    s.d("logs --tail 0 @c").prints("");
    s.d("logs --tail all @c")
        .such_that("all lines", |text| text.lines().count() == 1000);
    s.d("logs --tail -1 @c")
        .such_that("all lines", |text| text.lines().count() == 1000);
    s.d("logs --tail 5000 @c")
        .such_that("all lines", |text| text.lines().count() == 1000);
}

fn since_and_until_cut(s: &Session) {
    s.d("run --name @c @bb sh -c 'echo old; sleep 1.2; echo new'")
        .ok();
    let times: Vec<String> = s
        .d("logs -t @c")
        .ok()
        .stdout
        .lines()
        .map(|line| line.split(' ').next().unwrap_or_default().to_owned())
        .collect();
    s.d(&format!("logs --since {} @c", times[1]))
        .prints("new\n");
    s.d(&format!("logs --until {} @c", times[0]))
        .prints("old\n");
    s.d("logs --since 1h @c").prints("old\nnew\n");
    s.d("logs --since 2020-01-01 --until 2020-01-02 @c")
        .prints("");
    s.d("logs --since nonsense @c").exits(1);
}

fn timestamps_and_details(s: &Session) {
    s.d("run --name @c -e A=1 --log-opt env=A --log-opt labels=tier -l tier=x @bb echo line")
        .ok();
    s.d("logs --timestamps @c")
        .such_that("a time in UTC", |text| {
            let (time, rest) = text.split_once(' ').unwrap_or_default();
            time.len() == 30 && time.ends_with('Z') && rest == "line\n"
        });
    s.d("logs --details @c").prints("A=1,tier=x line\n");
}

fn follow_shows_what_comes_and_ends_with_the_container(s: &Session) {
    s.d("run -d --name @c @bb sh -c 'echo one; sleep 0.5; echo two; sleep 0.5; echo three'")
        .ok();
    let mut follow = s.background("follow", "logs -f @c");
    follow.until_shows("two");
    assert_eq!(follow.wait(), 0);
    assert_eq!(follow.stdout(), "one\ntwo\nthree\n");
    s.d("logs -f --tail 1 @c").prints("three\n");
}

fn a_terminal_has_one_stream(s: &Session) {
    s.d("run -t --name @c @bb sh -c 'echo a; echo b >&2'")
        .prints("a\r\nb\r\n");
    s.d("logs @c").prints("a\r\nb\r\n");
}

fn a_line_without_end_is_kept(s: &Session) {
    s.d("run --name @c @bb sh -c 'echo -n no end'")
        .prints("no end");
    s.d("logs @c").prints("no end");
}

fn long_lines_are_whole(s: &Session) {
    let line = "x".repeat(100_000);
    s.d("run --name @c @bb sh -c 'head -c 100000 /dev/zero | tr \"\\000\" x; echo'")
        .prints(&format!("{line}\n"));
    s.d("logs @c").prints(&format!("{line}\n"));
    s.d("logs --tail 1 @c")
        .such_that("the line's end at least", |text| text.ends_with("xx\n"));
}

fn many_lines_are_complete_and_in_order(s: &Session) {
    s.d("run -d --name @c @bb seq 1 100000").ok();
    s.d("wait @c").prints("0\n");
    let logs = s.d("logs @c").ok().stdout;
    let expected: String = (1..=100_000).map(|number| format!("{number}\n")).collect();
    assert!(logs == expected, "{} lines", logs.lines().count());
}

fn the_none_driver_keeps_nothing(s: &Session) {
    s.d("run --name @c --log-driver none @bb echo gone")
        .prints("gone\n");
    s.d("logs @c").fails(
        1,
        "Error response from daemon: configured logging driver does not support reading\n",
    );
}

fn the_local_driver_reads_back(s: &Session) {
    s.d("run --name @c --log-driver local @bb sh -c 'seq 1 500; echo err >&2'")
        .ok();
    s.d("logs --tail 2 @c").ok();
    let logs = s.d("logs @c").ok();
    assert_eq!(
        (logs.stdout.lines().count(), logs.stderr.as_str()),
        (500, "err\n")
    );
}

fn rotation_keeps_the_newest(s: &Session) {
    s.d("run --name @c --log-opt max-size=20k --log-opt max-file=3 @bb seq 1 5000")
        .ok();
    let logs = s.d("logs @c").ok().stdout;
    let numbers: Vec<u32> = logs
        .lines()
        .map(|line| line.parse().expect("a number"))
        .collect();
    assert_eq!(numbers.last(), Some(&5000));
    assert!(
        numbers.windows(2).all(|pair| pair[1] == pair[0] + 1),
        "the lines follow one another"
    );
    assert!(
        numbers.len() > 300 && numbers.len() < 5000,
        "{}",
        numbers.len()
    );
}

fn the_mode_is_checked_and_nothing_is_lost(s: &Session) {
    for options in [
        "--log-opt mode=blocking",
        "--log-opt mode=non-blocking --log-opt max-buffer-size=8m",
    ] {
        let name = format!("@c{}", options.len());
        s.d(&format!("run --name {name} {options} @bb seq 1 20000"))
            .ok();
        s.d(&format!("logs --tail 1 {name}")).prints("20000\n");
        s.d(&format!("logs {name}"))
            .such_that("every line", |text| text.lines().count() == 20_000);
    }
    for (options, words) in [
        (
            "--log-opt mode=sometimes",
            "logger: logging mode not supported: sometimes",
        ),
        (
            "--log-opt max-buffer-size=1m",
            "logger: max-buffer-size option is only supported with 'mode=non-blocking'",
        ),
        (
            "--log-opt mode=non-blocking --log-opt max-buffer-size=much",
            "invalid size: 'much'",
        ),
    ] {
        s.d(&format!("run --rm {options} @bb true"))
            .exits(125)
            .warns(words);
    }
}

fn a_wrong_driver_or_option_is_refused(s: &Session) {
    s.d("run --rm --log-driver nosuch @bb true")
        .exits(125)
        .warns("error looking up logging plugin nosuch: plugin \"nosuch\" not found");
    s.d("run --rm --log-opt nosuch=1 @bb true")
        .exits(125)
        .warns("unknown log opt 'nosuch' for json-file log driver");
    s.d("run --rm --log-opt max-size=wrong @bb true").exits(125);
}

fn logs_of_nothing(s: &Session) {
    s.d("create --name @c @bb").ok();
    s.d("logs @c").prints("");
    s.d("logs @none")
        .fails(1, "Error response from daemon: No such container: @none\n");
}

fn binary_output_survives(s: &Session) {
    s.d("run --name @c @bb printf 'a\\000b\\377\\n'").ok();
    let raw = std::process::Command::new("docker")
        .arg("-H")
        .arg(format!("unix://{}", s.engine.socket.display()))
        .args(["logs", &s.x("@c")])
        .output();
    if let Ok(output) = raw {
        assert!(output.stdout.starts_with(b"a\0b"), "{:?}", output.stdout);
    }
    std::thread::sleep(Duration::from_millis(1));
}

fn the_file_has_the_known_format(s: &Session) {
    s.d("run --name @c --log-driver json-file @bb sh -c 'echo \"a \\\"quote\\\" <&>\"'")
        .ok();
    let path = s.d("inspect -f '{{.LogPath}}' @c").ok().text();
    let id = s.inspect("@c")["Id"].as_str().expect("an id").to_owned();
    assert!(path.ends_with(&format!("{id}/{id}-json.log")), "{path}");
    if s.engine.is_reference() {
        return; // its files lie in a mount namespace that this test does not enter
    }
    let text = std::fs::read_to_string(path).expect("the log file");
    let line: serde_json::Value = serde_json::from_str(text.trim_end()).expect("JSON");
    assert_eq!(
        (line["log"].as_str(), line["stream"].as_str()),
        (Some("a \"quote\" <&>\n"), Some("stdout"))
    );
    assert!(
        line["time"]
            .as_str()
            .is_some_and(|time| time.ends_with('Z'))
    );
}
