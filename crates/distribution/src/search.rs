//! Search, by the old protocol of indexes (`/v1/search`), which Docker Hub still answers.

use crate::call::{Call, Target};
use crate::client::SearchResult;
use crate::endpoint::Endpoint;
use crate::session::{ANY, Reading, Session};
use crate::token;
use crate::{Error, Result};
use reqwest::{Method, Url};
use serde::Deserialize;

const HUB: &str = "docker.io";
const INDEX: &str = "https://index.docker.io/";
const ANSWER_SIZE_MAX: usize = 16 << 20;
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
        _ => Ok((HUB, term)),
    }
}

/// Asks a registry's index.
pub(crate) async fn search(session: &Session, term: &str, limit: u32) -> Result<Vec<SearchResult>> {
    let mut endpoint = Endpoint::clone(session.registry().await?);
    let mut url;
    let mut term = term;
    if session.domain == HUB {
        url = Url::parse(INDEX)
            .map_err(|error| Error::Invalid(format!("address of `{INDEX}`: {error}")))?;
        // Headers and certificates of Docker Hub's registry are not for its index.
        endpoint.bases = vec![url.clone()];
        endpoint.headers.clear();
        endpoint.tls = endpoint.tls.for_stranger(false);
        endpoint.is_insecure = false;
        term = term.strip_prefix("library/").unwrap_or(term);
    } else {
        url = index(session, &endpoint).await?;
    }
    url.set_path("/v1/search");
    url.query_pairs_mut()
        .append_pair("q", term)
        .append_pair("n", &limit.to_string());
    let call = Call::to(Method::GET, Target::Url(url), Vec::new()).accepting_all();
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
        Error::Corrupt(format!("error decoding registry search results: {error}"))
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

/// Finds the address at which a registry's index answers, by its `_ping`: with TLS or, where that is allowed, without.
async fn index(session: &Session, endpoint: &Endpoint) -> Result<Url> {
    let mut failures = Vec::new();
    for base in &endpoint.bases {
        let mut url = base.clone();
        url.set_path("/v1/_ping");
        let call = Call::to(Method::GET, Target::Url(url.clone()), Vec::new()).accepting_all();
        match session.direct(endpoint, &call, None, ANY).await {
            Ok(_) => return Ok(url),
            Err(failure) => failures.push(failure.error),
        }
    }
    let host = &endpoint.host;
    let index = |base: &Url| format!("{}://{host}/v1/", base.scheme());
    Err(Error::Network(
        match (failures.as_slice(), endpoint.bases.as_slice()) {
            ([https, http], [_, plain]) => format!(
                "invalid registry endpoint \"{}\". HTTPS attempt: {https}. HTTP attempt: {http}",
                index(plain)
            ),
            ([error, ..], [base, ..]) => format!(
                "invalid registry endpoint {}: {error}. If this private registry supports only HTTP or HTTPS with an unknown CA certificate, please add `--insecure-registry {host}` to the daemon's arguments. In the case of HTTPS, if you have access to the registry's CA certificate, no need for the flag; simply place the CA certificate at /etc/docker/certs.d/{host}/ca.crt",
                index(base)
            ),
            _ => format!("there is no address for `{host}`"),
        },
    ))
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
