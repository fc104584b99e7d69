//! Images: load, save, import, tag, rmi, history, inspect, prune.

use std::os::unix::fs::MetadataExt as _;

use gantry_testkit::engine::images_directory;
use gantry_testkit::session::Session;

gantry_testkit::scenarios![
    load_tells_the_name,
    load_from_standard_input,
    load_of_nonsense_is_refused,
    save_and_load_give_the_same_image,
    saved_layers_are_those_that_were_loaded,
    import_makes_an_image_of_a_tree,
    import_with_changes,
    tag_and_untag,
    rmi_of_a_used_image,
    rmi_by_id_with_several_tags,
    rmi_of_one_platform,
    history_shows_the_layers,
    inspect_shows_the_configuration,
    list_filters_and_formats,
    a_running_containers_image_cannot_be_removed,
    prune_removes_dangling_images,
    names_are_checked,
    an_absent_image_is_not_pulled,
    a_container_of_an_untagged_image,
    images_are_drawn_as_a_tree,
];

fn load_tells_the_name(s: &Session) {
    let archive = images_directory().join("busybox.tar");
    s.d(&format!("load -i {}", archive.display()))
        .prints("Loaded image: @bb\n");
    s.d(&format!("load -q -i {}", archive.display()))
        .prints("Loaded image: @bb\n");
}

fn load_from_standard_input(s: &Session) {
    let archive = std::fs::read(images_directory().join("web.tar")).expect("an archive");
    s.d_with("load", &archive).prints("Loaded image: @web\n");
}

fn load_of_nonsense_is_refused(s: &Session) {
    s.file("nonsense.tar", "this is not a tar archive at all\n");
    s.d("load -i nonsense.tar").exits(1);
    s.d("load -i absent.tar")
        .fails(1, "open absent.tar: no such file or directory\n");
}

fn save_and_load_give_the_same_image(s: &Session) {
    let id = s.d("image inspect -f '{{.Id}}' @app").ok().text();
    s.d("tag @app @copy:1").ok();
    s.d("save -o @dir/app.tar @copy:1").prints("");
    let mode = std::fs::metadata(s.dir().join("app.tar"))
        .expect("an archive")
        .mode();
    assert_eq!(mode & 0o777, 0o600);
    s.d("rmi @copy:1").prints("Untagged: @copy:1\n");
    s.d("load -i @dir/app.tar")
        .prints("Loaded image: @copy:1\n");
    s.d("image inspect -f '{{.Id}}' @copy:1")
        .prints(&format!("{id}\n"));
    s.d("save @none:1")
        .exits(1)
        .warns("Error response from daemon: reference does not exist");
}

fn saved_layers_are_those_that_were_loaded(s: &Session) {
    s.d("save -o @dir/app.tar @app").ok();
    let list = std::process::Command::new("tar")
        .arg("-xf")
        .arg(s.dir().join("app.tar"))
        .arg("-C")
        .arg(s.dir())
        .status()
        .expect("tar");
    assert!(list.success());
    let manifest: serde_json::Value =
        serde_json::from_slice(&std::fs::read(s.dir().join("manifest.json")).expect("a manifest"))
            .expect("JSON");
    let layers = s
        .d("image inspect -f '{{json .RootFS.Layers}}' @app")
        .ok()
        .json();
    for (path, digest) in manifest[0]["Layers"]
        .as_array()
        .expect("layers")
        .iter()
        .zip(layers.as_array().expect("digests"))
    {
        let output = std::process::Command::new("sha256sum")
            .arg(s.dir().join(path.as_str().expect("a path")))
            .output()
            .expect("sha256sum");
        let sum = String::from_utf8_lossy(&output.stdout);
        assert_eq!(
            format!("sha256:{}", sum.split(' ').next().unwrap_or_default()),
            digest.as_str().expect("a digest")
        );
    }
    assert_eq!(manifest[0]["RepoTags"][0], s.x("@app").as_str());
}

