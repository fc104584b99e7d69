//! Load, save and import: archives stream both ways between the client and the engine's synchronous readers and writers.

use std::io::{self, Read, Write};
use std::time::{Duration, Instant};

use bytes::{Buf as _, Bytes};
use gantry_api::error::ApiError;
use gantry_api::image::JsonMessage;
use gantry_api::reference::Reference;
use gantry_engine::image::{ImportOptions, LoadOptions, TransferEvent};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use tokio::sync::mpsc;

use super::image::{only_platform, text_platform};
use crate::convert;
use crate::server::body::Body;
use crate::server::request::{DISCARD_MAX, Request, discard};
use crate::server::respond::{self, LINE_END, Reply};

/// Chunks that wait between the client and a reader or writer.
const CHUNKS_MAX: usize = 4;
/// How often a download tells how far it has come.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(100);
/// Bytes of one chunk of an archive that is written.
const CHUNK_BYTES: usize = 256 << 10;

pub async fn load(request: Request) -> Reply {
    let options = LoadOptions {
        platform: only_platform(&request)?,
        quiet: request.query.flag_or("quiet", true),
    };
    let (archive, _) = BodyReader::new(request.body);
    let archive = Box::new(archive);
    let mut events = request.daemon.engine.load(archive, options).await;
    let body = Body::stream(move |cx| {
        events.poll_recv(cx).map(|event| {
            let message = match event? {
                Ok(event) => convert::image::load_event(&event),
                // The head is sent already, as Docker's is: errors are part of the stream.
                Err(error) => JsonMessage::from_error(&error.to_string()),
            };
            Some(Ok(respond::json_line(&message, LINE_END)))
        })
    });
    respond::stream("application/json", body)
}

/// Makes an image of an archive, which is the body or lies at an address.
pub async fn import(request: Request) -> Reply {
    let options = import_options(&request)?;
    let source = request.query.text("fromSrc").to_owned();
    if source != "-" {
        return import_from(request, &source, options).await;
    }
    let (archive, read) = BodyReader::new(request.body);
    let imported = request
        .daemon
        .engine
        .import(Box::new(archive), options)
        .await;
    if imported.is_err() {
        // A client that still writes when the connection ends sees a broken pipe instead of our answer.
        let _ = tokio::time::timeout(DISCARD_MAX, read).await;
    }
    let line = respond::json_line(&status(convert::image_digest(&imported?)), LINE_END);
    respond::stream("application/json", Body::whole(line))
}

fn import_options(request: &Request) -> Result<ImportOptions, ApiError> {
    let query = &request.query;
    let (repository, tag) = (query.text("repo"), query.text("tag"));
    let reference = if repository.is_empty() {
        None
    } else {
        let text = if tag.is_empty() {
            repository.to_owned()
        } else {
            format!("{repository}:{tag}")
        };
        let parsed = text
            .parse::<Reference>()
            .map_err(|error| ApiError::invalid(error.to_string()))?;
        Some(parsed.or_latest())
    };
    Ok(ImportOptions {
        reference,
        message: query.text("message").to_owned(),
        changes: query.all("changes").map(str::to_owned).collect(),
        platform: text_platform(request)?,
    })
}

/// Imports what lies at an address; how far it has come is told meanwhile.
async fn import_from(request: Request, source: &str, mut options: ImportOptions) -> Reply {
    let engine = request.daemon.engine.clone();
    let mut download = engine.download(source).await?;
    if options.message.is_empty() {
        options.message = format!("Imported from {}", download.address());
    }
    let (lines, received) = mpsc::channel(CHUNKS_MAX);
    let (chunks, archive) = mpsc::channel(CHUNKS_MAX);
    let reader = BodyReader {
        chunks: archive,
        current: Bytes::new(),
    };
    let begin = status(format!("Downloading from {}", download.address()));
    let told = lines.clone();
    let fetch = async move {
        // A client that has gone hears nothing more; the import ends with its download.
        let tell = async |message: &JsonMessage| {
            let line = respond::json_line(message, LINE_END);
            told.send(Ok(line)).await.is_ok()
        };
        let total = download.size().unwrap_or_default();
        let (mut current, mut shown) = (0, None::<Instant>);
        let mut is_heard = tell(&begin).await;
        loop {
            let piece = match download.next().await {
                Ok(Some(piece)) => piece,
                Ok(None) => break,
                Err(error) => {
                    // Whoever reads the archive tells it.
                    let _ = chunks.send(Err(io::Error::other(error))).await;
                    break;
                }
            };
            if !is_heard {
                let _ = chunks.send(Err(io::ErrorKind::BrokenPipe.into())).await;
                break;
            }
            current += piece.len() as u64;
            if chunks.send(Ok(piece)).await.is_err() {
                break;
            }
            if current == total || shown.is_none_or(|time| time.elapsed() >= PROGRESS_INTERVAL) {
                shown = Some(Instant::now());
                let event = TransferEvent::Progress {
                    id: String::new(),
                    text: "Importing",
                    current,
                    total,
                };
                is_heard = tell(&convert::transfer::message(event)).await;
            }
        }
    };
    tokio::spawn(async move {
        let (imported, ()) = tokio::join!(engine.import(Box::new(reader), options), fetch);
        let message = match imported {
            Ok(id) => status(convert::image_digest(&id)),
            Err(error) => JsonMessage::from_error(&error.to_string()),
        };
        // The client may be gone; the image is there all the same.
        let _ = lines.send(Ok(respond::json_line(&message, LINE_END))).await;
    });
    respond::stream("application/json", Body::channel(received))
}

