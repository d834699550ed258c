//! What each command does, for the command line and MCP alike: resolve the
//! request, decide, call the backend.

mod debug;
mod diff;
mod dispatcher;
mod docs;
mod doctor;
mod follow;
mod gc;
mod query;
mod ready;
mod record;
mod stop;
mod submit;

pub use crate::backend::Artifact;
pub use crate::task::check::{Check, CheckStatus};
pub use dispatcher::Dispatcher;
pub use docs::DocsRequest;
pub use follow::WaitOutcome;
pub use gc::Removal;
pub use query::{Filter, StatusMatch};
pub use stop::StopOutcome;
pub use submit::{Preview, Submission, SubmitOutcome};
