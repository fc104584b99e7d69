//! Authorization: basic, tokens, logins; and that secrets stay with their host.

use gantry_api::error::ErrorKind;
use gantry_api::oci::image::Descriptor;
use gantry_distribution::{Credentials, Mounted};
use gantry_testkit::registry::{Access, Fault, Recorded, Registry, Times, TokenServer};

use crate::{at, blob, config, digest, read, registries, repository, repository_for, user};

fn basic() -> Access {
    Access::Basic {
        user: "user".to_owned(),
        password: "secret".to_owned(),
    }
}

fn closed() -> TokenServer {
    TokenServer {
        anonymous: false,
        ..TokenServer::default()
    }
}

fn has_authorization(requests: &[Recorded]) -> bool {
    requests
        .iter()
        .any(|request| request.header("authorization").is_some())
}

#[tokio::test]
async fn basic_authorization_is_given_once_it_is_asked_for() {
    let registry = Registry::start();
    registry.push_image("a", "1", &[b"x"]);
    registry.set_access(basic());
    let host = registry.host();
    repository_for(&host, "a", user())
        .manifest("1")
        .await
        .expect("a manifest");
    let ping = &registry.requests_of("GET", "/v2/")[0];
    assert_eq!(ping.header("authorization"), None);
    let error = repository(&host, "a")
        .manifest("1")
        .await
        .expect_err("nobody");
    assert_eq!(
        error.to_string(),
        format!("Head \"http://{host}/v2/a/manifests/1\": no basic auth credentials")
    );
    assert_eq!(error.kind(), ErrorKind::System);
    // Of a push Docker does not say which request it was.
    let pushed = repository(&host, "a");
    let known = digest(&registry.push_blob(b"x"));
    let asked = pushed.head_blob(&known).await.expect_err("nobody");
    let sent = pushed.upload().await.err().expect("nobody");
    assert_eq!(
        (asked.to_string(), sent.to_string()),
        (
            "no basic auth credentials".to_owned(),
            "no basic auth credentials".to_owned()
        )
    );
    let wrong = Credentials {
        password: "wrong".to_owned(),
        ..user()
    };
    registry.forget_requests();
    let error = repository_for(&host, "a", wrong)
        .manifest("1")
        .await
        .expect_err("wrong");
    assert_eq!(error.to_string(), "unauthorized: authentication required");
    assert_eq!(
        registry.requests_of("GET", "/manifests/").len(),
        1,
        "tried once"
    );
}

#[tokio::test]
async fn a_token_is_fetched_once_for_many_requests() {
    let registry = Registry::start();
    let image = registry.push_image("a", "1", &[b"x", b"y"]);
    registry.set_access(Access::Bearer(TokenServer::default()));
    let repository = repository(&registry.host(), "a");
    repository.manifest("1").await.expect("a manifest");
    let layers: Vec<Descriptor> = image
        .layers
        .iter()
        .map(|layer| Descriptor::new("", digest(layer), 1))
        .collect();
    let (one, two) = tokio::join!(
        read(&repository, &layers[0], 0),
        read(&repository, &layers[1], 0)
    );
    assert_eq!(
        (one.expect("x"), two.expect("y")),
        (b"x".to_vec(), b"y".to_vec())
    );
    let asked = registry.requests_of("GET", "/token");
    assert_eq!(asked.len(), 1);
    assert_eq!(
        asked[0].query("scope").as_deref(),
        Some("repository:a:pull")
    );
    assert_eq!(asked[0].query("service").as_deref(), Some("test"));
    assert_eq!(asked[0].header("authorization"), None);
}

#[tokio::test]
async fn a_user_s_token_is_asked_for_with_the_password() {
    let registry = Registry::start();
    registry.push_image("a", "1", &[b"x"]);
    registry.set_access(Access::Bearer(closed()));
    let host = registry.host();
    repository_for(&host, "a", user())
        .manifest("1")
        .await
        .expect("a manifest");
    let asked = &registry.requests_of("GET", "/token")[0];
    assert_eq!(
        asked.header("authorization"),
        Some("Basic dXNlcjpzZWNyZXQ=")
    );
    assert_eq!(asked.query("account").as_deref(), Some("user"));
    let error = repository(&host, "a")
        .manifest("1")
        .await
        .expect_err("nobody");
    assert_eq!(
        error.to_string(),
        format!(
            "Head \"http://{host}/v2/a/manifests/1\": unauthorized: incorrect username or password"
        )
    );
}

