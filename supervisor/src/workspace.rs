//! Workspace of a service: lock and queue, preparation, checkout, task documents.

pub mod aside;
pub mod attempts;
pub mod branch;
pub mod clock;
pub mod documents;
pub mod fetch;
pub mod lock;
pub mod preflight;
pub mod recover;
pub mod reserve;
pub mod state;
pub mod tools;
mod transient;
pub mod working_directory;
