//! Bearer tokens: asked of the token server that a registry names, and kept until they expire.

use crate::{Credentials, Error, Result};
use base64::Engine as _;
use serde::Deserialize;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// What the specification says where the token server does not.
const LIFETIME_DEFAULT: Duration = Duration::from_secs(60);
/// A token is renewed after this at the latest, however long it claims to live.
const LIFETIME_MAX: Duration = Duration::from_secs(24 * 60 * 60);
/// A token is renewed this long before its end, or a quarter of its life where that is shorter.
const MARGIN: Duration = Duration::from_secs(10);
/// So many are remembered before all are forgotten.
const SLOTS_MAX: usize = 4096;
const CLIENT_ID: &str = "docker";

/// Names what a token is for. Whoever asks for equal things shares a token.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(crate) struct TokenKey {
    pub(crate) realm: String,
    pub(crate) service: String,
    pub(crate) scopes: Vec<String>,
    pub(crate) credentials: Credentials,
}

#[derive(Clone)]
struct Token {
    value: String,
    renew_at: Instant,
}

type Slot = Arc<tokio::sync::Mutex<Option<Token>>>;

/// Keeps tokens; those who want the same one at once wait for one request.
#[derive(Default)]
pub(crate) struct Tokens {
    slots: Mutex<HashMap<TokenKey, Slot>>,
}

impl Tokens {
    /// Gives a token that is good for a while, from memory or by `fetch`. `refused` is one that the registry just did
    /// not take: it is not given again.
    pub(crate) async fn get<E>(
        &self,
        key: &TokenKey,
        refused: Option<&str>,
        fetch: impl Future<Output = std::result::Result<Granted, E>>,
    ) -> std::result::Result<String, E> {
        let slot = {
            let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
            if slots.len() >= SLOTS_MAX && !slots.contains_key(key) {
                slots.clear();
            }
            Arc::clone(slots.entry(key.clone()).or_default())
        };
        let mut token = slot.lock().await;
        if let Some(token) = &*token
            && token.renew_at > Instant::now()
            && refused != Some(&token.value)
        {
            return Ok(token.value.clone());
        }
        let granted = fetch.await?;
        let lifetime = granted.lifetime;
        *token = Some(Token {
            value: granted.token.clone(),
            renew_at: Instant::now() + (lifetime - MARGIN.min(lifetime / 4)),
        });
        Ok(granted.token)
    }
}

/// What a token server gave.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Granted {
    pub(crate) token: String,
    pub(crate) lifetime: Duration,
    pub(crate) refresh_token: String,
}

#[derive(Deserialize)]
struct Answer {
    #[serde(default)]
    token: String,
    #[serde(default)]
    access_token: String,
    /// Seconds, as a number of any size: a server's mistake in it is no reason to fail.
    #[serde(default)]
    expires_in: f64,
    #[serde(default)]
    refresh_token: String,
}

/// One request to a token server.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Ask {
    Get {
        query: Vec<(&'static str, String)>,
        authorization: Option<String>,
    },
    Post {
        form: Vec<(&'static str, String)>,
    },
}

/// Whether a refresh token is wanted besides.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Offline {
    No,
    /// At a login.
    Yes,
}

/// Plans how to ask: by the refresh token where there is one, else with user and password, else as nobody. `post` asks
/// with the password in a form, for servers that know no other way.
pub(crate) fn ask(key: &TokenKey, offline: Offline, post: bool) -> Ask {
    let Credentials {
        username,
        password,
        identity_token,
        registry_token: _,
    } = &key.credentials;
    let service = (!key.service.is_empty()).then(|| ("service", key.service.clone()));
    if !identity_token.is_empty() || (post && !username.is_empty()) {
        let mut form: Vec<_> = service.into_iter().collect();
        form.push(("client_id", CLIENT_ID.to_owned()));
        if !key.scopes.is_empty() {
            form.push(("scope", key.scopes.join(" ")));
        }
        if offline == Offline::Yes {
            form.push(("access_type", "offline".to_owned()));
        }
        if identity_token.is_empty() {
            form.push(("grant_type", "password".to_owned()));
            form.push(("username", username.clone()));
            form.push(("password", password.clone()));
        } else {
            form.push(("grant_type", "refresh_token".to_owned()));
            form.push(("refresh_token", identity_token.clone()));
        }
        return Ask::Post { form };
    }
    let mut query = Vec::new();
    let has_user = !username.is_empty() && !password.is_empty();
    if has_user {
        query.push(("account", username.clone()));
    }
    query.extend(service);
    query.extend(key.scopes.iter().map(|scope| ("scope", scope.clone())));
    if offline == Offline::Yes {
        query.push(("client_id", CLIENT_ID.to_owned()));
        query.push(("offline_token", "true".to_owned()));
    }
    Ask::Get {
        query,
        authorization: has_user.then(|| basic(username, password)),
    }
}

