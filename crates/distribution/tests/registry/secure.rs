//! TLS: authorities and client certificates in certs.d and hosts.toml.

use std::path::Path;
use std::sync::Arc;

use gantry_distribution::{Config, Credentials, Repository};
use gantry_testkit::registry::{Access, Fault, Registry, Times, TokenServer, digest_of};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType, IsCa, KeyPair,
};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};

use crate::{at, blob, config, read, registries, user};

pub type Authority = CertifiedIssuer<'static, KeyPair>;

fn named(name: &str, hosts: &[&str]) -> CertificateParams {
    let hosts: Vec<String> = hosts.iter().map(|&host| host.to_owned()).collect();
    let mut params = CertificateParams::new(hosts).expect("names");
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params
}

pub fn authority(name: &str) -> Authority {
    let mut params = named(name, &[]);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("an authority")
}

/// A server's configuration with a certificate for `hosts`; with `clients` it wants certificates of theirs.
pub fn server(by: &Authority, hosts: &[&str], clients: Option<&Authority>) -> Arc<ServerConfig> {
    server_with(by, named("server", hosts), clients)
}

fn server_with(
    by: &Authority,
    params: CertificateParams,
    clients: Option<&Authority>,
) -> Arc<ServerConfig> {
    let key = KeyPair::generate().expect("a key");
    let certificate = params.signed_by(&key, by).expect("a certificate");
    tls(vec![certificate.der().clone()], &key, clients)
}

fn tls(
    chain: Vec<CertificateDer<'static>>,
    key: &KeyPair,
    clients: Option<&Authority>,
) -> Arc<ServerConfig> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .expect("versions");
    let builder = match clients {
        None => builder.with_no_client_auth(),
        Some(authority) => {
            let mut roots = RootCertStore::empty();
            roots.add(authority.der().clone()).expect("a root");
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
            builder.with_client_cert_verifier(verifier.build().expect("a verifier"))
        }
    };
    let key = PrivatePkcs8KeyDer::from(key.serialize_der());
    Arc::new(
        builder
            .with_single_cert(chain, key.into())
            .expect("a certificate"),
    )
}

fn write(path: &Path, text: &str) {
    std::fs::write(path, text).expect("a file");
}

/// A registry `a.example` behind TLS, a client that reaches it by a `hosts.toml`, and the directory of its certificates.
struct Secured {
    registry: Registry,
    directory: tempfile::TempDir,
    options: String,
}

impl Secured {
    fn new(config: Arc<ServerConfig>) -> Self {
        let registry = Registry::start_tls(config);
        registry.push_image("x", "1", &[b"x"]);
        let directory = tempfile::tempdir().expect("a directory");
        std::fs::create_dir(directory.path().join("a.example")).expect("a directory");
        Self {
            registry,
            directory,
            options: String::new(),
        }
    }

    fn file(&self, name: &str, text: &str) {
        write(&self.directory.path().join("a.example").join(name), text);
    }

    fn repository(&self) -> Repository {
        self.repository_for(Credentials::default())
    }

    fn repository_for(&self, credentials: Credentials) -> Repository {
        // Named by a file, a registry at this machine has to be as secure as others.
        let text = format!("server = \"{}\"\n{}", self.registry.url(), self.options);
        self.file("hosts.toml", &text);
        let registries = registries(Config {
            certs_dirs: vec![self.directory.path().to_owned()],
            ..config()
        });
        at(&registries, "a.example", "x", credentials)
    }

    async fn works(&self) {
        self.repository().manifest("1").await.expect("a manifest");
    }

    async fn fails(&self, expected: &str) {
        let error = self
            .repository()
            .manifest("1")
            .await
            .expect_err("it is not secure");
        let prefix = format!("Get \"{}/v2/\": ", self.registry.url());
        let text = error.to_string();
        let cause = text
            .strip_prefix(&prefix)
            .unwrap_or_else(|| panic!("{text}"));
        assert!(cause.starts_with(expected), "{cause}");
    }
}

#[tokio::test]
async fn a_private_authority_is_trusted_where_certs_d_has_it() {
    let authority = authority("authority");
    let secured = Secured::new(server(&authority, &["127.0.0.1"], None));
    let unknown =
        "tls: failed to verify certificate: x509: certificate signed by unknown authority";
    // Without any authority in the system the first text would be another one.
    let stranger = self::authority("stranger");
    secured.file("stranger.crt", &stranger.pem());
    secured.fails(unknown).await;
    secured.file("ca.crt", &authority.pem());
    secured.works().await;
}

#[tokio::test]
async fn hosts_toml_names_authorities_and_may_leave_out_the_check() {
    let authority = authority("authority");
    let mut secured = Secured::new(server(&authority, &["127.0.0.1"], None));
    secured.file("own.pem", &authority.pem());
    secured.options = "ca = \"own.pem\"".to_owned();
    secured.works().await;
    secured.options = "skip_verify = true".to_owned();
    secured.works().await;
}

