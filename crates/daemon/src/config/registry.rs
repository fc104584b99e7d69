//! What the daemon is told of registries and of the images that it may remove by itself. All of it can change in a
//! running daemon (SIGHUP).

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use gantry_engine::image::GcPolicy;

use super::parse::{Value, Values, parse_bool, parse_size};
use super::{Invalid, integer, list, text};

/// Downloads and uploads at once, and tries of one request, as Docker's.
const DOWNLOADS_DEFAULT: usize = 3;
const UPLOADS_DEFAULT: usize = 5;
const ATTEMPTS_DEFAULT: u32 = 5;
/// What is insecure without being told.
const LOOPBACK: [&str; 2] = ["::1/128", "127.0.0.0/8"];

/// Registries and what is done with what comes from them.
#[derive(Clone, Debug, PartialEq)]
pub struct Registries {
    /// With a slash at the end.
    pub mirrors: Vec<String>,
    /// `host[:port]`.
    pub insecure_hosts: Vec<String>,
    /// `address/bits`, loopback at the end.
    pub insecure_networks: Vec<String>,
    pub proxies: Proxies,
    pub downloads_max: usize,
    pub uploads_max: usize,
    pub attempts_max: u32,
    pub signature_policy: Option<PathBuf>,
    pub image_gc: GcPolicy,
}

/// Proxies as they were given: options go before the environment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Proxies {
    pub http: String,
    pub https: String,
    pub no_proxy: String,
}

/// Reads what the options say; the environment is asked for the proxies.
pub fn settings(values: &Values) -> Result<Registries, Invalid> {
    let mut mirrors: Vec<String> = Vec::new();
    for mirror in list(values, "registry-mirror") {
        let mirror = parse_mirror(&mirror)?;
        if !mirrors.contains(&mirror) {
            mirrors.push(mirror);
        }
    }
    let (mut insecure_hosts, mut insecure_networks) = (Vec::new(), Vec::new());
    for registry in list(values, "insecure-registry") {
        // Docker takes an address with a scheme, too.
        let bare = ["http://", "https://"]
            .iter()
            .find_map(|scheme| registry.strip_prefix(scheme))
            .unwrap_or(&registry);
        if bare.contains("://") {
            return Err(Invalid(format!(
                "insecure registry {registry} should not contain '://'"
            )));
        }
        if bare.starts_with('-') || bare.ends_with('-') {
            return Err(Invalid(format!(
                "invalid index name ({bare}). Cannot begin or end with a hyphen"
            )));
        }
        let places = match is_network(bare) {
            true => &mut insecure_networks,
            false => &mut insecure_hosts,
        };
        if !places.iter().any(|known| known == bare) {
            places.push(bare.to_owned());
        }
    }
    for network in LOOPBACK.map(str::to_owned) {
        if !insecure_networks.contains(&network) {
            insecure_networks.push(network);
        }
    }
    let count = |name: &str, shown: &str| match integer(values, name) {
        None | Some(0) => Ok(None),
        Some(number) => usize::try_from(number)
            .map(Some)
            .map_err(|_| Invalid(format!("invalid {shown}: {number}"))),
    };
    let attempts = count("max-download-attempts", "max download attempts")?;
    let proxy = |option: &str, variables: [&str; 2]| {
        let given = text(values, option).filter(|value| !value.is_empty());
        given.map(str::to_owned).unwrap_or_else(|| {
            let found = variables
                .into_iter()
                .find_map(|name| std::env::var(name).ok().filter(|value| !value.is_empty()));
            found.unwrap_or_default()
        })
    };
    Ok(Registries {
        mirrors,
        insecure_hosts,
        insecure_networks,
        proxies: Proxies {
            http: proxy("http-proxy", ["HTTP_PROXY", "http_proxy"]),
            https: proxy("https-proxy", ["HTTPS_PROXY", "https_proxy"]),
            no_proxy: proxy("no-proxy", ["NO_PROXY", "no_proxy"]),
        },
        downloads_max: count("max-concurrent-downloads", "max concurrent downloads")?
            .unwrap_or(DOWNLOADS_DEFAULT),
        uploads_max: count("max-concurrent-uploads", "max concurrent uploads")?
            .unwrap_or(UPLOADS_DEFAULT),
        attempts_max: attempts
            .and_then(|count| u32::try_from(count).ok())
            .unwrap_or(ATTEMPTS_DEFAULT),
        signature_policy: text(values, "signature-policy")
            .filter(|path| !path.is_empty())
            .map(PathBuf::from),
        image_gc: match values.get("image-gc") {
            Some(Value::Map(settings)) => parse_gc(settings)?,
            _ => GcPolicy::default(),
        },
    })
}

