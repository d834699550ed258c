//! MCP over HTTP, tested with raw bytes.

#![expect(clippy::unwrap_used, reason = "a failed assumption fails the test")]

#[path = "../local/bench.rs"]
#[expect(dead_code, reason = "shared with the CLI tests, which use more of it")]
mod bench;

mod auth;
mod disconnect;
mod http;
mod limits;
mod program;
mod server;
mod test_server;
