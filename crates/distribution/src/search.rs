//! Search, by the old protocol of indexes (`/v1/search`), which Docker Hub still answers.

use crate::call::{Call, Target};
use crate::client::SearchResult;
use crate::endpoint::Purpose;
use crate::session::{Reading, Session, reason};
use crate::token;
use crate::{Error, Result};
use reqwest::{Method, Url};
use serde::Deserialize;

const INDEX: &str = "index.docker.io";
const ANSWER_SIZE_MAX: usize = 16 << 20;
const ERRORS: &[u16] = &[
    400, 401, 402, 403, 404, 405, 406, 409, 410, 422, 429, 500, 501,
];

#[derive(Deserialize)]
struct Answer {
    #[serde(default)]
    results: Option<Vec<Found>>,
}

#[derive(Deserialize)]
struct Found {
    #[serde(default)]
    name: String,
    #[serde(default)]
    description: Option<String>,
    #[serde(default)]
    star_count: i64,
    #[serde(default)]
    is_official: bool,
    #[serde(default)]
    is_automated: bool,
}

/// Splits a term into the registry's host and what is searched there.
pub(crate) fn split(term: &str) -> Result<(&str, &str)> {
    if term.contains("://") {
        return Err(Error::Invalid(
            "invalid repository name: repository name (".to_owned()
                + term
                + ") should not have a scheme",
        ));
    }
    match term.split_once('/') {
        Some((host, rest)) if host.contains('.') || host.contains(':') || host == "localhost" => {
            Ok((host, rest))
        }
        _ => Ok(("docker.io", term)),
    }
}

/// Asks a registry's index.
pub(crate) async fn search(session: &Session, term: &str, limit: u32) -> Result<Vec<SearchResult>> {
    let mut endpoints = session.endpoints(Purpose::Push).await?;
    let Some(mut endpoint) = endpoints.pop() else {
        return Ok(Vec::new());
    };
    let is_hub = session.domain == "docker.io";
    if is_hub {
        // A user's own answer for Docker Hub in hosts.toml is for images; its index is elsewhere.
        endpoint.host = INDEX.to_owned();
    }
    let scheme_host = if is_hub {
        Url::parse(&format!("https://{INDEX}/"))
            .map_err(|error| Error::Invalid(format!("address of `{INDEX}`: {error}")))?
    } else {
        session
            .reach(&endpoint)
            .await
            .map_err(|failure| failure.error)?
            .base
    };
    let term = match term.strip_prefix("library/") {
        Some(rest) if is_hub => rest,
        _ => term,
    };
    let mut url = scheme_host.clone();
    url.set_path("/v1/search");
    url.query_pairs_mut()
        .append_pair("q", term)
        .append_pair("n", &limit.to_string());
    if is_hub {
        endpoint.bases = vec![scheme_host];
    }
    let call = Call::to(Method::GET, Target::Url(url), Vec::new()).accepting(ERRORS);
    let credentials = &session.credentials;
    let authorization = (!credentials.username.is_empty())
        .then(|| token::basic(&credentials.username, &credentials.password));
    let reading = Reading::Whole {
        size_max: ANSWER_SIZE_MAX,
        check: &|_| Ok(()),
    };
    let reply = session
        .direct(&endpoint, &call, authorization, reading)
        .await
        .map_err(|failure| failure.error)?;
    if reply.status.as_u16() != 200 {
        return Err(Error::Registry {
            status: reply.status.as_u16(),
            codes: Vec::new(),
            text: format!("Unexpected status code {}", reply.status.as_u16()),
        });
    }
    let answer: Answer = serde_json::from_slice(&reply.body).map_err(|error| {
        Error::Corrupt(format!(
            "read the answer ({}) to a search at `{}`: {error}",
            reason(reply.status),
            endpoint.host
        ))
    })?;
    Ok(answer
        .results
        .unwrap_or_default()
        .into_iter()
        .map(|found| SearchResult {
            name: found.name,
            description: found.description.unwrap_or_default(),
            star_count: found.star_count,
            is_official: found.is_official,
            is_automated: found.is_automated,
        })
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_term_may_begin_with_a_host() {
        for (term, expected) in [
            ("nginx", ("docker.io", "nginx")),
            ("someone/nginx", ("docker.io", "someone/nginx")),
            ("quay.io/nginx", ("quay.io", "nginx")),
            ("localhost/nginx", ("localhost", "nginx")),
            ("127.0.0.1:5000/a/b", ("127.0.0.1:5000", "a/b")),
        ] {
            assert_eq!(split(term).expect("a term"), expected);
        }
        assert!(split("http://a/b").is_err());
    }
}
