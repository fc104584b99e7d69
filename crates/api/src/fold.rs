//! Keys in another case: Go's `encoding/json` takes `image` for `Image`, so Docker does.
//!
//! Owns [`Shaped`], which every wire struct implements, and the second reading of a body whose keys are not spelled as
//! in the API. A key that is a field's very name is that field, else the first field whose name differs in case alone;
//! the last of several that mean one field wins, and objects that mean one field become one; what is replaced must have
//! fitted all the same, for Go's decoder has read it. Keys of maps are the user's own and stay. What this does not do:
//! fold letters beyond ASCII, which no name of the API has.

use std::collections::{BTreeMap, HashSet};
use std::fmt;

use serde::de::{
    DeserializeOwned, DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess,
    Visitor,
};
use serde_json::{Map, Value};

/// Where names of the API are within a type's JSON.
pub enum Shape {
    /// Nowhere.
    Leaf,
    /// In each item of a list, or each value of a map whose keys are the user's.
    Each(fn() -> Shape, Check),
    /// In the keys.
    Object(Vec<Member>, Check),
}

/// Tells whether a value can be read as the type that has a shape.
pub type Check = fn(Value) -> Result<(), serde_json::Error>;

/// Is the [`Check`] of a type.
///
/// # Errors
/// What serde says of a value that does not fit.
pub fn fits<T: DeserializeOwned>(value: Value) -> Result<(), serde_json::Error> {
    T::deserialize(value).map(drop)
}

/// A field on the wire: its name, and the shape of its value.
pub type Member = (&'static str, fn() -> Shape);

/// Is known by the names in its JSON.
pub trait Shaped: DeserializeOwned {
    /// Returns the names.
    fn shape() -> Shape;

    /// Returns all names at any depth.
    fn names() -> &'static Names;
}

/// All names of one type, to tell quickly whether a text spells one in another case.
#[derive(Default)]
pub struct Names {
    exact: HashSet<&'static str>,
    lower: HashSet<String>,
}

impl Names {
    /// Collects the names of a shape.
    pub fn of(shape: &Shape) -> Names {
        let mut names = Names::default();
        names.collect(shape);
        names
    }

    fn collect(&mut self, shape: &Shape) {
        match shape {
            Shape::Leaf => {}
            Shape::Each(item, _) => self.collect(&item()),
            Shape::Object(members, _) => {
                for (name, value) in members {
                    self.exact.insert(name);
                    self.lower.insert(name.to_ascii_lowercase());
                    self.collect(&value());
                }
            }
        }
    }

    /// Tells whether some key of a JSON text is a name in another case, or has an escape and so may be anything.
    pub fn are_respelled_in(&self, json: &[u8]) -> bool {
        let mut rest = json;
        while let Some(begin) = rest.iter().position(|&byte| byte == b'"') {
            let text = &rest[begin + 1..];
            let (mut end, mut escaped) = (0, false);
            while let Some(&byte) = text.get(end).filter(|&&byte| byte != b'"') {
                escaped |= byte == b'\\';
                end += if byte == b'\\' { 2 } else { 1 };
            }
            let Some(after) = text.get(end + 1..) else {
                return false;
            };
            rest = after.trim_ascii_start();
            if rest.first() == Some(&b':') && (escaped || self.respells(&text[..end])) {
                return true;
            }
        }
        false
    }

    fn respells(&self, key: &[u8]) -> bool {
        let Ok(key) = std::str::from_utf8(key) else {
            return false;
        };
        !self.exact.contains(key) && self.lower.contains(&key.to_ascii_lowercase())
    }
}

/// Reads a body whose keys may be in another case: slower than serde, and for those alone.
///
/// # Errors
/// What is no JSON, has something behind it, or does not fit the type.
pub fn from_slice<T: Shaped + DeserializeOwned>(json: &[u8]) -> Result<T, serde_json::Error> {
    let mut deserializer = serde_json::Deserializer::from_slice(json);
    let value = Folded(&T::shape()).deserialize(&mut deserializer)?;
    deserializer.end()?;
    T::deserialize(value)
}

/// Reads a value of a shape with the names as the API spells them.
#[derive(Clone, Copy)]
struct Folded<'a>(&'a Shape);

