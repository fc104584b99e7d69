//! Credentials of registries: where they are kept and how they travel.
//!
//! ```text
//! DOCKER_AUTH_CONFIG ──▶ credHelpers[server] ──▶ credsStore ──▶ auths in config.json
//!      (reads only)        docker-credential-X   docker-credential-X
//! ```
//! The first that is there for a server is its place, for reading and for writing. A helper is a program that is
//! spoken to by standard input and output, one process for each question.

use crate::config::{self, ConfigFile, StoredAuth};
use crate::error::Error;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};
use gantry_api::image::AuthConfig;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The key of Docker Hub.
pub const INDEX_SERVER: &str = "https://index.docker.io/v1/";
/// Credentials by environment, in the form of config.json's `auths`.
pub const ENVIRONMENT: &str = "DOCKER_AUTH_CONFIG";
/// What a helper says of a server that it does not know.
const NOT_FOUND: &str = "credentials not found in native keychain";
/// The user name that marks a helper's secret as an identity token.
const TOKEN_USER: &str = "<token>";

/// Returns the key under which a registry's credentials are kept.
pub fn server_key(domain: &str) -> &str {
    match domain {
        "docker.io" | "index.docker.io" => INDEX_SERVER,
        other => other,
    }
}

/// Returns the host of an address that may have a scheme and a path.
pub fn hostname(address: &str) -> &str {
    let bare = ["http://", "https://"]
        .iter()
        .find_map(|scheme| address.strip_prefix(scheme))
        .unwrap_or(address);
    bare.split('/').next().unwrap_or_default()
}

/// Returns the value of `X-Registry-Auth`.
pub fn header(auth: &AuthConfig) -> String {
    URL_SAFE.encode(serde_json::to_vec(auth).unwrap_or_default())
}

/// Reads the user's name and password out of an entry of `auths`; both are empty where it has none.
pub(crate) fn decode(stored: &StoredAuth) -> Result<(String, String), String> {
    if stored.auth.is_empty() {
        return Ok((stored.username.clone(), stored.password.clone()));
    }
    let wrong = || "Invalid auth configuration file".to_owned();
    let bytes = STANDARD
        .decode(&stored.auth)
        .map_err(|error| error.to_string())?;
    let text = String::from_utf8(bytes).map_err(|_| wrong())?;
    let (user, password) = text.split_once(':').ok_or_else(wrong)?;
    Ok((user.to_owned(), password.trim_matches('\0').to_owned()))
}

fn encode(auth: &AuthConfig) -> StoredAuth {
    let pair = if auth.username.is_empty() && auth.password.is_empty() {
        String::new()
    } else {
        STANDARD.encode(format!("{}:{}", auth.username, auth.password))
    };
    StoredAuth {
        auth: pair,
        email: auth.email.clone(),
        identitytoken: auth.identitytoken.clone(),
        registrytoken: auth.registrytoken.clone(),
        ..StoredAuth::default()
    }
}

fn of_stored(server: &str, stored: &StoredAuth) -> Result<AuthConfig, Error> {
    let (username, password) = decode(stored).map_err(Error::Invalid)?;
    Ok(AuthConfig {
        username,
        password,
        email: stored.email.clone(),
        serveraddress: server.to_owned(),
        identitytoken: stored.identitytoken.clone(),
        registrytoken: stored.registrytoken.clone(),
        ..AuthConfig::default()
    })
}

/// Finds a server's entry, also under the addresses that old clients wrote.
fn find(auths: &BTreeMap<String, StoredAuth>, server: &str) -> Result<AuthConfig, Error> {
    auths
        .get_key_value(server)
        .or_else(|| auths.iter().find(|(key, _)| hostname(key) == server))
        .map_or(Ok(AuthConfig::default()), |(key, stored)| {
            of_stored(key, stored)
        })
}

/// Where one server's credentials are kept.
enum Place<'a> {
    File,
    Helper(&'a str),
}

