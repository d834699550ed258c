//! `/metrics` for Prometheus, on a separate address.

use std::net::SocketAddr;

use axum::Router;
use axum::http::header::CONTENT_TYPE;
use axum::routing::get;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::error::Error;

/// Content type of OpenMetrics: <https://github.com/prometheus/OpenMetrics>.
const CONTENT_TYPE_OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Binds the address and serves there until `stop`.
///
/// # Errors
/// Returns an error if the address cannot be bound.
pub async fn serve(
    address: SocketAddr,
    render: impl Fn() -> String + Clone + Send + Sync + 'static,
    stop: CancellationToken,
) -> Result<impl Future<Output = ()> + Send, Error> {
    let unusable = |error: std::io::Error| {
        Error::configuration(format!("cannot serve metrics on {address}: {error}"))
            .with_hint("Use another address with --metrics-address IP:PORT.")
    };
    let listener = TcpListener::bind(address).await.map_err(unusable)?;
    let address = listener.local_addr().map_err(unusable)?;
    info!(%address, "serving metrics");
    let answer = move || {
        let render = render.clone();
        async move { ([(CONTENT_TYPE, CONTENT_TYPE_OPENMETRICS)], render()) }
    };
    let router = Router::new().route("/metrics", get(answer));
    Ok(async move {
        let served = axum::serve(listener, router).with_graceful_shutdown(stop.cancelled_owned());
        if let Err(error) = served.await {
            warn!(%error, "metrics server failed");
        }
    })
}