fn import_makes_an_image_of_a_tree(s: &Session) {
    s.d("create --name @c @app").ok();
    std::fs::create_dir(s.dir().join("tree")).expect("a directory");
    std::fs::write(s.dir().join("tree/hello"), "hello\n").expect("a file");
    let tar = std::process::Command::new("tar")
        .args(["-C"])
        .arg(s.dir().join("tree"))
        .arg("-cf")
        .arg(s.dir().join("tree.tar"))
        .arg(".")
        .status()
        .expect("tar");
    assert!(tar.success());
    s.d("import tree.tar @tree:1")
        .ok()
        .such_that("an id", |text| {
            text.starts_with("sha256:") && text.len() == 72
        });
    s.d("image inspect -f '{{len .RootFS.Layers}} {{.Os}} {{.Architecture}}' @tree:1")
        .prints("1 linux amd64\n");
    let bytes = std::fs::read(s.dir().join("tree.tar")).expect("an archive");
    s.d_with("import - @tree:2", &bytes).ok();
}

fn import_with_changes(s: &Session) {
    let tar = std::process::Command::new("sh")
        .current_dir(s.dir())
        .args(["-c", "echo x > f; tar -cf t.tar f"])
        .status()
        .expect("tar");
    assert!(tar.success());
    s.d("import -c 'ENV A=1 B=2' -c 'CMD [\"one\",\"two\"]' -c 'EXPOSE 80' -c 'WORKDIR /w' -c 'LABEL k=v' -c 'USER 5' -c 'VOLUME /v' -m 'a message' t.tar @i:1").ok();
    s.d("image inspect -f '{{.Config.Env}} {{.Config.Cmd}} {{.Config.ExposedPorts}} {{.Config.WorkingDir}} {{.Config.Labels}} {{.Config.User}} {{.Config.Volumes}} {{.Comment}}' @i:1")
        .prints("[A=1 B=2] [one two] map[80/tcp:{}] /w map[k:v] 5 map[/v:{}] a message\n");
    s.d("import -c 'FROM x' t.tar @i:2").exits(1);
}

fn tag_and_untag(s: &Session) {
    s.d("tag @bb @t").prints("");
    s.d("images --format '{{.Repository}}:{{.Tag}}' @t")
        .prints("@t:latest\n");
    s.d("run --rm @t echo works").prints("works\n");
    s.d("tag @none:1 @t")
        .fails(1, "Error response from daemon: No such image: @none:1\n");
    s.d("rmi @t").prints("Untagged: @t:latest\n");
    s.d("rmi @t")
        .fails(1, "Error response from daemon: No such image: @t:latest\n");
}

fn unique_image(s: &Session, name: &str) -> String {
    std::fs::write(s.dir().join("unique"), s.x("@prefix")).expect("a file");
    let status = std::process::Command::new("tar")
        .current_dir(s.dir())
        .args(["-cf", "unique.tar", "unique"])
        .status()
        .expect("tar");
    assert!(status.success());
    s.d(&format!("import -c 'CMD [\"/x\"]' unique.tar {name}"))
        .ok()
        .text()
}

fn rmi_of_a_used_image(s: &Session) {
    let image = unique_image(s, "@i:1");
    let container = s.d("create --name @c @i:1").ok().text();
    s.d("rmi @i:1").fails(
        1,
        &format!("Error response from daemon: conflict: unable to remove repository reference \"@i:1\" (must force) - container {} is using its referenced image {}\n", &container[..12], &image[7..19]),
    );
    s.d("rmi -f @i:1")
        .prints(&format!("Untagged: @i:1\nDeleted: {image}\n"));
    s.d("rm @c").prints("@c\n");
}

fn rmi_by_id_with_several_tags(s: &Session) {
    let image = unique_image(s, "@i:1");
    s.d("tag @i:1 @i:2").ok();
    s.d(&format!("rmi {}", &image[7..19])).fails(
        1,
        &format!("Error response from daemon: conflict: unable to delete {} (must be forced) - image is referenced in multiple repositories\n", &image[7..19]),
    );
    s.d(&format!("rmi -f {}", &image[7..19]))
        .ok()
        .shows("Untagged: @i:1\n")
        .shows("Untagged: @i:2\n")
        .shows(&format!("Deleted: {image}\n"));
}

