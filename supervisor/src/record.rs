//! The record of a run: events on standard output and in the run's log, the
//! outcome file, the termination message.

pub mod event_log;
pub mod file;
pub mod termination;
pub mod text;

pub use event_log::EventLog;
