//! MCP over HTTP, from the bytes on.

#![expect(clippy::unwrap_used, reason = "a broken assumption of a test is its failure")]

mod http;
mod limits;
mod stand;
mod who;
