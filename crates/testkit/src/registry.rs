//! A registry in memory that records what it is asked and misbehaves on command.
//!
//! ```no_run
//! use gantry_testkit::registry::{Fault, Registry, Times};
//! let registry = Registry::start();
//! let image = registry.push_image("a/b", "1", &[b"a layer"]);
//! registry.misbehave("GET", "/blobs/", Times::First(1), Fault::CutAfter(3));
//! // ... pull `registry.host()`/a/b:1, then look at `registry.requests()`
//! ```
//! It speaks enough of the distribution protocol for pulls and pushes, is its own token server at `/token`, and keeps
//! one thread for each connection. Nothing is on disk. Dropping it ends the listener and cuts the connections.
//! Started on a thread in another network namespace (`engine.on_host(Registry::start)`), it is there.

mod exchange;
mod serve;
mod store;

use std::collections::HashSet;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

pub use exchange::Recorded;
pub use store::{Image, digest_of};

use store::Store;

/// The registry; dropping it ends it.
pub struct Registry {
    address: SocketAddr,
    listener: TcpListener,
    shared: Arc<Shared>,
}

pub(crate) struct Shared {
    pub(crate) state: Mutex<State>,
    tls: Option<Arc<rustls::ServerConfig>>,
    address: SocketAddr,
}

#[derive(Default)]
pub(crate) struct State {
    pub(crate) store: Store,
    pub(crate) rules: Vec<Rule>,
    pub(crate) requests: Vec<Recorded>,
    pub(crate) access: Access,
    /// Tokens that are good now.
    pub(crate) tokens: HashSet<String>,
    pub(crate) tokens_given: usize,
    connections: Vec<TcpStream>,
}

/// Who may use the registry.
#[derive(Clone, Debug, Default)]
pub enum Access {
    #[default]
    Everyone,
    Basic {
        user: String,
        password: String,
    },
    Bearer(TokenServer),
}

/// How tokens are given.
#[derive(Clone, Debug)]
pub struct TokenServer {
    /// Whoever has no credentials gets a token too.
    pub anonymous: bool,
    pub user: String,
    pub password: String,
    /// What is accepted as refresh token, and given at a login.
    pub refresh_token: String,
    /// Methods that are answered; others get 405.
    pub methods: &'static [&'static str],
    /// `expires_in` of the answer; left out where it is none.
    pub expires_in: Option<u64>,
}

impl Default for TokenServer {
    fn default() -> Self {
        Self {
            anonymous: true,
            user: "user".to_owned(),
            password: "secret".to_owned(),
            refresh_token: "refresh".to_owned(),
            methods: &["GET", "POST"],
            expires_in: Some(300),
        }
    }
}

/// What goes wrong with a request.
#[derive(Clone, Debug)]
pub enum Fault {
    /// The connection ends after so many bytes of the body.
    CutAfter(usize),
    /// Nothing comes any more after so many bytes of the body.
    StallAfter(usize),
    /// `Content-Length` tells this, the body is what it is.
    ContentLength(usize),
    /// The body is sent without a length, in chunks, and ends after so many bytes.
    EndAfter(usize),
    /// All bytes of the body are other ones; length and headers are right.
    WrongBytes,
    /// `Range` is not heeded: the whole comes with 200.
    NoRange,
    /// `Content-Range` tells this.
    ContentRange(String),
    /// This is the answer.
    Answer {
        status: u16,
        headers: Vec<(String, String)>,
        body: String,
    },
    /// The answer has these headers besides; a header of the same name is replaced, an empty value drops it.
    Headers(Vec<(String, String)>),
    /// So many bytes of the body per second.
    Slow(usize),
    /// The connection ends after so many bytes of the request's body were read; what came is kept if it is an upload.
    DieAfter(usize),
    /// No more is read after so many bytes of the request's body, and nothing is answered.
    HangAfter(usize),
    /// The request is served, and the connection ends before the answer.
    Mute,
}

impl Fault {
    /// An answer, with JSON as body or none.
    pub fn status(status: u16, body: &str) -> Self {
        Self::Answer {
            status,
            headers: vec![("Content-Type".to_owned(), "application/json".to_owned())],
            body: body.to_owned(),
        }
    }

    /// A redirect.
    pub fn redirect(to: &str) -> Self {
        Self::Answer {
            status: 307,
            headers: vec![("Location".to_owned(), to.to_owned())],
            body: String::new(),
        }
    }
}

/// How often a fault happens, counted over the requests that match.
#[derive(Clone, Copy, Debug)]
pub enum Times {
    Always,
    First(usize),
    /// Only the one with this number, counted from 1.
    Only(usize),
}

pub(crate) struct Rule {
    method: String,
    path: String,
    times: Times,
    fault: Fault,
    seen: usize,
}

impl Registry {
    /// Starts one on a port of its own at 127.0.0.1, without TLS.
    pub fn start() -> Self {
        Self::serve(listener(), None)
    }

    /// Starts one without TLS at an address, for example `[::1]:0`.
    pub fn start_at(address: &str) -> Self {
        let listener = TcpListener::bind(address);
        Self::serve(
            listener.unwrap_or_else(|error| panic!("listen at {address}: {error}")),
            None,
        )
    }

