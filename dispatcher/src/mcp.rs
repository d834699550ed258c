//! The MCP server: tools, prompts and resources for the model of an IDE.
//!
//! | module | content |
//! |---|---|
//! | `server` | the server and its instructions |
//! | [`stdio`] | the transport over stdin and stdout |
//! | `tools` | the tools, one file each |
//! | [`arguments`], [`outputs`] | input and output of the tools |
//! | `parameters`, `schema` | reading of the arguments, whatever types a client sends; their schemas |
//! | [`text`] | the text for the model (pure) |
//! | [`prompts`], `resources`, `completion` | prompts, resources and completion of their arguments |
//! | `select` | the run that a call refers to |

pub mod arguments;
mod completion;
pub mod outputs;
mod parameters;
pub mod prompts;
mod resources;
mod schema;
mod select;
mod server;
pub mod stdio;
pub mod text;
mod tools;

pub use server::{DispatcherFactory, Server, TransportKind};
