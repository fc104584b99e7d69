//! From a path to what is asked for. Pure.

use crate::error::{Code, Error, Result};
use crate::name::{self, Name, Reference};
use gantry_api::digest::Digest;
use percent_encoding::percent_decode_str;

/// Is what a path of the distribution protocol stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Route {
    /// `/v2/`
    Base,
    /// `/v2/_catalog`
    Catalog,
    Tags(Name),
    Manifest(Name, Reference),
    Blob(Name, Digest),
    /// `/v2/NAME/blobs/uploads/`
    Uploads(Name),
    Upload(Name, String),
    Referrers(Name, Digest),
    /// `/token`
    Token,
    /// `/healthz`
    Health,
    /// `/metrics`
    Metrics,
    /// `/v2/_gantry/garbage/collect`
    Collect,
}

impl Route {
    /// Reads a path; `None` where there is nothing at it.
    ///
    /// # Errors
    /// Fails where a name, a digest or an upload's id in it is malformed.
    pub fn parse(path: &str) -> Result<Option<Self>> {
        let rest = match path {
            "/v2" | "/v2/" => return Ok(Some(Self::Base)),
            "/token" => return Ok(Some(Self::Token)),
            "/healthz" => return Ok(Some(Self::Health)),
            "/metrics" => return Ok(Some(Self::Metrics)),
            "/v2/_gantry/garbage/collect" => return Ok(Some(Self::Collect)),
            "/v2/_catalog" | "/v2/_catalog/" => return Ok(Some(Self::Catalog)),
            path => match path.strip_prefix("/v2/") {
                Some(rest) => rest,
                None => return Ok(None),
            },
        };
        let segments: Vec<String> = rest
            .split('/')
            .map(|segment| {
                percent_decode_str(segment)
                    .decode_utf8()
                    .map(|text| text.into_owned())
                    .ok()
                    // An encoded slash would make two components of one.
                    .filter(|text| !text.contains('/'))
                    .ok_or_else(|| Error::from(Code::NameInvalid))
            })
            .collect::<Result<_>>()?;
        let name = |count: usize| Name::parse(&segments[..segments.len() - count].join("/"));
        let words: Vec<&str> = segments.iter().map(String::as_str).collect();
        // Read from the end: a component of the name may be called `blobs`.
        Ok(match words.as_slice() {
            [_, .., "blobs", "uploads", ""] | [_, .., "blobs", "uploads"] => {
                let count = if words.ends_with(&[""]) { 3 } else { 2 };
                Some(Self::Uploads(name(count)?))
            }
            [_, .., "blobs", "uploads", id] => Some(Self::Upload(name(3)?, name::upload(id)?)),
            [_, .., "tags", "list"] => Some(Self::Tags(name(2)?)),
            [_, .., "manifests", reference] => {
                Some(Self::Manifest(name(2)?, Reference::parse(reference)?))
            }
            [_, .., "blobs", digest] => Some(Self::Blob(name(2)?, name::digest(digest)?)),
            [_, .., "referrers", digest] => Some(Self::Referrers(name(2)?, name::digest(digest)?)),
            _ => None,
        })
    }

    /// Gives the repository, if the route is about one.
    pub fn name(&self) -> Option<&Name> {
        match self {
            Self::Tags(name)
            | Self::Manifest(name, _)
            | Self::Blob(name, _)
            | Self::Uploads(name)
            | Self::Upload(name, _)
            | Self::Referrers(name, _) => Some(name),
            _ => None,
        }
    }

    /// Puts another repository in place of the one that was asked for.
    pub fn rename(&mut self, new: Name) {
        match self {
            Self::Tags(name)
            | Self::Manifest(name, _)
            | Self::Blob(name, _)
            | Self::Uploads(name)
            | Self::Upload(name, _)
            | Self::Referrers(name, _) => *name = new,
            _ => {}
        }
    }

    /// Gives the route's kind, as metrics name it.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Base => "base",
            Self::Catalog => "catalog",
            Self::Tags(_) => "tags",
            Self::Manifest(..) => "manifest",
            Self::Blob(..) => "blob",
            Self::Uploads(_) | Self::Upload(..) => "upload",
            Self::Referrers(..) => "referrers",
            Self::Token => "token",
            Self::Health | Self::Metrics | Self::Collect => "other",
        }
    }
}

/// Is a request's query.
#[derive(Clone, Debug, Default)]
pub struct Query(Vec<(String, String)>);

impl Query {
    /// Reads `a=1&b=2`; what does not decode is left out.
    pub fn parse(text: &str) -> Self {
        let decode = |part: &str| {
            percent_decode_str(&part.replace('+', " "))
                .decode_utf8()
                .map(|text| text.into_owned())
                .ok()
        };
        let pairs = text.split('&').filter(|pair| !pair.is_empty());
        Self(
            pairs
                .filter_map(|pair| {
                    let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
                    Some((decode(name)?, decode(value)?))
                })
                .collect(),
        )
    }

    /// Gives a parameter's first value.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0
            .iter()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.as_str())
    }

    /// Gives all values of a parameter.
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0
            .iter()
            .filter(move |(key, _)| key == name)
            .map(|(_, value)| value.as_str())
    }
}

/// Is a part of a blob.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    pub from: u64,
    pub length: u64,
}

