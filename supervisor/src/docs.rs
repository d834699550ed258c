//! Docs runs: agents write the documents of tasks.
//!
//! | module | contents |
//! |---|---|
//! | [`plan`] | missing documents of each task, and its related tasks. Pure |
//! | [`prompt`] | prompts of docs sessions. Pure |
//! | [`session`] | prepares the session about one task |
//! | [`review`] | accepts or rejects a document. Pure |
//! | [`collect`] | reads written documents and commits them task by task |
//! | [`usage`] | result and usage of each task. Pure |

pub mod collect;
pub mod plan;
pub mod prompt;
pub mod review;
pub mod session;
pub mod usage;
