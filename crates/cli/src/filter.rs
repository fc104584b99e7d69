//! The `--filter` flag.

use gantry_api::filters::Filters;

/// Parses one `key=value`; keys are lower-cased, both sides trimmed.
pub fn parse(value: &str) -> Result<Option<(String, String)>, String> {
    if value.is_empty() {
        return Ok(None);
    }
    let (key, value) = value
        .split_once('=')
        .ok_or_else(|| "bad format of filter (expected name=value)".to_owned())?;
    Ok(Some((key.trim().to_lowercase(), value.trim().to_owned())))
}

/// Collects the values of a flag; their form was checked when they were read.
pub fn collect(values: &[String]) -> Filters {
    let mut filters = Filters::default();
    for (key, value) in values
        .iter()
        .filter_map(|value| parse(value).ok().flatten())
    {
        filters.add(key, value);
    }
    filters
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters() {
        assert_eq!(
            parse("Status = exited"),
            Ok(Some(("status".to_owned(), "exited".to_owned())))
        );
        assert_eq!(
            parse("label=a=b"),
            Ok(Some(("label".to_owned(), "a=b".to_owned())))
        );
        assert_eq!(
            parse("x"),
            Err("bad format of filter (expected name=value)".to_owned())
        );
        assert_eq!(
            collect(&["status=exited".to_owned()]).to_json(),
            r#"{"status":{"exited":true}}"#
        );
    }
}
