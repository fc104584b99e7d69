//! Connections to one daemon: connect, negotiate the API version once, send requests, hijack.
//!
//! Connections whose response was read to its end are used again; a held one (a wait, a stream) is not waited for.

use crate::endpoint::Endpoint;
use crate::error::Error;
use crate::hijack::Hijacked;
use crate::request::{Body, Outgoing, Request, Response};
use crate::version::Version;
use bytes::Bytes;
use hyper::client::conn::http1::{self, SendRequest};
use hyper::{Method, StatusCode, header};
use hyper_util::rt::TokioIo;
use std::cell::{Cell, RefCell};
use std::io;
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::process::Stdio;
use std::rc::Rc;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

/// Called when nobody listens at the endpoint; starts a daemon and returns once it listens.
pub type Autostart = Box<dyn Fn() -> io::Result<()>>;

/// How to reach and speak to a daemon.
pub struct Options {
    pub endpoint: Endpoint,
    /// Sent with every request (`HttpHeaders` of config.json, `DOCKER_CUSTOM_HEADERS`).
    pub headers: Vec<(String, String)>,
    /// `DOCKER_API_VERSION`: no negotiation then.
    pub version: Option<Version>,
    /// Speak the newest version without asking first. Right for Gantry's own socket: a daemon that is older says so
    /// in its answer, and the request is then sent again.
    pub assume_newest: bool,
    pub autostart: Option<Autostart>,
}

/// A client of one daemon.
pub struct Client {
    options: Options,
    version: Cell<Option<Version>>,
    ping: RefCell<Option<Ping>>,
    idle: Rc<RefCell<Vec<SendRequest<Outgoing>>>>,
}

/// What `/_ping` says.
#[derive(Debug, Clone, Default)]
pub struct Ping {
    pub api_version: Option<Version>,
    pub os_type: String,
    pub experimental: bool,
    pub builder_version: String,
    pub swarm: String,
}

/// Gives a connection back for the next request once its response is read.
pub(crate) struct Keep {
    sender: SendRequest<Outgoing>,
    idle: Rc<RefCell<Vec<SendRequest<Outgoing>>>>,
}

impl Keep {
    pub(crate) fn give_back(self) {
        if !self.sender.is_closed() {
            self.idle.borrow_mut().push(self.sender);
        }
    }
}

impl Client {
    /// Makes a client; connects at the first request.
    pub fn new(options: Options) -> Client {
        let version = options
            .version
            .or(options.assume_newest.then_some(Version::NEWEST));
        Client {
            options,
            version: Cell::new(version),
            ping: RefCell::new(None),
            idle: Rc::new(RefCell::new(Vec::new())),
        }
    }

    /// Returns the daemon's address.
    pub fn endpoint(&self) -> &Endpoint {
        &self.options.endpoint
    }

    /// Returns the negotiated version, asking the daemon if that has not happened.
    pub async fn version(&self) -> Result<Version, Error> {
        if let Some(version) = self.version.get() {
            return Ok(version);
        }
        let ping = self.ping().await?;
        let version = ping
            .api_version
            .unwrap_or(Version::FALLBACK)
            .min(Version::NEWEST);
        self.version.set(Some(version));
        Ok(version)
    }

    /// Returns the version that requests bear so far, without asking anybody.
    pub fn version_if_known(&self) -> Version {
        self.version.get().unwrap_or(Version::NEWEST)
    }

    /// Asks `/_ping`, once per client.
    pub async fn ping(&self) -> Result<Ping, Error> {
        if let Some(ping) = self.ping.borrow().as_ref() {
            return Ok(ping.clone());
        }
        let response = self
            .exchange(Request::new(Method::HEAD, "/_ping"), "")
            .await?;
        let text = |name: &str| response.header(name).unwrap_or_default().to_owned();
        let ping = Ping {
            api_version: response.header("api-version").and_then(Version::parse),
            os_type: text("ostype"),
            experimental: response.header("docker-experimental") == Some("true"),
            builder_version: text("builder-version"),
            swarm: text("swarm"),
        };
        response.bytes().await?;
        *self.ping.borrow_mut() = Some(ping.clone());
        Ok(ping)
    }

    /// Sends a request and returns its answer; an error status becomes [`Error::Daemon`].
    pub async fn send(&self, request: Request) -> Result<Response, Error> {
        let again = (self.options.assume_newest && self.ping.borrow().is_none())
            .then(|| repeatable(&request))
            .flatten();
        let prefix = self.prefix().await?;
        let response = self.exchange(request, &prefix).await?;
        match checked(response, &self.options.endpoint, &prefix).await {
            Err(Error::Daemon {
                status: 400,
                message,
            }) if message.contains("is too new") => {
                self.version.set(None);
                let prefix = self.prefix().await?;
                let Some(request) = again else {
                    return Err(Error::Daemon {
                        status: 400,
                        message,
                    });
                };
                checked(
                    self.exchange(request, &prefix).await?,
                    &self.options.endpoint,
                    &prefix,
                )
                .await
            }
            answer => answer,
        }
    }

