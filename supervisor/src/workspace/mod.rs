//! The service's workspace: lock and queue, preparation, checkout, documents.

pub mod attempts;
pub mod branch;
pub mod check;
pub mod documents;
pub mod fetch;
pub mod lock;
mod patience;
pub mod recover;
pub mod state;
pub mod tools;
pub mod working_directory;
