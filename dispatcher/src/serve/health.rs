//! Liveness and readiness probes.

use axum::http::StatusCode;

use super::state::Server;
use crate::task::advice::render_for_cli;

/// Liveness: always succeeds.
pub(super) async fn live() -> &'static str {
    "ok\n"
}

/// Readiness: whether calls can be handled. Public, so without details.
pub(super) async fn ready(server: axum::extract::State<Server>) -> (StatusCode, &'static str) {
    if server.stopping.is_cancelled() {
        return (StatusCode::SERVICE_UNAVAILABLE, "stopping\n");
    }
    match server.check().await {
        Ok(()) => (StatusCode::OK, "ready\n"),
        Err(problem) => {
            tracing::warn!(error = %problem, hint = render_for_cli(problem.hint()), "not ready");
            (StatusCode::SERVICE_UNAVAILABLE, "not ready, see the log\n")
        }
    }
}
