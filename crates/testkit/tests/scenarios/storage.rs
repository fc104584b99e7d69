//! Volumes, binds and tmpfs.

use gantry_testkit::session::Session;

gantry_testkit::scenarios![
    a_bind_is_read_write_or_read_only,
    a_single_file_is_bound,
    a_missing_source_is_made_or_refused,
    mount_syntax,
    an_empty_volume_gets_the_images_content,
    a_volume_with_content_is_left_alone,
    nocopy_leaves_a_volume_empty,
    anonymous_volumes_go_with_rm_v,
    anonymous_volumes_of_the_image,
    named_volumes_stay_with_rm_v,
    volumes_from_another_container,
    volume_create_ls_inspect_rm,
    a_used_volume_is_not_removed,
    volume_names_are_checked,
    volume_labels_and_options,
    tmpfs_options,
    a_read_only_bind_is_recursive,
    propagation_is_private,
    bind_of_a_relative_path,
    mounts_are_shown_by_inspect,
    two_mounts_at_one_place_conflict,
    volume_prune_keeps_named_volumes,
    a_bind_over_a_path_that_the_image_lacks,
];

fn a_bind_is_read_write_or_read_only(s: &Session) {
    s.file("here", "host\n");
    s.d("run --rm -v @dir:/m @bb sh -c 'cat /m/here; echo made > /m/made'")
        .prints("host\n");
    assert_eq!(
        std::fs::read_to_string(s.dir().join("made")).expect("a file"),
        "made\n"
    );
    s.d("run --rm -v @dir:/m:ro @bb touch /m/x")
        .exits(1)
        .warns("Read-only file system");
    s.d("run --rm -v @dir:/m:bad @bb true")
        .exits(125)
        .warns("invalid mode: bad");
}

fn a_single_file_is_bound(s: &Session) {
    s.file("motd", "welcome\n");
    s.d("run --rm -v @dir/motd:/etc/deep/er/motd:ro @bb cat /etc/deep/er/motd")
        .prints("welcome\n");
    s.d("run --rm -v @dir/motd:/etc/passwd @bb sh -c 'cat /etc/passwd; echo more >> /etc/passwd'")
        .prints("welcome\n");
    assert_eq!(
        std::fs::read_to_string(s.dir().join("motd")).expect("a file"),
        "welcome\nmore\n"
    );
    s.d("run --rm -v @dir/motd:/etc @bb true")
        .exits(125)
        .warns("not a directory: Are you trying to mount a directory onto a file (or vice-versa)?");
}

fn a_missing_source_is_made_or_refused(s: &Session) {
    s.d("run --rm -v @dir/new/dir:/m @bb touch /m/x").ok();
    assert!(s.dir().join("new/dir/x").exists());
    s.d("run --rm --mount type=bind,src=@dir/none,dst=/m @bb true")
        .fails(125, "docker: Error response from daemon: invalid mount config for type \"bind\": bind source path does not exist: @dir/none\n\nRun 'docker run --help' for more information\n");
    s.d("run --rm --mount type=bind,src=@dir/none,dst=/m,bind-create-src @bb true")
        .fails_with(125, "");
}

fn mount_syntax(s: &Session) {
    s.file("f", "x\n");
    s.d("run --rm --mount type=bind,source=@dir,target=/m,readonly @bb sh -c 'cat /m/f; touch /m/g'").exits(1).shows("x\n");
    s.d("run --rm --mount type=volume,src=@v,dst=/v --mount type=tmpfs,dst=/t,tmpfs-size=1m,tmpfs-mode=700 @bb sh -c 'stat -c %a /t; df -k /t | tail -1 | tr -s \" \" | cut -d\" \" -f2; touch /v/x'")
        .prints("700\n1024\n");
    s.d("run --rm --mount type=nosuch,dst=/m @bb true")
        .exits(125);
    s.d("run --rm --mount type=bind,dst=/m @bb true").exits(125);
    s.d("run --rm --mount dst=m,src=@v @bb true")
        .exits(125)
        .warns("invalid mount path: 'm' mount path must be absolute");
}

fn an_empty_volume_gets_the_images_content(s: &Session) {
    s.d("run --rm -v @v:/data --entrypoint sh @app -c 'cat /data/seed /data/sub/deep; readlink /data/link; stat -c \"%a %u:%g\" /data /data/seed /data/sub'")
        .prints("seed\ndeep\nseed\n1770 1000:1000\n640 1000:1000\n711 0:0\n");
    s.d("run --rm -v @v:/x @bb cat /x/seed").prints("seed\n");
}

fn a_volume_with_content_is_left_alone(s: &Session) {
    s.d("run --rm -v @v:/x @bb touch /x/mine").ok();
    s.d("run --rm -v @v:/data --entrypoint ls @app /data")
        .prints("mine\n");
}

