//! Lists that come in pages: tags and repositories; and what a registry has beyond the protocol.

use crate::answer;
use crate::call::{Call, Target};
use crate::client::Repository;
use crate::endpoint::Purpose;
use crate::session::{ANY, Reply, Session};
use crate::wire::location_of;
use crate::{Error, Result};
use bytes::Bytes;
use reqwest::Method;
use serde::Deserialize;
use serde::de::DeserializeOwned;

/// A registry that sends us round in a circle is left after so many pages.
const PAGES_MAX: usize = 10_000;

#[derive(Deserialize)]
struct Tags {
    // A repository without tags has `null` at some registries.
    tags: Option<Vec<String>>,
}

#[derive(Deserialize)]
struct Catalog {
    repositories: Option<Vec<String>>,
}

impl Repository {
    /// Lists the tags, all pages.
    pub async fn tags(&self) -> Result<Vec<String>> {
        let path = format!("{}/tags/list", self.path);
        let call = Call::new(Method::GET, path, self.scopes(Purpose::Resolve));
        let pages = pages(&self.session, Purpose::Resolve, call)
            .await
            .map_err(|error| answer::as_pull(error, &self.familiar_name, &self.familiar_name))?;
        let mut tags = Vec::new();
        for page in &pages {
            tags.extend(read::<Tags>(page, "tags")?.tags.unwrap_or_default());
        }
        Ok(tags)
    }
}

/// Lists the repositories of a registry.
pub(crate) async fn catalog(session: &Session) -> Result<Vec<String>> {
    let scopes = vec!["registry:catalog:*".to_owned()];
    let call = Call::new(Method::GET, "_catalog".to_owned(), scopes);
    let mut repositories = Vec::new();
    for page in &pages(session, Purpose::Resolve, call).await? {
        let catalog: Catalog = read(page, "repositories")?;
        repositories.extend(catalog.repositories.unwrap_or_default());
    }
    Ok(repositories)
}

/// Calls an extension of the registry itself, of no mirror.
pub(crate) async fn extension(session: &Session, path: &str) -> Result<Bytes> {
    let scopes = vec!["registry:catalog:*".to_owned()];
    let call = Call::new(Method::POST, path.to_owned(), scopes);
    let registry = session.registry().await?;
    Ok(session.persist(registry, &call, ANY).await?.body)
}

fn read<T: DeserializeOwned>(page: &Reply, what: &str) -> Result<T> {
    serde_json::from_slice(&page.body)
        .map_err(|error| Error::Corrupt(format!("read the {what} of `{}`: {error}", page.url)))
}

/// Asks for all pages of a list. All come from the host that gave the first.
pub(crate) async fn pages(session: &Session, purpose: Purpose, call: Call) -> Result<Vec<Reply>> {
    let mut pages = vec![session.fetch(purpose, &call, ANY).await?];
    while let Some(last) = pages.last()
        && let Some(next) = next_link(last.header("link"))
    {
        if pages.len() >= PAGES_MAX {
            return Err(Error::Corrupt(format!(
                "`{}`: more than {PAGES_MAX} pages",
                last.url
            )));
        }
        let url = location_of(&last.url, next).map_err(Error::Corrupt)?;
        let host = last.host.clone();
        let mut call = call.clone();
        call.target = Target::Url(url);
        let endpoints = session.endpoints(purpose).await?;
        let endpoint = endpoints
            .iter()
            .find(|endpoint| endpoint.host == host)
            .ok_or_else(|| {
                Error::Invalid(format!("`{host}` is no host of the registry any more"))
            })?;
        pages.push(session.persist(endpoint, &call, ANY).await?);
    }
    Ok(pages)
}

/// Finds the address of the next page in a `Link` header (RFC 8288).
fn next_link(header: &str) -> Option<&str> {
    let mut rest = header;
    while let Some((address, after)) = rest
        .split_once('<')
        .and_then(|(_, rest)| rest.split_once('>'))
    {
        let end = after.find('<').unwrap_or(after.len());
        let is_next = after[..end].split([';', ',']).any(|parameter| {
            parameter.split_once('=').is_some_and(|(name, value)| {
                name.trim().eq_ignore_ascii_case("rel")
                    && value
                        .trim()
                        .trim_matches('"')
                        .split(' ')
                        .any(|relation| relation.eq_ignore_ascii_case("next"))
            })
        });
        if is_next {
            return Some(address);
        }
        rest = &after[end..];
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_page_is_found() {
        for (header, expected) in [
            ("", None),
            (
                "</v2/x/tags/list?last=b&n=2>; rel=\"next\"",
                Some("/v2/x/tags/list?last=b&n=2"),
            ),
            ("</a>; rel=prev, </b>; title=\"x\"; Rel=next", Some("/b")),
            ("</a>; rel=\"last next\"", Some("/a")),
            ("</a>; rel=last", None),
            ("</a", None),
        ] {
            assert_eq!(next_link(header), expected, "{header}");
        }
    }
}