/// Reads a `Range` header for content of a size; `None` asks for all of it, as several ranges do, which may be answered
/// so (RFC 9110, section 14.2).
///
/// # Errors
/// [`Code::RangeInvalid`] where nothing of it lies within the content.
pub fn range(header: &str, size: u64) -> Result<Option<Part>> {
    let Some(text) = header.trim().strip_prefix("bytes=") else {
        return Ok(None);
    };
    let Some((from, to)) = text.split_once('-').filter(|_| !text.contains(',')) else {
        return Ok(None);
    };
    let number = |text: &str| text.trim().parse::<u64>();
    let (from, to) = match (from.trim(), to.trim()) {
        ("", last) => match number(last) {
            Ok(0) => return Err(Code::RangeInvalid.into()),
            Ok(count) => (size.saturating_sub(count), size.saturating_sub(1)),
            Err(_) => return Ok(None),
        },
        (from, "") => match number(from) {
            Ok(from) => (from, size.saturating_sub(1)),
            Err(_) => return Ok(None),
        },
        (from, to) => match (number(from), number(to)) {
            (Ok(from), Ok(to)) => (from, to.min(size.saturating_sub(1))),
            _ => return Ok(None),
        },
    };
    if from >= size || from > to {
        return Err(Code::RangeInvalid.into());
    }
    Ok(Some(Part {
        from,
        length: to - from + 1,
    }))
}

/// Reads the `Content-Range` of a piece of an upload, `FIRST-LAST`: where it begins, and how long it is.
///
/// # Errors
/// [`Code::RangeInvalid`] for another form.
pub fn content_range(header: &str) -> Result<Part> {
    let text = header.trim();
    let text = text.strip_prefix("bytes ").unwrap_or(text);
    let text = text.split('/').next().unwrap_or_default();
    text.split_once('-')
        .and_then(|(from, to)| {
            let (from, to): (u64, u64) = (from.parse().ok()?, to.parse().ok()?);
            let length = to.checked_sub(from)?.checked_add(1)?;
            Some(Part { from, length })
        })
        .ok_or_else(|| Code::RangeInvalid.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> Name {
        Name::parse(text).unwrap()
    }

    #[test]
    fn paths_are_read_from_their_end() {
        let hex = "a".repeat(64);
        let digest: Digest = format!("sha256:{hex}").parse().unwrap();
        let id = "0f8fad5b-d9cb-469f-a165-70867728950e";
        for (path, route) in [
            ("/v2/", Route::Base),
            ("/v2/_catalog", Route::Catalog),
            ("/v2/a/tags/list", Route::Tags(name("a"))),
            ("/v2/tags/list/tags/list", Route::Tags(name("tags/list"))),
            (
                "/v2/a/blobs/manifests/x",
                Route::Manifest(name("a/blobs"), Reference::Tag("x".into())),
            ),
            (
                &format!("/v2/a/b/manifests/sha256%3A{hex}"),
                Route::Manifest(name("a/b"), Reference::Digest(digest.clone())),
            ),
            (
                &format!("/v2/a/blobs/sha256:{hex}"),
                Route::Blob(name("a"), digest.clone()),
            ),
            ("/v2/a/blobs/uploads/", Route::Uploads(name("a"))),
            ("/v2/a/blobs/uploads", Route::Uploads(name("a"))),
            (
                &format!("/v2/a/blobs/uploads/{id}"),
                Route::Upload(name("a"), id.into()),
            ),
            (
                &format!("/v2/a/referrers/sha256:{hex}"),
                Route::Referrers(name("a"), digest),
            ),
        ] {
            assert_eq!(Route::parse(path).unwrap(), Some(route), "{path}");
        }
        for path in [
            "/",
            "/v1/",
            "/v2/a",
            "/v2/a/b/c",
            "/v2/manifests/x",
            "/v2/a/tags/other",
        ] {
            assert_eq!(Route::parse(path).unwrap(), None, "{path}");
        }
        for (path, code) in [
            ("/v2/../x/tags/list", Code::NameInvalid),
            ("/v2/%2e%2e/tags/list", Code::NameInvalid),
            ("/v2/a%2Fb/tags/list", Code::NameInvalid),
            ("/v2/A/manifests/x", Code::NameInvalid),
            ("/v2/a/manifests/..", Code::ManifestInvalid),
            ("/v2/a/manifests/sha256:x", Code::DigestInvalid),
            ("/v2/a/blobs/x", Code::DigestInvalid),
            ("/v2/a/blobs/uploads/x", Code::BlobUploadUnknown),
        ] {
            assert_eq!(Route::parse(path).unwrap_err().code, code, "{path}");
        }
    }

    #[test]
    fn ranges_are_cut_to_the_content() {
        let part = |from, length| Ok(Some(Part { from, length }));
        let check = |header: &str| range(header, 100).map_err(|error| error.code);
        assert_eq!(check("bytes=0-9"), part(0, 10));
        assert_eq!(check("bytes=90-"), part(90, 10));
        assert_eq!(check("bytes=90-500"), part(90, 10));
        assert_eq!(check("bytes=-10"), part(90, 10));
        assert_eq!(check("bytes=-500"), part(0, 100));
        for whole in ["bytes=0-1,3-4", "lines=0-1", "bytes=a-b", "bytes=x", ""] {
            assert_eq!(check(whole), Ok(None), "{whole}");
        }
        for none in ["bytes=100-", "bytes=9-0", "bytes=500-600", "bytes=-0"] {
            assert_eq!(check(none), Err(Code::RangeInvalid), "{none}");
        }
        assert!(range("bytes=0-0", 0).is_err());
        assert_eq!(content_range("5-9").unwrap(), Part { from: 5, length: 5 });
        for bad in ["", "5", "9-5", "a-b", "0-18446744073709551615"] {
            assert!(content_range(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn queries_keep_all_values() {
        let query = Query::parse("tag=a&tag=b%2Fc&n=&x");
        assert_eq!(query.all("tag").collect::<Vec<_>>(), ["a", "b/c"]);
        assert_eq!(
            (query.get("n"), query.get("x"), query.get("y")),
            (Some(""), Some(""), None)
        );
    }
}
