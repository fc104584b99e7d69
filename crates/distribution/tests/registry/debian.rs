//! Debian's docker-registry, which is Docker's own: that the test registry is not merely of one mind with the client.

use bytes::Bytes;
use gantry_api::oci::image::Descriptor;
use gantry_distribution::{Credentials, Mounted};
use gantry_testkit::peer::{DockerRegistry, PASSWORD, USER};
use gantry_testkit::registry::digest_of;

use crate::{at, config, content, digest, read, registries, repository};

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

#[tokio::test]
async fn blobs_of_all_sizes_go_there_and_back() {
    let registry = DockerRegistry::here(false);
    let registries = registries(config());
    let [one, two] = ["a/one", "a/two"]
        .map(|name| at(&registries, &registry.host(), name, Credentials::default()));
    for size in [0, 5, 9 << 20, 17 << 20] {
        let bytes = content(size);
        let name = digest(&digest_of(&bytes));
        let mut upload = one.upload().await.expect("an upload");
        for piece in bytes.chunks(999_983) {
            upload
                .send(Bytes::copy_from_slice(piece))
                .await
                .expect("sent");
        }
        upload.commit(&name).await.expect("an upload");
        assert_eq!(
            one.head_blob(&name).await.expect("a head"),
            Some(size as u64)
        );
        let half = size as u64 / 2;
        let descriptor = Descriptor::new("", name.clone(), size as u64);
        assert!(read(&one, &descriptor, half).await.expect("a blob") == bytes[size / 2..]);
        let mounted = two.mount(&name, "a/one").await.expect("a mount");
        assert!(matches!(mounted, Mounted::Mounted));
        one.delete_blob(&name).await.expect("deleted");
        assert_eq!(one.head_blob(&name).await.expect("a head"), None);
    }
}

#[tokio::test]
async fn manifests_are_written_listed_read_and_deleted() {
    let registry = DockerRegistry::here(false);
    let host = registry.host();
    let repository = repository(&host, "a/b");
    let config_digest = digest(&digest_of(b"{}"));
    let mut upload = repository.upload().await.expect("an upload");
    upload.send(Bytes::from_static(b"{}")).await.expect("sent");
    upload.commit(&config_digest).await.expect("an upload");
    let manifest = format!(
        r#"{{"schemaVersion":2,"mediaType":"{MANIFEST}","config":{{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"{config_digest}","size":2}},"layers":[]}}"#
    );
    let manifest = Bytes::from(manifest);
    for tag in ["1", "2"] {
        let written = repository
            .put_manifest(tag, MANIFEST, manifest.clone())
            .await;
        assert_eq!(written.expect("written").as_str(), digest_of(&manifest));
    }
    let fetched = repository.manifest("1").await.expect("a manifest");
    assert_eq!(
        (&fetched.bytes, fetched.host.as_str()),
        (&manifest, host.as_str())
    );
    let head = repository.head_manifest("2").await.expect("a head");
    assert_eq!(head, Some(fetched.descriptor.clone()));
    let mut tags = repository.tags().await.expect("tags");
    // That registry lists them as they come.
    tags.sort();
    assert_eq!(tags, ["1", "2"]);
    let referrers = repository.referrers(&fetched.descriptor.digest, None).await;
    assert!(referrers.expect("none").manifests.is_empty());
    repository
        .delete_manifest(fetched.descriptor.digest.as_str())
        .await
        .expect("deleted");
    let error = repository.manifest("1").await.expect_err("it is gone");
    assert_eq!(
        error.to_string(),
        format!("manifest for {host}/a/b:1 not found: manifest unknown: manifest unknown")
    );
    let nobody = Credentials::default();
    let all = registries(config()).catalog(&host, &nobody).await;
    assert_eq!(all.expect("repositories"), ["a/b"]);
    let error = crate::repository(&host, "a/c")
        .tags()
        .await
        .expect_err("no such name");
    assert_eq!(
        error.to_string(),
        format!(
            "repository {host}/a/c not found: name unknown: repository name not known to registry"
        )
    );
}

#[tokio::test]
async fn passwords_are_asked_for() {
    let registry = DockerRegistry::here(true);
    let host = registry.host();
    let registries = registries(config());
    let user = |password: &str| Credentials {
        username: USER.to_owned(),
        password: password.to_owned(),
        ..Credentials::default()
    };
    registries
        .login(&host, &user(PASSWORD))
        .await
        .expect("a login");
    let error = registries
        .login(&host, &user("wrong"))
        .await
        .expect_err("wrong");
    assert_eq!(
        error.to_string(),
        format!("login attempt to http://{host}/v2/ failed with status: 401 Unauthorized")
    );
    at(&registries, &host, "a", user(PASSWORD))
        .upload()
        .await
        .expect("an upload");
    let error = repository(&host, "a")
        .manifest("1")
        .await
        .expect_err("nobody");
    assert_eq!(
        error.to_string(),
        format!("Head \"http://{host}/v2/a/manifests/1\": no basic auth credentials")
    );
}
