//! What is kept and shown of a run: events on standard output and in the run's
//! log, the outcome file, the termination message.

pub mod file;
pub mod journal;
pub mod termination;
pub mod text;

pub use journal::EventLog;
