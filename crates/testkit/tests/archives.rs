//! Archives as the world makes them are loaded, hostile ones are refused and leave nothing, and what is saved is the same
//! image for Docker, podman and skopeo.
//!
//! `archives.py` makes the odd ones; podman, buildah, skopeo and umoci theirs. With the reference engine at hand
//! (`make oracle`) every answer is compared with Docker's.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use gantry_testkit::engine::{Engine, ORACLE_SOCKET, images_directory};
use gantry_testkit::http;
use gantry_testkit::leak;
use rustix::process::Signal;

/// A command that must succeed; its output without the last line end.
#[track_caller]
fn run(program: &str, arguments: &[&str], environment: &[(&str, &str)]) -> String {
    let output = Command::new(program)
        .args(arguments)
        .envs(environment.iter().copied())
        .output()
        .unwrap_or_else(|error| panic!("{program}: {error}"));
    assert!(
        output.status.success(),
        "{program} {arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout)
        .trim_end()
        .to_owned()
}

/// One engine behind the docker client.
struct Docker {
    socket: PathBuf,
}

impl Docker {
    fn output(&self, words: &[&str]) -> Output {
        let program = std::env::var("GANTRY_DOCKER").unwrap_or_else(|_| "docker".to_owned());
        Command::new(program)
            .arg("-H")
            .arg(format!("unix://{}", self.socket.display()))
            .args(words)
            .output()
            .expect("the docker client")
    }

    /// What a load answers: the names, or Docker's error.
    fn load(&self, archive: &Path) -> Result<String, String> {
        let output = self.output(&["load", "-q", "-i", archive.to_str().expect("a name")]);
        if output.status.success() {
            Ok(String::from_utf8_lossy(&output.stdout)
                .trim_end()
                .to_owned())
        } else {
            Err(String::from_utf8_lossy(&output.stderr)
                .trim_end()
                .to_owned())
        }
    }

    #[track_caller]
    fn ok(&self, words: &[&str]) -> String {
        let output = self.output(words);
        assert!(
            output.status.success(),
            "{words:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8_lossy(&output.stdout)
            .trim_end()
            .to_owned()
    }

    /// Names of the images that these tests have made.
    fn images(&self) -> Vec<String> {
        let list = self.ok(&["images", "--format", "{{.Repository}}:{{.Tag}}"]);
        let made = ["odd-", "bad-", "localhost:5000/odd/"];
        list.lines()
            .filter(|name| made.iter().any(|start| name.starts_with(start)))
            .map(str::to_owned)
            .collect()
    }

    fn remove_images(&self) {
        for name in self.images() {
            self.ok(&["rmi", "-f", &name]);
        }
    }

    fn id(&self, name: &str) -> String {
        self.ok(&["inspect", "--type", "image", "-f", "{{.Id}}", name])
    }

    fn layers(&self, name: &str) -> String {
        self.ok(&["inspect", "--type", "image", "-f", "{{json .RootFS}}", name])
    }
}

fn started() -> (Engine, Docker) {
    let engine = Engine::private_empty(&[]);
    engine.start_daemon(&[]);
    let docker = Docker {
        socket: engine.socket.clone(),
    };
    (engine, docker)
}

fn reference() -> Option<Docker> {
    let socket = std::env::var_os(ORACLE_SOCKET)?;
    Some(Docker {
        socket: socket.into(),
    })
}

fn has(program: &str) -> bool {
    let found = Command::new(program).arg("--version").output().is_ok();
    if !found {
        println!("skipped: no {program} here");
    }
    found
}

/// The archives whose names begin with `start`.
fn made(directory: &Path, start: &str) -> Vec<PathBuf> {
    let mut all: Vec<PathBuf> = std::fs::read_dir(directory)
        .expect("the archives")
        .map(|entry| entry.expect("an archive").path())
        .filter(|path| {
            path.file_name()
                .is_some_and(|name| name.to_string_lossy().starts_with(start))
        })
        .collect();
    all.sort();
    assert!(!all.is_empty(), "no archive {start}");
    all
}

fn make(directory: &Path) {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/archives.py");
    run(
        "python3",
        &[script, directory.to_str().expect("a name")],
        &[],
    );
}

#[test]
fn odd_archives_are_loaded_and_saved_as_the_same_images() {
    let (engine, gantry) = started();
    let scratch = tempfile::tempdir_in("/var/tmp").expect("a directory");
    make(scratch.path());
    let docker = reference();
    if let Some(docker) = &docker {
        docker.remove_images();
    }
    for archive in made(scratch.path(), "good-") {
        let answer = gantry.load(&archive);
        assert!(answer.is_ok(), "{}: {answer:?}", archive.display());
        if let Some(docker) = &docker {
            assert_eq!(answer, docker.load(&archive), "{}", archive.display());
        }
    }
    for archive in made(scratch.path(), "own-") {
        let answer = gantry.load(&archive);
        assert!(answer.is_ok(), "{}: {answer:?}", archive.display());
    }
    let names = gantry.images();
    assert!(names.len() > 25, "{names:?}");
    if let Some(docker) = &docker {
        for name in docker.images() {
            assert_eq!(gantry.id(&name), docker.id(&name), "{name}");
            assert_eq!(gantry.layers(&name), docker.layers(&name), "{name}");
        }
        docker.remove_images();
    }
    let platform = gantry.ok(&["inspect", "-f", "{{.Architecture}}", "odd-oci-platforms:1"]);
    assert_eq!(platform, "amd64");
    // Saved by Gantry, which keeps no archive and no layer of it, they are the same images elsewhere.
    let storage = scratch.path().join("storage.conf");
    let root = scratch.path().display();
    std::fs::write(
        &storage,
        format!("[storage]\ndriver = \"vfs\"\nrunroot = \"{root}/podman-run\"\ngraphroot = \"{root}/podman\"\n"),
    )
    .expect("a file");
    let podman_environment = [("CONTAINERS_STORAGE_CONF", storage.to_str().expect("a name"))];
    let (podman, skopeo) = (has("podman"), has("skopeo"));
    let saved = scratch.path().join("saved.tar");
    let saved_name = saved.to_str().expect("a name");
    for name in &names {
        // A layer that has one name twice is no layer for the others.
        if name == "odd-replaced:1" {
            continue;
        }
        let id = gantry.id(name);
        gantry.ok(&["save", "-o", saved_name, name]);
        if let Some(docker) = &docker
            && name != "odd-127-layers:1"
        {
            docker.load(&saved).expect("Docker loads it");
            assert_eq!(docker.id(name), id, "{name}");
            assert_eq!(docker.layers(name), gantry.layers(name), "{name}");
        }
        let full = match name.split_once('/') {
            Some(_) => name.clone(),
            None => format!("docker.io/library/{name}"),
        };
        // podman's slowest store copies each layer's whole tree.
        if podman && name != "odd-127-layers:1" {
            run(
                "podman",
                &["load", "-q", "-i", saved_name],
                &podman_environment,
            );
            let found = run(
                "podman",
                &["image", "inspect", "-f", "{{.Id}}", &full],
                &podman_environment,
            );
            assert_eq!(format!("sha256:{found}"), id, "{name}");
        }
        if skopeo {
            let source = format!("docker-archive:{saved_name}:{full}");
            let copy = scratch.path().join("copy.tar");
            let _ = std::fs::remove_file(&copy);
            let target = format!("docker-archive:{}:{full}", copy.display());
            run(
                "skopeo",
                &["copy", "-q", "--insecure-policy", &source, &target],
                &[],
            );
            // What skopeo wrote is the same image again.
            gantry.load(&copy).expect("skopeo's copy is loaded");
            assert_eq!(gantry.id(name), id, "{name}");
        }
    }
    if let Some(docker) = &docker {
        docker.remove_images();
    }
    gantry.remove_images();
    assert_eq!(leak::settled(&engine.places()), Vec::<String>::new());
}

#[test]
fn hostile_archives_are_refused_and_leave_nothing() {
    let (engine, gantry) = started();
    let scratch = tempfile::tempdir_in("/var/tmp").expect("a directory");
    make(scratch.path());
    let docker = reference();
    // Where the texts differ, Docker tells of its temporary files or of another limit.
    let worded_otherwise = [
        "bad-huge-long-name",
        "bad-huge-pax",
        "bad-layer-link-escapes",
        "bad-manifest-escapes",
        "bad-nested-manifest",
    ];
    for archive in made(scratch.path(), "bad-") {
        let answer = gantry.load(&archive);
        assert!(answer.is_err(), "{}: {answer:?}", archive.display());
        let name = archive.file_stem().expect("a name").to_string_lossy();
        if let Some(docker) = &docker {
            let theirs = docker.load(&archive);
            assert!(theirs.is_err(), "{name}: {theirs:?}");
            if !worded_otherwise.contains(&&*name) {
                assert_eq!(answer, theirs, "{name}");
            }
        }
    }
    assert_eq!(gantry.images(), Vec::<String>::new());
    assert_eq!(leak::settled(&engine.places()), Vec::<String>::new());
    for below in [
        "snapshots/ingest",
        "snapshots/trash",
        "content/ingest",
        "content/sha256",
    ] {
        let left = std::fs::read_dir(engine.places().data_root.join(below))
            .map_or(0, |entries| entries.count());
        assert_eq!(left, 0, "{below}");
    }
    // And the store is sound.
    let good = made(scratch.path(), "good-plain").remove(0);
    gantry.load(&good).expect("a good archive is loaded");
}

#[test]
fn archives_of_other_tools_are_loaded() {
    let (_engine, gantry) = started();
    let scratch = tempfile::tempdir_in("/var/tmp").expect("a directory");
    let root = scratch.path().display().to_string();
    let storage = scratch.path().join("storage.conf");
    std::fs::write(
        &storage,
        format!(
            "[storage]\ndriver = \"vfs\"\nrunroot = \"{root}/run\"\ngraphroot = \"{root}/graph\"\n"
        ),
    )
    .expect("a file");
    let environment = [("CONTAINERS_STORAGE_CONF", storage.to_str().expect("a name"))];
    let busybox = images_directory().join("busybox.tar");
    let busybox = busybox.to_str().expect("a name");
    const NAME: &str = "localhost/test/busybox:1";
    gantry.load(Path::new(busybox)).expect("the test image");
    let (id, layers) = (gantry.id(NAME), gantry.layers(NAME));
    gantry.ok(&["rmi", NAME]);
    let loaded = |archive: &str, name: &str| {
        let answer = gantry.load(Path::new(archive));
        assert!(answer.is_ok(), "{archive}: {answer:?}");
        let found = (gantry.id(name), gantry.layers(name));
        gantry.ok(&["rmi", name]);
        found
    };
    let path = |name: &str| format!("{root}/{name}");
    if has("skopeo") {
        for kind in ["docker-archive", "oci-archive"] {
            let target = path(&format!("skopeo-{kind}.tar"));
            run(
                "skopeo",
                &[
                    "copy",
                    "-q",
                    "--insecure-policy",
                    &format!("docker-archive:{busybox}"),
                    &format!("{kind}:{target}:{NAME}"),
                ],
                &[],
            );
            let (found, found_layers) = loaded(&target, NAME);
            assert_eq!(found_layers, layers, "skopeo {kind}");
            // An OCI image's configuration is written anew.
            assert!(kind == "oci-archive" || found == id, "skopeo {kind}");
        }
    }
    if has("podman") {
        run("podman", &["load", "-q", "-i", busybox], &environment);
        for kind in ["docker-archive", "oci-archive"] {
            let target = path(&format!("podman-{kind}.tar"));
            run(
                "podman",
                &["save", "-q", "--format", kind, "-o", &target, NAME],
                &environment,
            );
            let (found, found_layers) = loaded(&target, NAME);
            assert_eq!(found_layers, layers, "podman {kind}");
            assert!(kind == "oci-archive" || found == id, "podman {kind}");
        }
    }
    if has("buildah") && has("podman") {
        for kind in ["docker-archive", "oci-archive"] {
            let target = path(&format!("buildah-{kind}.tar"));
            run(
                "buildah",
                &["push", "-q", NAME, &format!("{kind}:{target}:{NAME}")],
                &environment,
            );
            let (_, found_layers) = loaded(&target, NAME);
            assert_eq!(found_layers, layers, "buildah {kind}");
        }
    }
    if has("umoci") {
        let layout = path("layout");
        run("umoci", &["init", "--layout", &layout], &[]);
        let image = format!("{layout}:made");
        run("umoci", &["new", "--image", &image], &[]);
        let bundle = path("bundle");
        run("umoci", &["unpack", "--image", &image, &bundle], &[]);
        std::fs::write(format!("{bundle}/rootfs/file"), "umoci\n").expect("a file");
        run("umoci", &["repack", "--image", &image, &bundle], &[]);
        run(
            "umoci",
            &["config", "--image", &image, "--config.cmd", "sh"],
            &[],
        );
        let target = path("umoci.tar");
        run("tar", &["-C", &layout, "-cf", &target, "."], &[]);
        let answer = gantry
            .load(Path::new(&target))
            .expect("umoci's layout is loaded");
        let found = answer.rsplit(' ').next().expect("a name").to_owned();
        assert_eq!(
            gantry.ok(&[
                "inspect",
                "--type",
                "image",
                "-f",
                "{{json .Config.Cmd}} {{len .RootFS.Layers}}",
                &found
            ]),
            "[\"sh\"] 1"
        );
    }
}

#[test]
fn a_full_disk_is_told_and_leaves_a_sound_store() {
    let engine = Engine::private_empty(&[]);
    let data_root = engine.places().data_root;
    std::fs::create_dir_all(&data_root).expect("a directory");
    let mut words = engine.mount_words();
    words.extend(
        ["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs"]
            .map(str::to_owned)
            .into_iter()
            .chain([data_root.display().to_string()]),
    );
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    run(words[0], &words[1..], &[]);
    engine.start_daemon(&[]);
    let gantry = Docker {
        socket: engine.socket.clone(),
    };
    let scratch = tempfile::tempdir_in("/var/tmp").expect("a directory");
    let tree = scratch.path().join("tree");
    std::fs::create_dir(&tree).expect("a directory");
    run(
        "dd",
        &[
            "if=/dev/urandom",
            &format!("of={}/big", tree.display()),
            "bs=1M",
            "count=40",
            "status=none",
        ],
        &[],
    );
    let big = scratch.path().join("big.tar");
    run(
        "tar",
        &[
            "-C",
            tree.to_str().expect("a name"),
            "-cf",
            big.to_str().expect("a name"),
            ".",
        ],
        &[],
    );
    let busybox = images_directory().join("busybox.tar");
    for _ in 0..2 {
        // As a layer: an image of the tree that another engine has made.
        let maker = Engine::private_empty(&[]);
        maker.start_daemon(&[]);
        let made = Docker {
            socket: maker.socket.clone(),
        };
        made.ok(&["import", big.to_str().expect("a name"), "odd-big:1"]);
        let archive = scratch.path().join("image.tar");
        made.ok(&["save", "-o", archive.to_str().expect("a name"), "odd-big:1"]);
        let answer = gantry.load(&archive).expect_err("it does not fit");
        assert!(answer.ends_with("no space left on device"), "{answer}");
        let answer = gantry.output(&["import", big.to_str().expect("a name"), "odd-big:2"]);
        let text = String::from_utf8_lossy(&answer.stderr).into_owned();
        assert!(
            !answer.status.success() && text.trim_end().ends_with("no space left on device"),
            "{text}"
        );
        assert_eq!(gantry.images(), Vec::<String>::new());
        // What fits is loaded, and what is loaded runs on after the next start.
        gantry.load(&busybox).expect("there is room again");
        engine.end_daemon(Signal::KILL);
        engine.start_daemon(&[]);
        let name = "localhost/test/busybox:1";
        assert_eq!(gantry.ok(&["run", "--rm", name, "echo", "sound"]), "sound");
        gantry.ok(&["rmi", name]);
        assert_eq!(leak::settled(&engine.places()), Vec::<String>::new());
    }
    let answer = http::unix(&engine.socket, "GET", "/images/json", None).expect("an answer");
    assert_eq!(answer.text().trim(), "[]");
}

#[test]
fn a_removal_answers_before_the_files_are_deleted() {
    let (engine, gantry) = started();
    let scratch = tempfile::tempdir_in("/var/tmp").expect("a directory");
    let tree = scratch.path().join("tree");
    for directory in 0..10 {
        let directory = tree.join(directory.to_string());
        std::fs::create_dir_all(&directory).expect("a directory");
        for file in 0..300 {
            std::fs::write(directory.join(file.to_string()), "x").expect("a file");
        }
    }
    let archive = scratch.path().join("tree.tar");
    run(
        "tar",
        &[
            "-C",
            tree.to_str().expect("a name"),
            "-cf",
            archive.to_str().expect("a name"),
            ".",
        ],
        &[],
    );
    gantry.ok(&["import", archive.to_str().expect("a name"), "odd-many:1"]);
    let snapshots = engine.places().data_root.join("snapshots");
    let files = || {
        let list = Command::new("find").arg(&snapshots).output().expect("find");
        list.stdout.split(|&byte| byte == b'\n').count()
    };
    assert!(files() > 3000);
    // The request itself, without a client's start.
    let begin = std::time::Instant::now();
    let answer =
        http::unix(&engine.socket, "DELETE", "/images/odd-many:1", None).expect("an answer");
    let took = begin.elapsed();
    let left = files();
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert!(
        left > 1000,
        "{left} files were left when the answer came after {took:?}"
    );
    assert_eq!(gantry.images(), Vec::<String>::new());
    let patience = std::time::Duration::from_secs(120);
    gantry_testkit::wait::eventually_within(patience, "the files are deleted", || {
        (files() < 100).then_some(())
    });
}
