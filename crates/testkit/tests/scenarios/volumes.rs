//! Volumes with a file system of their own, parts of volumes, propagation, and the filters of lists and prunes.

use std::time::{Duration, Instant};

use gantry_testkit::session::Session;

gantry_testkit::scenarios![
    a_volume_has_a_file_system_of_its_own,
    a_volume_shows_a_directory_of_the_host,
    options_of_a_volume_are_checked,
    a_device_that_cannot_be_mounted_is_told,
    a_volume_is_made_with_options_by_the_mount,
    a_volume_is_mounted_until_its_last_user_ends,
    a_block_device_is_a_volume,
    a_file_system_hides_what_the_image_has,
    volume_subpath,
    a_subpath_does_not_lead_out_of_its_volume,
    a_subpath_is_not_led_out_while_a_link_is_swapped,
    namespaces_of_another_container_are_joined,
    namespaces_of_a_stopped_container_are_not_joined,
    propagation_modes,
    propagation_needs_a_mount_that_has_it,
    the_engines_data_is_not_held_by_a_bind,
    modes_that_do_not_fit_are_refused,
    recursive_read_only_binds,
    a_bound_file_stays_when_it_is_replaced,
    copy_up_keeps_owners_modes_and_links,
    volumes_from_may_be_read_only,
    rm_takes_the_anonymous_volumes_and_leaves_the_named,
    volume_prune_filters,
    volume_ls_filters,
];

const TMPFS: &str = "volume create -o type=tmpfs -o device=tmpfs";

fn a_volume_has_a_file_system_of_its_own(s: &Session) {
    s.d(&format!("{TMPFS} -o o=size=10m,uid=1000,mode=750 @v"))
        .prints("@v\n");
    s.d("run --rm -v @v:/v @bb sh -c 'grep \" /v \" /proc/mounts; stat -c \"%u %a\" /v'")
        .prints("tmpfs /v tmpfs rw,relatime,size=10240k,mode=750,uid=1000 0 0\n1000 750\n");
    s.d("volume inspect -f '{{json .Options}}' @v")
        .prints("{\"device\":\"tmpfs\",\"o\":\"size=10m,uid=1000,mode=750\",\"type\":\"tmpfs\"}\n");
    // Another time of the same name is the same volume.
    s.d(&format!("{TMPFS} -o o=size=11m @v")).prints("@v\n");
    s.d("volume inspect -f '{{.Options.o}}' @v")
        .prints("size=10m,uid=1000,mode=750\n");
    s.d("create --name @c -v @v:/v:ro @bb").ok();
    s.d("inspect -f '{{range .Mounts}}{{.Type}} {{.Name}} {{.Driver}} {{.Mode}} {{.RW}} {{.Source}}{{end}}' @c")
        .ok()
        .such_that("the volume's directory", |text| {
            text.starts_with(&s.x("volume @v local ro false /")) && text.ends_with(&s.x("/volumes/@v/_data\n"))
        });
    s.d("rm @c").ok();
    s.d("volume rm @v").prints("@v\n");
}

fn a_volume_shows_a_directory_of_the_host(s: &Session) {
    s.file("here", "host\n");
    s.d("volume create -o type=none -o o=bind -o device=@dir @v")
        .ok();
    s.d("run --rm -v @v:/v @bb sh -c 'cat /v/here; echo made > /v/made'")
        .prints("host\n");
    assert_eq!(
        std::fs::read_to_string(s.dir().join("made")).expect("a file"),
        "made\n"
    );
    s.d("run --rm -v @v:/v:ro @bb touch /v/x")
        .exits(1)
        .warns("Read-only file system");
    s.d("volume rm @v").ok();
    assert!(s.dir().join("here").exists());
    s.d("volume create -o type=none -o o=bind,ro -o device=@dir @r")
        .ok();
    s.d("run --rm -v @r:/v @bb touch /v/x")
        .exits(1)
        .warns("Read-only file system");
}

