//! Sockets and connections.

use super::{answer, other};
use crate::metrics::Gauge;
use crate::registry::Registry;
use crate::tls::Tls;
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};

/// How long a client may take for a request's head, and a connection may rest between two.
const HEAD_TIMEOUT: Duration = Duration::from_secs(60);
/// How long a client may leave what it was sent.
const WRITE_TIMEOUT_MS: u32 = 120_000;
/// How long requests under way may take when the registry ends.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(10);
/// Serves a registry on a socket until `end` is there; requests under way are finished then.
pub async fn serve(
    registry: Arc<Registry>,
    listener: TcpListener,
    tls: Option<Arc<Tls>>,
    end: impl Future<Output = ()>,
) {
    let maintenance = tokio::spawn(crate::maintenance::run(Arc::clone(&registry), tls.clone()));
    let places = Arc::new(Semaphore::new(registry.options.limits.connections));
    let (ending, ended) = watch::channel(());
    let mut end = std::pin::pin!(end);
    loop {
        // At the limit new clients wait in the kernel's queue.
        let place = tokio::select! {
            place = Arc::clone(&places).acquire_owned() => place,
            () = &mut end => break,
        };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = &mut end => break,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of descriptors, mostly: ask again when some may be free.
                tracing::error!(error = %error, "accept a connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let (registry, tls, ended) = (Arc::clone(&registry), tls.clone(), ended.clone());
        tokio::spawn(async move {
            let _place = place;
            // Requests and answers are small and alternate: waiting to fill a segment only costs time.
            let _ = stream.set_nodelay(true);
            // A client that takes nothing of its answer is cut.
            let _ = rustix::net::sockopt::set_tcp_user_timeout(&stream, WRITE_TIMEOUT_MS);
            let _gauge = Gauge::hold(&registry.metrics.connections);
            match tls {
                None => connection(&registry, stream, peer, "http", ended).await,
                Some(tls) => {
                    let acceptor = tokio_rustls::TlsAcceptor::from(tls.config());
                    match tokio::time::timeout(HEAD_TIMEOUT, acceptor.accept(stream)).await {
                        Ok(Ok(stream)) => {
                            connection(&registry, stream, peer, "https", ended).await;
                        }
                        Ok(Err(error)) => {
                            tracing::debug!(client = %peer, error = %error, "TLS handshake");
                        }
                        Err(_) => tracing::debug!(client = %peer, "TLS handshake took too long"),
                    }
                }
            }
        });
    }
    drop(ended);
    let _ = ending.send(());
    // Each connection holds a receiver until it ends.
    let _ = tokio::time::timeout(SHUTDOWN_TIMEOUT, ending.closed()).await;
    maintenance.abort();
}

/// Serves the counters and the health alone, to whoever reaches the socket, until it is dropped.
pub async fn serve_metrics(registry: Arc<Registry>, listener: TcpListener) {
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let registry = Arc::clone(&registry);
        tokio::spawn(async move {
            let service = service_fn(move |request: Request<Incoming>| {
                let response = other::metrics_alone(&registry, request.uri().path());
                std::future::ready(Ok::<_, std::convert::Infallible>(response))
            });
            let _ = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEAD_TIMEOUT)
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
    }
}

async fn connection<S>(
    registry: &Arc<Registry>,
    stream: S,
    peer: SocketAddr,
    scheme: &'static str,
    mut ended: watch::Receiver<()>,
) where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let service = service_fn(move |request| {
        let registry = Arc::clone(registry);
        async move { Ok::<_, std::convert::Infallible>(answer(registry, request, peer, scheme).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    let result = tokio::select! {
        result = connection.as_mut() => result,
        _ = ended.changed() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = result {
        tracing::debug!(client = %peer, error = %error, "connection ended");
    }
}
