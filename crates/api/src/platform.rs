//! Platforms, `os/architecture[/variant]`: parse, normalise, compare.
//!
//! Names are those of Go's GOOS and GOARCH, as the OCI image index uses them; the common other spellings
//! (`x86_64`, `aarch64`, `armhf`) are understood.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// Says why a text is no platform.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlatformError {
    #[error(
        "\"{0}\" is an invalid component of \"{1}\": platform specifier component must match \"^[A-Za-z0-9_.-]+$\": \
         invalid argument"
    )]
    Component(String, String),
    #[error("\"{0}\": unknown operating system or architecture: invalid argument")]
    Unknown(String),
    #[error("\"{0}\": cannot parse platform specifier: invalid argument")]
    Format(String),
}

/// Is an operating system and a processor that an image runs on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Platform {
    #[serde(default)]
    pub architecture: String,
    #[serde(default)]
    pub os: String,
    #[serde(
        default,
        rename = "os.version",
        skip_serializing_if = "String::is_empty"
    )]
    pub os_version: String,
    #[serde(default, rename = "os.features", skip_serializing_if = "Vec::is_empty")]
    pub os_features: Vec<String>,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub variant: String,
}

const SYSTEMS: &[&str] = &[
    "aix",
    "android",
    "darwin",
    "dragonfly",
    "freebsd",
    "hurd",
    "illumos",
    "ios",
    "js",
    "linux",
    "nacl",
    "netbsd",
    "openbsd",
    "plan9",
    "solaris",
    "wasip1",
    "windows",
    "zos",
];
const ARCHITECTURES: &[&str] = &[
    "386",
    "amd64",
    "amd64p32",
    "arm",
    "arm64",
    "arm64be",
    "armbe",
    "loong64",
    "mips",
    "mips64",
    "mips64le",
    "mips64p32",
    "mips64p32le",
    "mipsle",
    "ppc",
    "ppc64",
    "ppc64le",
    "riscv",
    "riscv64",
    "s390",
    "s390x",
    "sparc",
    "sparc64",
    "wasm",
];

impl Platform {
    /// Makes a normalised platform.
    pub fn new(os: &str, architecture: &str, variant: &str) -> Self {
        let (architecture, variant) = normalize_architecture(architecture, variant);
        Self {
            architecture,
            os: normalize_os(os),
            os_version: String::new(),
            os_features: Vec::new(),
            variant,
        }
    }

    /// Gives the platform that this program was built for.
    pub fn host() -> Self {
        Self::new("linux", std::env::consts::ARCH, "")
    }

    /// Gives the same platform in the common spelling.
    #[must_use]
    pub fn normalized(&self) -> Self {
        let (architecture, variant) = normalize_architecture(&self.architecture, &self.variant);
        Self {
            architecture,
            os: normalize_os(&self.os),
            os_version: self.os_version.clone(),
            os_features: self.os_features.clone(),
            variant,
        }
    }

    /// Ranks how well content for `other` serves where `self` is wanted: 0 is exact, more is worse, `None` does not
    /// run at all.
    ///
    /// An ARM of version n runs content for lower versions, an x86-64 of level n that of lower levels.
    pub fn rank(&self, other: &Self) -> Option<u32> {
        let (want, have) = (self.normalized(), other.normalized());
        if want.os != have.os {
            return None;
        }
        let level = |platform: &Self| -> Option<u32> {
            let default = match platform.architecture.as_str() {
                "arm64" => "v8",
                "amd64" => "v1",
                _ => "",
            };
            let variant = if platform.variant.is_empty() {
                default
            } else {
                &platform.variant
            };
            variant
                .strip_prefix('v')
                .and_then(|digits| digits.split('.').next()?.parse().ok())
        };
        if want.architecture == have.architecture {
            if want.variant == have.variant {
                return Some(0);
            }
            return match (level(&want), level(&have)) {
                (Some(want), Some(have)) if have <= want => Some(want - have),
                _ => None,
            };
        }
        // Every arm64 that Linux runs on in practice executes 32-bit ARM as well; the index rarely says otherwise.
        match (
            want.architecture.as_str(),
            have.architecture.as_str(),
            level(&have),
        ) {
            ("arm64", "arm", Some(have)) if have <= 8 && want.variant.is_empty() => {
                Some(100 - have)
            }
            ("amd64", "386", _) => Some(100),
            _ => None,
        }
    }

