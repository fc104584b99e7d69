//! Why there was no answer, in the words of Go's network library, which are Docker's.

use rustls::{AlertDescription, CertificateError, InvalidMessage};
use std::error::Error as StdError;
use std::fmt;
use std::net::IpAddr;
use std::time::Duration;
use x509_cert::der::DateTime;

/// A name has no address.
#[derive(Clone, Debug)]
pub(crate) struct LookupError {
    text: String,
}

impl LookupError {
    pub(crate) fn new(name: &str, server: Option<IpAddr>, cause: &str) -> Self {
        let server = match server {
            Some(IpAddr::V4(address)) => format!(" on {address}:53"),
            Some(IpAddr::V6(address)) => format!(" on [{address}]:53"),
            None => String::new(),
        };
        Self {
            text: format!("lookup {name}{server}: {cause}"),
        }
    }
}

impl fmt::Display for LookupError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl StdError for LookupError {}

/// What a broken request comes to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Cause {
    pub(crate) text: String,
    /// Trying again is senseless: a certificate does not get better by it.
    pub(crate) is_final: bool,
    /// The other side answered, but did not speak TLS.
    pub(crate) no_tls: bool,
}

/// Finds the cause of a failed request. `dialled` is the address that was called, `via_proxy` whether it is a proxy's.
pub(crate) fn cause(error: &(dyn StdError + 'static), dialled: &str, via_proxy: bool) -> Cause {
    let is_connect = chain(error).any(|error| {
        error
            .downcast_ref::<reqwest::Error>()
            .is_some_and(reqwest::Error::is_connect)
    });
    let proxied = |text: String| {
        if via_proxy {
            format!("proxyconnect tcp: {text}")
        } else {
            text
        }
    };
    let passing = |text: String| Cause {
        text,
        is_final: false,
        no_tls: false,
    };
    for error in chain(error) {
        if let Some(error) = error.downcast_ref::<LookupError>() {
            return Cause {
                is_final: error.text.ends_with("no such host"),
                ..passing(proxied(format!("dial tcp: {error}")))
            };
        }
        if let Some(error) = error.downcast_ref::<rustls::Error>() {
            return Cause {
                text: tls_text(error),
                is_final: true,
                no_tls: is_no_tls(error),
            };
        }
        if let Some(error) = error.downcast_ref::<std::io::Error>()
            && error.raw_os_error().is_some()
        {
            let text = gantry_api::error::errno_text(error);
            // A connection that was reset had been made: it broke off in the midst of TLS's greetings.
            return passing(
                if is_connect && error.kind() != std::io::ErrorKind::ConnectionReset {
                    proxied(format!("dial tcp {dialled}: connect: {text}"))
                } else {
                    format!("read tcp {dialled}: read: {text}")
                },
            );
        }
    }
    let is_timeout = chain(error).any(|error| {
        error
            .downcast_ref::<reqwest::Error>()
            .is_some_and(reqwest::Error::is_timeout)
            || error
                .downcast_ref::<std::io::Error>()
                .is_some_and(|error| error.kind() == std::io::ErrorKind::TimedOut)
    });
    if is_timeout && is_connect {
        return passing(proxied(format!("dial tcp {dialled}: i/o timeout")));
    }
    if is_connect {
        let text = chain(error).last().map(ToString::to_string);
        return passing(proxied(format!(
            "dial tcp {dialled}: {}",
            text.unwrap_or_default()
        )));
    }
    let last = chain(error).last().map(ToString::to_string);
    let last = last.unwrap_or_default();
    passing(match last.as_str() {
        "connection closed before message completed" => "EOF".to_owned(),
        "unexpected EOF during chunk size line"
        | "end of file before message length reached"
        | "unexpected end of file" => "unexpected EOF".to_owned(),
        _ => last,
    })
}

/// Gives an error and what caused it. What is packed into an error of input and output is no cause of it for the standard
/// library, and for us it is: TLS's errors come so.
fn chain<'a>(
    error: &'a (dyn StdError + 'static),
) -> impl Iterator<Item = &'a (dyn StdError + 'static)> {
    std::iter::successors(Some(error), |error| {
        let error: &'a (dyn StdError + 'static) = *error;
        match error.downcast_ref::<std::io::Error>() {
            Some(io) => io.get_ref().map(|packed| packed as _),
            None => error.source(),
        }
    })
}

fn is_no_tls(error: &rustls::Error) -> bool {
    matches!(
        error,
        rustls::Error::InvalidMessage(
            InvalidMessage::InvalidContentType | InvalidMessage::UnknownProtocolVersion
        )
    )
}

fn tls_text(error: &rustls::Error) -> String {
    match error {
        rustls::Error::InvalidCertificate(error) => certificate_text(error),
        rustls::Error::AlertReceived(alert) => {
            format!("remote error: tls: {}", alert_text(*alert))
        }
        error if is_no_tls(error) => "http: server gave HTTP response to HTTPS client".to_owned(),
        other => format!("tls: {other}"),
    }
}

