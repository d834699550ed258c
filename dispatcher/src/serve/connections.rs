//! Accepts connections up to a limit, with timeouts and graceful shutdown.

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

/// Pause after a failed accept, for example when file descriptors run out: retrying immediately would
/// spin.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(100);

/// The peer address of a connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct Client(pub(super) SocketAddr);

/// Accepts connections until `stopping`; open ones then close after their current call.
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
                    warn!(%error, "accept failed");
                    tokio::time::sleep(ACCEPT_BACKOFF).await;
                }
            }
        }
    };
    loop {
        let accepted = tokio::select! {
            accepted = next() => accepted,
            () = stopping.cancelled() => return,
        };
        let Some((permit, stream, client)) = accepted else { return };
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
    // Responses are small and written in one piece.
    drop(stream.set_nodelay(true));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.head_time)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    let mut connection = std::pin::pin!(connection);
    let result = tokio::select! {
        result = connection.as_mut() => result,
        () = stopping.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = result {
        // The caller disconnected or was too slow.
        debug!(%error, "connection closed early");
    }
}
