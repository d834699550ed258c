//! Limits of the server.

use std::time::Duration;

/// Limits on connections and calls.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Maximum open connections; further ones wait.
    pub connections: usize,
    /// Maximum calls in progress, including those of disconnected callers; further ones are rejected.
    pub calls: usize,
    /// Maximum request size in bytes.
    pub body: usize,
    /// Timeout for the request head, and for idle connections.
    pub head_time: Duration,
    /// Timeout for the request body.
    pub body_time: Duration,
    /// Grace period of calls in flight after a stop request.
    pub grace: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 256,
            calls: 512,
            // The default of the MCP library.
            body: 4 * 1024 * 1024,
            head_time: Duration::from_secs(15),
            body_time: Duration::from_secs(30),
            // Below the default grace period of a pod (30 s).
            grace: Duration::from_secs(20),
        }
    }
}