fn nocopy_leaves_a_volume_empty(s: &Session) {
    s.d("run --rm -v @v:/data:nocopy --entrypoint ls @app /data")
        .prints("");
    s.d("run --rm --mount type=volume,src=@w,dst=/data,volume-nocopy --entrypoint ls @app /data")
        .prints("");
}

fn volumes_of(s: &Session, container: &str) -> Vec<String> {
    let state = s.inspect(container);
    let mounts = state["Mounts"].as_array().expect("mounts");
    mounts
        .iter()
        .filter_map(|mount| mount["Name"].as_str().map(str::to_owned))
        .collect()
}

fn anonymous_volumes_go_with_rm_v(s: &Session) {
    s.d("create --name @c -v /anonymous @bb").ok();
    let volumes = volumes_of(s, "@c");
    assert_eq!(volumes.len(), 1);
    assert_eq!(volumes[0].len(), 64);
    s.d("rm @c").ok();
    s.d(&format!("volume inspect {}", volumes[0]))
        .ok()
        .shows("com.docker.volume.anonymous");
    s.d(&format!("volume rm {}", volumes[0])).ok();
    s.d("create --name @d -v /anonymous @bb").ok();
    let volumes = volumes_of(s, "@d");
    s.d("rm -v @d").ok();
    s.d(&format!("volume inspect {}", volumes[0])).exits(1);
}

fn anonymous_volumes_of_the_image(s: &Session) {
    s.d("create --name @c @app").ok();
    let volumes = volumes_of(s, "@c");
    assert_eq!(volumes.len(), 1);
    s.d("start -a @c").ok();
    s.d("rm -v @c").ok();
    s.d(&format!("volume inspect {}", volumes[0])).exits(1);
    s.d("run --rm --name @d --entrypoint sh @app -c 'touch /data/x 2>&1; echo done'")
        .prints("done\n");
}

fn named_volumes_stay_with_rm_v(s: &Session) {
    s.d("run --name @c -v @v:/v @bb true").ok();
    s.d("rm -v @c").ok();
    s.d("volume inspect -f '{{.Name}}' @v").prints("@v\n");
}

fn volumes_from_another_container(s: &Session) {
    s.file("f", "bound\n");
    s.d("create --name @base -v @v:/v -v @dir:/b:ro @bb").ok();
    s.d("run --rm --volumes-from @base @bb sh -c 'echo x > /v/x; cat /b/f; touch /b/g'")
        .exits(1)
        .shows("bound\n");
    s.d("run --rm --volumes-from @base:ro @bb sh -c 'cat /v/x; touch /v/y'")
        .exits(1)
        .shows("x\n");
    s.d("run --rm --volumes-from @none @bb true")
        .exits(125)
        .warns("No such container: @none");
}

fn volume_create_ls_inspect_rm(s: &Session) {
    s.d("volume create @a").prints("@a\n");
    s.d("volume create @a").prints("@a\n");
    s.d("volume create")
        .ok()
        .such_that("a name is chosen", |text| text.len() == 65);
    s.d("volume ls --filter name=@a --format '{{.Driver}} {{.Name}} {{.Scope}}'")
        .prints("local @a local\n");
    s.d("volume inspect -f '{{.Name}} {{.Driver}} {{.Scope}}' @a")
        .prints("@a local local\n");
    let point = s.d("volume inspect -f '{{.Mountpoint}}' @a").ok().text();
    assert!(point.ends_with(&s.x("volumes/@a/_data")), "{point}");
    s.d("volume rm @a").prints("@a\n");
    s.d("volume rm @a")
        .fails(1, "Error response from daemon: get @a: no such volume\n");
    s.d("volume rm -f @a").ok();
}

fn a_used_volume_is_not_removed(s: &Session) {
    let id = s.d("create --name @c -v @v:/v @bb").ok().text();
    s.d("volume rm @v").fails(
        1,
        &format!("Error response from daemon: remove @v: volume is in use - [{id}]\n"),
    );
    s.d("volume ls -q --filter dangling=false --filter name=@v")
        .prints("@v\n");
    s.d("rm @c").ok();
    s.d("volume ls -q --filter dangling=true --filter name=@v")
        .prints("@v\n");
    s.d("volume rm @v").ok();
}

fn volume_names_are_checked(s: &Session) {
    s.d("volume create 'no/slash'").fails(1, "Error response from daemon: create no/slash: \"no/slash\" includes invalid characters for a local volume name, only \"[a-zA-Z0-9][a-zA-Z0-9_.-]\" are allowed. If you intended to pass a host directory, use absolute path\n");
    s.d("volume create x").fails(1, "Error response from daemon: create x: volume name is too short, names should be at least two alphanumeric characters\n");
    s.d("volume create -d nosuchdriver @v").exits(1);
}

