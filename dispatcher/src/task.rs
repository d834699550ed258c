//! The domain: what a request means and what a run's traces say. Pure: no file,
//! no clock, no process, no sibling.

pub mod check;
pub mod event_fold;
pub mod image;
pub mod lines;
pub mod request;
pub mod resolve;
pub mod retention;
pub mod selection;
pub mod settings;
pub mod status;
pub mod stop_mode;
pub mod submission;
pub mod text;
