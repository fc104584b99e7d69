//! One client's connection: requests through hyper, and the requests that take the connection out of it.
//!
//! Attach, exec start and wait take over: the handler leaves a continuation and waits for ever, the loop here drops
//! hyper's half together with the handler, and the continuation gets the stream itself and the bytes that hyper had
//! read beyond the request's head. So nothing that a client sends behind its request is lost, whichever size its
//! writes have, and no byte of ours waits in a buffer of hyper's when the descriptor goes to a shim. A continuation may
//! give the stream back for more requests.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;

use bytes::Bytes;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::sync::mpsc;

use super::body::Body;
use super::stream::{Answering, HyperStream, Stream};
/// A connection that was taken out of hyper.
pub struct Taken {
    pub stream: Stream,
    /// What the client sent behind its request, already read.
    pub early: Vec<u8>,
}

type Continuation =
    Box<dyn FnOnce(Taken) -> Pin<Box<dyn Future<Output = Option<Taken>> + Send>> + Send>;

/// A handler's way to its connection.
#[derive(Clone)]
pub struct Handle {
    take: mpsc::UnboundedSender<Continuation>,
}

impl Handle {
    /// Takes the connection over; does not return, because the loop drops the handler.
    ///
    /// `then` gives the connection back if it can serve further requests.
    pub async fn take_over<F, Fut>(&self, then: F) -> std::convert::Infallible
    where
        F: FnOnce(Taken) -> Fut + Send + 'static,
        Fut: Future<Output = Option<Taken>> + Send + 'static,
    {
        // A failed send means that the connection is gone, and with it this handler.
        let _ = self.take.send(Box::new(|taken| Box::pin(then(taken))));
        std::future::pending().await
    }
}

enum Outcome {
    Taken(Continuation),
    Done(hyper::Result<()>),
}