fn rmi_of_one_platform(s: &Session) {
    s.d("tag @bb @i:1").ok();
    s.d("rmi --platform linux/arm64 @i:1").fails(
        1,
        "Error response from daemon: image with reference @i:1 was found but its platform (linux/amd64) does not match the specified platform (linux/arm64)\n",
    );
    s.d("rmi --platform linux/arm64 --platform linux/amd64 @i:1")
        .fails(
            1,
            "Error response from daemon: multiple platforms are not supported\n",
        );
    s.d("rmi --platform x/y/z/d @i:1").fails(
        1,
        "\"x/y/z/d\": cannot parse platform specifier: invalid argument\n",
    );
    s.d("rmi --platform linux/amd64 @i:1")
        .prints("Untagged: @i:1\n");
}

fn history_shows_the_layers(s: &Session) {
    s.d("history --format '{{.CreatedBy}}' @app")
        .prints("cargo xtask images\ncargo xtask images\n");
    s.d("history -q --no-trunc @bb")
        .ok()
        .such_that("the id is first", |text| text.starts_with("sha256:"));
    s.d("history --human=false --format '{{.Size}}' @bb")
        .ok()
        .such_that("bytes", |text| {
            text.trim()
                .parse::<u64>()
                .is_ok_and(|bytes| bytes > 1_000_000)
        });
}

fn inspect_shows_the_configuration(s: &Session) {
    let image = &s.d("image inspect @app").ok().json()[0];
    assert_eq!(
        image["RepoTags"],
        serde_json::json!(["localhost/test/app:1"])
    );
    assert_eq!(
        image["Config"]["Entrypoint"],
        serde_json::json!(["/bin/echo", "entry"])
    );
    assert_eq!(
        image["Config"]["ExposedPorts"],
        serde_json::json!({"8080/tcp": {}, "5353/udp": {}})
    );
    assert_eq!(image["Config"]["StopSignal"], "SIGUSR1");
    assert_eq!(
        (image["Os"].as_str(), image["Architecture"].as_str()),
        (Some("linux"), Some("amd64"))
    );
    assert_eq!(image["RootFS"]["Layers"].as_array().map(Vec::len), Some(2));
    assert!(
        image["Size"]
            .as_u64()
            .is_some_and(|bytes| bytes > 1_000_000)
    );
    s.d("image inspect @none:1")
        .exits(1)
        .warns("Error response from daemon: No such image: @none:1");
}

fn list_filters_and_formats(s: &Session) {
    s.d("tag @bb @a:1").ok();
    s.d("tag @bb @a:2").ok();
    s.d("images --format '{{.Repository}}:{{.Tag}}' --filter reference=@a")
        .such_that("both", |text| text.lines().count() == 2);
    s.d("images --format '{{.Tag}}' @a:2").prints("2\n");
    s.d("images -q --no-trunc @a:1").prints(&format!(
        "{}\n",
        s.d("image inspect -f '{{.Id}}' @bb").ok().text()
    ));
    s.d("images --filter label=from.image=yes --format '{{.Repository}}'")
        .ok()
        .shows("localhost/test/app\n");
    s.d("images --filter nosuch=1")
        .exits(1)
        .warns("invalid filter 'nosuch'");
}

fn a_running_containers_image_cannot_be_removed(s: &Session) {
    s.d("tag @bb @i:1").ok();
    let image = s.d("image inspect -f '{{.Id}}' @bb").ok().text();
    s.d("run -d --name @c @i:1 sleep 1000").ok();
    s.d(&format!("rmi -f {}", &image[7..19]))
        .exits(1)
        .warns("image is being used by running container");
}