fn options_of_a_volume_are_checked(s: &Session) {
    for (options, text) in [
        ("-o o=size=1m", "missing required option: \"device\""),
        ("-o device=/x", "missing required option: \"type\""),
        ("-o type=tmpfs", "missing required option: \"device\""),
        ("-o size=1m", "quota size requested but no quota support"),
        ("-o size=abc", "invalid size: 'abc'"),
        ("-o size=1m -o nosuch=1", "invalid option: \"nosuch\""),
    ] {
        s.d(&format!("volume create {options} @v")).fails(
            1,
            &format!("Error response from daemon: create @v: {text}\n"),
        );
    }
    s.d("volume create -o size=0 @w").prints("@w\n");
    s.d("run --rm -v @w:/w @bb touch /w/x").ok();
    s.d("volume create -o type= -o device= @x").prints("@x\n");
    s.d("run --rm -v @x:/x @bb touch /x/x").ok();
}

fn a_device_that_cannot_be_mounted_is_told(s: &Session) {
    for (name, options, code, source, rest) in [
        (
            "@a",
            "-o type=ext4 -o device=/dev/nosuch",
            127,
            "/dev/nosuch",
            "no such file or directory",
        ),
        (
            "@b",
            "-o type=none -o o=bind -o device=@dir/nosuch",
            127,
            "@dir/nosuch",
            "no such file or directory",
        ),
        (
            "@c",
            "-o type=nosuchfs -o o=ro,foo=bar,noexec -o device=/x",
            125,
            "/x",
            "no such device",
        ),
        (
            "@d",
            "-o type=nosuchfs -o o=username=u,password=secret -o device=//127.0.0.1/x",
            125,
            "//127.0.0.1/x",
            "no such device",
        ),
    ] {
        s.d(&format!("volume create {options} {name}")).ok();
        let place = s
            .d(&format!("volume inspect -f '{{{{.Mountpoint}}}}' {name}"))
            .ok()
            .text();
        let details = match name {
            "@b" => ", flags: 0x1000",
            "@c" => ", flags: 0x9, data: foo=bar",
            "@d" => ", data: username=u,password=********",
            _ => "",
        };
        s.d(&format!("run --rm -v {name}:/v @bb true")).fails(
            code,
            &format!(
                "docker: Error response from daemon: error while mounting volume '{place}': failed to mount local \
                 volume: mount {source}:{place}{details}: {rest}\n\nRun 'docker run --help' for more information\n"
            ),
        );
    }
    // What the image has at the place is copied up at create, so the device is missed then.
    s.d("create --name @box -v @a:/etc @bb").fails_with(
        1,
        "Error response from daemon: failed to populate volume: error while mounting volume '",
    );
    s.d("inspect @box").exits(1);
    s.d("volume rm @a @b @c @d").ok();
    s.d("volume create -o type=nfs -o o=addr=nosuch.invalid,rw -o device=:/x @n")
        .ok();
    s.d("run --rm -v @n:/v @bb true")
        .exits(125)
        .warns("error resolving passed in network volume address: lookup nosuch.invalid")
        .warns("no such host");
    // Without a server, and on most machines without the file system either.
    s.d("volume create -o type=nfs -o o=addr=127.0.0.1,rw,soft,timeo=1,retrans=1 -o device=:/x @m")
        .ok();
    s.d("run --rm -v @m:/v @bb true")
        .exits(125)
        .warns("failed to mount local volume: mount :/x:")
        .warns("data: addr=127.0.0.1,soft,timeo=1,retrans=1: ");
}

fn a_volume_is_made_with_options_by_the_mount(s: &Session) {
    let mount = "--mount type=volume,src=@v,dst=/v,volume-opt=type=tmpfs,volume-opt=device=tmpfs,volume-opt=o=size=1m";
    s.d(&format!("run --rm {mount} @bb grep ' /v ' /proc/mounts"))
        .prints("tmpfs /v tmpfs rw,relatime,size=1024k 0 0\n");
    s.d("volume inspect -f '{{json .Options}}' @v")
        .prints("{\"device\":\"tmpfs\",\"o\":\"size=1m\",\"type\":\"tmpfs\"}\n");
    s.d("run --rm --mount type=volume,dst=/v,volume-opt=type=tmpfs @bb true")
        .exits(125)
        .warns("missing required option: \"device\"");
}

