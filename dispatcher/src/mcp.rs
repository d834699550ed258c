//! The MCP server: what an IDE's model calls, and what it reads.
//!
//! | module | what it knows |
//! |---|---|
//! | `server` | who the server is, and whose verbs it speaks |
//! | [`stdio`] | the server over stdin and stdout |
//! | `tools` | the tools, a file each |
//! | [`arguments`], [`answers`] | what they take, what they answer |
//! | [`text`], [`wording`] | the text that a model reads (pure) |
//! | [`prompts`], `resources`, `completion` | what clients offer their users |
//! | `which` | the run that a call means |

pub mod arguments;
mod completion;
pub mod outputs;
pub mod prompts;
mod resources;
mod select;
mod server;
pub mod stdio;
pub mod text;
mod tools;
pub mod wording;

pub use server::{DispatcherFactory, Server, TransportKind};