impl<'de> DeserializeSeed<'de> for Folded<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        match self.0 {
            Shape::Leaf => serde::Deserialize::deserialize(deserializer),
            _ => deserializer.deserialize_any(self),
        }
    }
}

impl<'de> Visitor<'de> for Folded<'_> {
    type Value = Value;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("any JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let item = self.0.item();
        let mut list = Vec::new();
        while let Some(value) = items.next_element_seed(Folded(&item))? {
            list.push(value);
        }
        Ok(list.into())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let item = self.0.item();
        let mut object = Map::new();
        while let Some(key) = entries.next_key::<String>()? {
            let put = match self.0 {
                Shape::Object(..) => {
                    let Some((name, shape)) = self.0.member(&key) else {
                        // No type refuses what it does not know, and this may be most of a body.
                        entries.next_value::<IgnoredAny>()?;
                        continue;
                    };
                    let (key, shape) = (name.to_owned(), shape());
                    let value = entries.next_value_seed(Folded(&shape))?;
                    self.0.put(&shape, &mut object, key, value)
                }
                Shape::Each(..) | Shape::Leaf => {
                    let value = entries.next_value_seed(Folded(&item))?;
                    self.0.put(&item, &mut object, key, value)
                }
            };
            put.map_err(A::Error::custom)?;
        }
        Ok(object.into())
    }
}

impl Shape {
    /// Returns the shape of what a list has, or of the values of a map.
    fn item(&self) -> Shape {
        match self {
            Shape::Each(item, _) => item(),
            Shape::Leaf | Shape::Object(..) => Shape::Leaf,
        }
    }

    /// Returns the member that a key means.
    fn member(&self, key: &str) -> Option<Member> {
        let Shape::Object(members, _) = self else {
            return None;
        };
        let same = members.iter().find(|(name, _)| *name == key);
        let folded = || {
            let mut members = members.iter();
            members.find(|(name, _)| name.eq_ignore_ascii_case(key))
        };
        same.or_else(folded).copied()
    }

    /// Puts a member of the shape `inner` into an object of this one. Of two values that mean the same field the later
    /// goes into the earlier, as Go's decoder fills what is there already; entries of maps are replaced whole.
    fn put(
        &self,
        inner: &Shape,
        object: &mut Map<String, Value>,
        key: String,
        value: Value,
    ) -> Result<(), serde_json::Error> {
        let Some(known) = object.get_mut(&key) else {
            object.insert(key, value);
            return Ok(());
        };
        match (self, inner, known, value) {
            (
                Shape::Object(..),
                Shape::Object(..) | Shape::Each(..),
                Value::Object(known),
                Value::Object(more),
            ) => inner.merge(known, more),
            (_, _, known, value) => self.check(key, std::mem::replace(known, value)),
        }
    }

    /// Puts all members of one object of this shape into another; both have the names as the API spells them.
    fn merge(
        &self,
        known: &mut Map<String, Value>,
        more: Map<String, Value>,
    ) -> Result<(), serde_json::Error> {
        let item = self.item();
        for (key, value) in more {
            match self.member(&key) {
                Some((_, shape)) => self.put(&shape(), known, key, value)?,
                None => self.put(&item, known, key, value)?,
            }
        }
        Ok(())
    }

    /// Refuses a member that does not fit an object of this shape, whose place another one has taken.
    fn check(&self, key: String, replaced: Value) -> Result<(), serde_json::Error> {
        match self {
            // `null` leaves what is there.
            _ if replaced.is_null() => Ok(()),
            Shape::Leaf => Ok(()),
            // By its owner, which alone knows how it reads this member.
            Shape::Each(_, check) | Shape::Object(_, check) => {
                check(Value::Object(Map::from_iter([(key, replaced)])))
            }
        }
    }
}

/// Gives the names of a struct's fields to serde's own rules: a derived reader names them when it asks for the struct.
///
/// Empty for a type that asks for anything else, among them structs with flattened fields.
pub fn fields_of<T: DeserializeOwned>() -> &'static [&'static str] {
    let mut fields: &'static [&'static str] = &[];
    // An error in any case: nothing is read.
    let _ = T::deserialize(Probe(&mut fields));
    fields
}