fn a_volume_is_mounted_until_its_last_user_ends(s: &Session) {
    s.d(&format!("{TMPFS} @v")).ok();
    s.d("run -d --name @a -v @v:/v @bb sh -c 'echo from a > /v/f; touch /v/ready; sleep 1000'")
        .ok();
    s.d("run -d --name @b -v @v:/v @bb sleep 1000").ok();
    s.d("exec @b sh -c 'while [ ! -e /v/ready ]; do usleep 10000; done; cat /v/f'")
        .prints("from a\n");
    s.d("rm -f @a").ok();
    s.d("exec @b cat /v/f").prints("from a\n");
    s.d("run --rm -v @v:/v @bb cat /v/f").prints("from a\n");
    s.d("restart -t 0 @b").ok();
    // Its last user was gone for a moment, and memory forgets.
    s.d("exec @b ls /v").prints("");
    s.d("rm -f @b").ok();
    s.d("run --rm -v @v:/v @bb ls /v").prints("");
}

fn a_block_device_is_a_volume(s: &Session) {
    let image = s.dir().join("disk");
    let run = |program: &str, arguments: &[&str]| {
        let output = std::process::Command::new(program)
            .args(arguments)
            .output()
            .unwrap_or_else(|error| panic!("{program}: {error}"));
        assert!(output.status.success(), "{program}: {output:?}");
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    };
    run("truncate", &["-s", "8M", &image.display().to_string()]);
    run("mkfs.ext4", &["-q", &image.display().to_string()]);
    let device = run(
        "losetup",
        &["--find", "--show", &image.display().to_string()],
    );
    let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        s.d(&format!(
            "volume create -o type=ext4 -o device={device} -o o=noatime @v"
        ))
        .ok();
        s.d("run --rm -v @v:/v @bb sh -c 'echo kept > /v/f; grep \" /v \" /proc/mounts'")
            .ok()
            .such_that("ext4", |text| {
                text.starts_with(&format!("{device} /v ext4 rw,noatime"))
            });
        // A file system on a disk remembers.
        s.d("run --rm -v @v:/w @bb cat /w/f").prints("kept\n");
        s.d("volume rm @v").ok();
    }));
    run("losetup", &["--detach", &device]);
    if let Err(panic) = outcome {
        std::panic::resume_unwind(panic);
    }
}

fn a_file_system_hides_what_the_image_has(s: &Session) {
    s.d(&format!("{TMPFS} @v")).ok();
    // Copied up at create into memory that nobody keeps until the start.
    s.d("create --name @c -v @v:/data --entrypoint sh @app -c 'ls /data; stat -c \"%a %u\" /data'")
        .ok();
    s.d("start -a @c").prints("1777 0\n");
}

