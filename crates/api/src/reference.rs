//! Image references: the grammar `[domain/]path[:tag][@digest]`, Docker's normalisation and its error texts.
//!
//! A [`Reference`] is always normalised: it has a domain, and an official image of Docker Hub bears `library/` in its
//! path. `Display` writes the familiar, short form that people see; [`Reference::canonical`] writes the full one.
//! What an image *name* on the command line may be besides (an id or a part of one) is [`parse_any`]'s matter.

use crate::digest::{Digest, DigestError};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

const DEFAULT_DOMAIN: &str = "docker.io";
const LEGACY_DEFAULT_DOMAIN: &str = "index.docker.io";
const OFFICIAL_PREFIX: &str = "library/";
const NAME_LENGTH_MAX: usize = 255;

/// Is the tag that stands in where neither tag nor digest is given.
pub const DEFAULT_TAG: &str = "latest";

/// Says why a text is no reference; the texts are those of Docker.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReferenceError {
    #[error("invalid reference format")]
    Format,
    #[error("invalid reference format: repository name ({0}) must be lowercase")]
    Uppercase(String),
    #[error("invalid repository name ({0}), cannot specify 64-byte hexadecimal strings")]
    Identifier(String),
    #[error("repository name must not be more than 255 characters")]
    TooLong,
    #[error("{0}")]
    Digest(DigestError),
}

/// Is a normalised image reference.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Reference {
    domain: Box<str>,
    path: Box<str>,
    tag: Option<Box<str>>,
    digest: Option<Digest>,
}

/// Is what an image name given by a user can be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AnyReference {
    /// A full id, with or without `sha256:`.
    Id(Digest),
    /// A name with a tag, a digest, both or neither.
    Named(Reference),
}

/// Parses an image name as a full id or as a reference.
///
/// # Errors
/// Gives Docker's text for what is neither.
pub fn parse_any(text: &str) -> Result<AnyReference, ReferenceError> {
    if crate::id::is_full_id(text)
        && let Ok(digest) = format!("sha256:{text}").parse()
    {
        return Ok(AnyReference::Id(digest));
    }
    if let Ok(digest) = text.parse() {
        return Ok(AnyReference::Id(digest));
    }
    text.parse().map(AnyReference::Named)
}

impl Reference {
    /// Gives the registry's host, `docker.io` for Docker Hub.
    pub fn domain(&self) -> &str {
        &self.domain
    }

    /// Gives the repository's path at the registry, with `library/` for official images.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Gives the tag, if one was written.
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// Gives the digest, if one was written.
    pub fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }

    /// Gives domain and path.
    pub fn name(&self) -> String {
        format!("{}/{}", self.domain, self.path)
    }

    /// Gives the repository as people see it: no `docker.io/`, no `library/`.
    pub fn familiar_name(&self) -> String {
        if &*self.domain != DEFAULT_DOMAIN {
            return self.name();
        }
        match self.path.strip_prefix(OFFICIAL_PREFIX) {
            Some(rest) if !rest.contains('/') => rest.to_owned(),
            _ => self.path.to_string(),
        }
    }

    /// Gives the full form, domain included.
    pub fn canonical(&self) -> String {
        self.with_suffix(self.name())
    }

    /// Tells whether there is neither tag nor digest.
    pub fn is_name_only(&self) -> bool {
        self.tag.is_none() && self.digest.is_none()
    }

    /// Adds `latest` where there is neither tag nor digest.
    #[must_use]
    pub fn or_latest(mut self) -> Self {
        if self.is_name_only() {
            self.tag = Some(DEFAULT_TAG.into());
        }
        self
    }

    /// Drops tag and digest.
    #[must_use]
    pub fn name_only(mut self) -> Self {
        self.tag = None;
        self.digest = None;
        self
    }

    /// Sets the tag and drops a digest.
    ///
    /// # Errors
    /// Fails where the tag breaks the grammar.
    pub fn with_tag(mut self, tag: &str) -> Result<Self, ReferenceError> {
        if !is_tag(tag) {
            return Err(ReferenceError::Format);
        }
        self.tag = Some(tag.into());
        self.digest = None;
        Ok(self)
    }

    /// Sets the digest and drops a tag: the form of a repository digest.
    #[must_use]
    pub fn with_digest(mut self, digest: Digest) -> Self {
        self.tag = None;
        self.digest = Some(digest);
        self
    }

    fn with_suffix(&self, mut text: String) -> String {
        if let Some(tag) = &self.tag {
            text.push(':');
            text.push_str(tag);
        }
        if let Some(digest) = &self.digest {
            text.push('@');
            text.push_str(digest.as_str());
        }
        text
    }
}

