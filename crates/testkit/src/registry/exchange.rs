//! HTTP/1.1 on a blocking connection: requests in, answers out, both byte for byte under control.

use std::io::{Read, Result, Write};

/// The first byte of a TLS connection.
const TLS_HANDSHAKE: u8 = 0x16;
const HEAD_SIZE_MAX: usize = 64 * 1024;

/// A request as it came.
#[derive(Clone, Debug, Default)]
pub struct Recorded {
    pub method: String,
    /// Path and query, and scheme and host before them if the client took us for a proxy.
    pub path: String,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    /// How many bytes of the answer's body were sent.
    pub sent: usize,
    pub status: u16,
}

impl Recorded {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(key, _)| key.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    }

    /// Tells whether the method is this one (`*` for any) and path and query contain `path`.
    pub fn matches(&self, method: &str, path: &str) -> bool {
        (method == "*" || method == self.method) && self.path.contains(path)
    }

    /// The path without the query, and without the host that a proxy is told.
    pub(crate) fn path_only(&self) -> &str {
        let path = self.path.split('?').next().unwrap_or_default();
        match path.strip_prefix("http://") {
            Some(rest) => rest.find('/').map_or("/", |at| &rest[at..]),
            None => path,
        }
    }

    /// A parameter of the query, decoded.
    pub fn query(&self, name: &str) -> Option<String> {
        let (_, query) = self.path.split_once('?')?;
        parameter(query, name)
    }
}

/// Finds a parameter of a query or form.
pub(crate) fn parameter(text: &str, name: &str) -> Option<String> {
    text.split('&')
        .filter_map(|pair| pair.split_once('='))
        .find(|(key, _)| decoded(key) == name)
        .map(|(_, value)| decoded(value))
}

fn decoded(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        match byte {
            b'+' => bytes.push(b' '),
            b'%' => {
                let digits = [rest.next().unwrap_or(b'0'), rest.next().unwrap_or(b'0')];
                let digits = String::from_utf8_lossy(&digits).into_owned();
                bytes.push(u8::from_str_radix(&digits, 16).unwrap_or(b'?'));
            }
            other => bytes.push(other),
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Reads a request's head; `None` where the connection ends before one.
pub(crate) fn read_head(stream: &mut impl Read) -> Result<Option<Recorded>> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        if stream.read(&mut byte)? == 0 || head.len() > HEAD_SIZE_MAX {
            return Ok(None);
        }
        head.push(byte[0]);
        if head == [TLS_HANDSHAKE] {
            return Err(std::io::Error::other("TLS on a plain connection"));
        }
    }
    let head = String::from_utf8_lossy(&head);
    let mut lines = head.split("\r\n");
    let mut words = lines.next().unwrap_or_default().split(' ');
    let mut request = Recorded {
        method: words.next().unwrap_or_default().to_owned(),
        path: words.next().unwrap_or_default().to_owned(),
        ..Recorded::default()
    };
    request.headers = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_owned(), value.trim().to_owned()))
        .collect();
    Ok(Some(request))
}

/// Reads a request's body, up to `limit` bytes of it. Tells whether it is complete.
pub(crate) fn read_body(
    stream: &mut impl Read,
    request: &mut Recorded,
    limit: usize,
) -> Result<bool> {
    let length = request
        .header("content-length")
        .and_then(|length| length.parse().ok());
    if let Some(length) = length {
        return read_some(stream, &mut request.body, length, limit);
    }
    let is_chunked = request
        .header("transfer-encoding")
        .is_some_and(|coding| coding.eq_ignore_ascii_case("chunked"));
    if !is_chunked {
        return Ok(true);
    }
    loop {
        let size = usize::from_str_radix(read_line(stream)?.trim(), 16).unwrap_or(0);
        if size == 0 {
            read_line(stream)?;
            return Ok(true);
        }
        if !read_some(stream, &mut request.body, size, limit)? {
            return Ok(false);
        }
        read_line(stream)?;
    }
}

fn read_some(
    stream: &mut impl Read,
    body: &mut Vec<u8>,
    length: usize,
    limit: usize,
) -> Result<bool> {
    let wanted = length.min(limit.saturating_sub(body.len()));
    let before = body.len();
    stream.take(wanted as u64).read_to_end(body)?;
    Ok(body.len() - before == length)
}

fn read_line(stream: &mut impl Read) -> Result<String> {
    let mut line = Vec::new();
    let mut byte = [0];
    while !line.ends_with(b"\n") && stream.read(&mut byte)? > 0 {
        line.push(byte[0]);
    }
    Ok(String::from_utf8_lossy(&line).into_owned())
}

/// An answer before it is sent.
#[derive(Debug, Default)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn new(status: u16) -> Self {
        Self {
            status,
            ..Self::default()
        }
    }

    pub(crate) fn json(status: u16, body: &serde_json::Value) -> Self {
        Self::new(status)
            .with("Content-Type", "application/json")
            .body(body.to_string().as_bytes())
    }

    /// An error of the distribution specification, with a detail as most registries give one.
    pub(crate) fn error(status: u16, code: &str, message: &str) -> Self {
        let body = serde_json::json!({
            "errors": [{"code": code, "message": message, "detail": {}}],
        });
        Self::json(status, &body)
    }

    pub(crate) fn with(mut self, name: &str, value: &str) -> Self {
        self.set(name, value);
        self
    }

    pub(crate) fn body(mut self, bytes: &[u8]) -> Self {
        self.body = bytes.to_vec();
        self
    }

    /// Sets a header; an empty value drops it.
    pub(crate) fn set(&mut self, name: &str, value: &str) {
        self.headers
            .retain(|(key, _)| !key.eq_ignore_ascii_case(name));
        if !value.is_empty() {
            self.headers.push((name.to_owned(), value.to_owned()));
        }
    }

    fn has(&self, name: &str) -> bool {
        self.headers
            .iter()
            .any(|(key, _)| key.eq_ignore_ascii_case(name))
    }

    /// Sends status and headers. The length is the body's unless a header tells it already.
    pub(crate) fn write_head(&self, stream: &mut impl Write) -> Result<()> {
        let mut head = format!("HTTP/1.1 {} {}\r\n", self.status, reason(self.status));
        for (name, value) in &self.headers {
            head += &format!("{name}: {value}\r\n");
        }
        if !self.has("content-length") && !self.has("transfer-encoding") && self.status != 204 {
            head += &format!("Content-Length: {}\r\n", self.body.len());
        }
        head += "\r\n";
        stream.write_all(head.as_bytes())?;
        stream.flush()
    }
}

fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        201 => "Created",
        202 => "Accepted",
        204 => "No Content",
        206 => "Partial Content",
        307 => "Temporary Redirect",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        416 => "Requested Range Not Satisfiable",
        429 => "Too Many Requests",
        500 => "Internal Server Error",
        503 => "Service Unavailable",
        _ => "Status",
    }
}