fn volume_subpath(s: &Session) {
    s.d("run --rm -v @v:/v @bb sh -c 'mkdir -p /v/one/two; echo in > /v/one/two/f; ln -s one /v/link; echo file > /v/file'")
        .ok();
    let run = |subpath: &str, command: &str| {
        s.d(&format!(
            "run --rm --mount type=volume,src=@v,dst=/m,volume-subpath={subpath} @bb {command}"
        ))
    };
    for subpath in [
        "one/two",
        "link/two",
        "one//two",
        "one/./two",
        "one/../one/two",
    ] {
        run(subpath, "cat /m/f").prints("in\n");
    }
    run("file", "cat /m").prints("file\n");
    run("one/two", "sh -c 'echo out > /m/g'").ok();
    s.d("run --rm -v @v:/v @bb cat /v/one/two/g")
        .prints("out\n");
    s.d("run --rm --mount type=volume,src=@v,dst=/m,volume-subpath=one,readonly @bb touch /m/x")
        .exits(1)
        .warns("Read-only file system");
    // Of two parts each is its own.
    s.d("run --rm --mount type=volume,src=@v,dst=/a,volume-subpath=one/two --mount type=volume,src=@v,dst=/b,volume-subpath=file @bb sh -c 'cat /a/f /b'")
        .prints("in\nfile\n");
    // A volume with a file system of its own has parts as well, once somebody made them.
    s.d(&format!("{TMPFS} @t")).ok();
    s.d("run -d --name @keeper -v @t:/t @bb sh -c 'mkdir /t/p; echo x > /t/p/f; touch /t/ready; sleep 1000'")
        .ok();
    s.d("exec @keeper sh -c 'while [ ! -e /t/ready ]; do usleep 10000; done'")
        .ok();
    s.d("run --rm --mount type=volume,src=@t,dst=/m,volume-subpath=p @bb cat /m/f")
        .prints("x\n");
}

fn a_subpath_does_not_lead_out_of_its_volume(s: &Session) {
    s.d("run --rm -v @v:/v @bb sh -c 'mkdir /v/a; ln -s /etc /v/abs; ln -s ../../../.. /v/a/up; ln -s nowhere /v/dangling; echo > /v/file'")
        .ok();
    let place = s.d("volume inspect -f '{{.Mountpoint}}' @v").ok().text();
    for (subpath, code, text) in [
        (
            "nosuch",
            127,
            format!("cannot access path {place}/nosuch: lstat {place}/nosuch: no such file or directory"),
        ),
        (
            "a/no/such",
            127,
            format!("cannot access path {place}/a/no/such: lstat {place}/a/no: no such file or directory"),
        ),
        (
            "dangling",
            127,
            format!("cannot access path {place}/dangling: lstat {place}/nowhere: no such file or directory"),
        ),
        (
            "abs",
            125,
            format!("path concatenation escapes the base directory, base: {place}, subpath: abs"),
        ),
        (
            "a/up",
            125,
            format!("path concatenation escapes the base directory, base: {place}, subpath: a/up"),
        ),
        (
            "file/x",
            125,
            format!("error while resolving symlinks in combined path \"{place}/file/x\": not a directory"),
        ),
        (
            "../x",
            125,
            "invalid mount config for type \"volume\": subpath must be a relative path within the volume".to_owned(),
        ),
        (
            "/a",
            125,
            "invalid mount config for type \"volume\": subpath must be a relative path within the volume".to_owned(),
        ),
    ] {
        s.d(&format!(
            "run --rm --mount type=volume,src=@v,dst=/m,volume-subpath={subpath} @bb true"
        ))
        .fails(
            code,
            &format!("docker: Error response from daemon: {text}\n\nRun 'docker run --help' for more information\n"),
        );
    }
    s.d("run --rm --mount type=volume,dst=/m,volume-subpath=a @bb true")
        .exits(125)
        .warns("must not set Subpath when using anonymous volumes");
}

fn a_subpath_is_not_led_out_while_a_link_is_swapped(s: &Session) {
    s.d("run -d --name @swapper -v @v:/v @bb sh -c 'mkdir -p /v/good /v/x; echo in > /v/good/mark; ln -s /etc /v/evil; ln -s good /v/well; cp -a /v/well /v/sub; while true; do cp -a /v/evil /v/n; mv -T /v/n /v/sub; cp -a /v/well /v/n; mv -T /v/n /v/sub; touch /v/swapping; done'")
        .ok();
    s.d("exec @swapper sh -c 'while [ ! -e /v/swapping ]; do usleep 10000; done'")
        .ok();
    let (mut inside, mut refused) = (0, 0);
    let deadline = Instant::now() + Duration::from_secs(20);
    while (inside < 5 || refused < 5) && Instant::now() < deadline {
        let outcome =
            s.d("run --rm --mount type=volume,src=@v,dst=/m,volume-subpath=sub @bb ls /m");
        match outcome.code {
            0 => {
                outcome.prints("mark\n");
                inside += 1;
            }
            _ => {
                outcome.exits(125).warns("path concatenation escapes");
                refused += 1;
            }
        }
    }
    assert!(
        inside > 0 && refused > 0,
        "the race was not met: {inside} inside, {refused} refused"
    );
}

