//! Fresh directories for everything that runs in a sandbox, and the data that outlives them.
//!
//! Nothing that one sandbox wrote is mounted in a later one. What persists is data that the
//! supervisor asks for by name, reads without following links and stores in its own directory:
//! the file of a session, and the files that an MCP server keeps.

mod beneath;
mod home;
pub mod kept;
pub mod sessions;

pub use beneath::{ReadError, copy_file, read_file};
pub use home::{Home, remove_all};
