//! What dispatcher and supervisor say to each other.
//!
//! One type on both sides keeps both honest. Everything here is a value: no
//! clock, no file, no process, every platform.
//!
//! | module | what it knows |
//! |---|---|
//! | [`task`] | what a run is asked to do ([`TaskSpec`]) |
//! | [`names`] | services, agents, tasks, branches, and the names made from them |
//! | [`reason`] | why a run ended: phase, exit code, retryable, hint ([`Reason`]) |
//! | [`outcome`] | how a run ended, in full ([`Outcome`]) |
//! | [`event`] | the one channel: one JSON object a line ([`Event`]) |
//! | [`layout`] | where things are in a workspace |
//! | [`schema`] | the JSON Schema of all of it |
//!
//! The reader of a task refuses unknown fields; the reader of events and
//! outcomes tolerates them. `samples/` holds stored documents of every version,
//! which tests read back.

// Doc comments become descriptions of the JSON schema and of the CRD.
#![warn(missing_docs)]

pub mod event;
pub mod layout;
pub mod names;
pub mod outcome;
pub mod reason;
pub mod schema;
pub mod step;
pub mod task;

pub use event::{Event, EventBody, Level};
pub use names::{
    AgentName, BranchName, Kind, RepositoryUrl, RunName, ServiceName, TaskId, TaskKey, WorkingDirectory,
};
pub use outcome::Outcome;
pub use reason::{Phase, Reason};
pub use step::Step;
pub use task::TaskSpec;

/// The version of the contract that this code writes.
///
/// It grows when a reader of the previous version could misunderstand a
/// document; added fields do not change it.
pub const VERSION: u32 = 1;