fn place<'a>(config: &'a ConfigFile, server: &str) -> Place<'a> {
    match config.cred_helpers.get(server) {
        Some(helper) if !helper.is_empty() => Place::Helper(helper),
        _ if !config.creds_store.is_empty() => Place::Helper(&config.creds_store),
        _ => Place::File,
    }
}

/// Reads the text of `DOCKER_AUTH_CONFIG`.
///
/// # Errors
/// Says what is wrong with it; Docker's client warns then and goes on without.
pub fn parse_environment(text: &str) -> Result<BTreeMap<String, StoredAuth>, String> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Environment {
        #[serde(default)]
        auths: BTreeMap<String, EnvironmentAuth>,
    }
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct EnvironmentAuth {
        #[serde(default)]
        auth: String,
    }
    let parsed: Environment = serde_json::from_str(text).map_err(|error| error.to_string())?;
    let mut auths = BTreeMap::new();
    for (server, EnvironmentAuth { auth }) in parsed.auths {
        let stored = StoredAuth {
            auth,
            ..StoredAuth::default()
        };
        decode(&stored)?;
        auths.insert(server, stored);
    }
    Ok(auths)
}

/// Returns the credentials for a server, empty if there are none. `environment` is what
/// [`parse_environment`] gave.
///
/// # Errors
/// Fails where a helper fails or an entry cannot be read.
pub fn get(
    config: &ConfigFile,
    environment: &BTreeMap<String, StoredAuth>,
    server: &str,
) -> Result<AuthConfig, Error> {
    let found = find(environment, server)?;
    if !found.serveraddress.is_empty() {
        return Ok(found);
    }
    let Place::Helper(helper) = place(config, server) else {
        return find(&config.auths, server);
    };
    let output = match ask(helper, "get", server.as_bytes()) {
        Ok(output) => output,
        Err(failure) if failure.output == NOT_FOUND => return Ok(AuthConfig::default()),
        Err(failure) => return Err(failure.into_error("error getting credentials")),
    };
    let answer: HelperAuth = serde_json::from_slice(&output)
        .map_err(|error| Error::Invalid(format!("error getting credentials - err: {error}")))?;
    let mut auth = AuthConfig {
        serveraddress: server.to_owned(),
        ..AuthConfig::default()
    };
    if answer.username == TOKEN_USER {
        auth.identitytoken = answer.secret;
    } else {
        (auth.username, auth.password) = (answer.username, answer.secret);
    }
    Ok(auth)
}

/// Keeps the credentials for the server that they name. Gives the file if they lie there readable for everybody who
/// may read it, and were not there before.
///
/// # Errors
/// Fails where a helper fails or the file cannot be written.
pub fn store(directory: &Path, auth: &AuthConfig) -> Result<Option<PathBuf>, Error> {
    let mut config = config::read(directory).map_err(Error::Invalid)?;
    let server = auth.serveraddress.clone();
    if let Place::Helper(helper) = place(&config, &server) {
        let (username, secret) = if auth.identitytoken.is_empty() {
            (auth.username.as_str(), auth.password.as_str())
        } else {
            (TOKEN_USER, auth.identitytoken.as_str())
        };
        let given = HelperAuth {
            server_url: server.clone(),
            username: username.to_owned(),
            secret: secret.to_owned(),
        };
        let given = serde_json::to_vec(&given).unwrap_or_default();
        ask(helper, "store", &given)
            .map_err(|failure| failure.into_error("error storing credentials"))?;
        // An entry without a secret says that there was a login.
        let mark = StoredAuth {
            email: auth.email.clone(),
            ..StoredAuth::default()
        };
        if config.auths.get(&server) != Some(&mark) {
            config.auths.insert(server, mark);
            write(directory, &config)?;
        }
        return Ok(None);
    }
    let fresh = encode(auth);
    if config.auths.get(&server) == Some(&fresh) {
        return Ok(None);
    }
    config.auths.insert(server, fresh);
    write(directory, &config)?;
    Ok(Some(directory.join("config.json")))
}

