//! Connections: taken up to a limit, timed, and ended in good order.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::{Extension, Router};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, warn};

use super::limits::Limits;

/// How long to wait when no connection can be taken, as when files run out:
/// trying at once would burn the processor, and nothing tells when it is over.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(100);

/// Who is at the other end.
#[derive(Clone, Copy, Debug)]
pub(super) struct Client(pub(super) SocketAddr);

/// Takes connections until `stopping`; each is then ended once its call is answered.
pub(super) async fn accept_loop(
    listener: TcpListener,
    router: &Router,
    limits: Limits,
    stopping: &CancellationToken,
    connections: &TaskTracker,
) {
    let free = Arc::new(Semaphore::new(limits.connections));
    let next = async || {
        let permit = Arc::clone(&free).acquire_owned().await.ok()?;
        loop {
            match listener.accept().await {
                Ok((stream, client)) => return Some((permit, stream, client)),
                Err(error) => {
                    warn!(%error, "cannot take a connection");
                    tokio::time::sleep(ACCEPT_BACKOFF).await;
                }
            }
        }
    };
    loop {
        let taken = tokio::select! {
            taken = next() => taken,
            () = stopping.cancelled() => return,
        };
        let Some((permit, stream, client)) = taken else { return };
        let router = router.clone().layer(Extension(Client(client)));
        connections.spawn(serve(stream, router, limits, stopping.clone(), permit));
    }
}

async fn serve(
    stream: TcpStream,
    router: Router,
    limits: Limits,
    stopping: CancellationToken,
    _permit: OwnedSemaphorePermit,
) {
    // Answers are small and written at once.
    drop(stream.set_nodelay(true));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.head_time)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stopping.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        // Callers that vanish, or are too slow: nothing of ours.
        debug!(%error, "a connection ended early");
    }
}
