//! What a supervisor of services asks: does it live, can it work.

use axum::http::StatusCode;

use super::Server;

/// Always: whoever can answer lives.
pub(super) async fn live() -> &'static str {
    "ok\n"
}

/// Whether calls can be carried out. Says no more than that: anybody may ask.
pub(super) async fn ready(server: axum::extract::State<Server>) -> (StatusCode, &'static str) {
    if server.stopping.is_cancelled() {
        return (StatusCode::SERVICE_UNAVAILABLE, "stopping\n");
    }
    match server.check().await {
        Ok(()) => (StatusCode::OK, "ready\n"),
        Err(problem) => {
            tracing::warn!(error = %problem, "not ready");
            (StatusCode::SERVICE_UNAVAILABLE, "not ready: its log says why\n")
        }
    }
}