fn namespaces_of_another_container_are_joined(s: &Session) {
    s.d("run -d --name @a --ipc shareable --hostname first @bb sleep 1000")
        .ok();
    let namespaces = "sh -c 'for n in net pid ipc; do readlink /proc/self/ns/$n; done'";
    let first = s.d(&format!("exec @a {namespaces}")).ok().text();
    s.d(&format!(
        "run --rm --network container:@a --pid container:@a --ipc container:@a @bb {namespaces}"
    ))
    .prints(&format!("{first}\n"));
    s.d("run --rm --pid container:@a @bb ps -o args")
        .ok()
        .shows("sleep 1000");
    let own = s.d(&format!("run --rm @bb {namespaces}")).ok().text();
    for (own, first) in own.lines().zip(first.lines()) {
        assert_ne!(own, first);
    }
}

fn namespaces_of_a_stopped_container_are_not_joined(s: &Session) {
    let id = s.d("create --name @a @bb true").ok().text();
    for (kind, what) in [("pid", "PID"), ("ipc", "IPC")] {
        s.d(&format!("run --rm --{kind} container:@a @bb true")).fails(
            125,
            &format!(
                "docker: Error response from daemon: failed to join {what} namespace: container {id} is not \
                 running\n\nRun 'docker run --help' for more information\n"
            ),
        );
    }
    s.d("run --rm --network container:@a @bb true")
        .exits(125)
        .warns("cannot join network namespace of a non running container: container @a is created");
}

/// A directory on a mount that is shared, where the engine lives; unmounted at the end.
struct SharedDirectory<'a> {
    session: &'a Session<'a>,
    place: String,
}

impl SharedDirectory<'_> {
    fn new<'a>(session: &'a Session<'a>) -> SharedDirectory<'a> {
        let place = session.x("@dir/shared");
        std::fs::create_dir(&place).expect("a directory");
        let shared = SharedDirectory { session, place };
        shared.host(&["mount", "--bind", &shared.place, &shared.place]);
        shared.host(&["mount", "--make-shared", &shared.place]);
        shared
    }

    fn host(&self, command: &[&str]) {
        let mut words = self.session.engine.mount_words();
        words.extend(command.iter().map(|word| (*word).to_owned()));
        let status = std::process::Command::new(&words[0])
            .args(&words[1..])
            .status()
            .expect("a command");
        assert!(status.success() || std::thread::panicking(), "{words:?}");
    }
}

impl Drop for SharedDirectory<'_> {
    fn drop(&mut self) {
        self.host(&["umount", "--recursive", "--lazy", &self.place]);
    }
}

