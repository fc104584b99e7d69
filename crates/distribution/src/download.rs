//! One file from anywhere by HTTP, as `docker import URL` fetches it: no registry, no credentials, one try.

use crate::client::Registries;
use crate::tls::TlsSettings;
use crate::wire::{location_of, next_piece, reason};
use crate::{Credentials, Error, Result, network};
use bytes::Bytes;
use reqwest::{Response, StatusCode, Url, header};
use std::time::Duration;

/// As Go's client.
const REDIRECTS_MAX: u32 = 10;
/// How much of an answer that is an error is shown.
const ERROR_BYTES_MAX: usize = 4 << 10;

/// Is a file on its way.
pub struct Download {
    response: Response,
    address: String,
    stall: Duration,
}

impl Registries {
    /// Begins to fetch a file. An address without a scheme is one of plain HTTP.
    ///
    /// # Errors
    /// Nobody answers, or not with the file; the text is Docker's.
    pub async fn download(&self, address: &str) -> Result<Download> {
        let address = match address.contains("://") {
            true => address.to_owned(),
            false => format!("http://{address}"),
        };
        let failed = |cause: &str| Error::Network(format!("Get \"{address}\": {cause}"));
        let mut url = Url::parse(&address).map_err(|error| failed(&error.to_string()))?;
        if !matches!(url.scheme(), "http" | "https") {
            let scheme = url.scheme();
            return Err(failed(&format!("unsupported protocol scheme \"{scheme}\"")));
        }
        // Whose state it is does not matter: all of a process share proxies and connections.
        let state = self.session("", Credentials::default()).state;
        let client = state.client(&TlsSettings::default())?;
        let stall = state.config.stall_timeout;
        for _ in 0..=REDIRECTS_MAX {
            let sent = tokio::time::timeout(stall, client.get(url.clone()).send()).await;
            let response = match sent {
                Err(_) => return Err(failed("timeout awaiting response headers")),
                Ok(Ok(response)) => response,
                Ok(Err(error)) => {
                    let (dialled, via_proxy) = state.dialled(&url).await;
                    return Err(failed(&network::cause(&error, &dialled, via_proxy).text));
                }
            };
            let location = response.headers().get(header::LOCATION);
            if let (true, Some(location)) = (response.status().is_redirection(), location) {
                let location = location.to_str().unwrap_or_default();
                url = location_of(&url, location).map_err(|error| failed(&error))?;
                continue;
            }
            let download = Download {
                response,
                address: address.clone(),
                stall,
            };
            return download.checked().await;
        }
        Err(failed("stopped after 10 redirects"))
    }
}

impl Download {
    /// Gives the address, with its scheme.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Gives how long the file is, if that is known.
    pub fn size(&self) -> Option<u64> {
        self.response.content_length()
    }

    /// Gives the next piece, `None` at the end.
    ///
    /// # Errors
    /// The connection broke or stalls.
    pub async fn next(&mut self) -> Result<Option<Bytes>> {
        next_piece(&mut self.response, self.stall)
            .await
            .map_err(|cause| Error::Network(format!("Get \"{}\": {cause}", self.address)))
    }

    async fn checked(mut self) -> Result<Self> {
        let status = self.response.status();
        if status.as_u16() < 400 {
            return Ok(self);
        }
        let mut body = Vec::new();
        while let Ok(Some(piece)) = self.next().await {
            body.extend_from_slice(&piece);
            if body.len() > ERROR_BYTES_MAX {
                break;
            }
        }
        body.truncate(ERROR_BYTES_MAX);
        let text = format!(
            "failed to GET {} with status {}: {}",
            self.address,
            reason(status),
            String::from_utf8_lossy(&body).trim()
        );
        Err(match status {
            StatusCode::NOT_FOUND => Error::NotFound(text),
            StatusCode::UNAUTHORIZED => Error::Unauthorized(text),
            status => Error::Registry {
                status: status.as_u16(),
                codes: Vec::new(),
                text,
            },
        })
    }
}