    /// Sends a request and reads the answer to its end.
    pub async fn call(&self, request: Request) -> Result<Vec<u8>, Error> {
        self.send(request).await?.bytes().await
    }

    /// Sends a request and takes the connection out of HTTP.
    pub async fn hijack(&self, request: Request) -> Result<Hijacked, Error> {
        let prefix = self.prefix().await?;
        let request = request
            .header("connection", "Upgrade")
            .header("upgrade", "tcp");
        let response = self.exchange_raw(request, &prefix).await?;
        if response.status() != StatusCode::SWITCHING_PROTOCOLS {
            // Docker's client does not read why.
            return Err(Error::NotUpgraded {
                protocol: "tcp",
                status: response.status().as_u16(),
            });
        }
        let media_type = response
            .headers()
            .get(header::CONTENT_TYPE)
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default()
            .to_owned();
        let upgraded = hyper::upgrade::on(response)
            .await
            .map_err(|error| Error::Transport(error.to_string()))?;
        let parts = upgraded.downcast::<TokioIo<Transport>>().map_err(|_| {
            Error::Transport("the upgraded connection is of a foreign kind".to_owned())
        })?;
        let stream = parts
            .io
            .into_inner()
            .into_blocking()
            .map_err(|error| Error::Transport(error.to_string()))?;
        Ok(Hijacked {
            stream,
            early: parts.read_buf.to_vec(),
            media_type,
        })
    }

    /// Connects and returns the raw connection, for `system dial-stdio`.
    pub async fn dial(&self) -> Result<OwnedFd, Error> {
        let transport = self.connect().await?;
        transport
            .into_blocking()
            .map_err(|error| Error::Transport(error.to_string()))
    }

    async fn prefix(&self) -> Result<String, Error> {
        Ok(format!("/v{}", self.version().await?))
    }

    async fn exchange(&self, request: Request, prefix: &str) -> Result<Response, Error> {
        let (response, sender) = self.transmit(request, prefix).await?;
        let (parts, body) = response.into_parts();
        let keep = Some(Keep {
            sender,
            idle: self.idle.clone(),
        });
        Ok(Response {
            status: parts.status,
            headers: parts.headers,
            body,
            pending: Bytes::new(),
            keep,
        })
    }

    async fn exchange_raw(
        &self,
        request: Request,
        prefix: &str,
    ) -> Result<hyper::Response<hyper::body::Incoming>, Error> {
        Ok(self.transmit(request, prefix).await?.0)
    }

    async fn transmit(
        &self,
        request: Request,
        prefix: &str,
    ) -> Result<
        (
            hyper::Response<hyper::body::Incoming>,
            SendRequest<Outgoing>,
        ),
        Error,
    > {
        let before = format!("{}{prefix}", self.options.endpoint.base_path());
        let uri = format!(
            "{}{}",
            request.path.encode(&before)?,
            request.query.encode()
        );
        let mut sender = self.sender().await?;
        let mut builder = hyper::Request::builder()
            .method(request.method)
            .uri(uri)
            .header(header::HOST, self.options.endpoint.host_header())
            .header(
                header::USER_AGENT,
                concat!(
                    "Docker-Client/28.5.2 (linux) gantry/",
                    env!("CARGO_PKG_VERSION")
                ),
            );
        for (name, value) in &self.options.headers {
            builder = builder.header(name, value);
        }
        for (name, value) in request.headers {
            builder = builder.header(name, value);
        }
        let body = match request.body {
            Body::Empty => Outgoing::Whole(None),
            Body::Json(bytes) => {
                builder = builder.header(header::CONTENT_TYPE, "application/json");
                Outgoing::Whole(Some(Bytes::from(bytes)))
            }
            Body::Stream {
                content_type,
                chunks,
            } => {
                builder = builder.header(header::CONTENT_TYPE, content_type);
                Outgoing::Chunks(chunks)
            }
        };
        let request = builder
            .body(body)
            .map_err(|error| Error::Invalid(error.to_string()))?;
        let response = sender
            .send_request(request)
            .await
            .map_err(|error| self.broken(&error))?;
        Ok((response, sender))
    }

    fn broken(&self, error: &hyper::Error) -> Error {
        let mut text = error.to_string();
        let mut source = std::error::Error::source(error);
        while let Some(cause) = source {
            text = cause.to_string();
            source = cause.source();
        }
        Error::Transport(text)
    }

    async fn sender(&self) -> Result<SendRequest<Outgoing>, Error> {
        loop {
            let Some(mut sender) = self.idle.borrow_mut().pop() else {
                break;
            };
            if sender.ready().await.is_ok() {
                return Ok(sender);
            }
        }
        let transport = self.connect().await?;
        let (sender, connection) = http1::handshake(TokioIo::new(transport))
            .await
            .map_err(|error| Error::Transport(error.to_string()))?;
        tokio::spawn(connection.with_upgrades());
        Ok(sender)
    }