fn propagation_modes(s: &Session) {
    let shared = SharedDirectory::new(s);
    let place = &shared.place;
    s.d(&format!(
        "run --rm -v {place}:/m @bb mkdir -p /m/sub /m/other"
    ))
    .ok();
    for mode in [
        "rprivate", "private", "rslave", "slave", "rshared", "shared",
    ] {
        s.d(&format!(
            "run -d --name @{mode} -v {place}:/m:{mode} @bb sleep 1000"
        ))
        .ok();
    }
    let optional = |mode: &str| {
        s.d(&format!(
            "exec @{mode} sh -c 'grep \" /m \" /proc/self/mountinfo | cut -d\" \" -f7 | cut -d: -f1'"
        ))
        .ok()
        .text()
    };
    for (mode, tag) in [
        ("rprivate", "-"),
        ("private", "-"),
        ("rslave", "master"),
        ("slave", "master"),
        ("rshared", "shared"),
        ("shared", "shared"),
    ] {
        assert_eq!(optional(mode), tag, "{mode}");
    }
    s.d(&format!(
        "run --rm --privileged -v {place}:/m:rshared @bb sh -c 'mount -t tmpfs x /m/sub; touch /m/sub/in'"
    ))
    .ok();
    for (mode, seen) in [
        ("rprivate", ""),
        ("private", ""),
        ("rslave", "in\n"),
        ("slave", "in\n"),
        ("rshared", "in\n"),
        ("shared", "in\n"),
    ] {
        s.d(&format!("exec @{mode} ls /m/sub")).prints(seen);
    }
    // What a slave mounts stays with it.
    s.d(&format!(
        "run --rm --privileged -v {place}:/m:rslave @bb sh -c 'mount -t tmpfs x /m/other; touch /m/other/in'"
    ))
    .ok();
    s.d("exec @rshared ls /m/other").prints("");
    s.d(&format!(
        "run --rm --privileged -v {place}:/m:rshared @bb umount /m/sub"
    ))
    .ok();
    s.d("exec @rslave ls /m/sub").prints("");
}

fn the_engines_data_is_not_held_by_a_bind(s: &Session) {
    s.d("volume create @v").ok();
    let place = s.d("volume inspect -f '{{.Mountpoint}}' @v").ok().text();
    let root = place
        .split("/volumes/")
        .next()
        .expect("a data root")
        .to_owned();
    s.d(&format!("run --rm -v {place}:/m:rprivate @bb true")).fails(
        125,
        &format!(
            "docker: Error response from daemon: invalid mount config: must use either propagation mode \"rslave\" or \
             \"rshared\" when mount source is within the daemon root, daemon root: \"{root}\", bind mount source: \
             \"{place}\", propagation: \"rprivate\"\n\nRun 'docker run --help' for more information\n"
        ),
    );
    for source in [place.as_str(), "/"] {
        s.d(&format!("create --name @c -v {source}:/m @bb true"))
            .ok();
        s.d("inspect -f '{{(index .Mounts 0).Propagation}}' @c")
            .prints("rslave\n");
        s.d("start -a @c").ok();
        s.d("rm @c").ok();
    }
}

fn propagation_needs_a_mount_that_has_it(s: &Session) {
    for (mode, missing) in [
        ("rshared", "a shared mount"),
        ("shared", "a shared mount"),
        ("rslave", "a shared or slave mount"),
        ("slave", "a shared or slave mount"),
    ] {
        s.d(&format!("run --rm -v @dir:/m:{mode} @bb true"))
            .exits(125)
            .warns("docker: Error response from daemon: path @dir is mounted on ")
            .warns(&format!(" but it is not {missing}\n"));
    }
}

fn modes_that_do_not_fit_are_refused(s: &Session) {
    for (bind, text) in [
        (
            "@dir:/m:nocopy",
            "invalid volume specification: '@dir:/m:nocopy': invalid mount config for type \"bind\": field VolumeOptions must not be specified",
        ),
        (
            "@v:/m:rshared",
            "invalid volume specification: '@v:/m:rshared': invalid mount config for type \"volume\": field BindOptions must not be specified",
        ),
        ("@dir:/m:shared,private", "invalid mode: shared,private"),
        ("@v:/m:z,Z", "invalid mode: z,Z"),
        ("@v:/m:cached,delegated", "invalid mode: cached,delegated"),
        ("@v:/m:nocopy,nocopy", "invalid mode: nocopy,nocopy"),
        ("@v:/m:RO", "invalid mode: RO"),
    ] {
        s.d(&format!("run --rm -v {bind} @bb true")).fails(
            125,
            &format!("docker: Error response from daemon: {text}\n\nRun 'docker run --help' for more information\n"),
        );
    }
    s.d("run --rm -v @v:/m:nocopy,ro @bb true").ok();
    s.d("run --rm -v @v:/m:consistent @bb true").ok();
}

