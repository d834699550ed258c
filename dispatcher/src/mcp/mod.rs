//! The MCP server: what an IDE's model calls, and what it reads.

mod answers;
mod arguments;
mod text;
mod wording;

pub use wording::in_tool_words;
