//! `events`: which come, in which order, and how they are chosen.

use gantry_testkit::session::Session;
use gantry_testkit::wait::eventually;

gantry_testkit::scenarios![
    a_run_has_its_events_in_order,
    exec_events_tell_the_command,
    filters_choose,
    a_filter_that_there_is_not_chooses_nothing,
    events_are_followed_live,
    volume_events,
    stop_and_kill_events,
    events_as_json,
    out_of_memory_is_an_event,
    since_and_until_are_needed_to_end,
    rename_pause_and_update_events,
    a_removal_by_force_tells_no_stop,
];

/// The actions of the scenario's containers since `begin`.
fn actions(s: &Session, begin: &str, more: &str) -> String {
    let until = now();
    s.d(&format!("events --since {begin} --until {until} --filter label=gantry.test=@prefix {more} --format '{{{{.Action}}}}'")).ok().stdout
}

fn now() -> String {
    let time = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .expect("after 1970");
    format!("{}.{:09}", time.as_secs(), time.subsec_nanos())
}

fn a_filter_that_there_is_not_chooses_nothing(s: &Session) {
    let begin = now();
    s.d("create --name @c @bb").ok();
    assert_eq!(
        actions(s, &begin, "--filter nosuch=x --filter container=@c"),
        "create\n"
    );
}

fn a_run_has_its_events_in_order(s: &Session) {
    let begin = now();
    s.d("run --rm --name @c @bb sh -c 'exit 3'").exits(3);
    gantry_testkit::wait::eventually("the container is gone", || s.d("inspect @c").code == 1);
    assert_eq!(
        actions(s, &begin, "--filter type=container"),
        "create\nattach\nstart\ndie\ndestroy\n"
    );
    let until = now();
    s.d(&format!("events --since {begin} --until {until} --filter container=@c --filter event=die --format '{{{{.Actor.Attributes.exitCode}}}} {{{{.Actor.Attributes.name}}}} {{{{.Actor.Attributes.image}}}}'"))
        .prints("3 @c @bb\n");
    let id = s.d("create --name @d @bb").ok().text();
    s.d("start -a @d").ok();
    let until = now();
    let network = s.d(&format!("events --since {begin} --until {until} --filter type=network --format '{{{{.Action}}}} {{{{.Actor.Attributes.name}}}} {{{{.Actor.Attributes.type}}}} {{{{.Actor.Attributes.container}}}}'")).ok();
    let own: Vec<&str> = network
        .stdout
        .lines()
        .filter_map(|line| line.strip_suffix(&id))
        .collect();
    assert_eq!(own, ["connect bridge bridge ", "disconnect bridge bridge "]);
}

fn exec_events_tell_the_command(s: &Session) {
    s.d("run -d --name @c @bb sleep 1000").ok();
    let begin = now();
    s.d("exec @c sh -c 'exit 2'").exits(2);
    assert_eq!(
        actions(s, &begin, ""),
        "exec_create: sh -c exit 2\nexec_start: sh -c exit 2\nexec_die\n"
    );
}

fn filters_choose(s: &Session) {
    let begin = now();
    s.d("run --name @one @bb true").ok();
    s.d("run --name @two @bb true").ok();
    let count = |filters: &str| {
        let until = now();
        s.d(&format!(
            "events --since {begin} --until {until} {filters} --format '{{{{.Action}}}}'"
        ))
        .ok()
        .stdout
        .lines()
        .count()
    };
    assert_eq!(count("--filter container=@one --filter type=container"), 4);
    assert_eq!(count("--filter container=@one --filter event=start"), 1);
    assert_eq!(
        count(
            "--filter container=@one --filter container=@two --filter event=start --filter event=die"
        ),
        4
    );
    assert_eq!(count("--filter container=@none"), 0);
    assert_eq!(
        count("--filter image=@bb --filter event=create --filter label=gantry.test=@prefix"),
        2
    );
}

fn events_are_followed_live(s: &Session) {
    let events = s.background(
        "events",
        "events --filter label=gantry.test=@prefix --filter type=container --format '{{.Action}}'",
    );
    std::thread::sleep(std::time::Duration::from_millis(300));
    s.d("run --rm @bb true").ok();
    events.until_shows("destroy");
    assert_eq!(events.stdout(), "create\nattach\nstart\ndie\ndestroy\n");
}

fn volume_events(s: &Session) {
    let begin = now();
    s.d("volume create @v").ok();
    s.d("run --rm -v @v:/v @bb true").ok();
    s.d("volume rm @v").ok();
    let until = now();
    s.d(&format!("events --since {begin} --until {until} --filter volume=@v --format '{{{{.Type}}}} {{{{.Action}}}}'"))
        .prints("volume create\nvolume mount\nvolume unmount\nvolume destroy\n");
}