/// Makes a message of a text alone.
fn status(status: String) -> JsonMessage {
    JsonMessage {
        status,
        ..JsonMessage::default()
    }
}

pub async fn save(request: Request, name: Option<String>) -> Reply {
    let names = match name {
        Some(name) => vec![name],
        None => request.query.all("names").map(str::to_owned).collect(),
    };
    if names.is_empty() {
        return Err(ApiError::invalid("no image was named").into());
    }
    let platform = only_platform(&request)?;
    let (writer, mut chunks) = body_writer();
    let engine = request.daemon.engine.clone();
    let saving =
        tokio::spawn(async move { engine.save_images(names, platform, Box::new(writer)).await });
    // An error before the first byte is an answer of its own.
    let Some(first) = chunks.recv().await else {
        return match saving.await {
            Ok(Ok(())) => respond::stream("application/x-tar", Body::empty()),
            Ok(Err(error)) => Err(error.into()),
            Err(error) => Err(ApiError::system(error.to_string()).into()),
        };
    };
    let (sender, receiver) = mpsc::channel(1);
    tokio::spawn(async move {
        let mut next = Some(first);
        while let Some(chunk) = next {
            if sender.send(Ok(chunk)).await.is_err() {
                return;
            }
            next = chunks.recv().await;
        }
        if let Ok(Err(error)) = saving.await {
            tracing::error!("save: {error}");
            // The body ends without its last chunk, so that the client does not take the archive for whole.
            let _ = sender.send(Err(io::Error::other(error.to_string()))).await;
        }
    });
    respond::stream("application/x-tar", Body::channel(receiver))
}

/// Gives a request's body to a synchronous reader, which runs on a thread that may block.
struct BodyReader {
    chunks: mpsc::Receiver<io::Result<Bytes>>,
    current: Bytes,
}

impl BodyReader {
    /// Returns the reader and the task that feeds it, which ends with the body: what is not read is discarded.
    fn new(mut body: Incoming) -> (Self, tokio::task::JoinHandle<()>) {
        let (sender, chunks) = mpsc::channel(CHUNKS_MAX);
        let task = tokio::spawn(async move {
            while let Some(frame) = body.frame().await {
                let chunk = match frame {
                    Ok(frame) => match frame.into_data() {
                        Ok(data) => Ok(data),
                        Err(_) => continue,
                    },
                    Err(error) => Err(io::Error::other(error)),
                };
                if sender.send(chunk).await.is_err() {
                    break;
                }
            }
            discard(&mut body).await;
        });
        let reader = Self {
            chunks,
            current: Bytes::new(),
        };
        (reader, task)
    }
}

impl Read for BodyReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.current.is_empty() {
            match self.chunks.blocking_recv() {
                None => return Ok(0),
                Some(chunk) => self.current = chunk?,
            }
        }
        let count = self.current.len().min(buffer.len());
        self.current.copy_to_slice(&mut buffer[..count]);
        Ok(count)
    }
}

/// Makes a synchronous writer whose chunks arrive in a channel.
fn body_writer() -> (BodyWriter, mpsc::Receiver<Bytes>) {
    let (sender, receiver) = mpsc::channel(CHUNKS_MAX);
    (
        BodyWriter {
            chunks: sender,
            buffer: Vec::with_capacity(CHUNK_BYTES),
        },
        receiver,
    )
}

struct BodyWriter {
    chunks: mpsc::Sender<Bytes>,
    buffer: Vec<u8>,
}

impl BodyWriter {
    fn send(&mut self) -> io::Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let chunk = std::mem::replace(&mut self.buffer, Vec::with_capacity(CHUNK_BYTES));
        self.chunks
            .blocking_send(chunk.into())
            .map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

impl Write for BodyWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = bytes.len().min(CHUNK_BYTES - self.buffer.len());
        self.buffer.extend_from_slice(&bytes[..count]);
        if self.buffer.len() == CHUNK_BYTES {
            self.send()?;
        }
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.send()
    }
}

impl Drop for BodyWriter {
    fn drop(&mut self) {
        // The client may be gone; whoever wrote knows of the error by its next write.
        let _ = self.send();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_arrives_whole() {
        let (mut writer, mut chunks) = body_writer();
        let bytes: Vec<u8> = (0..600_000_u32)
            .map(|number| (number % 251) as u8)
            .collect();
        let sent = bytes.clone();
        let thread = std::thread::spawn(move || writer.write_all(&sent));
        let mut received = Vec::new();
        while let Some(chunk) = chunks.blocking_recv() {
            assert!(chunk.len() <= CHUNK_BYTES);
            received.extend_from_slice(&chunk);
        }
        thread.join().unwrap().unwrap();
        assert!(received == bytes);
    }

    #[test]
    fn a_writer_whose_client_is_gone_fails() {
        let (mut writer, chunks) = body_writer();
        drop(chunks);
        assert_eq!(
            writer.write_all(&[0; CHUNK_BYTES]).unwrap_err().kind(),
            io::ErrorKind::BrokenPipe
        );
    }
}