impl FromStr for Reference {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        if crate::id::is_full_id(text) {
            return Err(ReferenceError::Identifier(text.to_owned()));
        }
        let (domain, remainder) = split_domain(text);
        let remote = remainder.split(':').next().unwrap_or_default();
        if remote.chars().any(char::is_uppercase) {
            return Err(ReferenceError::Uppercase(remote.to_owned()));
        }
        parse_full(domain, &remainder)
    }
}

impl TryFrom<String> for Reference {
    type Error = ReferenceError;

    fn try_from(text: String) -> Result<Self, ReferenceError> {
        text.parse()
    }
}

impl From<Reference> for String {
    fn from(reference: Reference) -> String {
        reference.canonical()
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.with_suffix(self.familiar_name()))
    }
}

impl fmt::Debug for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.canonical())
    }
}

/// Splits off the registry's host: the first component is one if it has a dot, a colon or a capital, or is
/// `localhost`.
fn split_domain(text: &str) -> (&str, String) {
    let (domain, remainder) = match text.split_once('/') {
        Some((first, rest))
            if first.contains(['.', ':'])
                || first == "localhost"
                || first.chars().any(char::is_uppercase) =>
        {
            (
                if first == LEGACY_DEFAULT_DOMAIN {
                    DEFAULT_DOMAIN
                } else {
                    first
                },
                rest,
            )
        }
        _ => (DEFAULT_DOMAIN, text),
    };
    if domain == DEFAULT_DOMAIN && !remainder.contains('/') {
        (domain, format!("{OFFICIAL_PREFIX}{remainder}"))
    } else {
        (domain, remainder.to_owned())
    }
}

fn parse_full(domain: &str, remainder: &str) -> Result<Reference, ReferenceError> {
    let (rest, digest) = match remainder.split_once('@') {
        Some((rest, digest)) => (rest, Some(digest)),
        None => (remainder, None),
    };
    let (path, tag) = match rest.split_once(':') {
        Some((path, tag)) => (path, Some(tag)),
        None => (rest, None),
    };
    if !is_domain(domain) || !path.split('/').all(is_path_component) || !tag.is_none_or(is_tag) {
        return Err(ReferenceError::Format);
    }
    if path.len() > NAME_LENGTH_MAX {
        return Err(ReferenceError::TooLong);
    }
    let digest = match digest {
        None => None,
        Some(text) if is_digest_shape(text) => Some(text.parse().map_err(ReferenceError::Digest)?),
        Some(_) => return Err(ReferenceError::Format),
    };
    Ok(Reference {
        domain: domain.into(),
        path: path.into(),
        tag: tag.map(Into::into),
        digest,
    })
}

fn is_domain(text: &str) -> bool {
    let (host, port) = if let Some(rest) = text.strip_prefix('[') {
        let Some((address, rest)) = rest.split_once(']') else {
            return false;
        };
        let port = match rest.strip_prefix(':') {
            Some(port) => Some(port),
            None if rest.is_empty() => None,
            None => return false,
        };
        if address.is_empty() || !address.bytes().all(|b| b.is_ascii_hexdigit() || b == b':') {
            return false;
        }
        return port.is_none_or(is_port);
    } else {
        match text.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        }
    };
    host.split('.').all(|label| {
        !label.is_empty()
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'-')
    }) && port.is_none_or(is_port)
}

fn is_port(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit())
}

/// Checks one component: runs of letters and digits, joined by `.`, `_`, `__` or any number of `-`.
fn is_path_component(text: &str) -> bool {
    let bytes = text.as_bytes();
    let alphanumeric = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    if !bytes.first().copied().is_some_and(alphanumeric)
        || !bytes.last().copied().is_some_and(alphanumeric)
    {
        return false;
    }
    bytes.split(|b| alphanumeric(*b)).all(|separator| {
        matches!(separator, b"" | b"." | b"_" | b"__") || separator.iter().all(|b| *b == b'-')
    })
}

/// Tells whether a text is a tag: a word character, then up to 127 of word characters, dots and dashes.
pub fn is_tag(text: &str) -> bool {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    text.len() <= 128
        && text.bytes().next().is_some_and(word)
        && text.bytes().all(|b| word(b) || matches!(b, b'.' | b'-'))
}