/// Gives the value of an `Authorization` header for a user.
pub(crate) fn basic(username: &str, password: &str) -> String {
    let pair = format!("{username}:{password}");
    format!(
        "Basic {}",
        base64::engine::general_purpose::STANDARD.encode(pair)
    )
}

/// Reads a token server's answer.
pub(crate) fn read_answer(body: &[u8]) -> Result<Granted> {
    let answer: Answer = serde_json::from_slice(body)
        .map_err(|error| invalid(format!("unable to decode token response: {error}")))?;
    let token = if answer.token.is_empty() {
        answer.access_token
    } else {
        answer.token
    };
    if token.is_empty() {
        return Err(invalid(
            "authorization server did not include a token in the response".to_owned(),
        ));
    }
    Ok(Granted {
        token,
        lifetime: lifetime(answer.expires_in),
        refresh_token: answer.refresh_token,
    })
}

/// Gives a token's life from what the server says of it.
fn lifetime(seconds: f64) -> Duration {
    if seconds > 0.0 {
        Duration::from_secs_f64(seconds.min(LIFETIME_MAX.as_secs_f64()))
    } else {
        LIFETIME_DEFAULT
    }
}

fn invalid(text: String) -> Error {
    Error::Registry {
        status: 200,
        codes: Vec::new(),
        text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(credentials: Credentials) -> TokenKey {
        TokenKey {
            realm: "https://auth/token".to_owned(),
            service: "s".to_owned(),
            scopes: vec!["a".to_owned(), "b".to_owned()],
            credentials,
        }
    }

    fn user() -> Credentials {
        Credentials {
            username: "u".to_owned(),
            password: "p".to_owned(),
            ..Credentials::default()
        }
    }

    fn shown(ask: Ask) -> String {
        let pairs = |pairs: Vec<(&str, String)>| {
            let pairs = pairs.iter().map(|(key, value)| format!("{key}={value}"));
            pairs.collect::<Vec<_>>().join("&")
        };
        match ask {
            Ask::Get {
                query,
                authorization,
            } => format!("GET {} {authorization:?}", pairs(query)),
            Ask::Post { form } => format!("POST {}", pairs(form)),
        }
    }

    #[test]
    fn token_servers_are_asked_as_docker_asks() {
        assert_eq!(
            shown(ask(&key(Credentials::default()), Offline::No, false)),
            "GET service=s&scope=a&scope=b None"
        );
        assert_eq!(
            shown(ask(&key(user()), Offline::Yes, false)),
            "GET account=u&service=s&scope=a&scope=b&client_id=docker&offline_token=true Some(\"Basic dTpw\")"
        );
        assert_eq!(
            shown(ask(&key(user()), Offline::No, true)),
            "POST service=s&client_id=docker&scope=a b&grant_type=password&username=u&password=p"
        );
        let refresh = Credentials {
            identity_token: "r".to_owned(),
            ..user()
        };
        assert_eq!(
            shown(ask(&key(refresh), Offline::No, false)),
            "POST service=s&client_id=docker&scope=a b&grant_type=refresh_token&refresh_token=r"
        );
    }

    #[test]
    fn answers_are_read() {
        let read = |body: &str| {
            read_answer(body.as_bytes())
                .map(|granted| (granted.token, granted.lifetime.as_secs()))
                .map_err(|error| error.to_string())
        };
        assert_eq!(read(r#"{"token":"t"}"#), Ok(("t".to_owned(), 60)));
        assert_eq!(
            read(r#"{"access_token":"t","expires_in":300}"#),
            Ok(("t".to_owned(), 300))
        );
        for (expires_in, expected) in [
            ("1", 1),
            ("0", 60),
            ("-5", 60),
            ("86401", 86_400),
            ("9223372036854775807", 86_400),
            ("1e300", 86_400),
        ] {
            let body = format!(r#"{{"token":"t","expires_in":{expires_in}}}"#);
            assert_eq!(read(&body), Ok(("t".to_owned(), expected)), "{expires_in}");
        }
        assert_eq!(
            read("{}"),
            Err("authorization server did not include a token in the response".to_owned())
        );
    }

    #[tokio::test]
    async fn a_token_is_kept_until_it_is_refused() {
        let tokens = Tokens::default();
        let key = key(user());
        let grant = |name: &str| {
            let token = name.to_owned();
            async move {
                Ok::<_, Error>(Granted {
                    token,
                    lifetime: Duration::from_secs(60),
                    refresh_token: String::new(),
                })
            }
        };
        assert_eq!(
            tokens.get(&key, None, grant("1")).await.expect("a token"),
            "1"
        );
        assert_eq!(
            tokens.get(&key, None, grant("2")).await.expect("a token"),
            "1"
        );
        assert_eq!(
            tokens
                .get(&key, Some("1"), grant("3"))
                .await
                .expect("a token"),
            "3"
        );
    }
}
