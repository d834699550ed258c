//! Types and constants that dispatcher and supervisor share.
//!
//! Pure data: this crate reads no clock, no file and no environment, and starts no process.
//!
//! | module | content |
//! |---|---|
//! | [`task`] | the task spec: what one attempt does ([`TaskSpec`]) |
//! | [`names`] | names of services, agents, tasks, branches and runs |
//! | [`reason`] | why a run ended: phase, exit code, retry advice, hint ([`Reason`]) |
//! | [`outcome`] | the full result of a run ([`Outcome`]) |
//! | [`event`] | the supervisor's standard output: one JSON object per line ([`Event`]) |
//! | [`http_url`] | HTTP URLs that decide where a credential is sent |
//! | [`layout`] | paths in a workspace |
//! | [`containers`] | containers of a run, and the paths in them |
//! | [`figures`] | durations, turns and costs as text |
//! | [`budget`] | time budgets for ending a run |
//! | [`bounds`] | the maximum of each text field |
//! | [`bounded`] | applies them to an outcome |
//! | [`terminal`] | text that cannot control a terminal |
//! | [`protected`] | paths that a run must not change by default |
//! | [`secrets`] | names of secrets in files, Kubernetes Secrets and variables |
//! | [`variables`] | environment variables that both programs use |
//! | [`schema`] | the JSON Schema of these types |
//!
//! A task spec with an unknown field is rejected; unknown fields of events and outcomes are ignored.
//! `samples/` holds documents of every released contract version; tests check that they can still be read.

// Doc comments become descriptions of the JSON schema and of the CRD.
#![warn(missing_docs)]

pub mod bounded;
pub mod bounds;
pub mod budget;
pub mod containers;
pub mod event;
pub mod figures;
pub mod http_url;
pub mod layout;
pub mod names;
pub mod outcome;
pub mod protected;
pub mod reason;
pub mod schema;
pub mod secrets;
pub mod step;
pub mod task;
pub mod terminal;
pub mod variables;

pub use event::{Event, EventBody, Level};
pub use names::{
    AgentName, BranchName, Kind, RepositoryUrl, RunName, ServiceName, TaskId, TaskKey, WorkingDirectory,
};
pub use outcome::Outcome;
pub use reason::{Phase, Reason};
pub use step::Step;
pub use task::TaskSpec;

/// Contract version that this crate writes.
///
/// It increases when a reader of the previous version could misread a document. Adding a field does
/// not increase it.
pub const VERSION: u32 = 1;
