//! Policies of signatures, against signatures that are made as cosign makes them, with openssl's command.

use std::path::{Path, PathBuf};
use std::process::Command;

use base64::Engine as _;
use gantry_api::error::ErrorKind;
use gantry_api::reference::Reference;
use gantry_distribution::{Error, SignaturePolicy};
use gantry_testkit::registry::{Fault, Registry, Times, digest_of};
use serde_json::{Value, json};

use crate::{digest, repository};

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const SIMPLE: &str = "application/vnd.dev.cosign.simplesigning.v1+json";
const BUNDLE: &str = "application/vnd.dev.sigstore.bundle.v0.3+json";

fn openssl(directory: &Path, arguments: &str) {
    let output = Command::new("openssl")
        .args(arguments.split(' '))
        .current_dir(directory)
        .output()
        .expect("start openssl");
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "openssl {arguments}: {complaint}");
}

/// A registry with one image, and keys to sign it with.
struct Signing {
    directory: tempfile::TempDir,
    registry: Registry,
    image: String,
    host: String,
}

impl Signing {
    fn new() -> Self {
        let registry = Registry::start();
        let image = registry.push_image("team/app", "1", &[b"x"]).manifest;
        let signing = Self {
            directory: tempfile::tempdir().expect("a directory"),
            host: registry.host(),
            registry,
            image,
        };
        for (name, kind) in [
            ("ec", "EC -pkeyopt ec_paramgen_curve:P-256"),
            ("ec384", "EC -pkeyopt ec_paramgen_curve:P-384"),
            ("other", "EC -pkeyopt ec_paramgen_curve:P-256"),
            ("rsa", "RSA -pkeyopt rsa_keygen_bits:2048"),
            ("ed", "ED25519"),
        ] {
            signing.openssl(&format!("genpkey -algorithm {kind} -out {name}.key"));
            signing.openssl(&format!("pkey -in {name}.key -pubout -out {name}.pub"));
        }
        signing
    }

    fn openssl(&self, arguments: &str) {
        openssl(self.directory.path(), arguments);
    }

    fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn sign(&self, key: &str, message: &[u8]) -> String {
        std::fs::write(self.file("message"), message).expect("a file");
        self.openssl(&match key {
            "ed" => "pkeyutl -sign -rawin -inkey ed.key -in message -out signature".to_owned(),
            _ => format!("dgst -sha256 -sign {key}.key -out signature message"),
        });
        let signature = std::fs::read(self.file("signature")).expect("a signature");
        base64::engine::general_purpose::STANDARD.encode(signature)
    }

    /// Stores a payload and its signature as `cosign sign` does, `payload` changed by `edit`.
    fn simple(&self, key: &str, edit: impl Fn(&mut Value)) {
        let mut payload = json!({
            "critical": {
                "identity": {"docker-reference": format!("{}/team/app", self.host)},
                "image": {"docker-manifest-digest": self.image},
                "type": "cosign container image signature",
            },
            "optional": null,
        });
        edit(&mut payload);
        let payload = payload.to_string();
        let signature = self.sign(key, payload.as_bytes());
        let blob = self.registry.push_blob(payload.as_bytes());
        self.store_simple(&blob, payload.len(), &signature);
    }

