//! How Go's `encoding/json` reads and writes, as far as the Docker API shows it.
//!
//! Owns the [`wire!`] macro with which every wire struct is declared: names in PascalCase unless renamed, a missing or
//! `null` member is the zero value, unknown members are skipped. A Go slice or map that may be `null` is an `Option`;
//! a pointer is an `Option` too. Writing is left to the fields' own `skip_serializing_if` (Go's `omitempty`).

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::collections::{BTreeMap, BTreeSet};

/// Reads `null` as the zero value, as Go's decoder leaves a member untouched on `null`.
pub(crate) fn null_as_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::<T>::deserialize(deserializer)?.unwrap_or_default())
}

/// Tells whether a value is Go's zero value, for `omitempty`.
pub(crate) fn is_zero<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// Tells a `string or list of strings` apart when reading; always written as a list. Go's `strslice.StrSlice`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct StringList(pub Vec<String>);

impl<'de> Deserialize<'de> for StringList {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Either {
            One(String),
            Many(Vec<String>),
        }
        Ok(Self(match Either::deserialize(deserializer)? {
            Either::One(text) => vec![text],
            Either::Many(list) => list,
        }))
    }
}

impl std::ops::Deref for StringList {
    type Target = Vec<String>;
    fn deref(&self) -> &Vec<String> {
        &self.0
    }
}

impl From<Vec<String>> for StringList {
    fn from(list: Vec<String>) -> Self {
        Self(list)
    }
}

/// Is a set that travels as an object with empty objects for values, `{"80/tcp":{}}`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeySet(pub BTreeSet<String>);

impl Serialize for KeySet {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Empty {}
        serializer.collect_map(self.0.iter().map(|key| (key, Empty {})))
    }
}

impl<'de> Deserialize<'de> for KeySet {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let map = BTreeMap::<String, serde::de::IgnoredAny>::deserialize(deserializer)?;
        Ok(Self(map.into_keys().collect()))
    }
}

impl std::ops::Deref for KeySet {
    type Target = BTreeSet<String>;
    fn deref(&self) -> &BTreeSet<String> {
        &self.0
    }
}

impl FromIterator<String> for KeySet {
    fn from_iter<I: IntoIterator<Item = String>>(keys: I) -> Self {
        Self(keys.into_iter().collect())
    }
}

/// Declares wire structs; see the module's head.
///
/// `field: Type = omitempty,` leaves the field out when it is zero. An embedded Go struct is written as
/// `@flatten name: Type,` between the other fields.
macro_rules! wire {
    ($(
        $(#[$meta:meta])*
        pub struct $name:ident {
            $( $(#[$field_meta:meta])* $field:ident : $ty:ty $(= $omit:ident)?, )*
            $( @flatten $flat:ident : $flat_ty:ty,
               $( $(#[$after_meta:meta])* $after:ident : $after_ty:ty $(= $after_omit:ident)?, )* )?
        }
    )*) => {$(
        $(#[$meta])*
        #[derive(Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
        #[serde(rename_all = "PascalCase", default)]
        pub struct $name {
            $(
                $(#[$field_meta])*
                $(
                    #[doc = concat!("(`", stringify!($omit), "`)")]
                    #[serde(skip_serializing_if = "crate::wire::is_zero")]
                )?
                #[serde(deserialize_with = "crate::wire::null_as_default")]
                pub $field: $ty,
            )*
            $(
                #[serde(flatten)]
                pub $flat: $flat_ty,
                $(
                    $(#[$after_meta])*
                    $(
                        #[doc = concat!("(`", stringify!($after_omit), "`)")]
                        #[serde(skip_serializing_if = "crate::wire::is_zero")]
                    )?
                    #[serde(deserialize_with = "crate::wire::null_as_default")]
                    pub $after: $after_ty,
                )*
            )?
        }

        crate::fold::shaped!($name, {
            // Has the names of the fields, and no reader of its own for what is flattened.
            #[derive(Default, serde::Deserialize)]
            #[serde(rename_all = "PascalCase", default)]
            #[allow(dead_code, reason = "asked for its names alone")]
            struct Own {
                $( $(#[$field_meta])* $field: serde::de::IgnoredAny, )*
                $( $( $(#[$after_meta])* $after: serde::de::IgnoredAny, )* )?
            }
            let shapes: &[fn() -> crate::fold::Shape] = &[
                $( <$ty as crate::fold::Shaped>::shape, )*
                $( $( <$after_ty as crate::fold::Shaped>::shape, )* )?
            ];
            let names = crate::fold::fields_of::<Own>().iter().copied();
            #[allow(unused_mut, reason = "only some structs have a flattened one")]
            let mut members: Vec<crate::fold::Member> = names.zip(shapes.iter().copied()).collect();
            $(
                if let crate::fold::Shape::Object(inner, _) = <$flat_ty as crate::fold::Shaped>::shape() {
                    members.extend(inner);
                }
            )?
            crate::fold::Shape::Object(members, crate::fold::fits::<$name>)
        });
    )*};
}
pub(crate) use wire;

#[cfg(test)]
mod tests {
    use super::*;

    wire! {
        /// Is embedded.
        pub struct Inner {
            shares: i64,
        }
        /// Has one field of each kind.
        pub struct Outer {
            id: String,
            list: Option<Vec<String>>,
            note: String = omitempty,
            command: Option<StringList>,
            ports: KeySet,
            @flatten inner: Inner,
            last: bool,
        }
    }

    #[test]
    fn nulls_and_missing_members_are_zero_and_unknown_ones_are_skipped() {
        let read: Outer = serde_json::from_str(
            r#"{"Id":null,"Shares":null,"Last":null,"Ports":null,"Else":{"a":[1]}}"#,
        )
        .unwrap();
        assert_eq!(read, Outer::default());
    }

    #[test]
    fn order_and_omission_are_gos() {
        assert_eq!(
            serde_json::to_string(&Outer::default()).unwrap(),
            r#"{"Id":"","List":null,"Command":null,"Ports":{},"Shares":0,"Last":false}"#
        );
    }

    #[test]
    fn a_command_may_be_a_string() {
        let read: Outer =
            serde_json::from_str(r#"{"Command":"ls -l","Ports":{"80/tcp":{},"1/udp":null}}"#)
                .unwrap();
        assert_eq!(
            serde_json::to_string(&read).unwrap(),
            r#"{"Id":"","List":null,"Command":["ls -l"],"Ports":{"1/udp":{},"80/tcp":{}},"Shares":0,"Last":false}"#
        );
    }
}
