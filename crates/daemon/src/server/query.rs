//! Query parameters, read as Docker reads them.

use gantry_api::error::ApiError;
use percent_encoding::percent_decode_str;

/// The parameters of one request, in the order that they came in.
#[derive(Clone, Debug, Default)]
pub struct Query(Vec<(String, String)>);

impl Query {
    /// Reads `a=1&b=2`; a pair with a bad escape is skipped.
    pub fn parse(text: &str) -> Self {
        let decode = |part: &str| {
            let spaced = part.replace('+', " ");
            percent_decode_str(&spaced)
                .decode_utf8()
                .map(|text| text.into_owned())
        };
        let pairs = text
            .split('&')
            .filter(|pair| !pair.is_empty())
            .filter_map(|pair| {
                let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
                Some((decode(name).ok()?, decode(value).ok()?))
            });
        Self(pairs.collect())
    }

    /// Gives a parameter's first value, empty if it is absent.
    pub fn text(&self, name: &str) -> &str {
        self.0
            .iter()
            .find(|(key, _)| key == name)
            .map_or("", |(_, value)| value)
    }

    /// Gives a parameter's first value if it is there and not empty.
    pub fn non_empty(&self, name: &str) -> Option<&str> {
        Some(self.text(name)).filter(|value| !value.is_empty())
    }

    /// Gives all values of a parameter.
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> + 'a {
        self.0
            .iter()
            .filter(move |(key, _)| key == name)
            .map(|(_, value)| value.as_str())
    }

    /// Tells whether a parameter is there, with whatever value.
    pub fn contains(&self, name: &str) -> bool {
        self.0.iter().any(|(key, _)| key == name)
    }

    /// Reads a truth value: empty, `0`, `no`, `false` and `none` are false, all else is true.
    pub fn flag(&self, name: &str) -> bool {
        !matches!(
            self.text(name).trim().to_ascii_lowercase().as_str(),
            "" | "0" | "no" | "false" | "none"
        )
    }

    /// Reads a truth value that has a default when absent.
    pub fn flag_or(&self, name: &str, default: bool) -> bool {
        if self.contains(name) {
            self.flag(name)
        } else {
            default
        }
    }

    /// Reads a whole number; absent is `None`, another text is refused as Go's `strconv` does.
    pub fn integer(&self, name: &str) -> Result<Option<i64>, ApiError> {
        match self.non_empty(name) {
            None => Ok(None),
            Some(text) => match text.parse() {
                Ok(number) => Ok(Some(number)),
                Err(_) => Err(ApiError::invalid(format!(
                    "strconv.Atoi: parsing {}: invalid syntax",
                    quoted(text)
                ))),
            },
        }
    }
}

/// Quotes a text as Go's `%q` does, for the characters that error texts meet.
pub fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            '\r' => out.push_str("\\r"),
            c if c.is_control() => out.push_str(&format!("\\x{:02x}", c as u32)),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_decoded() {
        let query = Query::parse("a=1&filters=%7B%22x%22%3A1%7D&names=a&names=b%2Fc&e&p=a+b");
        assert_eq!(query.text("a"), "1");
        assert_eq!(query.text("filters"), r#"{"x":1}"#);
        assert_eq!(query.all("names").collect::<Vec<_>>(), ["a", "b/c"]);
        assert_eq!(query.text("p"), "a b");
        assert!(query.contains("e") && !query.flag("e"));
    }

    #[test]
    fn truth_is_dockers() {
        for (text, want) in [
            ("", false),
            ("0", false),
            ("No", false),
            (" FALSE ", false),
            ("none", false),
            ("1", true),
            ("x", true),
        ] {
            let query = Query(vec![("f".to_owned(), text.to_owned())]);
            assert_eq!(query.flag("f"), want, "{text:?}");
        }
        assert!(Query::default().flag_or("f", true));
        assert!(!Query::parse("f=0").flag_or("f", true));
    }

    #[test]
    fn numbers() {
        let query = Query::parse("t=-1&x=ten");
        assert_eq!(query.integer("t"), Ok(Some(-1)));
        assert_eq!(query.integer("none"), Ok(None));
        assert_eq!(
            query.integer("x").unwrap_err().message,
            "strconv.Atoi: parsing \"ten\": invalid syntax"
        );
    }
}