#[tokio::test]
async fn a_self_signed_certificate_is_trusted_where_certs_d_has_it() {
    // As `openssl req -x509` makes it: the server shows the authority's own certificate.
    let mut params = named("self", &["127.0.0.1"]);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().expect("a key");
    let certificate = params.self_signed(&key).expect("a certificate");
    let secured = Secured::new(tls(vec![certificate.der().clone()], &key, None));
    secured.file("other.crt", &authority("other").pem());
    secured
        .fails("tls: failed to verify certificate: x509: certificate signed by unknown authority")
        .await;
    secured.file("ca.crt", &certificate.pem());
    secured.works().await;
}

#[tokio::test]
async fn certificates_of_others_and_of_the_past_are_refused() {
    let authority = authority("authority");
    let secured = Secured::new(server(&authority, &["other.example"], None));
    secured.file("ca.crt", &authority.pem());
    secured
        .fails("tls: failed to verify certificate: x509: cannot validate certificate for 127.0.0.1 because it doesn't contain any IP SANs")
        .await;
    let mut old = named("old", &["127.0.0.1"]);
    old.not_before = rcgen::date_time_ymd(2001, 1, 1);
    old.not_after = rcgen::date_time_ymd(2002, 1, 1);
    let secured = Secured::new(server_with(&authority, old, None));
    secured.file("ca.crt", &authority.pem());
    secured
        .fails("tls: failed to verify certificate: x509: certificate has expired or is not yet valid: current time ")
        .await;
}

#[tokio::test]
async fn a_client_certificate_is_shown() {
    let (authority, clients) = (authority("authority"), authority("clients"));
    let mut secured = Secured::new(server(&authority, &["127.0.0.1"], Some(&clients)));
    secured.file("ca.crt", &authority.pem());
    let refused = secured
        .repository()
        .manifest("1")
        .await
        .expect_err("no certificate");
    assert!(
        refused
            .to_string()
            .contains("remote error: tls: certificate required"),
        "{refused}"
    );
    let identity = |by: &Authority| {
        let key = KeyPair::generate().expect("a key");
        let certificate = named("client", &[])
            .signed_by(&key, by)
            .expect("a certificate");
        (certificate.pem(), key.serialize_pem())
    };
    // The one that the server's authority issued is chosen, not the first.
    let (other, own) = (identity(&authority), identity(&clients));
    secured.file("a.cert", &other.0);
    secured.file("a.key", &other.1);
    secured.file("b.cert", &own.0);
    secured.file("b.key", &own.1);
    secured.works().await;
    secured.file("pair.pem", &(own.0 + &own.1));
    for name in ["a.cert", "a.key", "b.cert", "b.key"] {
        std::fs::remove_file(secured.directory.path().join("a.example").join(name)).expect("gone");
    }
    secured.options = "client = \"pair.pem\"".to_owned();
    secured.works().await;
}

#[tokio::test]
async fn a_client_certificate_stays_with_its_host() {
    let (authority, clients) = (authority("authority"), authority("clients"));
    let secured = Secured::new(server(&authority, &["127.0.0.1"], Some(&clients)));
    let storage = Registry::start_tls(server(&authority, &["127.0.0.1"], Some(&clients)));
    let key = KeyPair::generate().expect("a key");
    let certificate = named("client", &[])
        .signed_by(&key, &clients)
        .expect("a certificate");
    secured.file("ca.crt", &authority.pem());
    secured.file("c.cert", &certificate.pem());
    secured.file("c.key", &key.serialize_pem());
    let descriptor = blob(&secured.registry, b"x");
    let target = format!("{}/v2/s/blobs/{}", storage.url(), descriptor.digest);
    secured
        .registry
        .misbehave("GET", "/blobs/", Times::Always, Fault::redirect(&target));
    let error = read(&secured.repository(), &descriptor, 0)
        .await
        .expect_err("no certificate shown");
    assert!(
        error.to_string().contains("tls: certificate required"),
        "{error}"
    );
    // The authority is trusted there too.
    let storage = Registry::start_tls(server(&authority, &["127.0.0.1"], None));
    storage.push_blob(b"x");
    let target = format!("{}/v2/s/blobs/{}", storage.url(), descriptor.digest);
    secured.registry.behave();
    secured
        .registry
        .misbehave("GET", "/blobs/", Times::Always, Fault::redirect(&target));
    assert_eq!(
        read(&secured.repository(), &descriptor, 0)
            .await
            .expect("a blob"),
        b"x"
    );
}