    fn store_simple(&self, payload: &str, size: usize, signature: &str) {
        let config = self.registry.push_blob(b"{}");
        let manifest = json!({
            "schemaVersion": 2, "mediaType": MANIFEST,
            "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": config, "size": 2},
            "layers": [{
                "mediaType": SIMPLE, "digest": payload, "size": size,
                "annotations": {"dev.cosignproject.cosign/signature": signature},
            }],
        })
        .to_string();
        let tag = self.image.replace(':', "-") + ".sig";
        self.registry
            .push_manifest("team/app", &tag, MANIFEST, manifest.as_bytes());
    }

    /// Stores a bundle as a referrer.
    fn bundle(&self, key: &str, predicate: &str, subject: &str) {
        let statement = json!({
            "_type": "https://in-toto.io/Statement/v1", "predicateType": predicate, "predicate": {},
            "subject": [{"digest": {"sha256": subject.trim_start_matches("sha256:")}}],
        })
        .to_string();
        let kind = "application/vnd.in-toto+json";
        let message = format!(
            "DSSEv1 {} {kind} {} {statement}",
            kind.len(),
            statement.len()
        );
        let signature = self.sign(key, message.as_bytes());
        let bundle = json!({
            "mediaType": BUNDLE, "verificationMaterial": {"publicKey": {"hint": ""}},
            "dsseEnvelope": {
                "payload": base64::engine::general_purpose::STANDARD.encode(&statement),
                "payloadType": kind, "signatures": [{"sig": signature}],
            },
        })
        .to_string();
        let blob = self.registry.push_blob(bundle.as_bytes());
        let config = self.registry.push_blob(b"{}");
        let manifest = json!({
            "schemaVersion": 2, "mediaType": MANIFEST, "artifactType": BUNDLE,
            "config": {"mediaType": "application/vnd.oci.empty.v1+json", "digest": config, "size": 2},
            "layers": [{"mediaType": BUNDLE, "digest": blob, "size": bundle.len()}],
            "subject": {"mediaType": MANIFEST, "digest": self.image, "size": 1},
        })
        .to_string();
        self.registry.push_manifest(
            "team/app",
            &digest_of(manifest.as_bytes()),
            MANIFEST,
            manifest.as_bytes(),
        );
    }

    fn policy(&self, rule: &Value) -> SignaturePolicy {
        let mut rule = rule.clone();
        rule["prefix"] = json!(format!("{}/team", self.host));
        let policy = json!({"default": {"action": "reject"}, "rules": [rule]});
        let path = self.file("policy.json");
        std::fs::write(&path, policy.to_string()).expect("a file");
        SignaturePolicy::load(&path).expect("a policy")
    }

    async fn check_rule(&self, rule: &Value) -> Result<(), Error> {
        let policy = self.policy(rule);
        let reference: Reference = format!("{}/team/app:1", self.host).parse().expect("a name");
        let repository = repository(&self.host, "team/app");
        policy
            .check(&repository, &reference, &digest(&self.image))
            .await
    }

    async fn check(&self, key: &str) -> Result<(), Error> {
        let key = format!("{key}.pub");
        self.check_rule(&json!({"action": "require", "keys": [key]}))
            .await
    }

    async fn refused(&self, key: &str, expected: &str) {
        let error = self.check(key).await.expect_err("it does not count");
        assert_eq!(error.kind(), ErrorKind::Forbidden, "{error}");
        assert!(error.to_string().ends_with(expected), "{error}");
    }
}

#[tokio::test]
async fn keys_of_all_kinds_sign() {
    let signing = Signing::new();
    for key in ["ec", "ec384", "rsa", "ed"] {
        signing.refused(key, "has none at all").await;
    }
    for key in ["ec", "ec384", "rsa", "ed"] {
        signing.simple(key, |_| {});
        signing.check(key).await.expect(key);
        signing
            .refused(
                "other",
                "has none that counts: a signature is by none of the keys",
            )
            .await;
    }
    let both = json!({"action": "require", "keys": ["other.pub", "ed.pub"]});
    signing.check_rule(&both).await.expect("one of them");
    let pem = std::fs::read_to_string(signing.file("ed.pub")).expect("a key");
    let written = json!({"action": "require", "keys": [pem]});
    signing
        .check_rule(&written)
        .await
        .expect("a key in the policy");
}

