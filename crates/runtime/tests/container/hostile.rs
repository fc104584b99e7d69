//! Images that try to get out: each case is a known way that must lead nowhere.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;

use serde_json::json;

use super::Test;
use super::bundle::{Bundle, eventually, text};

pub const TESTS: &[Test] = &[
    ("proc_and_sys_are_no_links", proc_and_sys_are_no_links),
    (
        "linked_destinations_stay_in_the_root",
        linked_destinations_stay_in_the_root,
    ),
    (
        "a_linked_dev_stays_in_the_root",
        a_linked_dev_stays_in_the_root,
    ),
    (
        "an_images_null_device_masks_nothing_else",
        an_images_null_device_masks_nothing_else,
    ),
    (
        "an_images_terminal_is_not_taken",
        an_images_terminal_is_not_taken,
    ),
    (
        "no_working_directory_leads_out",
        no_working_directory_leads_out,
    ),
    ("no_program_path_leads_out", no_program_path_leads_out),
    (
        "passwd_as_a_fifo_does_not_hang",
        passwd_as_a_fifo_does_not_hang,
    ),
];

/// A directory of the host that must stay as it is.
struct Outside(PathBuf);

impl Outside {
    fn new(bundle: &Bundle) -> Self {
        let path = bundle.path.join("outside");
        fs::create_dir(&path).expect("mkdir");
        Self(path)
    }

    fn is_untouched(&self) -> bool {
        fs::read_dir(&self.0).expect("read").next().is_none()
    }
}

fn replace(bundle: &Bundle, name: &str, target: &str) {
    let path = bundle.rootfs().join(name);
    let _ = fs::remove_dir_all(&path);
    symlink(target, path).expect("link");
}

fn proc_and_sys_are_no_links() {
    for name in ["proc", "sys"] {
        for target in ["/etc", "tmp", "../../outside", "/nosuch"] {
            let bundle = Bundle::new("true");
            let outside = Outside::new(&bundle);
            replace(&bundle, name, target);
            let ran = bundle.run();
            assert_eq!(ran.code, 1, "{name} -> {target}");
            assert!(
                ran.stderr.contains("must be mounted on ordinary directory"),
                "{}",
                ran.stderr
            );
            assert!(outside.is_untouched());
        }
    }
}

fn linked_destinations_stay_in_the_root() {
    let mut bundle = Bundle::new("cat /a/mark /b/deep/mark; test -e /outside && echo inside");
    let outside = Outside::new(&bundle);
    let up = format!("../../../../../../../..{}", text(&outside.0));
    symlink(&up, bundle.rootfs().join("a")).expect("link");
    symlink(text(&outside.0), bundle.rootfs().join("b")).expect("link");
    let source = bundle.path.join("source");
    fs::create_dir(&source).expect("mkdir");
    fs::write(source.join("mark"), "mark\n").expect("write");
    bundle.mount("/a", "bind", text(&source), &["bind"]);
    bundle.mount("/b/deep", "bind", text(&source), &["bind"]);
    bundle.spec["root"]["readonly"] = json!(false);
    let ran = bundle.run();
    assert!(
        ran.stdout.starts_with("mark\nmark\n"),
        "{} {}",
        ran.stdout,
        ran.stderr
    );
    assert!(outside.is_untouched());
    assert!(
        bundle
            .rootfs()
            .join(text(&outside.0).trim_start_matches('/'))
            .exists(),
        "made within the root"
    );
}

fn a_linked_dev_stays_in_the_root() {
    let bundle = Bundle::new("ls /dev/null && echo x >/dev/null && echo ok");
    let outside = Outside::new(&bundle);
    replace(&bundle, "dev", &format!("../../..{}", text(&outside.0)));
    let ran = bundle.run();
    assert_eq!(ran.stdout, "/dev/null\nok\n", "{}", ran.stderr);
    assert!(outside.is_untouched());

    let bundle = Bundle::new("ls -d /etc/passwd; stat -c %a /dev/shm");
    let _ = fs::remove_dir_all(bundle.rootfs().join("dev"));
    fs::create_dir(bundle.rootfs().join("dev")).expect("mkdir");
    symlink("/etc", bundle.rootfs().join("dev/shm")).expect("link");
    // The tmpfs on /dev hides the image's link.
    assert_eq!(bundle.output(), "/etc/passwd\n1777\n");
}

fn an_images_null_device_masks_nothing_else() {
    // CVE-2025-31133: without a /dev of its own the image's /dev/null would be what masks.
    let mut bundle =
        Bundle::new("cat /proc/keys | wc -c; (echo gotcha >/proc/keys) 2>/dev/null; cat /dev/null");
    let mounts = bundle.spec["mounts"].as_array_mut().expect("mounts");
    mounts.retain(|mount| {
        !mount["destination"]
            .as_str()
            .expect("text")
            .starts_with("/dev")
    });
    fs::write(bundle.rootfs().join("etc/target"), "secret").expect("write");
    symlink("/etc/target", bundle.rootfs().join("dev/null")).expect("link");
    assert_eq!(bundle.output(), "0\n");
    assert_eq!(
        fs::read_to_string(bundle.rootfs().join("etc/target")).expect("read"),
        "secret"
    );
}

fn an_images_terminal_is_not_taken() {
    // CVE-2025-52565: /dev/pts/ptmx of the image, where no devpts is mounted.
    let mut bundle = Bundle::new("true");
    let mounts = bundle.spec["mounts"].as_array_mut().expect("mounts");
    mounts.retain(|mount| mount["type"] != "devpts" && mount["destination"] != "/dev");
    fs::create_dir_all(bundle.rootfs().join("dev/pts")).expect("mkdir");
    fs::write(bundle.rootfs().join("dev/pts/ptmx"), "").expect("write");
    bundle.spec["process"]["terminal"] = json!(true);
    let ran = bundle.run();
    assert_eq!(ran.code, 1);
    assert!(ran.stderr.contains("/dev/pts/ptmx"), "{}", ran.stderr);
}

fn no_working_directory_leads_out() {
    // CVE-2024-21626.
    for number in 3..20 {
        let mut bundle = Bundle::new("pwd");
        bundle.spec["process"]["cwd"] = json!(format!("/proc/self/fd/{number}"));
        let ran = bundle.run();
        assert_eq!((ran.code, ran.stdout.as_str()), (1, ""), "{number}");
        if bundle.create().code == 0 {
            // The one directory that a waiting init keeps open is the container's own /proc.
            assert_eq!(bundle.runtime(&["start", &bundle.id]).code, 0);
            eventually("it prints where it is", || bundle.printed() == "/proc\n");
        }
    }
}

fn no_program_path_leads_out() {
    for number in 3..20 {
        let mut bundle = Bundle::new("");
        bundle.spec["process"]["args"] =
            json!([format!("/proc/self/fd/{number}/../../../../../../bin/true")]);
        assert_eq!(bundle.run().code, 1, "{number}");
    }
}

fn passwd_as_a_fifo_does_not_hang() {
    let bundle = Bundle::new("echo $HOME");
    let passwd = bundle.rootfs().join("etc/passwd");
    fs::remove_file(&passwd).expect("remove");
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &passwd,
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::from_raw_mode(0o644),
        0,
    )
    .expect("fifo");
    assert_eq!(bundle.output(), "/\n");
}
