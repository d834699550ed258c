//! Workspace of a service: lock and queue, preparation, checkout, task documents.

pub mod aside;
pub mod attempts;
pub mod branch;
pub mod caches;
pub mod clock;
pub mod documents;
pub mod export;
pub mod fetch;
pub mod import_caches;
pub mod instructions;
pub mod keep;
pub mod lock;
pub mod preflight;
pub mod recover;
pub mod reopen;
pub mod reserve;
pub mod setup;
pub mod state;
pub mod submodules;
pub mod tools;
mod transient;
pub mod verify;
pub mod working_directory;
pub mod worktree;
