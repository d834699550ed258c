//! The MCP server: over a pipe in this process with rmcp's client, and as a program.

#![expect(clippy::unwrap_used, reason = "a failed assumption fails the test")]

mod arbitrary_input;
#[expect(dead_code, reason = "shared with the CLI tests, which use more of it")]
#[path = "../local/bench.rs"]
mod bench;
mod client;
mod conversation;
mod diff;
mod faults;
mod guide;
mod lenient_arguments;
mod program;
mod run_selection;
mod surface;
mod waiting;
