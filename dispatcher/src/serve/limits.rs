//! How much of everything a caller gets.

use std::time::Duration;

/// Bounds on connections and calls.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Connections at the same time; more wait until one is free.
    pub connections: usize,
    /// Calls being carried out, those whose caller has gone included; more are refused.
    pub calls: usize,
    /// The longest request, in bytes.
    pub body: usize,
    /// The longest until the head of a request is there; also, until an idle connection is closed.
    pub head_time: Duration,
    /// The longest until the rest of a request is there.
    pub body_time: Duration,
    /// The longest that a call goes on after the server was asked to stop.
    pub grace: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 256,
            calls: 512,
            // What the MCP library takes as well.
            body: 4 * 1024 * 1024,
            head_time: Duration::from_secs(15),
            body_time: Duration::from_secs(30),
            // Less than what Kubernetes gives a pod if nobody says otherwise (30 s).
            grace: Duration::from_secs(20),
        }
    }
}
