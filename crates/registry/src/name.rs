//! Names that come from clients: repositories, tags, digests, uploads. What passes here cannot leave the store's root.

use crate::error::{Code, Error, Result};
use gantry_api::digest::Digest;
use serde_json::json;
use std::fmt;

/// The longest repository name; clients limit it to this together with the host.
const NAME_LENGTH_MAX: usize = 255;
const TAG_LENGTH_MAX: usize = 128;

/// Is a repository's name of the specification's grammar: no component begins with a dot or an underscore.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Name(Box<str>);

impl Name {
    /// Reads a name.
    ///
    /// # Errors
    /// [`Code::NameInvalid`] for what breaks the grammar.
    pub fn parse(text: &str) -> Result<Self> {
        if text.len() <= NAME_LENGTH_MAX && text.split('/').all(is_component) {
            Ok(Self(text.into()))
        } else {
            Err(Error::new(Code::NameInvalid, json!({ "name": text })))
        }
    }

    /// Gives the name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Tells whether a text is one component of a repository's name: runs of small letters and digits, parted by one dot,
/// one or two underscores, or any number of hyphens.
pub fn is_component(text: &str) -> bool {
    let is_word = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = text.as_bytes();
    let (Some(first), Some(last)) = (bytes.first(), bytes.last()) else {
        return false;
    };
    is_word(*first)
        && is_word(*last)
        && text
            .split(|letter: char| letter.is_ascii_lowercase() || letter.is_ascii_digit())
            .all(|separator| {
                matches!(separator, "" | "." | "_" | "__")
                    || separator.bytes().all(|byte| byte == b'-')
            })
}

/// Says what a manifest is asked for by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reference {
    Tag(String),
    Digest(Digest),
}

impl Reference {
    /// Reads a tag or a digest; only a digest has a colon.
    ///
    /// # Errors
    /// [`Code::DigestInvalid`] or [`Code::ManifestInvalid`] for what is neither.
    pub fn parse(text: &str) -> Result<Self> {
        if text.contains(':') {
            digest(text).map(Self::Digest)
        } else {
            tag(text).map(Self::Tag)
        }
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tag(tag) => f.write_str(tag),
            Self::Digest(digest) => digest.fmt(f),
        }
    }
}

/// Reads a tag.
///
/// # Errors
/// [`Code::ManifestInvalid`] for what breaks the grammar.
pub fn tag(text: &str) -> Result<String> {
    let bytes = text.as_bytes();
    let is_tag = bytes.len() <= TAG_LENGTH_MAX
        && bytes
            .first()
            .is_some_and(|byte| byte.is_ascii_alphanumeric() || *byte == b'_')
        && bytes
            .iter()
            .all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(byte));
    if is_tag {
        Ok(text.to_owned())
    } else {
        Err(Error::new(Code::ManifestInvalid, json!({ "tag": text })))
    }
}

/// Reads a digest of an algorithm that the store keeps.
///
/// # Errors
/// [`Code::DigestInvalid`] for anything else.
pub fn digest(text: &str) -> Result<Digest> {
    let invalid = |why: String| {
        Error::new(
            Code::DigestInvalid,
            json!({ "digest": text, "reason": why }),
        )
    };
    let digest: Digest = text
        .parse()
        .map_err(|error: gantry_api::digest::DigestError| invalid(error.to_string()))?;
    match digest.algorithm() {
        "sha256" | "sha512" => Ok(digest),
        other => Err(invalid(format!("`{other}` is not supported"))),
    }
}

/// Reads an upload's id: the form of a UUID.
///
/// # Errors
/// [`Code::BlobUploadUnknown`] for anything else: it was never given out.
pub fn upload(text: &str) -> Result<String> {
    let is_id = text.len() == 36
        && text
            .bytes()
            .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f' | b'-'));
    if is_id {
        Ok(text.to_owned())
    } else {
        Err(Code::BlobUploadUnknown.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_the_specification() {
        for good in [
            "a",
            "library/busybox",
            "docker.io/library/x",
            "a-b/c--d/e__f/g_h/i.j",
            "0/1",
        ] {
            assert!(Name::parse(good).is_ok(), "{good}");
        }
        let long = "a/".repeat(127) + "ab";
        assert!(Name::parse(&long[..255]).is_ok());
        for bad in [
            "", "/", "a/", "/a", "a//b", "..", "a/..", "a/../b", ".", "_blobs", "a/_tags", "A",
            "a..b", "a___b", "a._b", "-a", "a-", "a b", "a\\b", "é", "a\0b", &long,
        ] {
            assert!(Name::parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn tags_and_digests_cannot_leave_their_directory() {
        for good in ["latest", "_x", "1.2-3", "A", &"a".repeat(128)] {
            assert!(tag(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            ".",
            "..",
            ".a",
            "-a",
            "a/b",
            "a:b",
            "a b",
            &"a".repeat(129),
        ] {
            assert!(tag(bad).is_err(), "{bad:?}");
        }
        let hex = "0".repeat(64);
        assert!(digest(&format!("sha256:{hex}")).is_ok());
        assert!(digest(&format!("sha512:{hex}{hex}")).is_ok());
        for bad in [
            format!("sha384:{hex}{}", "0".repeat(32)),
            "sha256:../../x".into(),
            "sha256:baddigeststring".into(),
            hex,
        ] {
            assert_eq!(digest(&bad).unwrap_err().code, Code::DigestInvalid, "{bad}");
        }
        assert!(upload("0f8fad5b-d9cb-469f-a165-70867728950e").is_ok());
        for bad in ["", "..", "0f8fad5b-d9cb-469f-a165-7086772895/e"] {
            assert!(upload(bad).is_err(), "{bad}");
        }
    }
}