fn recursive_read_only_binds(s: &Session) {
    let shared = SharedDirectory::new(s);
    let place = &shared.place;
    s.d(&format!("run --rm -v {place}:/m @bb mkdir -p /m/sub"))
        .ok();
    s.d(&format!(
        "run --rm --privileged -v {place}:/m:rshared @bb mount -t tmpfs x /m/sub"
    ))
    .ok();
    let touch = |options: &str| {
        s.d(&format!(
            "run --rm --mount type=bind,src={place},dst=/m{options} @bb touch /m/sub/x"
        ))
    };
    let read_only = "Read-only file system";
    touch("").ok();
    touch(",readonly").exits(1).warns(read_only);
    touch(",readonly,bind-recursive=enabled")
        .exits(1)
        .warns(read_only);
    touch(",readonly,bind-recursive=writable").ok();
    touch(",readonly,bind-recursive=readonly,bind-propagation=rprivate")
        .exits(1)
        .warns(read_only);
    touch(",bind-recursive=readonly").exits(125).warns(
        "option 'bind-recursive=readonly' requires 'readonly' to be specified in conjunction",
    );
    touch(",readonly,bind-recursive=readonly").exits(125).warns(
        "option 'bind-recursive=readonly' requires 'bind-propagation=rprivate' to be specified in conjunction",
    );
    touch(",bind-recursive=foo").exits(125).warns(
        "invalid value for bind-recursive: foo (must be \"enabled\", \"disabled\", \"writable\", or \"readonly\")",
    );
    let list = format!(
        "run --rm --mount type=bind,src={place},dst=/m,bind-recursive=disabled @bb ls /m/sub"
    );
    s.d(&list).prints("");
    s.d(&format!(
        "run --rm --privileged -v {place}:/m:rshared @bb umount /m/sub"
    ))
    .ok();
}

fn a_bound_file_stays_when_it_is_replaced(s: &Session) {
    let file = s.file("f", "old\n");
    s.d("run -d --name @c -v @dir/f:/f @bb sleep 1000").ok();
    s.file("new", "new\n");
    std::fs::rename(s.dir().join("new"), &file).expect("replace");
    s.d("exec @c cat /f").prints("old\n");
    // In the container it is a mount, which does not give way to another file.
    s.d("exec @c sh -c 'echo x > /g; mv /g /f'")
        .exits(1)
        .warns("Device or resource busy");
    s.d("restart -t 0 @c").ok();
    s.d("exec @c cat /f").prints("new\n");
}

fn copy_up_keeps_owners_modes_and_links(s: &Session) {
    s.d("create --name @c -v @v:/data @app").ok();
    // Seen from another container, at another place.
    s.d("run --rm -v @v:/x @bb sh -c 'cd /x; stat -c \"%n %a %u:%g %F\" . seed sub sub/deep link; readlink link'")
        .prints(". 1770 1000:1000 directory\nseed 640 1000:1000 regular file\nsub 711 0:0 directory\nsub/deep 644 0:0 regular file\nlink 777 0:0 symbolic link\nseed\n");
    // A volume is filled at create, and only when it is empty.
    s.d("run --rm -v @v:/x @bb rm /x/seed").ok();
    s.d("run --rm -v @v:/data --entrypoint ls @app /data")
        .ok()
        .hides("seed");
    // The image's place may be a file or not there: the volume stays empty.
    s.d("run --rm -v @w:/nosuch/place @bb ls /nosuch/place")
        .prints("");
}

fn volumes_from_may_be_read_only(s: &Session) {
    s.d("create --name @base -v @v:/v -v @r:/r:ro @bb").ok();
    s.d("run --rm --volumes-from @base:ro @bb touch /v/x")
        .exits(1)
        .warns("Read-only file system");
    s.d("run --rm --volumes-from @base:rw @bb touch /v/x").ok();
    // What is read-only there is read-only here.
    s.d("run --rm --volumes-from @base:rw @bb touch /r/x")
        .exits(1)
        .warns("Read-only file system");
    s.d("run --rm --volumes-from @base:bad @bb true")
        .exits(125)
        .warns("invalid mode: bad");
}

