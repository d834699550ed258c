//! The MCP server: over a pipe in this process with rmcp's own client, and as
//! the program that an IDE starts.

#![expect(clippy::unwrap_used, reason = "a broken assumption of a test is its failure")]

#[expect(dead_code, reason = "shared with the tests of the command line, which use more of it")]
#[path = "../local/bench.rs"]
mod bench;
mod client;
mod conversation;
mod faults;
mod surface;
mod waiting;
mod which;
