//! One request on the wire: sent, led by redirects, watched for stalls; and what its head says.

use crate::answer::Refusal;
use crate::call::{Call, Paced, Pulse};
use crate::challenge::{self, Challenge};
use crate::endpoint::{self, Endpoint};
use crate::limit;
use crate::network;
use crate::retry::{self, Failure};
use crate::session::Session;
use crate::state::Reached;
use crate::{Error, RateLimit};
use bytes::{Bytes, BytesMut};
use reqwest::header::{self, HeaderMap, HeaderValue};
use reqwest::{Method, Response, StatusCode, Url};
use std::time::Duration;

const REDIRECTS_MAX: usize = 10;
/// A body that is read whole may take as long as so many stalls, however steadily it drips.
const WHOLE_STALLS: u32 = 4;

impl Session {
    /// Sends a request and goes where redirects lead. Credentials, client certificates and a mirror's own headers go to
    /// the host of `reached` alone. Tells besides whether that host gave the answer.
    pub(crate) async fn follow(
        &self,
        endpoint: &Endpoint,
        reached: &Reached,
        mut url: Url,
        call: &Call,
        authorization: Option<String>,
    ) -> std::result::Result<(Response, bool), Failure> {
        let mut method = call.method.clone();
        let mut from = reached.base.clone();
        for _ in 0..=REDIRECTS_MAX {
            let at_home = is_same_host(&url, &reached.base);
            let is_endpoint = endpoint.bases.iter().any(|base| is_same_host(&url, base));
            let is_lenient = endpoint.is_lenient(&self.state, &url).await;
            let leaves_tls = reached.base.scheme() == "https" && url.scheme() != "https";
            let forbidden = if leaves_tls && !is_lenient {
                Some("it would leave TLS")
            } else if call.is_secret && !at_home {
                Some("the password is not for that host")
            } else {
                None
            };
            if let Some(why) = forbidden {
                return Err(Failure::last(Error::Network(format!(
                    "{} \"{from}\": redirect to `{url}` refused: {why}",
                    call.verb()
                ))));
            }
            let settings = if is_endpoint {
                endpoint.tls.clone()
            } else {
                endpoint.tls.for_stranger(is_lenient)
            };
            let client = self.state.client(&settings)?;
            let mut request = client.request(method.clone(), url.clone());
            if is_endpoint {
                request = request.headers(endpoint.headers.clone());
            }
            if at_home {
                request = request.headers(self.headers.clone());
            }
            request = request.headers(call.headers.clone());
            if let (true, Some(authorization)) = (at_home, &authorization) {
                let mut value = HeaderValue::from_str(authorization).map_err(|_| {
                    Error::Invalid(format!(
                        "the credentials for `{}` cannot be sent",
                        endpoint.host
                    ))
                })?;
                value.set_sensitive(true);
                request = request.header(header::AUTHORIZATION, value);
            }
            let pulse = Pulse::new();
            if method != Method::GET && method != Method::HEAD {
                let body = Paced::new(call.body.clone(), pulse.clone());
                request = request.body(reqwest::Body::wrap(body));
            }
            let response = self.send(request, call, &url, &pulse).await?;
            let Some(next) = redirect(&response, &method, &url) else {
                for warning in response.headers().get_all(header::WARNING) {
                    if let Some(text) = warning.to_str().ok().and_then(warning_text) {
                        self.tell(Duration::ZERO, text);
                    }
                }
                return Ok((response, at_home));
            };
            let next = next.map_err(|text| {
                Failure::last(Error::Network(format!("{} \"{url}\": {text}", call.verb())))
            })?;
            if response.status() == StatusCode::SEE_OTHER && method != Method::HEAD {
                method = Method::GET;
            }
            from = std::mem::replace(&mut url, next);
        }
        Err(Failure::last(Error::Network(format!(
            "{} \"{url}\": stopped after {REDIRECTS_MAX} redirects",
            call.verb()
        ))))
    }

    /// Sends, and gives up when nothing moves any more.
    async fn send(
        &self,
        request: reqwest::RequestBuilder,
        call: &Call,
        url: &Url,
        pulse: &Pulse,
    ) -> std::result::Result<Response, Failure> {
        let stall = self.state.config.stall_timeout;
        let mut sending = std::pin::pin!(request.send());
        let sent = loop {
            let beat = pulse.beat();
            let limit = if beat.is_sent {
                stall.max(call.patience)
            } else {
                stall
            };
            let deadline = tokio::time::Instant::from_std(beat.last + limit);
            tokio::select! {
                sent = &mut sending => break sent,
                () = tokio::time::sleep_until(deadline) => {
                    // It may have moved meanwhile.
                    if pulse.beat().last == beat.last {
                        let text = format!(
                            "{} \"{url}\": net/http: timeout awaiting response headers",
                            call.verb()
                        );
                        return Err(Failure::passing(Error::Network(text)));
                    }
                }
            }
        };
        match sent {
            Ok(response) => Ok(response),
            Err(error) => {
                let (dialled, via_proxy) = self.state.dialled(url).await;
                let cause = network::cause(&error, &dialled, via_proxy);
                let text = format!("{} \"{url}\": {}", call.verb(), cause.text);
                let error = Error::Network(text);
                Err(if cause.is_final {
                    Failure::last(error)
                } else {
                    Failure::passing(error)
                })
            }
        }
    }

