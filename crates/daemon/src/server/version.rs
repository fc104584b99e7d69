//! API versions: the range that is served, and the path prefix.

/// The oldest version that is served.
pub const MIN: ApiVersion = ApiVersion(24);
/// The newest version that is served, and the one of requests without a version.
pub const MAX: ApiVersion = ApiVersion(51);

/// The Docker Engine version whose behaviour this daemon follows; clients see it in the `Server` header.
pub const ENGINE_VERSION: &str = "28.5.2";

/// A version `1.N` of the API.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ApiVersion(u8);

impl ApiVersion {
    /// Names version 1.`minor`.
    #[cfg(test)]
    pub const fn minor(minor: u8) -> Self {
        Self(minor)
    }

    /// Tells whether this version is older than 1.`minor`.
    pub const fn is_before(self, minor: u8) -> bool {
        self.0 < minor
    }
}

impl std::fmt::Display for ApiVersion {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "1.{}", self.0)
    }
}

/// Says why a version is not served, with Docker's text.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unserved {
    #[error(
        "client version {0} is too old. Minimum supported API version is {MIN}, please upgrade your client to a newer version"
    )]
    TooOld(String),
    #[error("client version {0} is too new. Maximum supported API version is {MAX}")]
    TooNew(String),
}

/// Splits `/v1.NN/rest` into the version, if it is served, and `/rest`; a path without a version is of the newest.
pub fn split(path: &str) -> (Result<ApiVersion, Unserved>, &str) {
    let Some(tail) = path.strip_prefix("/v") else {
        return (Ok(MAX), path);
    };
    let end = tail.find('/').unwrap_or(tail.len());
    let (version, rest) = tail.split_at(end);
    if version.is_empty()
        || rest.is_empty()
        || !version.bytes().all(|b| b.is_ascii_digit() || b == b'.')
    {
        return (Ok(MAX), path);
    }
    (served(version), rest)
}

fn served(version: &str) -> Result<ApiVersion, Unserved> {
    let parts: Vec<u64> = version
        .split('.')
        .map(|part| part.parse().unwrap_or(u64::MAX))
        .collect();
    let key = (
        parts.first().copied().unwrap_or(0),
        parts.get(1).copied().unwrap_or(0),
    );
    if key < (1, u64::from(MIN.0)) {
        return Err(Unserved::TooOld(version.to_owned()));
    }
    match u8::try_from(key.1) {
        Ok(minor) if key.0 == 1 && minor <= MAX.0 => Ok(ApiVersion(minor)),
        _ => Err(Unserved::TooNew(version.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_split_into_version_and_rest() {
        assert_eq!(split("/_ping"), (Ok(MAX), "/_ping"));
        assert_eq!(split("/v1.24/info"), (Ok(ApiVersion(24)), "/info"));
        assert_eq!(
            split("/v1.51/containers/json"),
            (Ok(MAX), "/containers/json")
        );
        assert_eq!(split("/volumes"), (Ok(MAX), "/volumes"));
        assert_eq!(split("/version"), (Ok(MAX), "/version"));
        assert_eq!(split("/v1.23/info").1, "/info");
    }

    #[test]
    fn versions_out_of_range_are_refused_with_dockers_texts() {
        assert_eq!(
            split("/v1.12/info").0.unwrap_err().to_string(),
            "client version 1.12 is too old. Minimum supported API version is 1.24, please upgrade your client to a newer version"
        );
        assert_eq!(
            split("/v1.99/info").0.unwrap_err().to_string(),
            "client version 1.99 is too new. Maximum supported API version is 1.51"
        );
        assert!(
            split("/v2/info")
                .0
                .unwrap_err()
                .to_string()
                .contains("too new")
        );
        assert!(
            split("/v0.9/info")
                .0
                .unwrap_err()
                .to_string()
                .contains("too old")
        );
    }
}
