//! `manifest`: lists that are put together by the client and pushed to a registry. Both clients keep the same files.

use gantry_testkit::peer::DockerRegistry;
use gantry_testkit::session::Session;
use serde_json::Value;

gantry_testkit::scenarios![
    a_list_is_made_and_pushed,
    a_list_is_annotated,
    a_list_grows_with_amend_alone,
    manifests_are_shown,
    manifests_are_shown_in_full,
    lists_are_removed,
    a_pushed_list_can_be_purged,
    what_lists_refuse,
    a_list_of_another_repository,
];

/// A registry with two images, and its name for them.
fn stocked(s: &Session) -> (DockerRegistry, String) {
    let registry = DockerRegistry::open(s);
    let name = format!("{}/{}", registry.host(), s.x("@i"));
    s.d(&format!("tag @bb {name}:bb")).ok();
    s.d(&format!("tag @app {name}:app")).ok();
    s.d(&format!("push -q -a {name}")).ok();
    (registry, name)
}

fn a_list_is_made_and_pushed(s: &Session) {
    let (_registry, name) = stocked(s);
    s.d(&format!(
        "manifest create --insecure {name}:list {name}:bb {name}:app"
    ))
    .prints(&format!("Created manifest list {name}:list\n"));
    let directory = s
        .dir()
        .join(".docker/manifests")
        .join(format!("{name}:list").replace(':', "-").replace('/', "_"));
    let mut files: Vec<_> = std::fs::read_dir(&directory)
        .expect("the list")
        .map(|entry| {
            entry
                .expect("an entry")
                .file_name()
                .into_string()
                .expect("text")
        })
        .collect();
    files.sort();
    assert_eq!(files.len(), 2, "{files:?}");
    assert!(
        files[0].ends_with("-app") && files[1].ends_with("-bb"),
        "{files:?}"
    );
    let stored = std::fs::read_to_string(directory.join(&files[0])).expect("a manifest");
    assert!(
        stored.starts_with(&format!("{{\"Ref\":\"{name}:app\",\"Descriptor\":{{\"mediaType\":\"application/vnd.docker.distribution.manifest.v2+json\",\"digest\":\"sha256:")),
        "{stored}"
    );
    assert!(
        stored.contains("\"platform\":{\"architecture\":\"amd64\",\"os\":\"linux\"}},\"Raw\":\"")
    );
    assert!(stored.contains("\",\"SchemaV2Manifest\":{\"schemaVersion\":2,\"mediaType\":"));
    let shown = s.d(&format!("manifest inspect {name}:list")).ok();
    assert!(
        shown.stdout.starts_with("{\n   \"schemaVersion\": 2,\n   \"mediaType\": \"application/vnd.docker.distribution.manifest.list.v2+json\",\n   \"manifests\": [\n      {\n         \"mediaType\": "),
        "{}",
        shown.stdout
    );
    let pushed = s
        .d(&format!("manifest push --insecure {name}:list"))
        .ok()
        .text();
    assert!(
        pushed.starts_with("sha256:") && pushed.len() == 71,
        "{pushed}"
    );
    // The digest is of the bytes that are shown, whoever made them.
    let sum = std::process::Command::new("sh")
        .args(["-c", "printf %s \"$1\" | sha256sum", "sh", &shown.text()])
        .output()
        .expect("sha256sum");
    let sum = String::from_utf8_lossy(&sum.stdout).into_owned();
    assert_eq!(pushed, format!("sha256:{}", &sum[..64]));
    s.d(&format!("pull {name}:list"))
        .shows(&format!("Digest: {pushed}\n"));
}

fn a_list_is_annotated(s: &Session) {
    let (_registry, name) = stocked(s);
    s.d(&format!(
        "manifest create --insecure {name}:list {name}:bb {name}:app"
    ))
    .ok();
    s.d(&format!("manifest annotate --arch arm64 --variant v8 --os linux --os-version 10 --os-features a,b {name}:list {name}:app"))
        .prints("");
    let list = s.d(&format!("manifest inspect {name}:list")).ok().json();
    assert_eq!(
        list["manifests"][0]["platform"].to_string(),
        "{\"architecture\":\"arm64\",\"os\":\"linux\",\"os.version\":\"10\",\"os.features\":[\"a\",\"b\"],\"variant\":\"v8\"}"
    );
    s.d(&format!(
        "manifest annotate --arch foo {name}:list {name}:app"
    ))
    .fails(
        1,
        "manifest entry for image has unsupported os/arch combination: /foo\n",
    );
    for (list, image) in [("list", "none"), ("nolist", "app")] {
        s.d(&format!(
            "manifest annotate --arch arm64 {name}:{list} {name}:{image}"
        ))
        .fails(
            1,
            &format!("manifest for image {name}:{image} does not exist in {name}:{list}\n"),
        );
    }
    // As they were typed: without a tag, and with the index that short names mean.
    s.d("manifest annotate foo/nolist docker.io/foo/none")
        .fails(
            1,
            "manifest for image docker.io/foo/none does not exist in foo/nolist\n",
        );
}

fn a_list_grows_with_amend_alone(s: &Session) {
    let (_registry, name) = stocked(s);
    s.d(&format!("manifest create --insecure {name}:list {name}:bb"))
        .ok();
    s.d(&format!(
        "manifest create --insecure {name}:list {name}:app"
    ))
    .fails(
        1,
        "refusing to amend an existing manifest list with no --amend flag\n",
    );
    s.d(&format!(
        "manifest create --insecure -a {name}:list {name}:app"
    ))
    .prints(&format!("Created manifest list {name}:list\n"));
    let list = s.d(&format!("manifest inspect {name}:list")).ok().json();
    assert_eq!(list["manifests"].as_array().map(Vec::len), Some(2));
}