fn rm_takes_the_anonymous_volumes_and_leaves_the_named(s: &Session) {
    let gone = |line: &str, end: Option<&str>| {
        s.d(line).ok();
        let name = s
            .d("inspect -f '{{range .Mounts}}{{if eq .Destination \"/anonymous\"}}{{.Name}}{{end}}{{end}}' @c")
            .ok()
            .text();
        if let Some(end) = end {
            s.d(end).ok();
        }
        gantry_testkit::wait::eventually("the container is gone", || s.d("inspect @c").code != 0);
        s.d(&format!("volume inspect {name}")).exits(1);
        s.d("volume inspect @v").ok();
    };
    gone(
        "create --name @c -v /anonymous -v @v:/v @bb true",
        Some("rm -v @c"),
    );
    gone(
        "run -d --rm --name @c -v /anonymous -v @v:/v @bb sleep 1000",
        Some("kill @c"),
    );
    gone(
        "create --rm --name @c -v /anonymous -v @v:/v @bb true",
        Some("start @c"),
    );
}

fn volume_prune_filters(s: &Session) {
    s.d("volume create --label keep=no --label case=@prefix @a")
        .ok();
    s.d("volume create --label keep=yes --label case=@prefix @b")
        .ok();
    s.d("volume create --label keep=no --label case=@prefix @used")
        .ok();
    s.d("create --name @c -v @used:/v @bb").ok();
    s.d("volume prune -f --filter label=case=@prefix")
        .prints("Total reclaimed space: 0B\n");
    s.d("volume prune -f -a --filter label=case=@prefix --filter label!=keep=yes")
        .prints("Deleted Volumes:\n@a\n\nTotal reclaimed space: 0B\n");
    s.d("volume prune -f --filter all=true --filter label=case=@prefix")
        .prints("Deleted Volumes:\n@b\n\nTotal reclaimed space: 0B\n");
    s.d("volume inspect @used").ok();
    s.d("volume prune -f --filter nosuch=1")
        .fails(1, "Error response from daemon: invalid filter 'nosuch'\n");
    s.d("volume prune -f --filter all=maybe").fails(
        1,
        "Error response from daemon: invalid filter 'all': strconv.ParseBool: parsing \"maybe\": invalid syntax\n",
    );
    s.d("volume prune -f --filter all=true --filter all=false")
        .fails_with(1, "': only one value is expected\n");
}

fn volume_ls_filters(s: &Session) {
    s.d("volume create --label tier=a --label case=@prefix @one")
        .ok();
    s.d("volume create --label tier=b --label case=@prefix @two")
        .ok();
    s.d("create --name @c -v @two:/v @bb").ok();
    let list = |filters: &str, names: &str| {
        s.d(&format!(
            "volume ls -q --filter label=case=@prefix {filters}"
        ))
        .prints(names);
    };
    list("", "@one\n@two\n");
    list("--filter name=one", "@one\n");
    list("--filter name=^@prefix-t.o$", "@two\n");
    list("--filter name=one --filter name=two", "@one\n@two\n");
    list("--filter label=tier", "@one\n@two\n");
    list("--filter label=tier=b", "@two\n");
    list("--filter label=tier=a --filter label=tier=b", "");
    list("--filter dangling=true", "@one\n");
    list("--filter dangling=0", "@two\n");
    list("--filter driver=local", "@one\n@two\n");
    list("--filter driver=loc", "");
    s.d("volume ls --filter nosuch=x")
        .fails(1, "Error response from daemon: invalid filter 'nosuch'\n");
    s.d("volume ls --filter dangling=maybe").fails(
        1,
        "Error response from daemon: invalid filter 'dangling=[maybe]'\n",
    );
}