    /// Starts one with TLS.
    pub fn start_tls(config: Arc<rustls::ServerConfig>) -> Self {
        Self::serve(listener(), Some(config))
    }

    fn serve(listener: TcpListener, tls: Option<Arc<rustls::ServerConfig>>) -> Self {
        let address = listener.local_addr().expect("an address");
        let shared = Arc::new(Shared {
            state: Mutex::default(),
            tls,
            address,
        });
        let accepting = Arc::clone(&shared);
        let source = listener.try_clone().expect("a handle of the listener");
        std::thread::spawn(move || {
            while let Ok((stream, _)) = source.accept() {
                let shared = Arc::clone(&accepting);
                std::thread::spawn(move || shared.connection(stream));
            }
        });
        Self {
            address,
            listener,
            shared,
        }
    }

    /// `127.0.0.1:PORT`.
    pub fn host(&self) -> String {
        self.address.to_string()
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// `http://127.0.0.1:PORT` or with `https`.
    pub fn url(&self) -> String {
        self.shared.url()
    }

    /// Has requests with this method (`*` for any) whose path and query contain `path` go wrong. Of several rules that
    /// match, the first whose turn it is counts; each counts all requests that match it.
    pub fn misbehave(&self, method: &str, path: &str, times: Times, fault: Fault) {
        self.shared.state().rules.push(Rule {
            method: method.to_owned(),
            path: path.to_owned(),
            times,
            fault,
            seen: 0,
        });
    }

    /// Forgets all faults.
    pub fn behave(&self) {
        self.shared.state().rules.clear();
    }

    /// Sets who may use the registry.
    pub fn set_access(&self, access: Access) {
        self.shared.state().access = access;
    }

    /// Makes all tokens bad that were given so far.
    pub fn expire_tokens(&self) {
        self.shared.state().tokens.clear();
    }

    /// All requests so far, in the order in which they came.
    pub fn requests(&self) -> Vec<Recorded> {
        self.shared.state().requests.clone()
    }

    /// The requests with this method (`*` for any) whose path and query contain `path`.
    pub fn requests_of(&self, method: &str, path: &str) -> Vec<Recorded> {
        let mut requests = self.requests();
        requests.retain(|request| request.matches(method, path));
        requests
    }

    /// Forgets the requests so far.
    pub fn forget_requests(&self) {
        self.shared.state().requests.clear();
    }

    /// Stores a blob and gives its digest.
    pub fn push_blob(&self, bytes: &[u8]) -> String {
        self.shared.state().store.add_blob(bytes)
    }

    /// Stores a manifest under a tag and its digest, which is given back.
    pub fn push_manifest(&self, repository: &str, tag: &str, kind: &str, bytes: &[u8]) -> String {
        self.shared
            .state()
            .store
            .add_manifest(repository, tag, kind, bytes)
    }

    /// Stores an image whose layers are the given bytes, as they are and called uncompressed tar.
    pub fn push_image(&self, repository: &str, tag: &str, layers: &[&[u8]]) -> Image {
        self.shared.state().store.add_image(repository, tag, layers)
    }

    /// A blob's bytes, if it is there.
    pub fn blob(&self, digest: &str) -> Option<Vec<u8>> {
        self.shared.state().store.blob(digest)
    }

    /// A manifest's bytes by tag or digest, if it is there.
    pub fn manifest(&self, repository: &str, reference: &str) -> Option<Vec<u8>> {
        self.shared.state().store.manifest(repository, reference)
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        // Wakes the thread that waits for connections.
        let _ = rustix::net::shutdown(&self.listener, rustix::net::Shutdown::Both);
        for connection in &self.shared.state().connections {
            let _ = connection.shutdown(Shutdown::Both);
        }
    }
}

impl Shared {
    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn url(&self) -> String {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        format!("{scheme}://{}", self.address)
    }

    fn connection(&self, stream: TcpStream) {
        if let Ok(handle) = stream.try_clone() {
            self.state().connections.push(handle);
        }
        let Ok(socket) = stream.try_clone() else {
            return;
        };
        match &self.tls {
            None => serve::connection(self, stream, &socket),
            Some(config) => {
                let Ok(session) = rustls::ServerConnection::new(Arc::clone(config)) else {
                    return;
                };
                serve::connection(self, rustls::StreamOwned::new(session, stream), &socket);
            }
        }
        let _ = socket.shutdown(Shutdown::Both);
    }
}

impl State {
    /// Finds what goes wrong with a request; all rules that match count it.
    pub(crate) fn fault(&mut self, request: &Recorded) -> Option<Fault> {
        let mut fault = None;
        for rule in &mut self.rules {
            if !request.matches(&rule.method, &rule.path) {
                continue;
            }
            rule.seen += 1;
            let is_due = match rule.times {
                Times::Always => true,
                Times::First(count) => rule.seen <= count,
                Times::Only(number) => rule.seen == number,
            };
            if is_due && fault.is_none() {
                fault = Some(rule.fault.clone());
            }
        }
        fault
    }
}

fn listener() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").expect("a port at 127.0.0.1")
}
