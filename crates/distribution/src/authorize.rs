//! Who asks: the value of `Authorization`, from a password or from a token server.

use crate::answer::BODY_SIZE_MAX;
use crate::call::{Call, Target};
use crate::challenge::Challenge;
use crate::endpoint::Endpoint;
use crate::retry::Failure;
use crate::session::Session;
use crate::state::Reached;
use crate::token::{self, Ask, Granted, Offline, TokenKey};
use crate::wire::{broken, refused};
use crate::{Credentials, Error};
use bytes::Bytes;
use reqwest::{Method, StatusCode, Url};

impl Session {
    /// Gives the value of `Authorization`. `refused` is the token that was just not taken.
    pub(crate) async fn authorization(
        &self,
        endpoint: &Endpoint,
        reached: &Reached,
        call: &Call,
        refused: Option<&str>,
    ) -> std::result::Result<Option<String>, Failure> {
        let nobody = Credentials::default();
        let credentials = if endpoint.is_registry {
            &self.credentials
        } else {
            &nobody
        };
        if !credentials.registry_token.is_empty() {
            return Ok(Some(format!("Bearer {}", credentials.registry_token)));
        }
        let of = |scheme: &str| {
            reached
                .challenges
                .iter()
                .find(|challenge| challenge.scheme == scheme)
        };
        if let Some(challenge) = of("bearer") {
            let key = token_key(challenge, &call.scopes, credentials);
            let fetch = self.grant(endpoint, &key, Offline::No);
            let token = self.state.tokens.get(&key, refused, fetch).await?;
            return Ok(Some(format!("Bearer {token}")));
        }
        if of("basic").is_some() {
            if credentials.username.is_empty() && credentials.password.is_empty() {
                return Err(Failure::last(Error::Registry {
                    status: 401,
                    codes: Vec::new(),
                    text: "no basic auth credentials".to_owned(),
                }));
            }
            return Ok(Some(token::basic(
                &credentials.username,
                &credentials.password,
            )));
        }
        Ok(None)
    }

    /// Asks a token server.
    pub(crate) async fn grant(
        &self,
        endpoint: &Endpoint,
        key: &TokenKey,
        offline: Offline,
    ) -> std::result::Result<Granted, Failure> {
        let realm = Url::parse(&key.realm).map_err(|error| {
            Error::Invalid(format!(
                "address of the token server `{}` of `{}`: {error}",
                key.realm, endpoint.host
            ))
        })?;
        let has_secret = key.credentials != Credentials::default();
        let is_secure = realm.scheme() == "https";
        if has_secret && !is_secure && !endpoint.is_lenient(&self.state, &realm).await {
            return Err(Failure::last(Error::Invalid(format!(
                "token server `{}` of `{}` would get the password without TLS",
                key.realm, endpoint.host
            ))));
        }
        let granted = self
            .ask(endpoint, &realm, key, token::ask(key, offline, false))
            .await?;
        match granted {
            // A server that knows only the form with the password says so by one of these.
            (StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED, _) if has_secret => {
                let form = token::ask(key, offline, true);
                self.ask(endpoint, &realm, key, form).await?.1
            }
            (_, granted) => granted,
        }
    }

    async fn ask(
        &self,
        endpoint: &Endpoint,
        realm: &Url,
        key: &TokenKey,
        ask: Ask,
    ) -> std::result::Result<(StatusCode, std::result::Result<Granted, Failure>), Failure> {
        let reached = Reached {
            base: realm.clone(),
            challenges: Vec::new(),
        };
        let mut url = realm.clone();
        let (call, authorization) = match ask {
            Ask::Get {
                query,
                authorization,
            } => {
                url.query_pairs_mut().extend_pairs(query);
                if url.query() == Some("") {
                    url.set_query(None);
                }
                let call = Call::to(Method::GET, Target::Url(url.clone()), Vec::new());
                (call, authorization)
            }
            Ask::Post { form } => {
                let mut body = Url::parse("form:").map_err(|error| {
                    Error::Invalid(format!("encode a form for `{}`: {error}", key.realm))
                })?;
                body.query_pairs_mut().extend_pairs(form);
                let body = Bytes::from(body.query().unwrap_or_default().to_owned());
                let call = Call::to(Method::POST, Target::Url(url.clone()), Vec::new())
                    .body("application/x-www-form-urlencoded", body)
                    .secret();
                (call, None)
            }
        };
        let (response, _) = self
            .follow(endpoint, &reached, url.clone(), &call, authorization)
            .await?;
        let (status, headers) = (response.status(), response.headers().clone());
        let body = self.body(response, BODY_SIZE_MAX).await.map_err(broken)?;
        let granted = if status.is_success() {
            token::read_answer(&body).map_err(Failure::last)
        } else {
            Err(refused(status, &headers, &body))
        };
        Ok((status, granted))
    }
}

/// Says which request failed for lack of authorization, as Go does.
pub(crate) fn wrapped(failure: Failure, call: &Call, url: &Url) -> Failure {
    if call.is_untold {
        return failure;
    }
    let wrap = |text: &str| format!("{} \"{url}\": {text}", call.verb());
    let error = match failure.error {
        Error::Registry {
            status,
            codes,
            text,
        } => Error::Registry {
            status,
            codes,
            text: wrap(&text),
        },
        Error::RateLimited(text) => Error::RateLimited(wrap(&text)),
        Error::Network(text) => Error::Network(wrap(&text)),
        other => other,
    };
    Failure { error, ..failure }
}

pub(crate) fn token_key(
    challenge: &Challenge,
    scopes: &[String],
    credentials: &Credentials,
) -> TokenKey {
    TokenKey {
        realm: challenge.parameter_or_empty("realm").to_owned(),
        service: challenge.parameter_or_empty("service").to_owned(),
        scopes: scopes.to_vec(),
        credentials: credentials.clone(),
    }
}