fn stop_and_kill_events(s: &Session) {
    s.d("run -d --name @c @bb sh -c 'trap \"exit 0\" TERM; echo up; while :; do sleep 0.02; done'")
        .ok();
    s.until_logged("@c", "up");
    let begin = now();
    s.d("stop @c").ok();
    // The reference tells the end and the stop in either order.
    let told = actions(s, &begin, "--filter type=container");
    assert!(
        told == "kill\ndie\nstop\n" || told == "kill\nstop\ndie\n",
        "{told}"
    );
    s.d("start @c").ok();
    let begin = now();
    s.d("kill @c").ok();
    s.until_status("@c", "exited");
    assert_eq!(actions(s, &begin, "--filter type=container"), "kill\ndie\n");
}

fn events_as_json(s: &Session) {
    let begin = now();
    let id = s.d("create --name @c @bb").ok().text();
    let until = now();
    let event = s
        .d(&format!(
            "events --since {begin} --until {until} --filter container=@c --format json"
        ))
        .ok()
        .json();
    assert_eq!(
        (
            event["Type"].as_str(),
            event["Action"].as_str(),
            event["scope"].as_str()
        ),
        (Some("container"), Some("create"), Some("local"))
    );
    assert_eq!(event["Actor"]["ID"], id.as_str());
    assert_eq!(event["id"], id.as_str());
    assert_eq!(
        event["timeNano"].as_i64().expect("a time") / 1_000_000_000,
        event["time"].as_i64().expect("a time")
    );
    s.d(&format!(
        "events --since {begin} --until {until} --filter container=@c"
    ))
    .ok()
    .such_that("the known line", |text| {
        text.contains(&format!(" container create {id} ("))
            && text.contains(&s.x("name=@c"))
            && text.ends_with(")\n")
    });
}

fn out_of_memory_is_an_event(s: &Session) {
    let begin = now();
    s.d("run --name @c --memory 16m --memory-swap 16m @deb python3 -c 'x = bytearray(200000000)'")
        .exits(137);
    // Docker tells the client of the end before it tells of the event.
    eventually("both events are told", || {
        let seen = actions(s, &begin, "--filter type=container");
        seen.contains("oom\n") && seen.contains("die\n")
    });
}

fn since_and_until_are_needed_to_end(s: &Session) {
    s.d("events --since 2020-01-01 --until 2020-01-02")
        .prints("");
    s.d("events --since 10 --until 5")
        .fails_with(1, "`since` time (10) cannot be after `until` time (5)");
}

fn rename_pause_and_update_events(s: &Session) {
    s.d("run -d --name @c @bb sleep 1000").ok();
    let begin = now();
    s.d("rename @c @d").ok();
    s.d("pause @d").ok();
    s.d("unpause @d").ok();
    s.d("update --cpu-shares 100 @d").ok();
    assert_eq!(actions(s, &begin, ""), "rename\npause\nunpause\nupdate\n");
}

fn a_removal_by_force_tells_no_stop(s: &Session) {
    s.d("network create @m").ok();
    s.d("network create @n").ok();
    s.d("volume create @v").ok();
    let told = |s: &Session, prepare: &[&str], removal: &str| {
        prepare.iter().for_each(|line| drop(s.d(line).ok()));
        let id = s.d("inspect -f '{{.Id}}' @c").ok().text();
        let begin = now();
        s.d(removal).ok();
        gantry_testkit::wait::eventually("the container is gone", || s.d("inspect @c").code == 1);
        let until = now();
        let all = s.d(&format!("events --since {begin} --until {until} --format '{{{{.Type}}}} {{{{.Action}}}} {{{{.Actor.ID}}}} {{{{.Actor.Attributes.name}}}} {{{{.Actor.Attributes.container}}}}'")).ok();
        let own = all.stdout.lines().filter(|line| line.contains(&id));
        let words = own.map(|line| {
            let words: Vec<&str> = line.split(' ').collect();
            match words[0] {
                "network" => format!("{} {}", words[1], words[3]),
                "volume" => words[1].to_owned(),
                _ => words[1].to_owned(),
            }
        });
        words.collect::<Vec<_>>().join(", ")
    };
    let run = "run -d --name @c --network @m --network @n -v @v:/v @bb sleep 1000";
    let sequence = s.x("kill, disconnect @m, disconnect @n, unmount, die, destroy");
    assert_eq!(told(s, &[run], "rm -f @c"), sequence);
    assert_eq!(told(s, &[run, "pause @c"], "rm -vf @c"), sequence);
    let run = "run -d --rm --name @c --network @m --network @n -v @v:/v @bb sleep 1000";
    assert_eq!(told(s, &[run], "rm -f @c"), sequence);
    let plain = s.x("kill, disconnect bridge, die, destroy");
    assert_eq!(
        told(s, &["run -d --name @c @bb sleep 1000"], "rm -f @c"),
        plain
    );
    // One that waits for its restart is removed without a word of a stop as well.
    let restarting = [
        "run -d --name @c --restart always @bb sh -c 'sleep 0.2; exit 1'",
        "wait @c",
        "wait @c",
        "wait @c",
    ];
    let told = told(s, &restarting, "rm -f @c");
    assert!(
        told.ends_with("destroy") && !told.contains("stop"),
        "{told}"
    );
}
