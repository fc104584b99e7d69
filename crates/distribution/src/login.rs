//! Login: whether a registry takes a user's credentials.

use crate::authorize::token_key;
use crate::call::{Call, Target};
use crate::credentials::Login;
use crate::session::{ANY, Session};
use crate::token::Offline;
use crate::wire::reason;
use crate::{Error, Result};
use reqwest::Method;

const HUB: &str = "docker.io";

/// Gives the registry that a server's name means.
pub(crate) fn domain(server: &str) -> &str {
    let name = server
        .strip_prefix("https://")
        .or_else(|| server.strip_prefix("http://"))
        .unwrap_or(server);
    let host = name.split('/').next().unwrap_or_default();
    match host {
        "" | "index.docker.io" | "docker.io" => HUB,
        other => other,
    }
}

/// Asks for `/v2/` with the credentials.
pub(crate) async fn login(session: &Session) -> Result<Login> {
    let endpoint = session.registry().await?;
    // A login is a fresh look: what was remembered may be out of date.
    session.state.forget(&endpoint.bases[0]);
    let reached = session
        .reach(endpoint)
        .await
        .map_err(|failure| failure.error)?;
    let mut identity_token = String::new();
    let bearer = reached
        .challenges
        .iter()
        .find(|challenge| challenge.scheme == "bearer");
    let call = Call::to(Method::GET, Target::Url(reached.base.clone()), Vec::new()).accepting_all();
    let refused = |error: Error| match error {
        Error::Registry {
            status: 401, text, ..
        } => Error::Unauthorized(format!("Get \"{}\": {text}", reached.base)),
        Error::Registry {
            status,
            codes,
            text,
        } => Error::Registry {
            status,
            codes,
            text: format!("Get \"{}\": {text}", reached.base),
        },
        other => other,
    };
    let reply = if let Some(challenge) = bearer {
        let key = token_key(challenge, &[], &session.credentials);
        let granted = session
            .grant(endpoint, &key, Offline::Yes)
            .await
            .map_err(|failure| refused(failure.error))?;
        identity_token = granted.refresh_token;
        let mut with_token = session.clone();
        with_token.credentials = crate::Credentials {
            registry_token: granted.token,
            ..crate::Credentials::default()
        };
        with_token.once(endpoint, &call, ANY).await
    } else {
        session.once(endpoint, &call, ANY).await
    };
    let reply = reply.map_err(|failure| failure.error)?;
    if reply.status.as_u16() != 200 {
        let text = format!(
            "login attempt to {} failed with status: {}",
            reached.base,
            reason(reply.status)
        );
        // Docker's API answers 500 here also where the password is wrong, and 401 where a token server refused.
        return Err(Error::Registry {
            status: reply.status.as_u16(),
            codes: Vec::new(),
            text,
        });
    }
    Ok(Login {
        status: "Login Succeeded".to_owned(),
        identity_token,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_are_named_in_many_ways() {
        for (server, expected) in [
            ("", "docker.io"),
            ("https://index.docker.io/v1/", "docker.io"),
            ("docker.io", "docker.io"),
            ("a.example:5000", "a.example:5000"),
            ("https://a.example/v2/", "a.example"),
        ] {
            assert_eq!(domain(server), expected);
        }
    }
}
