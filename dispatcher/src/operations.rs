//! What each command does, for the command line and MCP alike: resolve the
//! request, decide, call the backend.

mod checkout;
mod debug;
mod diff;
mod dispatcher;
mod docs;
mod doctor;
mod follow;
mod gc;
mod page;
mod query;
mod ready;
mod record;
mod services;
mod stop;
mod submit;
mod watch;

pub use crate::backend::Artifact;
pub use crate::task::check::{Check, CheckStatus};
pub use checkout::{CheckedOut, is_pushed};
pub use dispatcher::Dispatcher;
pub use docs::DocsRequest;
pub use follow::WaitOutcome;
pub use gc::Removal;
pub use page::PullRequestPage;
pub use query::{Filter, StatusMatch};
pub use stop::StopOutcome;
pub use submit::{Preview, Submission, SubmitOutcome};
pub use watch::WatchedRuns;