/// A deserializer that has no value and keeps the names it is asked for.
struct Probe<'a>(&'a mut &'static [&'static str]);

impl<'de> Deserializer<'de> for Probe<'_> {
    type Error = serde::de::value::Error;

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Self::Error> {
        Err(serde::de::Error::custom("there are names alone"))
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Self::Error> {
        *self.0 = fields;
        self.deserialize_any(visitor)
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit unit_struct
        newtype_struct seq tuple tuple_struct map enum identifier ignored_any
    }
}

/// Implements [`Shaped`] for a type with these members.
macro_rules! shaped {
    ($name:ty, $shape:expr) => {
        impl crate::fold::Shaped for $name {
            fn shape() -> crate::fold::Shape {
                $shape
            }

            fn names() -> &'static crate::fold::Names {
                static NAMES: std::sync::LazyLock<crate::fold::Names> =
                    std::sync::LazyLock::new(|| {
                        crate::fold::Names::of(&<$name as crate::fold::Shaped>::shape())
                    });
                &NAMES
            }
        }
    };
}
pub(crate) use shaped;

/// A type without names of the API.
macro_rules! leaves {
    ($($name:ty),* $(,)?) => { $(shaped!($name, Shape::Leaf);)* };
}

leaves![
    bool,
    u8,
    u16,
    u32,
    u64,
    i64,
    f64,
    String,
    Value,
    crate::time::Timestamp,
    crate::wire::KeySet,
    crate::wire::StringList,
    // In answers alone, or with names that are not the API's.
    crate::exec::ExecProcessConfig,
    crate::oci::image::Descriptor,
    crate::platform::Platform,
];

/// A type whose names are those of what it holds.
macro_rules! holders {
    ($([$($parameters:tt)*] $name:ty = $shape:expr;)*) => {$(
        impl<$($parameters)*> Shaped for $name
        where
            $name: DeserializeOwned,
        {
            fn shape() -> Shape {
                $shape
            }

            fn names() -> &'static Names {
                T::names()
            }
        }
    )*};
}