    /// Tells whether content for `other` is what is meant by `self`: same system, processor and, if named, variant.
    pub fn matches(&self, other: &Self) -> bool {
        let (want, have) = (self.normalized(), other.normalized());
        want.os == have.os && want.architecture == have.architecture && want.variant == have.variant
    }
}

fn normalize_os(os: &str) -> String {
    match os.to_ascii_lowercase().as_str() {
        "" => "linux".to_owned(),
        "macos" => "darwin".to_owned(),
        other => other.to_owned(),
    }
}

fn normalize_architecture(architecture: &str, variant: &str) -> (String, String) {
    let (architecture, variant) = (
        architecture.to_ascii_lowercase(),
        variant.to_ascii_lowercase(),
    );
    let (architecture, variant) = match (architecture.as_str(), variant.as_str()) {
        ("i386", _) => ("386", ""),
        ("x86_64" | "x86-64" | "amd64", "v1") => ("amd64", ""),
        ("x86_64" | "x86-64", variant) => ("amd64", variant),
        ("aarch64" | "arm64", "8" | "v8" | "v8.0") => ("arm64", ""),
        ("aarch64", variant) => ("arm64", variant),
        ("armhf", _) => ("arm", "v7"),
        ("armel", _) => ("arm", "v6"),
        ("arm", "" | "7") => ("arm", "v7"),
        ("arm", "5") => ("arm", "v5"),
        ("arm", "6") => ("arm", "v6"),
        ("arm", "8") => ("arm", "v8"),
        (architecture, variant) => (architecture, variant),
    };
    (architecture.to_owned(), variant.to_owned())
}

impl FromStr for Platform {
    type Err = PlatformError;

    fn from_str(text: &str) -> Result<Self, PlatformError> {
        let parts: Vec<&str> = text.split('/').collect();
        for part in &parts {
            if part.is_empty()
                || !part
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'))
            {
                return Err(PlatformError::Component(
                    (*part).to_owned(),
                    text.to_owned(),
                ));
            }
        }
        match parts[..] {
            [one] => {
                let os = normalize_os(one);
                if SYSTEMS.contains(&os.as_str()) {
                    return Ok(Self::new(&os, std::env::consts::ARCH, ""));
                }
                let platform = Self::new("linux", one, "");
                if ARCHITECTURES.contains(&platform.architecture.as_str()) {
                    return Ok(platform);
                }
                Err(PlatformError::Unknown(text.to_owned()))
            }
            [os, architecture] => Ok(Self::new(os, architecture, "")),
            [os, architecture, variant] => Ok(Self::new(os, architecture, variant)),
            _ => Err(PlatformError::Format(text.to_owned())),
        }
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        if self.variant.is_empty() {
            Ok(())
        } else {
            write!(f, "/{}", self.variant)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_normalised() {
        for (text, shown) in [
            ("linux/x86_64", "linux/amd64"),
            ("linux/aarch64/v8", "linux/arm64"),
            ("linux/arm", "linux/arm/v7"),
            ("armhf", "linux/arm/v7"),
            ("s390x", "linux/s390x"),
            ("Linux/AMD64", "linux/amd64"),
            ("windows/amd64", "windows/amd64"),
        ] {
            assert_eq!(text.parse::<Platform>().unwrap().to_string(), shown);
        }
        assert_eq!("linux".parse::<Platform>().unwrap(), Platform::host());
        for text in ["", "a/b/c/d", "linux/", "nonsense", "linux/a d"] {
            assert!(text.parse::<Platform>().is_err(), "{text}");
        }
    }

    #[test]
    fn the_best_match_wins() {
        let rank = |want: &str, have: &str| {
            want.parse::<Platform>()
                .unwrap()
                .rank(&have.parse().unwrap())
        };
        assert_eq!(rank("linux/amd64", "linux/amd64"), Some(0));
        assert_eq!(rank("linux/amd64", "linux/arm64"), None);
        assert_eq!(rank("linux/amd64", "windows/amd64"), None);
        assert_eq!(rank("linux/arm/v7", "linux/arm/v6"), Some(1));
        assert_eq!(rank("linux/arm/v6", "linux/arm/v7"), None);
        assert_eq!(rank("linux/amd64", "linux/amd64/v3"), None);
        assert!(rank("linux/arm64", "linux/arm/v7") > rank("linux/arm64", "linux/arm64"));
    }
}