#[tokio::test]
async fn a_signature_is_for_one_image_at_one_place() {
    let signing = Signing::new();
    let other = digest_of(b"other");
    signing.simple("ec", |payload| {
        payload["critical"]["image"]["docker-manifest-digest"] = json!(other);
    });
    signing
        .refused("ec", &format!("a signature is for {other}"))
        .await;
    signing.simple("ec", |payload| {
        payload["critical"]["type"] = json!("something")
    });
    signing
        .refused("ec", "a signed payload is a `something`")
        .await;
    let elsewhere = "elsewhere.example/team/app";
    signing.simple("ec", |payload| {
        payload["critical"]["identity"]["docker-reference"] = json!(elsewhere);
    });
    signing
        .refused("ec", &format!("a signature is for `{elsewhere}`"))
        .await;
    for (identity, works) in [
        ("any", true),
        ("elsewhere.example/team", true),
        ("elsewhere.example/tea", false),
        ("repository", false),
    ] {
        let rule = json!({"action": "require", "keys": ["ec.pub"], "identity": identity});
        assert_eq!(signing.check_rule(&rule).await.is_ok(), works, "{identity}");
    }
}

#[tokio::test]
async fn a_changed_payload_is_not_signed() {
    let signing = Signing::new();
    signing.simple("ec", |_| {});
    let signature = signing.sign("ec", b"something else");
    let payload = b"something else?";
    let blob = signing.registry.push_blob(payload);
    signing.store_simple(&blob, payload.len(), &signature);
    signing
        .refused("ec", "a signature is by none of the keys")
        .await;
    signing.store_simple(&blob, payload.len(), "***");
    signing.refused("ec", "a signature is no base64").await;
    // A registry that gives other bytes than it names is no registry of signatures.
    signing.store_simple(&blob, payload.len(), &signature);
    signing
        .registry
        .misbehave("GET", "/blobs/", Times::Always, Fault::WrongBytes);
    let error = signing.check("ec").await.expect_err("other bytes");
    assert!(matches!(error, Error::Corrupt(_)), "{error}");
}

#[tokio::test]
async fn bundles_among_the_referrers_sign_too() {
    let signing = Signing::new();
    let sign = "https://sigstore.dev/cosign/sign/v1";
    signing.bundle("ec", "https://slsa.dev/provenance/v1", &signing.image);
    signing
        .refused(
            "ec",
            "a signed statement is a `https://slsa.dev/provenance/v1`",
        )
        .await;
    signing.bundle("ec", sign, &digest_of(b"other"));
    let error = signing
        .check("ec")
        .await
        .expect_err("another image")
        .to_string();
    assert!(
        error.contains("a signed statement is for another image"),
        "{error}"
    );
    signing.bundle("other", sign, &signing.image);
    let error = signing
        .check("ec")
        .await
        .expect_err("another key")
        .to_string();
    assert!(
        error.contains("a bundle is signed by none of the keys"),
        "{error}"
    );
    signing.bundle("ec", sign, &signing.image);
    signing.check("ec").await.expect("a signature");
}

#[tokio::test]
async fn nothing_is_fetched_where_nothing_is_required() {
    let signing = Signing::new();
    signing
        .check_rule(&json!({"action": "accept"}))
        .await
        .expect("accepted");
    let error = signing
        .check_rule(&json!({"action": "reject"}))
        .await
        .expect_err("rejected");
    assert_eq!(
        error.to_string(),
        format!(
            "signature policy `{}`: images of `{host}/team` are rejected, `{host}/team/app@{}` is one",
            signing.file("policy.json").display(),
            signing.image,
            host = signing.host
        )
    );
    assert!(signing.registry.requests().is_empty());
}

#[tokio::test]
async fn a_registry_that_cannot_be_asked_is_no_absent_signature() {
    let signing = Signing::new();
    signing.simple("ec", |_| {});
    signing
        .registry
        .misbehave("GET", ".sig", Times::Always, Fault::status(500, ""));
    let error = signing.check("ec").await.expect_err("no answer");
    assert!(
        matches!(error, Error::Registry { status: 500, .. }),
        "{error}"
    );
}