#[tokio::test]
async fn a_redirect_does_not_leave_tls() {
    let authority = authority("authority");
    let secured = Secured::new(server(&authority, &["127.0.0.1"], None));
    secured.file("ca.crt", &authority.pem());
    let storage = Registry::start();
    let descriptor = blob(&secured.registry, b"x");
    storage.push_blob(b"x");
    let target = format!("{}/v2/s/blobs/{}", storage.url(), descriptor.digest);
    secured
        .registry
        .misbehave("GET", "/blobs/", Times::Always, Fault::redirect(&target));
    let error = read(&secured.repository(), &descriptor, 0)
        .await
        .expect_err("it left TLS");
    assert!(
        error.to_string().ends_with("refused: it would leave TLS"),
        "{error}"
    );
    assert!(storage.requests().is_empty());
}

#[tokio::test]
async fn an_upload_does_not_leave_tls() {
    let authority = authority("authority");
    let secured = Secured::new(server(&authority, &["127.0.0.1"], None));
    secured.file("ca.crt", &authority.pem());
    let storage = Registry::start();
    let elsewhere = format!("{}/v2/s/blobs/uploads/1", storage.url());
    let location = vec![("Location".to_owned(), elsewhere)];
    secured
        .registry
        .misbehave("POST", "", Times::Always, Fault::Headers(location));
    let upload = secured.repository().upload().await.expect("open");
    let error = upload
        .commit(&crate::digest(&digest_of(b"")))
        .await
        .expect_err("it left TLS");
    assert!(
        error.to_string().ends_with("refused: it would leave TLS"),
        "{error}"
    );
    assert!(storage.requests().is_empty());
}

#[tokio::test]
async fn a_password_does_not_leave_tls_at_its_own_host_either() {
    let authority = authority("authority");
    let mut secured = Secured::new(server(&authority, &["127.0.0.1"], None));
    secured.file("ca.crt", &authority.pem());
    secured.registry.set_access(Access::Bearer(TokenServer {
        anonymous: false,
        methods: &["POST"],
        ..TokenServer::default()
    }));
    for (options, why) in [
        ("", "it would leave TLS"),
        ("skip_verify = true", "the password is not for that host"),
    ] {
        secured.options = options.to_owned();
        for status in [307, 308] {
            secured.registry.behave();
            secured.registry.forget_requests();
            let target = format!("http://{}/token", secured.registry.host());
            let redirect = Fault::Answer {
                status,
                headers: vec![("Location".to_owned(), target)],
                body: String::new(),
            };
            secured
                .registry
                .misbehave("POST", "/token", Times::Always, redirect);
            let error = secured
                .repository_for(user())
                .manifest("1")
                .await
                .expect_err("no token");
            assert!(
                error.to_string().ends_with(&format!("refused: {why}")),
                "{error}"
            );
            assert_eq!(secured.registry.requests_of("POST", "/token").len(), 1);
        }
    }
}

#[tokio::test]
async fn this_machine_needs_no_right_certificate() {
    let registry = Registry::start_tls(server(&authority("any"), &["other.example"], None));
    registry.push_image("x", "1", &[b"x"]);
    let repository = at(
        &registries(config()),
        &registry.host(),
        "x",
        Credentials::default(),
    );
    repository.manifest("1").await.expect("a manifest");
}

#[tokio::test]
async fn who_does_not_speak_tls_is_told() {
    let registry = Registry::start();
    let directory = tempfile::tempdir().expect("a directory");
    let host = directory.path().join("a.example");
    std::fs::create_dir(&host).expect("a directory");
    write(&host.join("ca.crt"), &authority("any").pem());
    write(
        &host.join("hosts.toml"),
        &format!("server = \"https://{}\"", registry.host()),
    );
    let registries = registries(Config {
        certs_dirs: vec![directory.path().to_owned()],
        ..config()
    });
    let error = at(&registries, "a.example", "x", Credentials::default())
        .manifest("1")
        .await
        .expect_err("no TLS");
    assert_eq!(
        error.to_string(),
        format!(
            "Get \"https://{}/v2/\": http: server gave HTTP response to HTTPS client",
            registry.host()
        )
    );
}

#[tokio::test]
async fn a_client_certificate_without_its_key_is_told_in_docker_s_words() {
    let authority = authority("authority");
    let secured = Secured::new(server(&authority, &["127.0.0.1"], None));
    let told = async |expected: &str| {
        let error = secured
            .repository()
            .manifest("1")
            .await
            .expect_err("no pair");
        assert_eq!(error.to_string(), expected);
    };
    let pem = || KeyPair::generate().expect("a key").serialize_pem();
    secured.file("a.cert", &authority.pem());
    told("missing key a.key for client certificate a.cert. CA certificates must use the extension .crt").await;
    secured.file("a.key", "junk");
    told("tls: failed to find any PEM data in key input").await;
    secured.file("a.key", &pem());
    told("tls: private key does not match public key").await;
    secured.file("a.cert", "junk");
    told("tls: failed to find any PEM data in certificate input").await;
    std::fs::remove_file(secured.directory.path().join("a.example/a.cert")).expect("gone");
    told("missing client certificate a.cert for key a.key").await;
}