#[tokio::test]
async fn a_token_server_may_know_only_forms() {
    let registry = Registry::start();
    registry.push_image("a", "1", &[b"x"]);
    registry.set_access(Access::Bearer(TokenServer {
        methods: &["POST"],
        ..closed()
    }));
    let host = registry.host();
    repository_for(&host, "a", user())
        .manifest("1")
        .await
        .expect("a manifest");
    let forms = registry.requests_of("POST", "/token");
    assert!(String::from_utf8_lossy(&forms[0].body).contains("grant_type=password"));
    let refresh = Credentials {
        username: "<token>".to_owned(),
        identity_token: "refresh".to_owned(),
        ..Credentials::default()
    };
    repository_for(&host, "a", refresh)
        .manifest("1")
        .await
        .expect("a manifest");
    let forms = registry.requests_of("POST", "/token");
    let form = String::from_utf8_lossy(&forms.last().expect("a form").body).into_owned();
    assert!(
        form.contains("grant_type=refresh_token&refresh_token=refresh"),
        "{form}"
    );
}

#[tokio::test]
async fn an_expired_token_is_renewed_once() {
    let registry = Registry::start();
    let image = registry.push_image("a", "1", &[b"x"]);
    registry.set_access(Access::Bearer(TokenServer::default()));
    let repository = repository(&registry.host(), "a");
    repository.manifest("1").await.expect("a manifest");
    registry.expire_tokens();
    let layer = Descriptor::new("", digest(&image.layers[0]), 1);
    assert_eq!(read(&repository, &layer, 0).await.expect("a layer"), b"x");
    assert_eq!(registry.requests_of("GET", "/token").len(), 2);
    // A server whose tokens are never good is not asked for ever.
    let refusal = Fault::Answer {
        status: 401,
        headers: vec![(
            "WWW-Authenticate".to_owned(),
            format!(
                "Bearer realm=\"{}/token\",service=\"test\",error=\"invalid_token\"",
                registry.url()
            ),
        )],
        body: String::new(),
    };
    registry.misbehave("GET", "/manifests/", Times::Always, refusal);
    registry.forget_requests();
    let error = repository.manifest("1").await.expect_err("refused");
    assert_eq!(error.to_string(), "unauthorized: authentication required");
    assert_eq!(registry.requests_of("GET", "/manifests/").len(), 2);
}

#[tokio::test]
async fn a_token_is_renewed_before_its_end() {
    let registry = Registry::start();
    registry.push_image("a", "1", &[b"x"]);
    registry.set_access(Access::Bearer(TokenServer {
        expires_in: Some(1),
        ..TokenServer::default()
    }));
    let repository = repository(&registry.host(), "a");
    repository.manifest("1").await.expect("a manifest");
    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    repository.manifest("1").await.expect("a manifest");
    assert_eq!(registry.requests_of("GET", "/token").len(), 2);
    assert!(
        registry
            .requests_of("GET", "/manifests/")
            .iter()
            .all(|it| it.status == 200)
    );
}

#[tokio::test]
async fn a_given_token_is_sent_as_it_is() {
    let registry = Registry::start();
    registry.push_image("a", "1", &[b"x"]);
    registry.set_access(Access::Bearer(closed()));
    let token = Credentials {
        registry_token: "mine".to_owned(),
        ..Credentials::default()
    };
    let repository = repository_for(&registry.host(), "a", token);
    repository.manifest("1").await.expect_err("it is not known");
    let request = &registry.requests_of("GET", "/manifests/")[0];
    assert_eq!(request.header("authorization"), Some("Bearer mine"));
    assert!(registry.requests_of("*", "/token").is_empty());
}

