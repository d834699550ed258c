//! Accepts the agent's connections: as many as it needs, each with time limits.
//!
//! A gateway shares the descriptors of the supervisor, so the sandbox must not be able to use them up.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

use crate::endpoint::{EndpointListener, Stream};

/// Most connections of one conversation; the CLI uses one for each concurrent request.
pub const MAX_CONNECTIONS: usize = 32;

/// Time for the header of a request, and for the pause before it.
const HEADER_TIMEOUT: Duration = Duration::from_secs(30);

/// Longest life of a connection; a single answer takes at most a part of it.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(2 * 3600);

/// Largest header in bytes.
const MAX_HEADER_BYTES: usize = 64 * 1024;

/// Pause after a failed accept, for example when descriptors run out: retrying immediately would spin.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(100);

/// Answers requests with `handler` until `closed`. Connections beyond the limit are closed.
pub async fn serve<H, F>(listener: EndpointListener, handler: H, closed: CancellationToken)
where
    H: Fn(Request) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Response> + Send + 'static,
{
    let free = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = closed.cancelled() => return,
        };
        match accepted {
            Ok(stream) => {
                // Dropping the stream closes it; waiting would fill the queue of the kernel.
                let Ok(permit) = Arc::clone(&free).try_acquire_owned() else { continue };
                tokio::spawn(serve_connection(stream, handler.clone(), closed.clone(), permit));
            }
            Err(error) => {
                tracing::debug!(%error, "accept failed");
                tokio::time::sleep(ACCEPT_BACKOFF).await;
            }
        }
    }
}

async fn serve_connection<H, F>(
    stream: Stream,
    handler: H,
    closed: CancellationToken,
    _permit: OwnedSemaphorePermit,
) where
    H: Fn(Request) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Response> + Send + 'static,
{
    let service = service_fn(move |request: hyper::Request<hyper::body::Incoming>| {
        let answer = handler(request.map(Body::new));
        async move { Ok::<_, Infallible>(answer.await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_buf_size(MAX_HEADER_BYTES)
        .serve_connection(TokioIo::new(stream), service);
    tokio::select! {
        served = tokio::time::timeout(CONNECTION_TIMEOUT, connection) => drop(served),
        () = closed.cancelled() => {}
    }
}
