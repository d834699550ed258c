//! Fresh directories for everything that runs in a sandbox, and the data that outlives them.
//!
//! Nothing that one sandbox wrote is mounted in a later one. What persists is data that the
//! supervisor asks a guest for by name, and stores in its own directory: the file of a session, and
//! the files that an MCP server keeps.

mod home;
pub mod kept;
mod read;
pub mod sessions;

pub use home::{CreateError, Home, remove_all};
pub use read::{ReadError, copy_file, read_file};