fn certificate_text(error: &CertificateError) -> String {
    let validity =
        |time: &rustls::pki_types::UnixTime, word: &str, limit: &rustls::pki_types::UnixTime| {
            format!(
                "certificate has expired or is not yet valid: current time {} is {word} {}",
                date(time.as_secs()),
                date(limit.as_secs())
            )
        };
    let text = match error {
        CertificateError::UnknownIssuer => "certificate signed by unknown authority".to_owned(),
        CertificateError::ExpiredContext { time, not_after } => validity(time, "after", not_after),
        CertificateError::NotValidYetContext { time, not_before } => {
            validity(time, "before", not_before)
        }
        CertificateError::Expired | CertificateError::NotValidYet => {
            "certificate has expired or is not yet valid: ".to_owned()
        }
        CertificateError::NotValidForNameContext {
            expected,
            presented,
        } => name_text(&expected.to_str(), presented),
        other => other.to_string(),
    };
    format!("tls: failed to verify certificate: x509: {text}")
}

/// `presented` is what the certificate is for, in rustls's notation: `DnsName("a")`, `IpAddress(1.2.3.4)`.
fn name_text(expected: &str, presented: &[String]) -> String {
    let of = |prefix: &str| -> Vec<&str> {
        presented
            .iter()
            .filter_map(|name| name.strip_prefix(prefix))
            .map(|name| name.trim_matches(['(', ')', '"']))
            .collect()
    };
    if expected.parse::<IpAddr>().is_ok() {
        let addresses = of("IpAddress");
        if addresses.is_empty() {
            return format!(
                "cannot validate certificate for {expected} because it doesn't contain any IP SANs"
            );
        }
        return format!(
            "certificate is valid for {}, not {expected}",
            addresses.join(", ")
        );
    }
    let names = of("DnsName");
    if names.is_empty() {
        return format!("certificate is not valid for any names, but wanted to match {expected}");
    }
    format!(
        "certificate is valid for {}, not {expected}",
        names.join(", ")
    )
}

fn date(seconds: u64) -> String {
    DateTime::from_unix_duration(Duration::from_secs(seconds))
        .map_or_else(|_| seconds.to_string(), |date| date.to_string())
}

fn alert_text(alert: AlertDescription) -> String {
    match alert {
        AlertDescription::HandshakeFailure => "handshake failure".to_owned(),
        AlertDescription::BadCertificate => "bad certificate".to_owned(),
        AlertDescription::CertificateExpired => "expired certificate".to_owned(),
        AlertDescription::CertificateUnknown => "unknown certificate".to_owned(),
        AlertDescription::UnknownCA => "unknown certificate authority".to_owned(),
        AlertDescription::AccessDenied => "access denied".to_owned(),
        AlertDescription::ProtocolVersion => "protocol version not supported".to_owned(),
        AlertDescription::InternalError => "internal error".to_owned(),
        AlertDescription::UnrecognisedName => "unrecognized name".to_owned(),
        AlertDescription::CertificateRequired => "certificate required".to_owned(),
        other => format!("{other:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustls::pki_types::{ServerName, UnixTime};

    fn text(error: CertificateError) -> String {
        let text = tls_text(&rustls::Error::InvalidCertificate(error));
        let prefix = "tls: failed to verify certificate: x509: ";
        text.strip_prefix(prefix).expect("Go's words").to_owned()
    }

    #[test]
    fn certificates_fail_in_the_words_of_go() {
        let second = |seconds| UnixTime::since_unix_epoch(Duration::from_secs(seconds));
        assert_eq!(
            text(CertificateError::UnknownIssuer),
            "certificate signed by unknown authority"
        );
        assert_eq!(
            text(CertificateError::ExpiredContext {
                time: second(1_700_000_000),
                not_after: second(1_600_000_000),
            }),
            "certificate has expired or is not yet valid: current time 2023-11-14T22:13:20Z is after 2020-09-13T12:26:40Z"
        );
        let name = |expected: &str, presented: &[&str]| {
            text(CertificateError::NotValidForNameContext {
                expected: ServerName::try_from(expected.to_owned()).expect("a name"),
                presented: presented.iter().map(|&name| name.to_owned()).collect(),
            })
        };
        assert_eq!(
            name("c", &["DnsName(\"a\")", "DnsName(\"b\")"]),
            "certificate is valid for a, b, not c"
        );
        assert_eq!(
            name("1.2.3.4", &["DnsName(\"a\")"]),
            "cannot validate certificate for 1.2.3.4 because it doesn't contain any IP SANs"
        );
    }

    #[test]
    fn names_fail_in_the_words_of_go() {
        let error = LookupError::new("a.b", Some([10, 0, 0, 1].into()), "no such host");
        let cause = cause(&error, "", false);
        assert_eq!(
            cause.text,
            "dial tcp: lookup a.b on 10.0.0.1:53: no such host"
        );
        assert!(cause.is_final);
    }
}
