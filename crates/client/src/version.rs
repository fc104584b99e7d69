//! API versions and their negotiation.

use std::fmt;

/// A version of the Docker Engine API, such as 1.51.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    pub major: u16,
    pub minor: u16,
}

impl Version {
    /// The newest version that this client speaks.
    pub const NEWEST: Version = Version {
        major: 1,
        minor: 51,
    };
    /// What a daemon that names no version is taken to speak.
    pub const FALLBACK: Version = Version {
        major: 1,
        minor: 24,
    };

    /// Parses `1.51`, also with a leading `v`.
    pub fn parse(text: &str) -> Option<Version> {
        let (major, minor) = text.strip_prefix('v').unwrap_or(text).split_once('.')?;
        Some(Version {
            major: major.parse().ok()?,
            minor: minor.parse().ok()?,
        })
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_ordered_by_number_and_not_by_text() {
        assert!(Version::parse("1.9") < Version::parse("1.24"));
        assert_eq!(
            Version::parse("v1.50").map(|v| v.to_string()),
            Some("1.50".to_owned())
        );
        assert_eq!(Version::parse("1"), None);
        assert_eq!(Version::parse("1.x"), None);
    }
}
