//! Identifiers: 64 lower-case hexadecimal digits, a type for each kind of object.
//!
//! Randomness comes from the caller as bytes, because this crate does no input. An id whose first twelve digits are
//! all decimal is refused by [`from_random`](ContainerId::from_random): the short form would pass for a number, for
//! example as a host name.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// Says that a text is not 64 lower-case hexadecimal digits.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not an id of 64 hexadecimal digits")]
pub struct InvalidId(pub String);

/// Tells whether a text is 64 lower-case hexadecimal digits.
pub fn is_full_id(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

/// Writes bytes as lower-case hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        text.push(char::from(DIGITS[usize::from(byte >> 4)]));
        text.push(char::from(DIGITS[usize::from(byte & 15)]));
    }
    text
}

/// Cuts an id to the twelve digits that people see; drops a `sha256:` in front.
pub fn short(id: &str) -> &str {
    let digits = id.strip_prefix("sha256:").unwrap_or(id);
    digits.get(..12).unwrap_or(digits)
}

macro_rules! id {
    ($($(#[$meta:meta])* $name:ident $(, $prefix:literal)?;)*) => {$(
        $(#[$meta])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(Box<str>);

        impl $name {
            /// Makes an id of 32 random bytes; `None` asks for others, because the short form would be all decimal.
            pub fn from_random(bytes: &[u8; 32]) -> Option<Self> {
                let text = hex(bytes);
                if text.as_bytes()[..12].iter().all(u8::is_ascii_digit) { None } else { Some(Self(text.into())) }
            }
            /// Gives the 64 digits.
            pub fn as_str(&self) -> &str {
                &self.0
            }
            /// Gives the first twelve digits.
            pub fn short(&self) -> &str {
                &self.0[..12]
            }
        }

        impl TryFrom<String> for $name {
            type Error = InvalidId;
            fn try_from(text: String) -> Result<Self, InvalidId> {
                let digits = text.as_str();
                $(let digits = digits.strip_prefix($prefix).unwrap_or(digits);)?
                if is_full_id(digits) { Ok(Self(digits.into())) } else { Err(InvalidId(text)) }
            }
        }
        impl FromStr for $name {
            type Err = InvalidId;
            fn from_str(text: &str) -> Result<Self, InvalidId> {
                Self::try_from(text.to_owned())
            }
        }
        impl From<$name> for String {
            fn from(id: $name) -> String {
                id.0.into()
            }
        }
        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.short())
            }
        }
    )*};
}

id! {
    /// Names a container.
    ContainerId;
    /// Names an exec of a container.
    ExecId;
    /// Names a network.
    NetworkId;
    /// Names a container's endpoint on a network.
    EndpointId;
    /// Names an image by the 64 digits of its configuration's sha256; the wire form has `sha256:` in front, and both
    /// forms are read.
    ImageId, "sha256:";
}

impl ImageId {
    /// Gives the form of the wire, `sha256:` and the digits.
    pub fn to_digest(&self) -> String {
        format!("sha256:{}", self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_64_lower_case_digits() {
        let digits = "0123456789abcdef".repeat(4);
        assert_eq!(
            digits.parse::<ContainerId>().unwrap().short(),
            "0123456789ab"
        );
        for wrong in [
            "",
            "abc",
            &digits[1..],
            &digits.to_uppercase(),
            &format!("{digits}0"),
        ] {
            assert!(wrong.parse::<ContainerId>().is_err(), "{wrong}");
        }
        assert!(serde_json::from_str::<ContainerId>("\"x\"").is_err());
    }

    #[test]
    fn random_ids_whose_short_form_is_a_number_are_refused() {
        assert!(ContainerId::from_random(&[0x11; 32]).is_none());
        assert_eq!(
            ContainerId::from_random(&[0xab; 32]).unwrap().as_str(),
            "ab".repeat(32)
        );
    }

    #[test]
    fn an_image_id_is_read_with_and_without_its_algorithm() {
        let digits = "0123456789abcdef".repeat(4);
        let id: ImageId = format!("sha256:{digits}").parse().unwrap();
        assert_eq!(id.as_str(), digits);
        assert_eq!(id, digits.parse().unwrap());
        assert_eq!(id.to_digest(), format!("sha256:{digits}"));
        assert!(format!("sha256:{digits}").parse::<ContainerId>().is_err());
    }

    #[test]
    fn short_drops_the_algorithm() {
        assert_eq!(short("sha256:0123456789abcdef"), "0123456789ab");
        assert_eq!(short("abc"), "abc");
    }
}