/// Forgets the credentials for a server; it is no error if there are none.
///
/// # Errors
/// Fails where a helper fails or the file cannot be written.
pub fn erase(directory: &Path, server: &str) -> Result<(), Error> {
    let mut config = config::read(directory).map_err(Error::Invalid)?;
    if let Place::Helper(helper) = place(&config, server) {
        match ask(helper, "erase", server.as_bytes()) {
            Err(failure) if failure.output != NOT_FOUND => {
                return Err(failure.into_error("error erasing credentials"));
            }
            _ => {}
        }
    }
    if config.auths.remove(server).is_some() {
        write(directory, &config)?;
    }
    Ok(())
}

fn write(directory: &Path, config: &ConfigFile) -> Result<(), Error> {
    config::save(directory, config).map_err(|error| {
        Error::Invalid(format!(
            "write {}: {error}",
            directory.join("config.json").display()
        ))
    })
}

/// What a helper takes and gives.
#[derive(Default, Serialize, Deserialize)]
#[serde(default)]
struct HelperAuth {
    #[serde(rename = "ServerURL")]
    server_url: String,
    #[serde(rename = "Username")]
    username: String,
    #[serde(rename = "Secret")]
    secret: String,
}

/// How a helper failed.
struct HelperFailure {
    why: String,
    output: String,
}

impl HelperFailure {
    fn into_error(self, what: &str) -> Error {
        Error::Invalid(format!(
            "{what} - err: {}, out: `{}`",
            self.why, self.output
        ))
    }
}

