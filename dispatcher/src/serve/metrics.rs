//! What is counted, for Prometheus, at an address of its own: `/metrics`.

use std::net::SocketAddr;

use axum::Router;
use axum::http::header::CONTENT_TYPE;
use axum::routing::get;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::error::Error;

/// The form of what is told: <https://github.com/prometheus/OpenMetrics>.
const FORM: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Takes the address, and serves there until `stop`.
///
/// # Errors
/// The address cannot be used.
pub async fn serve(
    address: SocketAddr,
    render: impl Fn() -> String + Clone + Send + Sync + 'static,
    stop: CancellationToken,
) -> Result<impl Future<Output = ()> + Send, Error> {
    let unusable = |error: std::io::Error| {
        Error::configuration(format!("cannot tell metrics on {address}: {error}"))
            .with_hint("Give another address with --metrics-address IP:PORT.")
    };
    let listener = TcpListener::bind(address).await.map_err(unusable)?;
    let address = listener.local_addr().map_err(unusable)?;
    info!(%address, "metrics");
    let answer = move || {
        let render = render.clone();
        async move { ([(CONTENT_TYPE, FORM)], render()) }
    };
    let router = Router::new().route("/metrics", get(answer));
    Ok(async move {
        let served = axum::serve(listener, router).with_graceful_shutdown(stop.cancelled_owned());
        if let Err(error) = served.await {
            warn!("metrics are told no more: {error}");
        }
    })
}
