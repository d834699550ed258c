//! MCP over HTTP, from the bytes on.

#![expect(clippy::unwrap_used, reason = "a broken assumption of a test is its failure")]

#[path = "../local/bench.rs"]
#[expect(dead_code, reason = "what the command line's tests need is not all needed here")]
mod bench;

mod cut;
mod http;
mod limits;
mod program;
mod server;
mod stand;
mod who;