#[tokio::test]
async fn pushes_and_mounts_ask_for_what_they_need() {
    let registry = Registry::start();
    let known = digest(&registry.push_blob(b"x"));
    registry.set_access(Access::Bearer(closed()));
    let repository = repository_for(&registry.host(), "a", user());
    let mounted = repository.mount(&known, "b/c").await.expect("a mount");
    assert!(matches!(mounted, Mounted::Mounted));
    let asked = &registry.requests_of("GET", "/token")[0];
    assert!(
        asked
            .path
            .contains("scope=repository%3Aa%3Apull%2Cpush&scope=repository%3Ab%2Fc%3Apull"),
        "{}",
        asked.path
    );
}

#[tokio::test]
async fn a_redirect_to_another_host_gets_no_secrets() {
    for access in [basic(), Access::Bearer(closed())] {
        let (registry, storage) = (Registry::start(), Registry::start());
        let bytes = vec![7; 1000];
        let descriptor = blob(&registry, &bytes);
        storage.push_blob(&bytes);
        let target = format!("{}/v2/s/blobs/{}?sig=1", storage.url(), descriptor.digest);
        registry.set_access(access);
        registry.misbehave("GET", "/blobs/", Times::Always, Fault::redirect(&target));
        // The second piece is asked for through the registry again, as addresses of stores expire.
        storage.misbehave("GET", "/blobs/", Times::First(1), Fault::CutAfter(400));
        let repository = repository_for(&registry.host(), "a", user());
        assert_eq!(
            read(&repository, &descriptor, 0).await.expect("a blob"),
            bytes
        );
        let stored = storage.requests();
        assert_eq!(stored.len(), 2);
        assert!(!has_authorization(&stored), "{stored:?}");
        assert_eq!(stored[1].header("range"), Some("bytes=400-"));
        assert!(has_authorization(&registry.requests_of("GET", "/blobs/")));
    }
}

#[tokio::test]
async fn redirects_end() {
    let registry = Registry::start();
    let descriptor = blob(&registry, b"x");
    let target = format!("/v2/a/blobs/{}", descriptor.digest);
    registry.misbehave("GET", "/blobs/", Times::Always, Fault::redirect(&target));
    let error = read(&repository(&registry.host(), "a"), &descriptor, 0)
        .await
        .expect_err("a circle");
    assert!(
        error.to_string().ends_with("stopped after 10 redirects"),
        "{error}"
    );
    registry.behave();
    registry.misbehave(
        "GET",
        "/blobs/",
        Times::Always,
        Fault::redirect("file:///etc/passwd"),
    );
    let error = read(&repository(&registry.host(), "a"), &descriptor, 0)
        .await
        .expect_err("no web address");
    assert!(
        error
            .to_string()
            .ends_with("unsupported protocol scheme \"file\""),
        "{error}"
    );
}

#[tokio::test]
async fn logins_are_checked() {
    let registry = Registry::start();
    let host = registry.host();
    let registries = registries(config());
    let wrong = Credentials {
        password: "wrong".to_owned(),
        ..user()
    };
    registry.set_access(basic());
    let login = registries.login(&host, &user()).await.expect("a login");
    assert_eq!(login.status, "Login Succeeded");
    assert_eq!(login.identity_token, "");
    let error = registries.login(&host, &wrong).await.expect_err("wrong");
    assert_eq!(error.kind(), ErrorKind::System);
    assert_eq!(
        error.to_string(),
        format!("login attempt to http://{host}/v2/ failed with status: 401 Unauthorized")
    );
    registry.set_access(Access::Bearer(closed()));
    let login = registries.login(&host, &user()).await.expect("a login");
    assert_eq!(login.identity_token, "refresh");
    let error = registries.login(&host, &wrong).await.expect_err("wrong");
    assert_eq!(error.kind(), ErrorKind::Unauthorized);
    assert_eq!(
        error.to_string(),
        format!("Get \"http://{host}/v2/\": unauthorized: incorrect username or password")
    );
}

#[tokio::test]
async fn users_do_not_share_tokens() {
    let registry = Registry::start();
    registry.push_image("a", "1", &[b"x"]);
    registry.set_access(Access::Bearer(TokenServer::default()));
    let registries = registries(config());
    for credentials in [user(), Credentials::default(), user()] {
        let repository = at(&registries, &registry.host(), "a", credentials);
        repository.manifest("1").await.expect("a manifest");
    }
    assert_eq!(registry.requests_of("GET", "/token").len(), 2);
}