    /// Reads a body up to a size, and gives up when nothing comes any more, or too little: others may wait for it.
    pub(crate) async fn body(
        &self,
        mut response: Response,
        size_max: usize,
    ) -> std::result::Result<Bytes, String> {
        let stall = self.state.config.stall_timeout;
        let limit = stall.saturating_mul(WHOLE_STALLS);
        let read = async {
            let mut body = BytesMut::new();
            while let Some(piece) = next_piece(&mut response, stall).await? {
                if body.len() + piece.len() > size_max {
                    return Err(format!("the answer is larger than {size_max} bytes"));
                }
                body.extend_from_slice(&piece);
            }
            Ok(body.freeze())
        };
        tokio::time::timeout(limit, read).await.unwrap_or_else(|_| {
            let seconds = limit.as_secs_f32();
            Err(format!("the answer took longer than {seconds} s"))
        })
    }
}

/// Gives the next piece of a body; the error is a cause in Go's words.
pub(crate) async fn next_piece(
    response: &mut Response,
    stall: Duration,
) -> std::result::Result<Option<Bytes>, String> {
    match tokio::time::timeout(stall, response.chunk()).await {
        Err(_) => Err(format!("no data for {} s", stall.as_secs_f32())),
        Ok(Ok(piece)) => Ok(piece),
        Ok(Err(error)) => {
            let host = endpoint::authority(response.url());
            Err(network::cause(&error, &host, false).text)
        }
    }
}

pub(crate) fn challenges(headers: &HeaderMap) -> Vec<Challenge> {
    headers
        .get_all(header::WWW_AUTHENTICATE)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(challenge::parse)
        .collect()
}

/// Gives a status as its line has it: `404 Not Found`.
pub(crate) fn reason(status: StatusCode) -> String {
    match status.canonical_reason() {
        Some(words) => format!("{} {words}", status.as_u16()),
        None => status.as_u16().to_string(),
    }
}

pub(crate) fn is_same_host(one: &Url, other: &Url) -> bool {
    one.scheme() == other.scheme()
        && one.host() == other.host()
        && one.port_or_known_default() == other.port_or_known_default()
}

/// Tells where a response leads to, if it does.
fn redirect(
    response: &Response,
    method: &Method,
    url: &Url,
) -> Option<std::result::Result<Url, String>> {
    let reads = *method == Method::GET || *method == Method::HEAD;
    let leads = match response.status().as_u16() {
        301..=303 => reads,
        307 | 308 => true,
        _ => false,
    };
    if !leads {
        return None;
    }
    let location = response.headers().get(header::LOCATION)?.to_str().ok()?;
    Some(location_of(url, location))
}

/// Resolves a `Location` against the address that gave it.
pub(crate) fn location_of(url: &Url, location: &str) -> std::result::Result<Url, String> {
    let next = url
        .join(location)
        .map_err(|error| format!("failed to parse Location header \"{location}\": {error}"))?;
    if matches!(next.scheme(), "http" | "https") {
        Ok(next)
    } else {
        Err(format!("unsupported protocol scheme \"{}\"", next.scheme()))
    }
}

/// Reads `299 - "text"`.
fn warning_text(header: &str) -> Option<&str> {
    let text = header.strip_prefix("299 - ")?.trim();
    text.strip_prefix('"')?.strip_suffix('"')
}

/// Gives a header as text, or an empty one.
pub(crate) fn header_text<'a>(headers: &'a HeaderMap, name: &str) -> &'a str {
    headers
        .get(name)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default()
}

/// A body that breaks off is told without its request, as Docker does.
pub(crate) fn broken(cause: String) -> Failure {
    Failure::passing(Error::Network(cause))
}

/// Makes the failure that an answer tells of.
pub(crate) fn refused(status: StatusCode, headers: &HeaderMap, body: &[u8]) -> Failure {
    let mut refusal = Refusal::read(
        status.as_u16(),
        &reason(status),
        &challenges(headers),
        header_text(headers, "content-type"),
        body,
    );
    let limit = RateLimit::read(headers);
    let asked = retry::retry_after(header_text(headers, "retry-after"));
    if status == StatusCode::TOO_MANY_REQUESTS {
        let too_long = asked.filter(|wait| !retry::is_obeyed(*wait));
        refusal.text += &limit::told(limit, too_long);
    }
    let is_used_up = limit.is_some_and(|limit| limit.remaining == 0);
    Failure {
        again: retry::again(status.as_u16(), asked, is_used_up),
        error: refusal.into_error(status.as_u16()),
    }
}