fn prune_removes_dangling_images(s: &Session) {
    let bytes = |name: &str| {
        std::fs::write(s.dir().join(name), s.x("@prefix")).expect("a file");
        let tar = format!("{name}.tar");
        let status = std::process::Command::new("tar")
            .current_dir(s.dir())
            .args(["-cf", &tar, name])
            .status()
            .expect("tar");
        assert!(status.success());
    };
    bytes("one");
    let id = s.d("import -c 'LABEL gone=@prefix' one.tar").ok().text();
    s.d("images -q --no-trunc --filter dangling=true")
        .ok()
        .shows(&id);
    s.d("image prune -f --filter label=gone=@prefix")
        .ok()
        .shows(&format!("deleted: {id}\n"));
    s.d("images -q --no-trunc --filter dangling=true")
        .ok()
        .hides(&id);
}

fn names_are_checked(s: &Session) {
    s.d("run --rm UPPER true")
        .exits(125)
        .warns("invalid reference format: repository name (library/UPPER) must be lowercase");
    s.d("tag @bb 'x::y'")
        .exits(1)
        .warns("invalid reference format");
    s.d("run --rm --pull never @none:1 true").fails(125, "docker: Error response from daemon: No such image: @none:1\n\nRun 'docker run --help' for more information\n");
}

fn an_absent_image_is_not_pulled(s: &Session) {
    s.d("create --pull never --name @c @none").fails(
        1,
        "Error response from daemon: No such image: @none:latest\n",
    );
}

fn a_container_of_an_untagged_image(s: &Session) {
    s.d("tag @bb @i:1").ok();
    s.d("run --name @c @i:1 true").ok();
    s.d("rmi -f @i:1").ok();
    s.d("start @c").ok();
    let id = s.d("image inspect -f '{{.Id}}' @bb").ok().text();
    s.d("inspect -f '{{.Image}} {{.Config.Image}}' @c")
        .prints(&format!("{id} @i:1\n"));
    s.d(&format!("run --rm {} echo by id", &id[7..15]))
        .prints("by id\n");
    s.d(&format!("run --rm {id} echo by id")).prints("by id\n");
}

fn images_are_drawn_as_a_tree(s: &Session) {
    s.d("tag @bb @i:1").ok();
    s.d("tag @bb @i:longer").ok();
    let id = s.d("image inspect -f '{{.Id}}' @bb").ok().text();
    let (id, width) = (&id["sha256:".len()..][..12], s.x("@i:longer").len());
    let size = s.d("images --format '{{.Size}}' @i:1").ok().text();
    let warning = "WARNING: This is an experimental feature. The output may change and shouldn't be depended on.";
    let heading = |text: &str| format!("\u{1b}[39m\u{1b}[1m{text}\u{1b}[0m");
    let headings = [
        heading("IMAGE") + &" ".repeat(width - 5),
        heading("ID") + &" ".repeat(10),
        heading("DISK USAGE"),
        heading("CONTENT SIZE"),
        heading("EXTRA"),
    ];
    let headings = headings.join("   ");
    let (short, long) = (s.x("@i:1"), s.x("@i:longer"));
    s.d("images --tree --filter reference=@i").prints(&format!(
        "{warning}\n{:>80}\n\n{headings}\n{long}\n{short:width$}   {id}   {size:>10}   {:>12}        \n",
        "Info ->  U In Use ", "0B",
    ));
    let mut terminal = s.terminal("images --tree --filter reference=@i");
    terminal.expect(&format!("\u{1b}[93m{warning}\u{1b}[0m"));
    terminal.expect(&headings);
    terminal.expect(&format!("\u{1b}[34m\u{1b}[1m{long}\u{1b}[0m"));
    terminal.expect(&format!("   \u{1b}[39m{id}\u{1b}[0m   "));
    assert_eq!(terminal.wait(), 0);
    for flag in ["quiet", "no-trunc", "format=x"] {
        let name = flag.split('=').next().unwrap_or_default();
        s.d(&format!("images --tree --{flag}"))
            .fails(1, &format!("--{name} is not yet supported with --tree\n"));
    }
    s.d("images --tree --digests")
        .fails(1, "--show-digest is not yet supported with --tree\n");
}