/// Checks a mirror's address and ends it with a slash.
fn parse_mirror(mirror: &str) -> Result<String, Invalid> {
    let invalid = |why: String| Err(Invalid(format!("invalid mirror: {why}")));
    let Some((scheme, rest)) = mirror.split_once("://") else {
        return invalid(format!(
            "no scheme specified for \"{mirror}\": must use either 'https://' or 'http://'"
        ));
    };
    if !matches!(scheme, "http" | "https") {
        return invalid(format!(
            "unsupported scheme \"{scheme}\" in \"{mirror}\": must use either 'https://' or 'http://'"
        ));
    }
    if rest.contains(['?', '#']) {
        return invalid(format!("query or fragment at end of the URI \"{mirror}\""));
    }
    let authority = rest.split('/').next().unwrap_or_default();
    if let Some((user, host)) = authority.rsplit_once('@') {
        // The password stays out of the message.
        let user = user.split(':').next().unwrap_or_default();
        let path = &rest[authority.len()..];
        return invalid(format!(
            "username/password not allowed in URI \"{scheme}://{user}:xxxxx@{host}{path}\""
        ));
    }
    Ok(format!("{}/", mirror.trim_end_matches('/')))
}

fn is_network(text: &str) -> bool {
    text.split_once('/').is_some_and(|(address, bits)| {
        let bits_max = match address.parse::<std::net::IpAddr>() {
            Ok(std::net::IpAddr::V4(_)) => 32,
            Ok(std::net::IpAddr::V6(_)) => 128,
            Err(_) => return false,
        };
        bits.parse::<u8>().is_ok_and(|bits| bits <= bits_max)
    })
}

/// Reads the settings of `image-gc`; what is not given keeps its default.
fn parse_gc(settings: &BTreeMap<String, String>) -> Result<GcPolicy, Invalid> {
    let mut policy = GcPolicy::default();
    for (key, value) in settings {
        let wrong = |what: &str| {
            Invalid(format!(
                "invalid image-gc: \"{value}\" is no {what} for {key}"
            ))
        };
        let truth = || parse_bool(value).ok_or_else(|| wrong("truth value"));
        let duration = || parse_duration(value).ok_or_else(|| wrong("duration"));
        let percent = || {
            let number = value.trim_end_matches('%').parse::<u8>().ok();
            number
                .filter(|percent| (1..=99).contains(percent))
                .map(Some)
                .ok_or_else(|| wrong("percentage from 1 to 99"))
        };
        match key.as_str() {
            "enabled" => policy.enabled = truth()?,
            "tagged" => policy.tagged = truth()?,
            "unused-for" => policy.unused_for = duration()?,
            "high-watermark" => policy.high_watermark_percent = percent()?,
            "low-watermark" => policy.low_watermark_percent = percent()?,
            "interval" => {
                policy.interval = duration()?;
                if policy.interval < Duration::from_secs(1) {
                    return Err(wrong("interval of at least 1s"));
                }
            }
            "keep-blobs" => {
                let bytes = parse_size(value).and_then(|bytes| u64::try_from(bytes).ok());
                policy.keep_blobs_bytes = bytes.ok_or_else(|| wrong("size"))?;
            }
            "partials-for" => policy.partials_for = duration()?,
            _ => {
                return Err(Invalid(format!("invalid image-gc: unknown setting {key}")));
            }
        }
    }
    match (policy.high_watermark_percent, policy.low_watermark_percent) {
        (None, Some(_)) => Err(Invalid(
            "invalid image-gc: low-watermark needs a high-watermark".to_owned(),
        )),
        (Some(high), Some(low)) if low > high => Err(Invalid(
            "invalid image-gc: low-watermark is above high-watermark".to_owned(),
        )),
        _ => Ok(policy),
    }
}