fn manifests_are_shown(s: &Session) {
    let (_registry, name) = stocked(s);
    let shown = s.d(&format!("manifest inspect --insecure {name}:bb")).ok();
    assert!(
        shown.stdout.starts_with("{\n\t\"schemaVersion\": 2,\n\t\"mediaType\": \"application/vnd.docker.distribution.manifest.v2+json\",\n\t\"config\": {\n"),
        "{}",
        shown.stdout
    );
    let id = s.d("image inspect -f '{{.Id}}' @bb").ok().text();
    assert_eq!(shown.json()["config"]["digest"], id);
    s.d(&format!("manifest create --insecure {name}:list {name}:bb"))
        .ok();
    s.d(&format!("manifest inspect {name}:list {name}:bb"))
        .prints(&shown.stdout);
}

fn manifests_are_shown_in_full(s: &Session) {
    let (_registry, name) = stocked(s);
    let one = s
        .d(&format!("manifest inspect --insecure -v {name}:bb"))
        .ok()
        .json();
    assert_eq!(one["Ref"], format!("{name}:bb"));
    let keys = |value: &Value| -> Vec<String> {
        value
            .as_object()
            .expect("an object")
            .keys()
            .cloned()
            .collect()
    };
    let mut names = keys(&one);
    names.sort();
    assert_eq!(names, ["Descriptor", "Raw", "Ref", "SchemaV2Manifest"]);
    assert_eq!(one["Descriptor"]["platform"]["architecture"], "amd64");
    s.d(&format!(
        "manifest create --insecure {name}:list {name}:bb {name}:app"
    ))
    .ok();
    s.d(&format!("manifest push --insecure -p {name}:list"))
        .ok();
    // Of a list at the registry each manifest is shown by its digest.
    let list = s
        .d(&format!(
            "manifest inspect --insecure --verbose {name}:list"
        ))
        .ok()
        .json();
    let digest = list[1]["Descriptor"]["digest"].as_str().expect("a digest");
    assert_eq!(list[1]["Ref"], format!("{name}:list@{digest}"));
    assert_eq!(list[1]["SchemaV2Manifest"], one["SchemaV2Manifest"]);
}

fn lists_are_removed(s: &Session) {
    let (_registry, name) = stocked(s);
    s.d(&format!("manifest create --insecure {name}:list {name}:bb"))
        .ok();
    s.d(&format!("manifest rm {name}:list {name}:none"))
        .fails(1, &format!("No such manifest: {name}:none\n"));
    s.d(&format!("manifest rm {name}:list"))
        .fails(1, &format!("No such manifest: {name}:list\n"));
}

fn a_pushed_list_can_be_purged(s: &Session) {
    let (_registry, name) = stocked(s);
    s.d(&format!("manifest create --insecure {name}:list {name}:bb"))
        .ok();
    let first = s
        .d(&format!("manifest push --insecure {name}:list"))
        .ok()
        .text();
    s.d(&format!("manifest push --insecure --purge {name}:list"))
        .prints(&format!("{first}\n"));
    s.d(&format!("manifest push --insecure {name}:list"))
        .fails(1, &format!("No such manifest: {name}:list\n"));
    s.d(&format!("manifest inspect --insecure {name}:list"))
        .ok()
        .shows("\"manifests\": [");
}

fn what_lists_refuse(s: &Session) {
    let (_registry, name) = stocked(s);
    let case = "invalid reference format: repository name (library/BAD) must be lowercase\n";
    s.d(&format!("manifest create BAD {name}:bb")).fails(
        1,
        &format!("error parsing name for manifest list BAD: {case}"),
    );
    s.d(&format!("manifest create {name}:list BAD"))
        .fails(1, case);
    for verb in ["inspect", "rm", "push"] {
        s.d(&format!("manifest {verb} BAD")).fails(1, case);
    }
    s.d(&format!(
        "manifest create --insecure {name}:list {name}:none"
    ))
    .fails(1, &format!("no such manifest: {name}:none\n"));
    s.d(&format!("manifest inspect --insecure {name}"))
        .fails(1, &format!("no such manifest: {name}:latest\n"));
    s.d(&format!("manifest create --insecure {name}:list {name}:bb"))
        .ok();
    s.d(&format!("manifest push --insecure {name}:list")).ok();
    s.d(&format!(
        "manifest create --insecure {name}:other {name}:list"
    ))
    .fails(1, &format!("{name}:list is a manifest list\n"));
    s.d(&format!(
        "manifest create --insecure 127.0.0.1:1/a:1 {name}:bb"
    ))
    .ok();
    let host = name.split('/').next().unwrap_or_default();
    s.d("manifest push --insecure 127.0.0.1:1/a:1").fails(
        1,
        &format!("cannot use source images from a different registry than the target image: {host} != 127.0.0.1:1\n"),
    );
}

fn a_list_of_another_repository(s: &Session) {
    let (_registry, name) = stocked(s);
    s.d(&format!(
        "manifest create --insecure {name}-list:1 {name}:bb {name}:app"
    ))
    .ok();
    let pushed = s
        .d(&format!("manifest push --insecure {name}-list:1"))
        .ok()
        .stdout;
    let lines: Vec<&str> = pushed.lines().collect();
    assert_eq!(lines.len(), 3, "{pushed}");
    for line in &lines[..2] {
        let digest = line.rsplit(' ').next().unwrap_or_default();
        assert_eq!(
            *line,
            format!("Pushed ref {name}-list@{digest} with digest: {digest}")
        );
    }
    s.d(&format!("rmi {name}:bb {name}:app")).ok();
    s.d(&format!("run --rm {name}-list:1 echo it runs"))
        .prints("entry echo it runs\n");
}
