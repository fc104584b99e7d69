//! The images of the tests and the demo, made from Debian's packages and nothing else.
//!
//! - `busybox`: one layer, a static busybox with its links.
//! - `app`: busybox and a second layer with seeded directories, and a config that sets everything a config can set.
//! - `web`: busybox's web server as entry point, with exposed ports.
//! - `debian`: bash, procps, strace, python3, nginx and redis; takes a minute, so it is kept.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use crate::archive::{Layer, Owner, ROOT, pack};

const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
const PACKAGES: &str =
    "bash,procps,strace,python3,nginx-light,redis-server,iproute2,netcat-openbsd,curl";

/// Makes the archives named, or all, in `directory`; those that are there stay.
pub fn make(directory: &Path, names: &[&str]) -> Result<()> {
    std::fs::create_dir_all(directory)?;
    let names = if names.is_empty() {
        &["busybox", "app", "web", "debian"]
    } else {
        names
    };
    for name in names {
        let archive = directory.join(format!("{name}.tar"));
        if archive.exists() {
            continue;
        }
        eprintln!("making {}", archive.display());
        let reference = format!("localhost/test/{name}:1");
        match *name {
            "busybox" => {
                let base = busybox_layer(directory)?;
                pack(
                    &archive,
                    &reference,
                    &[&base],
                    &json!({"Cmd": ["sh"], "Env": [PATH]}),
                )?;
            }
            "app" => {
                let (base, seeds) = (busybox_layer(directory)?, app_layer(directory)?);
                pack(&archive, &reference, &[&base, &seeds], &app_config())?;
            }
            "web" => {
                let base = busybox_layer(directory)?;
                pack(&archive, &reference, &[&base], &web_config())?;
            }
            "debian" => {
                let base = debian_layer(directory)?;
                pack(
                    &archive,
                    &reference,
                    &[&base],
                    &json!({"Cmd": ["bash"], "Env": [PATH]}),
                )?;
                std::fs::remove_file(base)?;
            }
            other => bail!("no image is called `{other}`"),
        }
    }
    Ok(())
}

fn app_config() -> Value {
    json!({
        "Entrypoint": ["/bin/echo", "entry"],
        "Cmd": ["default"],
        "Env": [PATH, "FROM_IMAGE=yes", "SHARED=image"],
        "WorkingDir": "/app",
        "User": "1000:1000",
        "Volumes": {"/data": {}},
        "ExposedPorts": {"8080/tcp": {}, "5353/udp": {}},
        "Labels": {"from.image": "yes", "shared": "image"},
        "StopSignal": "SIGUSR1",
    })
}

fn web_config() -> Value {
    json!({
        "Entrypoint": ["httpd", "-f", "-v", "-h", "/etc", "-p"],
        "Cmd": ["80"],
        "Env": [PATH],
        "ExposedPorts": {"80/tcp": {}, "81/tcp": {}},
    })
}

fn busybox_layer(directory: &Path) -> Result<PathBuf> {
    let path = directory.join("busybox.layer");
    if path.exists() {
        return Ok(path);
    }
    let program = ["/bin/busybox", "/usr/bin/busybox"]
        .into_iter()
        .find(|path| Path::new(path).exists())
        .context("no busybox on this machine (Debian's package: busybox-static)")?;
    let listing = Command::new(program).arg("--list").output()?;
    let mut layer = Layer::new();
    for (name, mode) in [
        ("bin", 0o755),
        ("dev", 0o755),
        ("etc", 0o755),
        ("home", 0o755),
        ("proc", 0o755),
        ("root", 0o700),
        ("sys", 0o755),
        ("tmp", 0o1777),
        ("var", 0o755),
        ("var/tmp", 0o1777),
    ] {
        layer.directory(name, mode, ROOT)?;
    }
    layer.file("bin/busybox", 0o755, ROOT, &std::fs::read(program)?)?;
    for applet in String::from_utf8(listing.stdout)?.lines() {
        if applet != "busybox" {
            layer.link(&format!("bin/{applet}"), "busybox")?;
        }
    }
    let passwd = b"root:x:0:0:root:/root:/bin/sh\ndaemon:x:1:1:daemon:/usr/sbin:/bin/false\nuser:x:1000:1000:user:/home:/bin/sh\n";
    layer.file("etc/passwd", 0o644, ROOT, passwd)?;
    layer.file(
        "etc/group",
        0o644,
        ROOT,
        b"root:x:0:\ndaemon:x:1:\nstaff:x:50:user\nuser:x:1000:\n",
    )?;
    layer.file(
        "etc/not-executable",
        0o644,
        ROOT,
        b"#!/bin/sh\necho never\n",
    )?;
    layer.finish(&path)?;
    Ok(path)
}

fn app_layer(directory: &Path) -> Result<PathBuf> {
    let path = directory.join("app.layer");
    let user = Owner(1000, 1000);
    let mut layer = Layer::new();
    layer.directory("app", 0o750, user)?;
    layer.file("app/owned", 0o600, user, b"of the user\n")?;
    layer.directory("data", 0o1770, user)?;
    layer.file("data/seed", 0o640, user, b"seed\n")?;
    layer.directory("data/sub", 0o711, ROOT)?;
    layer.file("data/sub/deep", 0o644, ROOT, b"deep\n")?;
    layer.link("data/link", "seed")?;
    layer.finish(&path)?;
    Ok(path)
}

/// The first mirror that this machine's apt uses for Debian itself.
fn mirror() -> Result<String> {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let deb822 = read("/etc/apt/sources.list.d/debian.sources");
    let classic = read("/etc/apt/sources.list");
    deb822
        .lines()
        .find_map(|line| line.strip_prefix("URIs:"))
        .or_else(|| classic.lines().find_map(|line| line.strip_prefix("deb ")))
        .and_then(|rest| rest.split_whitespace().find(|word| word.contains("://")))
        .map(str::to_owned)
        .context("apt has no Debian mirror on this machine")
}

fn suite() -> Result<String> {
    std::fs::read_to_string("/etc/os-release")?
        .lines()
        .find_map(|line| line.strip_prefix("VERSION_CODENAME="))
        .map(str::to_owned)
        .context("no VERSION_CODENAME in `/etc/os-release`")
}

fn debian_layer(directory: &Path) -> Result<PathBuf> {
    let path = directory.join("debian.layer");
    let log = directory.join("debian.log");
    let status = Command::new("mmdebstrap")
        .args(["--variant=essential", "--mode=root", "--format=tar"])
        .arg(format!("--include={PACKAGES}"))
        .arg("--aptopt=Acquire::Check-Valid-Until \"false\"")
        .arg("--aptopt=Acquire::Retries \"3\"")
        .arg("--dpkgopt=path-exclude=/usr/share/doc/*")
        .arg("--dpkgopt=path-exclude=/usr/share/man/*")
        .arg("--dpkgopt=path-exclude=/usr/share/locale/*")
        .arg("--customize-hook=rm -rf \"$1\"/var/lib/apt/lists/* \"$1\"/var/cache/apt/*")
        .arg(suite()?)
        .arg(&path)
        .arg(mirror()?)
        .stdout(std::process::Stdio::null())
        .stderr(std::fs::File::create(&log)?)
        .status()
        .context("run `mmdebstrap` (Debian's package: mmdebstrap)")?;
    if !status.success() {
        bail!("mmdebstrap failed; see `{}`", log.display());
    }
    Ok(path)
}