/// Reads durations such as `90s`, `1h30m`, `14d`; whole numbers of days, hours, minutes and seconds.
fn parse_duration(text: &str) -> Option<Duration> {
    let mut rest = text;
    let mut seconds = 0_u64;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let number: u64 = rest[..digits].parse().ok()?;
        let unit = match rest.as_bytes()[digits] {
            b'd' => 86_400,
            b'h' => 3_600,
            b'm' => 60,
            b's' => 1,
            _ => return None,
        };
        seconds = seconds.checked_add(number.checked_mul(unit)?)?;
        rest = &rest[digits + 1..];
    }
    (!text.is_empty()).then(|| Duration::from_secs(seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(words: &[&str]) -> Result<Registries, String> {
        let args: Vec<std::ffi::OsString> = words.iter().map(std::ffi::OsString::from).collect();
        match super::super::parse::command_line(&args).map_err(|error| error.0)? {
            super::super::CommandLine::Run(values) => settings(&values).map_err(|error| error.0),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn defaults_are_dockers() {
        let registries = check(&[]).unwrap();
        assert_eq!(registries.insecure_networks, ["::1/128", "127.0.0.0/8"]);
        let Registries {
            downloads_max,
            uploads_max,
            attempts_max,
            ..
        } = registries;
        assert_eq!((downloads_max, uploads_max, attempts_max), (3, 5, 5));
        assert!(!registries.image_gc.enabled);
    }

    #[test]
    fn mirrors_and_insecure_registries() {
        let registries = check(&[
            "--registry-mirror=https://m.example",
            "--registry-mirror=https://m.example/",
            "--insecure-registry=r.example:5000",
            "--insecure-registry=http://s.example",
            "--insecure-registry=10.0.0.0/8",
            "--insecure-registry=10.0.0.0/99",
        ])
        .unwrap();
        assert_eq!(registries.mirrors, ["https://m.example/"]);
        assert_eq!(
            registries.insecure_hosts,
            ["r.example:5000", "s.example", "10.0.0.0/99"]
        );
        assert_eq!(registries.insecure_networks[0], "10.0.0.0/8");
        for (word, want) in [
            (
                "--registry-mirror=x",
                "invalid mirror: no scheme specified for \"x\": must use either 'https://' or 'http://'",
            ),
            (
                "--registry-mirror=ftp://x",
                "invalid mirror: unsupported scheme \"ftp\" in \"ftp://x\": must use either 'https://' or 'http://'",
            ),
            (
                "--registry-mirror=http://x/y?z",
                "invalid mirror: query or fragment at end of the URI \"http://x/y?z\"",
            ),
            (
                "--registry-mirror=http://u:p@x",
                "invalid mirror: username/password not allowed in URI \"http://u:xxxxx@x\"",
            ),
            (
                "--insecure-registry=-x",
                "invalid index name (-x). Cannot begin or end with a hyphen",
            ),
            (
                "--max-concurrent-downloads=-1",
                "invalid max concurrent downloads: -1",
            ),
            (
                "--max-download-attempts=-1",
                "invalid max download attempts: -1",
            ),
        ] {
            assert_eq!(check(&[word]).unwrap_err(), want);
        }
    }

    #[test]
    fn the_policy_of_images() {
        let registries = check(&[
            "--image-gc=enabled=true",
            "--image-gc=unused-for=1d12h",
            "--image-gc=high-watermark=85%",
            "--image-gc=keep-blobs=2G",
        ])
        .unwrap();
        let policy = registries.image_gc;
        assert!(policy.enabled && !policy.tagged);
        assert_eq!(policy.unused_for, Duration::from_secs(36 * 3600));
        assert_eq!(policy.high_watermark_percent, Some(85));
        assert_eq!(policy.keep_blobs_bytes, 2 << 30);
        for (word, want) in [
            ("nope=1", "invalid image-gc: unknown setting nope"),
            (
                "enabled=maybe",
                "invalid image-gc: \"maybe\" is no truth value for enabled",
            ),
            (
                "unused-for=1w",
                "invalid image-gc: \"1w\" is no duration for unused-for",
            ),
            (
                "high-watermark=100",
                "invalid image-gc: \"100\" is no percentage from 1 to 99 for high-watermark",
            ),
            (
                "low-watermark=50",
                "invalid image-gc: low-watermark needs a high-watermark",
            ),
        ] {
            assert_eq!(check(&[&format!("--image-gc={word}")]).unwrap_err(), want);
        }
    }
}