fn volume_labels_and_options(s: &Session) {
    s.d("volume create --label tier=a @a").ok();
    s.d("volume inspect -f '{{index .Labels \"tier\"}}' @a")
        .prints("a\n");
    s.d("volume ls -q --filter label=tier=a --filter name=@prefix")
        .prints("@a\n");
    s.d("volume create -o nosuch=1 @b")
        .exits(1)
        .warns("invalid option: \"nosuch\"");
    s.d("volume create -o device=/x @b")
        .exits(1)
        .warns("missing required option: \"type\"");
}

fn tmpfs_options(s: &Session) {
    s.d("run --rm --tmpfs /t @bb sh -c 'grep \" /t \" /proc/mounts | cut -d\" \" -f4'")
        .ok()
        .such_that("safe options", |text| {
            text.starts_with("rw,nosuid,nodev,noexec,relatime")
        });
    s.d("run --rm --tmpfs /t:size=2m,mode=711,exec @bb sh -c 'grep \" /t \" /proc/mounts | cut -d\" \" -f4; stat -c %a /t'")
        .ok()
        .shows("size=2048k")
        .hides("noexec")
        .shows("711\n");
    s.d("run --rm --tmpfs /t:nosuch @bb true").exits(125);
}

fn a_read_only_bind_is_recursive(s: &Session) {
    std::fs::create_dir(s.dir().join("sub")).expect("a directory");
    // The submount is made where the engine lives, so it is there for the engine alone.
    let mut words = s.engine.host_words();
    words.extend([
        "mount".to_owned(),
        "-t".into(),
        "tmpfs".into(),
        "none".into(),
        s.x("@dir/sub"),
    ]);
    if s.engine.is_reference() {
        return; // the reference lives in a mount namespace that this test does not enter
    }
    assert!(
        std::process::Command::new(&words[0])
            .args(&words[1..])
            .status()
            .expect("mount")
            .success()
    );
    s.d("run --rm -v @dir:/m:ro @bb touch /m/sub/x")
        .exits(1)
        .warns("Read-only file system");
    s.d("run --rm -v @dir:/m @bb touch /m/sub/x").ok();
    s.d("run --rm --mount type=bind,src=@dir,dst=/m,readonly,bind-recursive=writable @bb touch /m/sub/y").ok();
    s.d("run --rm --mount type=bind,src=@dir,dst=/m,bind-recursive=disabled @bb ls /m/sub")
        .prints("");
}

fn propagation_is_private(s: &Session) {
    s.d("run --rm -v @dir:/m @bb sh -c 'grep \" /m \" /proc/self/mountinfo | grep -c -E \"shared|master\"'").exits(1).shows("0\n");
    s.d("create --name @c -v @dir:/m:rslave @bb").ok();
    s.d("inspect -f '{{(index .Mounts 0).Propagation}}' @c")
        .prints("rslave\n");
}

fn bind_of_a_relative_path(s: &Session) {
    s.file("f", "relative\n");
    s.d("run --rm -v .:/m @bb cat /m/f").prints("relative\n");
    s.d("run --rm -v ./f:/m @bb cat /m").prints("relative\n");
}

fn mounts_are_shown_by_inspect(s: &Session) {
    s.d("create --name @c -v @v:/v -v @dir:/b:ro --tmpfs /t @bb")
        .ok();
    s.d("inspect -f '{{range .Mounts}}{{.Type}} {{.Destination}} {{.Mode}} {{.RW}} {{.Propagation}};{{end}}' @c").such_that("both mounts", |text| {
        text.contains("volume /v z true ;") && text.contains("bind /b ro false rprivate;")
    });
    s.d("inspect -f '{{json .HostConfig.Tmpfs}} {{json .HostConfig.Binds}}' @c")
        // The client sends its volumes in the order of a hash table.
        .such_that("both binds", |text| {
            text.starts_with("{\"/t\":\"\"} [")
                && text.contains("-v:/v\"")
                && text.contains(":/b:ro\"")
        });
}

fn two_mounts_at_one_place_conflict(s: &Session) {
    s.d("run --rm -v @v:/v -v @dir:/v @bb true").fails(125, "docker: Error response from daemon: Duplicate mount point: /v\n\nRun 'docker run --help' for more information\n");
    s.d("run --rm -v @v:/ @bb true")
        .exits(125)
        .warns("invalid specification: destination can't be '/'");
}

fn volume_prune_keeps_named_volumes(s: &Session) {
    s.d("volume create @v").ok();
    s.d("volume prune -f --filter label=gantry.test=@prefix")
        .ok()
        .hides("@v")
        .shows("Total reclaimed space: 0B\n");
    s.d("volume inspect @v").ok();
}

fn a_bind_over_a_path_that_the_image_lacks(s: &Session) {
    s.file("f", "deep\n");
    s.d("run --rm -v @dir:/a/b/c @bb cat /a/b/c/f")
        .prints("deep\n");
    s.d("run --name @c -v @dir:/a/b/c @bb true").ok();
}