holders! {
    [T: Shaped] Option<T> = T::shape();
    [T: Shaped] Vec<T> = Shape::Each(T::shape, fits::<Vec<T>>);
    // Serde has no reader for arrays of any length; their owner checks that.
    [T: Shaped, const N: usize] [T; N] = Shape::Each(T::shape, fits::<Vec<T>>);
    [T: Shaped] BTreeMap<String, T> = Shape::Each(T::shape, fits::<BTreeMap<String, T>>);
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::container::{ContainerCreateRequest, UpdateRequest};
    use crate::exec::{ExecCreateRequest, ExecStartRequest};
    use crate::image::AuthConfig;
    use crate::network::{NetworkConnectRequest, NetworkCreateRequest, NetworkDisconnectRequest};
    use crate::volume::VolumeCreateRequest;

    /// Reads as the API spells it and as it does not.
    fn check(json: &str, spelled: &str) {
        let wanted: ContainerCreateRequest = serde_json::from_str(spelled).unwrap();
        let got: ContainerCreateRequest = from_slice(json.as_bytes()).unwrap();
        assert_eq!(got, wanted, "{json}");
    }

    #[test]
    fn keys_mean_the_field_whose_name_differs_in_case_alone() {
        check(
            r#"{"image":"a","hostconfig":{"memory":5,"Restartpolicy":{"name":"no"},"MOUNTS":[{"type":"bind","Bindoptions":{"nonrecursive":true}}]}}"#,
            r#"{"Image":"a","HostConfig":{"Memory":5,"RestartPolicy":{"Name":"no"},"Mounts":[{"Type":"bind","BindOptions":{"NonRecursive":true}}]}}"#,
        );
        check(
            r#"{"networkingconfig":{"endpointsconfig":{"n":{"ipamconfig":{"Ipv4address":"1.2.3.4"},"networkid":"x"}}}}"#,
            r#"{"NetworkingConfig":{"EndpointsConfig":{"n":{"IPAMConfig":{"IPv4Address":"1.2.3.4"},"NetworkID":"x"}}}}"#,
        );
        check(
            r#"{"\u0069mage":"a","nothing":{"image":1},"env":null,"cmd":"x"}"#,
            r#"{"Image":"a","Env":null,"Cmd":["x"]}"#,
        );
    }

    #[test]
    fn keys_of_maps_are_the_users() {
        check(
            r#"{"labels":{"image":"1","Image":"2"},"exposedports":{"80/TCP":{}},"hostconfig":{"sysctls":{"Memory":"1"},"portbindings":{"80/tcp":[{"hostport":"1"}]},"logconfig":{"config":{"TYPE":"x"}}}}"#,
            r#"{"Labels":{"image":"1","Image":"2"},"ExposedPorts":{"80/TCP":{}},"HostConfig":{"Sysctls":{"Memory":"1"},"PortBindings":{"80/tcp":[{"HostPort":"1"}]},"LogConfig":{"Config":{"TYPE":"x"}}}}"#,
        );
    }

    #[test]
    fn the_last_of_one_field_wins_and_objects_become_one() {
        check(
            r#"{"Image":"a","image":"b","Tty":true,"tty":false,"Image":"c"}"#,
            r#"{"Image":"c","Tty":false}"#,
        );
        check(
            r#"{"HostConfig":{"Memory":1,"Sysctls":{"net.a":"1"}},"hostconfig":{"cpushares":2,"sysctls":{"net.b":"2"}},"Labels":{"x":"1"},"labels":null}"#,
            r#"{"HostConfig":{"Memory":1,"CpuShares":2,"Sysctls":{"net.a":"1","net.b":"2"}},"Labels":null}"#,
        );
    }

    #[test]
    fn entries_of_maps_are_replaced_whole() {
        check(
            r#"{"NetworkingConfig":{"EndpointsConfig":{"n":{"Aliases":["a"]},"n":{"networkid":"x"}}}}"#,
            r#"{"NetworkingConfig":{"EndpointsConfig":{"n":{"NetworkID":"x"}}}}"#,
        );
    }

    #[test]
    fn what_is_replaced_must_have_fitted() {
        for json in [
            r#"{"Tty":"x","Tty":true}"#,
            r#"{"Tty":true,"Tty":"x","tty":true}"#,
            r#"{"HostConfig":"x","HostConfig":{"Memory":1}}"#,
            r#"{"HostConfig":{"Memory":"x"},"HostConfig":{"Memory":1}}"#,
            r#"{"HostConfig":{"Memory":"x"},"HostConfig":null}"#,
            r#"{"HostConfig":{"Memory":"x","memory":1}}"#,
            r#"{"HostConfig":{"CapAdd":{"a":"b"}},"HostConfig":{"CapAdd":["x"]}}"#,
            r#"{"HostConfig":{"PortBindings":{"80/tcp":[{"HostPort":1}]},"PortBindings":{"80/tcp":[]}}}"#,
            r#"{"Labels":{"a":1},"Labels":{"a":"b"}}"#,
            r#"{"Labels":{"a":1,"a":"b"}}"#,
            r#"{"Cmd":7,"Cmd":["x"]}"#,
            r#"{"Cmd":[7],"cmd":["x"]}"#,
            r#"{"Env":["x",7],"Env":["x"]}"#,
            r#"{"HostConfig":{"ConsoleSize":["x"],"ConsoleSize":[1,2]}}"#,
        ] {
            let read = from_slice::<ContainerCreateRequest>(json.as_bytes());
            assert!(read.is_err(), "{json}");
        }
        check(
            r#"{"Tty":null,"Tty":true,"HostConfig":null,"HostConfig":{"ConsoleSize":[1,2],"consolesize":[3,4]}}"#,
            r#"{"Tty":true,"HostConfig":{"ConsoleSize":[3,4]}}"#,
        );
    }

    #[test]
    fn the_shape_of_a_maps_values_is_made_once() {
        static MADE: AtomicUsize = AtomicUsize::new(0);
        fn value() -> Shape {
            MADE.fetch_add(1, Ordering::Relaxed);
            Shape::Object(vec![("Name", || Shape::Leaf)], |_| Ok(()))
        }
        let entries: Vec<String> = (0..1000)
            .map(|number| format!(r#""{number}":{{"name":{number}}}"#))
            .collect();
        let json = format!("{{{}}}", entries.join(","));
        let shape = Shape::Each(value, |_| Ok(()));
        let read = Folded(&shape)
            .deserialize(&mut serde_json::Deserializer::from_str(&json))
            .unwrap();
        assert_eq!(read["999"], serde_json::json!({"Name": 999}));
        assert_eq!(MADE.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn nothing_is_kept_of_what_no_field_is_named() {
        let shape = ContainerCreateRequest::shape();
        let json = r#"{"image":"a","nothing":[{"image":1}],"nothing":2,"hostconfig":{"x":[1]}}"#;
        let read = Folded(&shape)
            .deserialize(&mut serde_json::Deserializer::from_str(json))
            .unwrap();
        assert_eq!(read, serde_json::json!({"Image": "a", "HostConfig": {}}));
    }

    /// A body as large as the daemon takes, of what costs the most for each of its bytes.
    #[test]
    fn large_bodies_are_read_in_good_time() {
        const SIZE: usize = 8 << 20;
        for (begin, entry, end) in [
            (
                r#"{"networkingconfig":{"EndpointsConfig":{"#,
                r#""":{},"#,
                r#""x":{}}}}"#,
            ),
            (r#"{"image":"a","#, r#""":[],"#, r#""x":[]}"#),
            (r#"{"image":"a","#, r#""Tty":true,"#, r#""tty":true}"#),
        ] {
            let many = entry.repeat((SIZE - begin.len() - end.len()) / entry.len());
            let json = format!("{begin}{many}{end}");
            let begun = std::time::Instant::now();
            from_slice::<ContainerCreateRequest>(json.as_bytes()).unwrap();
            // Ten times and more what a slow machine needs; a shape for each entry would be as much again and again.
            assert!(begun.elapsed().as_secs() < 120, "{entry}");
        }
    }

    #[test]
    fn what_is_spelled_otherwise_is_seen_and_nothing_else() {
        let names = ContainerCreateRequest::names();
        for (json, respelled) in [
            (r#"{"Image":"image","Labels":{"a":"hostconfig"}}"#, false),
            // The user's own key costs the second reading, which leaves it alone.
            (r#"{"Labels":{"image":""}}"#, true),
            (r#"{"Image" : "a\"", "image" : 1}"#, true),
            (r#"{"Unknown":1,"x":["image"]}"#, false),
            (
                r#"{"HostConfig":{"PortBindings":{"80/tcp":[{"HostIP":""}]}}}"#,
                true,
            ),
            (r#"{"\u0049mage":"a"}"#, true),
            (r#"{"Image":"a"#, false),
            (r#"{"Image":"a\"#, false),
            ("", false),
        ] {
            assert_eq!(names.are_respelled_in(json.as_bytes()), respelled, "{json}");
        }
    }

    #[test]
    fn what_is_no_json_or_does_not_fit_is_refused() {
        for json in ["", "{", r#"{"image":7}"#, r#"{"image":"a"} x"#, "[]"] {
            assert!(
                from_slice::<ContainerCreateRequest>(json.as_bytes()).is_err(),
                "{json}"
            );
        }
        let nothing: Option<ContainerCreateRequest> = from_slice(b" null ").unwrap();
        assert_eq!(nothing, None);
    }

    /// A name in the wrong place would not be seen if another type had it in another case.
    #[test]
    fn no_request_has_one_name_in_two_cases() {
        let all: [&'static Names; 9] = [
            ContainerCreateRequest::names(),
            UpdateRequest::names(),
            ExecCreateRequest::names(),
            ExecStartRequest::names(),
            NetworkCreateRequest::names(),
            NetworkConnectRequest::names(),
            NetworkDisconnectRequest::names(),
            VolumeCreateRequest::names(),
            AuthConfig::names(),
        ];
        for names in all {
            assert!(!names.exact.is_empty());
            assert_eq!(names.exact.len(), names.lower.len(), "{:?}", names.exact);
        }
    }
}