/// Asks a helper one question and gives its standard output.
fn ask(helper: &str, question: &str, input: &[u8]) -> Result<Vec<u8>, HelperFailure> {
    let program = format!("docker-credential-{helper}");
    let failed = |why: String| HelperFailure {
        why,
        output: String::new(),
    };
    let spawned = Command::new(&program)
        .arg(question)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn();
    let mut child = match spawned {
        Ok(child) => child,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Err(failed(format!(
                "exec: \"{program}\": executable file not found in $PATH"
            )));
        }
        Err(error) => return Err(failed(format!("exec: \"{program}\": {error}"))),
    };
    if let Some(mut stdin) = child.stdin.take() {
        // A helper that has heard enough may close its end.
        let _ = stdin.write_all(input);
    }
    let output = child
        .wait_with_output()
        .map_err(|error| failed(error.to_string()))?;
    if output.status.success() {
        return Ok(output.stdout);
    }
    Err(HelperFailure {
        why: match output.status.code() {
            Some(code) => format!("exit status {code}"),
            None => output.status.to_string(),
        },
        output: String::from_utf8_lossy(&output.stdout).trim().to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(text: &str) -> ConfigFile {
        serde_json::from_str(text).expect("config")
    }

    fn sent(config: &ConfigFile, server: &str) -> String {
        let auth = get(config, &BTreeMap::new(), server).expect("credentials");
        serde_json::to_string(&auth).expect("JSON")
    }

    #[test]
    fn what_is_sent_is_what_docker_sends() {
        let config = config(
            r#"{"auths":{"r.example":{"auth":"dTpwOnE="},"https://old.example/v1/":{"auth":"dTpw"},
                "idt.example":{"auth":"dTo=","identitytoken":"TT"},"rt.example":{"registrytoken":"RT"},
                "up.example":{"username":"uu","password":"pp"}}}"#,
        );
        for (server, want) in [
            (
                "r.example",
                r#"{"username":"u","password":"p:q","serveraddress":"r.example"}"#,
            ),
            (
                "old.example",
                r#"{"username":"u","password":"p","serveraddress":"https://old.example/v1/"}"#,
            ),
            (
                "idt.example",
                r#"{"username":"u","serveraddress":"idt.example","identitytoken":"TT"}"#,
            ),
            (
                "rt.example",
                r#"{"serveraddress":"rt.example","registrytoken":"RT"}"#,
            ),
            (
                "up.example",
                r#"{"username":"uu","password":"pp","serveraddress":"up.example"}"#,
            ),
            ("none.example", "{}"),
        ] {
            assert_eq!(sent(&config, server), want);
        }
        assert_eq!(header(&AuthConfig::default()), "e30=");
    }

    #[test]
    fn the_environment_goes_first_and_has_auths_alone() {
        let environment = parse_environment(r#"{"auths":{"r.example":{"auth":"ZTpl"}}}"#);
        let config =
            config(r#"{"auths":{"r.example":{"auth":"dTpw"},"s.example":{"auth":"dTpw"}}}"#);
        let environment = environment.expect("auths");
        let user = |server| {
            get(&config, &environment, server)
                .expect("credentials")
                .username
        };
        assert_eq!(
            (user("r.example"), user("s.example")),
            ("e".into(), "u".into())
        );
        assert!(parse_environment("x").is_err());
        assert!(parse_environment(r#"{"a":1}"#).is_err());
    }

    #[test]
    fn a_login_is_kept_once_and_forgotten() {
        let directory = tempfile::tempdir().expect("directory");
        let auth = AuthConfig {
            username: "u".to_owned(),
            password: "p".to_owned(),
            serveraddress: "r.example".to_owned(),
            ..AuthConfig::default()
        };
        let path = directory.path().join("config.json");
        let kept = |auth| store(directory.path(), auth).expect("store");
        assert_eq!(kept(&auth), Some(path.clone()));
        assert_eq!(kept(&auth), None);
        let text = || std::fs::read_to_string(&path).expect("read");
        assert_eq!(
            text(),
            "{\n\t\"auths\": {\n\t\t\"r.example\": {\n\t\t\t\"auth\": \"dTpw\"\n\t\t}\n\t}\n}"
        );
        erase(directory.path(), "r.example").expect("erase");
        assert_eq!(text(), "{\n\t\"auths\": {}\n}");
    }

    #[test]
    fn a_file_that_is_not_understood_is_not_overwritten() {
        let directory = tempfile::tempdir().expect("directory");
        let path = directory.path().join("config.json");
        let auth = AuthConfig {
            username: "u".to_owned(),
            serveraddress: "r.example".to_owned(),
            ..AuthConfig::default()
        };
        std::fs::write(&path, "{").expect("write");
        assert!(store(directory.path(), &auth).is_err());
        assert_eq!(std::fs::read_to_string(&path).expect("read"), "{");
        // A broken entry stays beside the others.
        std::fs::write(&path, r#"{"auths":{"x":{"auth":"!"}},"mine":1}"#).expect("write");
        store(directory.path(), &auth).expect("store");
        let text = std::fs::read_to_string(&path).expect("read");
        assert!(
            text.contains("\"!\"") && text.contains("\"mine\": 1"),
            "{text}"
        );
    }

    #[test]
    fn a_helper_that_is_not_there_is_named() {
        let config = config(r#"{"credHelpers":{"r.example":"gantry-none"}}"#);
        let error = get(&config, &BTreeMap::new(), "r.example").expect_err("no helper");
        assert_eq!(
            error.to_string(),
            "error getting credentials - err: exec: \"docker-credential-gantry-none\": executable file not found in $PATH, out: ``"
        );
    }

    #[test]
    fn hosts() {
        for (address, want) in [
            ("https://index.docker.io/v1/", "index.docker.io"),
            ("http://r.example:5000", "r.example:5000"),
            ("r.example/x", "r.example"),
        ] {
            assert_eq!(hostname(address), want);
        }
        assert_eq!(server_key("docker.io"), INDEX_SERVER);
        assert_eq!(server_key("r.example:1"), "r.example:1");
    }
}
