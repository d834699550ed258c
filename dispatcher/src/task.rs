//! The domain: what a request means, and what the events of a run say.
//!
//! Pure: no I/O, no clock, no process, no sibling module but the error type.

pub mod address;
pub mod advice;
pub mod check;
pub mod cost;
pub mod diff;
pub mod event_fold;
pub mod image;
pub mod image_pattern;
pub mod lines;
pub mod model;
pub mod plan;
pub mod request;
pub mod resolve;
pub mod retention;
pub mod run_table;
pub mod selection;
pub mod service_name;
pub mod settings;
pub mod status;
pub mod stop_mode;
pub mod submission;
pub mod suggest;
pub mod text;
pub mod waiting_documents;
mod word_wrap;
pub mod workspace;