#[tokio::test]
async fn a_login_at_what_is_no_registry_fails() {
    let registry = Registry::start();
    let host = registry.host();
    for (status, reason) in [(404, "404 Not Found"), (500, "500 Internal Server Error")] {
        registry.behave();
        registry.misbehave("*", "/v2/", Times::Always, Fault::status(status, ""));
        let error = registries(config())
            .login(&host, &user())
            .await
            .expect_err("no registry");
        assert_eq!(error.kind(), ErrorKind::System);
        assert_eq!(
            error.to_string(),
            format!("login attempt to http://{host}/v2/ failed with status: {reason}")
        );
    }
}

#[tokio::test]
async fn a_token_server_does_not_send_a_password_elsewhere() {
    let (registry, elsewhere) = (Registry::start(), Registry::start());
    registry.push_image("a", "1", &[b"x"]);
    for server in [&registry, &elsewhere] {
        server.set_access(Access::Bearer(TokenServer {
            methods: &["POST"],
            ..closed()
        }));
    }
    let target = format!("{}/token", elsewhere.url());
    registry.misbehave("POST", "/token", Times::Always, Fault::redirect(&target));
    let repository = repository_for(&registry.host(), "a", user());
    let error = repository.manifest("1").await.expect_err("refused");
    assert!(
        error
            .to_string()
            .ends_with("refused: the password is not for that host"),
        "{error}"
    );
    assert!(elsewhere.requests().is_empty());
}

#[tokio::test]
async fn a_token_may_claim_to_last_for_ever() {
    let registry = Registry::start();
    registry.push_image("a", "1", &[b"x"]);
    for seconds in [i64::MAX as u64, u64::MAX, 0] {
        registry.forget_requests();
        registry.set_access(Access::Bearer(TokenServer {
            expires_in: Some(seconds),
            ..TokenServer::default()
        }));
        let repository = repository(&registry.host(), "a");
        for _ in 0..2 {
            repository.manifest("1").await.expect("a manifest");
        }
        assert_eq!(registry.requests_of("GET", "/token").len(), 1, "{seconds}");
    }
}

#[tokio::test]
async fn a_token_server_that_is_asked_too_often_is_told_soon() {
    let registry = Registry::start();
    registry.push_image("a", "1", &[b"x"]);
    registry.set_access(Access::Bearer(TokenServer::default()));
    let busy = r#"{"details":"slow down"}"#;
    registry.misbehave("GET", "/token", Times::Always, Fault::status(429, busy));
    let registries = registries(gantry_distribution::Config {
        attempts_max: 10,
        ..config()
    });
    let host = registry.host();
    let error = at(&registries, &host, "a", Credentials::default())
        .manifest("1")
        .await
        .expect_err("too often");
    assert_eq!(error.kind(), ErrorKind::TooManyRequests);
    assert_eq!(
        error.to_string(),
        format!("Head \"http://{host}/v2/a/manifests/1\": toomanyrequests: slow down")
    );
    assert_eq!(registry.requests_of("GET", "/token").len(), 2);
    // One that is away for a moment is asked again.
    registry.behave();
    registry.forget_requests();
    registry.misbehave("GET", "/token", Times::First(2), Fault::status(503, ""));
    at(&registries, &host, "a", Credentials::default())
        .manifest("1")
        .await
        .expect("a manifest");
    assert_eq!(registry.requests_of("GET", "/token").len(), 3);
}

#[tokio::test]
async fn a_token_server_that_leads_nowhere_gives_no_token() {
    let registry = Registry::start();
    registry.push_image("a", "1", &[b"x"]);
    registry.set_access(Access::Bearer(TokenServer::default()));
    let host = registry.host();
    registry.misbehave(
        "GET",
        "/token",
        Times::Always,
        Fault::status(302, r#"{"token":"t"}"#),
    );
    let error = repository(&host, "a")
        .manifest("1")
        .await
        .expect_err("no token");
    assert_eq!(
        error.to_string(),
        format!(
            "Head \"http://{host}/v2/a/manifests/1\": received unexpected HTTP status: 302 Found"
        )
    );
}