/// Serves one connection until it ends; `answer` answers one request.
pub async fn serve<A, F>(mut stream: Stream, answer: A)
where
    A: Fn(Handle, Request<Incoming>) -> F,
    F: Future<Output = Response<Body>>,
{
    let mut prefix = Bytes::new();
    loop {
        let answering = Arc::new(Answering::default());
        let (take, mut taken) = mpsc::unbounded_channel::<Continuation>();
        let handle = Handle { take };
        let io = TokioIo::new(HyperStream {
            stream,
            prefix,
            answering: Arc::clone(&answering),
        });
        let service = {
            let answer = &answer;
            service_fn(move |request| {
                answering.begin();
                let answering = Arc::clone(&answering);
                let answered = answer(handle.clone(), request);
                // Boxed because hyper moves the handler's future when the connection is taken out.
                Box::pin(async move {
                    Ok::<_, std::convert::Infallible>(
                        answered.await.map(|body| body.watched(answering)),
                    )
                })
            })
        };
        let mut connection = http1::Builder::new()
            .title_case_headers(true)
            .max_headers(256)
            .serve_connection(io, service);
        let outcome = poll_fn(|cx| {
            if let Poll::Ready(result) = connection.poll_without_shutdown(cx) {
                return Poll::Ready(Outcome::Done(result));
            }
            match taken.poll_recv(cx) {
                Poll::Ready(Some(continuation)) => Poll::Ready(Outcome::Taken(continuation)),
                _ => Poll::Pending,
            }
        })
        .await;
        match outcome {
            Outcome::Done(result) => {
                if let Err(error) = result {
                    tracing::debug!(error = %error, "connection ended");
                }
                return;
            }
            Outcome::Taken(continuation) => {
                let parts = connection.into_parts();
                let HyperStream {
                    stream: inner,
                    prefix: unread,
                    ..
                } = parts.io.into_inner();
                let mut early = parts.read_buf.to_vec();
                early.extend_from_slice(&unread);
                match continuation(Taken {
                    stream: inner,
                    early,
                })
                .await
                {
                    Some(back) => {
                        stream = back.stream;
                        prefix = back.early.into();
                    }
                    None => return,
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::UnixStream;

    /// Answers `/take` by echoing all that the client sends, `/wait` with a body of its own and the connection back,
    /// `/slow` after a moment, and everything else with `ok`.
    async fn answer(handle: Handle, request: Request<Incoming>) -> Response<Body> {
        match request.uri().path() {
            "/take" => {
                let never = handle
                    .take_over(|mut taken: Taken| async move {
                        taken
                            .stream
                            .write_all(b"HTTP/1.1 101 UPGRADED\r\n\r\n")
                            .await
                            .ok()?;
                        taken.stream.write_all(&taken.early).await.ok()?;
                        let mut rest = Vec::new();
                        taken.stream.read_to_end(&mut rest).await.ok()?;
                        taken.stream.write_all(&rest).await.ok()?;
                        None
                    })
                    .await;
                match never {}
            }
            "/wait" => {
                let never = handle
                    .take_over(|mut taken: Taken| async move {
                        taken
                            .stream
                            .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ndone")
                            .await
                            .ok()?;
                        Some(taken)
                    })
                    .await;
                match never {}
            }
            "/slow" => {
                tokio::time::sleep(Duration::from_millis(20)).await;
                Response::new(Body::whole("slow"))
            }
            _ => Response::new(Body::whole("ok")),
        }
    }

    async fn exchange(request: &[u8]) -> Vec<u8> {
        let (mut client, server) = UnixStream::pair().unwrap();
        let serving = tokio::spawn(async move { serve(Stream::Unix(server), answer).await });
        let (mut read, mut write) = client.split();
        let mut response = Vec::new();
        let sending = async {
            write.write_all(request).await.unwrap();
            write.shutdown().await.unwrap();
        };
        let receiving = async {
            tokio::time::timeout(Duration::from_secs(10), read.read_to_end(&mut response))
                .await
                .unwrap()
                .unwrap();
        };
        tokio::join!(sending, receiving);
        serving.await.unwrap();
        response
    }

    #[tokio::test]
    async fn a_taken_connection_loses_no_byte_that_came_with_the_request() {
        let stdin: Vec<u8> = (0..300_000_u32).map(|number| number as u8).collect();
        for length in [0, 1, 4096, 65_536, stdin.len()] {
            let request = [b"POST /take HTTP/1.1\r\nHost: d\r\n\r\n", &stdin[..length]].concat();
            let response = exchange(&request).await;
            let head = b"HTTP/1.1 101 UPGRADED\r\n\r\n";
            assert!(response.starts_with(head));
            assert!(response[head.len()..] == stdin[..length], "{length} bytes");
        }
    }

    #[tokio::test]
    async fn a_connection_that_is_given_back_serves_the_next_request() {
        let one = "GET /wait HTTP/1.1\r\nHost: d\r\n\r\n";
        let response =
            exchange(format!("{one}{one}GET /x HTTP/1.1\r\nHost: d\r\n\r\n").as_bytes()).await;
        let text = String::from_utf8(response).unwrap();
        assert_eq!(text.matches("HTTP/1.1 200 OK").count(), 3, "{text}");
        assert!(text.ends_with("ok"));
    }

    #[tokio::test]
    async fn a_client_that_closes_its_half_still_gets_its_answer() {
        let response = exchange(b"GET /slow HTTP/1.1\r\nHost: d\r\n\r\n").await;
        assert!(String::from_utf8(response).unwrap().ends_with("slow"));
    }

    #[tokio::test]
    async fn a_client_that_goes_away_ends_its_connection() {
        let (client, server) = UnixStream::pair().unwrap();
        let serving = tokio::spawn(async move { serve(Stream::Unix(server), answer).await });
        drop(client);
        tokio::time::timeout(Duration::from_secs(10), serving)
            .await
            .unwrap()
            .unwrap();
    }

    #[tokio::test]
    async fn waiting_for_a_client_to_go_tells_a_half_close_from_a_whole_one() {
        let (mut client, server) = UnixStream::pair().unwrap();
        let server = Stream::Unix(server);
        let mut early = Vec::new();
        client.write_all(b"next").await.unwrap();
        client.shutdown().await.unwrap();
        let waited = tokio::time::timeout(
            Duration::from_millis(50),
            server.closed_by_client(&mut early),
        )
        .await;
        assert!(waited.is_err());
        assert_eq!(early, b"next");
        let (client, server) = UnixStream::pair().unwrap();
        drop(client);
        let server = Stream::Unix(server);
        tokio::time::timeout(Duration::from_secs(10), server.closed_by_client(&mut early))
            .await
            .unwrap();
    }
}