fn is_digest_shape(text: &str) -> bool {
    text.split_once(':').is_some_and(|(algorithm, hex)| {
        algorithm.split(['-', '_', '+', '.']).all(|part| {
            part.starts_with(|c: char| c.is_ascii_alphabetic())
                && part.bytes().all(|b| b.is_ascii_alphanumeric())
        }) && hex.len() >= 32
            && hex.bytes().all(|b| b.is_ascii_hexdigit())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEX: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn names_are_normalised_and_shown_short() {
        for (text, canonical, familiar) in [
            ("busybox", "docker.io/library/busybox", "busybox"),
            (
                "busybox:1.36",
                "docker.io/library/busybox:1.36",
                "busybox:1.36",
            ),
            ("library/busybox", "docker.io/library/busybox", "busybox"),
            ("docker.io/busybox", "docker.io/library/busybox", "busybox"),
            (
                "index.docker.io/library/busybox:a",
                "docker.io/library/busybox:a",
                "busybox:a",
            ),
            ("user/app", "docker.io/user/app", "user/app"),
            ("library/a/b", "docker.io/library/a/b", "library/a/b"),
            ("localhost/app", "localhost/app", "localhost/app"),
            (
                "localhost:5000/app:v1",
                "localhost:5000/app:v1",
                "localhost:5000/app:v1",
            ),
            (
                "ghcr.io/o/a__b/c-d.e",
                "ghcr.io/o/a__b/c-d.e",
                "ghcr.io/o/a__b/c-d.e",
            ),
            ("[::1]:5000/app", "[::1]:5000/app", "[::1]:5000/app"),
            ("Host/app", "Host/app", "Host/app"),
            ("a---b", "docker.io/library/a---b", "a---b"),
            (
                "busybox:_x-.Y",
                "docker.io/library/busybox:_x-.Y",
                "busybox:_x-.Y",
            ),
        ] {
            let reference: Reference = text
                .parse()
                .unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!(reference.canonical(), canonical);
            assert_eq!(reference.to_string(), familiar);
            assert_eq!(canonical.parse::<Reference>().unwrap(), reference);
        }
        let pinned: Reference = format!("busybox:1@sha256:{HEX}").parse().unwrap();
        assert_eq!(pinned.tag(), Some("1"));
        assert_eq!(pinned.to_string(), format!("busybox:1@sha256:{HEX}"));
    }

    #[test]
    fn wrong_names_give_dockers_texts() {
        let long = "a".repeat(256);
        let long_tag = format!("a:{}", "t".repeat(129));
        for (text, error) in [
            ("", "invalid reference format"),
            (
                "Busybox",
                "invalid reference format: repository name (library/Busybox) must be lowercase",
            ),
            (
                "user/App:x",
                "invalid reference format: repository name (user/App) must be lowercase",
            ),
            ("a b", "invalid reference format"),
            ("-a", "invalid reference format"),
            ("a-", "invalid reference format"),
            ("a..b", "invalid reference format"),
            ("a___b", "invalid reference format"),
            ("a._b", "invalid reference format"),
            ("a/", "invalid reference format"),
            ("/a", "invalid reference format"),
            ("a:", "invalid reference format"),
            ("a:.x", "invalid reference format"),
            (long_tag.as_str(), "invalid reference format"),
            ("a@sha256:12", "invalid reference format"),
            (
                "a@sha256:00000000000000000000000000000000",
                "invalid checksum digest length",
            ),
            ("host:x/a", "invalid reference format"),
            ("-host.io/a", "invalid reference format"),
            (
                long.as_str(),
                "repository name must not be more than 255 characters",
            ),
            (
                HEX,
                "invalid repository name (e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855), cannot \
                 specify 64-byte hexadecimal strings",
            ),
        ] {
            assert_eq!(
                text.parse::<Reference>().unwrap_err().to_string(),
                error,
                "{text}"
            );
        }
    }

    #[test]
    fn latest_stands_in_for_nothing_only() {
        let latest = |text: &str| text.parse::<Reference>().unwrap().or_latest().to_string();
        assert_eq!(latest("a"), "a:latest");
        assert_eq!(latest("a:b"), "a:b");
        assert_eq!(
            latest(&format!("a@sha256:{HEX}")),
            format!("a@sha256:{HEX}")
        );
    }

    #[test]
    fn ids_are_told_from_names() {
        for text in [HEX.to_owned(), format!("sha256:{HEX}")] {
            assert!(
                matches!(parse_any(&text), Ok(AnyReference::Id(digest)) if digest.hex() == HEX)
            );
        }
        assert!(matches!(parse_any("abc"), Ok(AnyReference::Named(_))));
        assert!(parse_any("A").is_err());
    }
}