    async fn connect(&self) -> Result<Transport, Error> {
        match open(&self.options.endpoint).await {
            Ok(transport) => Ok(transport),
            Err(error) => {
                let absent = matches!(
                    error.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused
                );
                if let (true, Some(autostart)) = (absent, &self.options.autostart) {
                    autostart()
                        .map_err(|error| Error::Invalid(format!("start the daemon: {error}")))?;
                    return open(&self.options.endpoint)
                        .await
                        .map_err(|error| self.unreachable(error));
                }
                Err(self.unreachable(error))
            }
        }
    }

    fn unreachable(&self, error: io::Error) -> Error {
        let endpoint = self.options.endpoint.to_string();
        match (&self.options.endpoint, error.kind()) {
            (Endpoint::Unix { path }, io::ErrorKind::PermissionDenied) => Error::Denied {
                endpoint,
                path: path.clone(),
            },
            (Endpoint::Unix { .. }, _) | (_, io::ErrorKind::ConnectionRefused) => Error::Refused {
                endpoint,
                source: error,
            },
            _ => Error::Transport(error.to_string()),
        }
    }
}

/// Copies a request that can be sent twice: one whose body is in memory.
fn repeatable(request: &Request) -> Option<Request> {
    let body = match &request.body {
        Body::Empty => Body::Empty,
        Body::Json(bytes) => Body::Json(bytes.clone()),
        Body::Stream { .. } => return None,
    };
    Some(Request {
        method: request.method.clone(),
        path: request.path.clone(),
        query: request.query.clone(),
        headers: request.headers.clone(),
        body,
    })
}

async fn checked(response: Response, endpoint: &Endpoint, prefix: &str) -> Result<Response, Error> {
    let status = response.status;
    if status.as_u16() < 400 {
        return Ok(response);
    }
    let bytes = response.bytes().await.unwrap_or_default();
    if bytes.is_empty() {
        let reason = status.canonical_reason().unwrap_or_default();
        let place = match endpoint {
            Endpoint::Unix { path } => format!("http://{}", crate::request::escape(path)),
            other => other.to_string().replacen("tcp", "http", 1),
        };
        return Err(Error::Daemon {
            status: status.as_u16(),
            message: format!(
                "request returned {reason} for API route and version {place}{prefix}, check if the server supports the requested API version"
            ),
        });
    }
    let message = serde_json::from_slice::<serde_json::Value>(&bytes)
        .ok()
        .and_then(|value| {
            value
                .get("message")
                .and_then(|text| text.as_str().map(str::to_owned))
        })
        .unwrap_or_else(|| String::from_utf8_lossy(&bytes).trim().to_owned());
    Err(Error::Daemon {
        status: status.as_u16(),
        message: message.trim().to_owned(),
    })
}

async fn open(endpoint: &Endpoint) -> io::Result<Transport> {
    match endpoint {
        Endpoint::Unix { path } => Ok(Transport::Unix(UnixStream::connect(path).await?)),
        Endpoint::Tcp { host, port, .. } => {
            let address = crate::resolve::resolve(host).await?;
            let stream = TcpStream::connect((address, *port)).await?;
            stream.set_nodelay(true)?;
            Ok(Transport::Tcp(stream))
        }
        Endpoint::Ssh {
            user,
            host,
            port,
            socket,
            ..
        } => {
            let (ours, theirs) = std::os::unix::net::UnixStream::pair()?;
            let mut command = std::process::Command::new("ssh");
            if let Some(user) = user {
                command.args(["-l", user]);
            }
            if let Some(port) = port {
                command.args(["-p", &port.to_string()]);
            }
            command.args(["-T", "-o", "ConnectTimeout=30", "--", host, "docker"]);
            if let Some(socket) = socket {
                command.args(["--host", &format!("unix://{socket}")]);
            }
            command.args(["system", "dial-stdio"]);
            command
                .stdin(Stdio::from(OwnedFd::from(theirs.try_clone()?)))
                .stdout(Stdio::from(OwnedFd::from(theirs)));
            // The child ends with its standard streams, that is with this connection.
            command.spawn()?;
            ours.set_nonblocking(true)?;
            Ok(Transport::Unix(UnixStream::from_std(ours)?))
        }
    }
}

/// A connection's socket.
pub(crate) enum Transport {
    Unix(UnixStream),
    Tcp(TcpStream),
}

impl Transport {
    fn into_blocking(self) -> io::Result<OwnedFd> {
        match self {
            Transport::Unix(stream) => {
                let stream = stream.into_std()?;
                stream.set_nonblocking(false)?;
                Ok(stream.into())
            }
            Transport::Tcp(stream) => {
                let stream = stream.into_std()?;
                stream.set_nonblocking(false)?;
                Ok(stream.into())
            }
        }
    }
}

impl AsyncRead for Transport {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Transport::Unix(stream) => Pin::new(stream).poll_read(cx, buffer),
            Transport::Tcp(stream) => Pin::new(stream).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Transport {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Transport::Unix(stream) => Pin::new(stream).poll_write(cx, bytes),
            Transport::Tcp(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Transport::Unix(stream) => Pin::new(stream).poll_flush(cx),
            Transport::Tcp(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Transport::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
            Transport::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
