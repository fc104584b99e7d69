//! Bodies of responses: whole, or a stream that is polled as the client takes it.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use tokio::sync::mpsc;

use super::stream::Answering;

type PollChunk = Box<dyn FnMut(&mut Context<'_>) -> Poll<Option<io::Result<Bytes>>> + Send>;

enum Source {
    Whole(Option<Bytes>),
    Stream(PollChunk),
}

/// A response's body.
pub struct Body {
    source: Source,
    /// Told when the body is finished or dropped: the connection may then see the client's half close.
    answering: Option<Arc<Answering>>,
}

impl Body {
    /// Makes a body that is there already.
    pub fn whole(bytes: impl Into<Bytes>) -> Self {
        let bytes = bytes.into();
        Self {
            source: Source::Whole((!bytes.is_empty()).then_some(bytes)),
            answering: None,
        }
    }

    /// Makes an empty body.
    pub fn empty() -> Self {
        Self {
            source: Source::Whole(None),
            answering: None,
        }
    }

    /// Makes a body of whatever `poll` gives; an error ends it without the terminating chunk.
    pub fn stream(
        poll: impl FnMut(&mut Context<'_>) -> Poll<Option<io::Result<Bytes>>> + Send + 'static,
    ) -> Self {
        Self {
            source: Source::Stream(Box::new(poll)),
            answering: None,
        }
    }

    /// Makes a body of the chunks that arrive in a channel.
    pub fn channel(mut chunks: mpsc::Receiver<io::Result<Bytes>>) -> Self {
        Self::stream(move |cx| chunks.poll_recv(cx))
    }

    pub(super) fn watched(mut self, answering: Arc<Answering>) -> Self {
        self.answering = Some(answering);
        self
    }
}

impl Drop for Body {
    fn drop(&mut self) {
        if let Some(answering) = &self.answering {
            answering.end();
        }
    }
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        match &mut self.get_mut().source {
            Source::Whole(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Source::Stream(poll) => poll(cx).map(|chunk| chunk.map(|chunk| chunk.map(Frame::data))),
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self.source, Source::Whole(None))
    }

    fn size_hint(&self) -> SizeHint {
        match &self.source {
            Source::Whole(bytes) => {
                SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64))
            }
            Source::Stream(_) => SizeHint::default(),
        }
    }
}
