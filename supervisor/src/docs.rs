//! Documents of tasks, written by agents: what is missing, what the agent is told, whether
//! what it wrote counts.
//!
//! | module | what it knows |
//! |---|---|
//! | [`plan`] | which tasks have which documents, and what surrounds a task. Pure |
//! | [`prompt`] | what the agent is told. Pure |
//! | [`review`] | whether a document counts. Pure |
//! | [`talk`] | prepares the conversation about one task |
//! | [`take`] | reads what was written and commits it, task by task |
//! | [`account`] | what became of each task, and at what cost. Pure |

pub mod collect;
pub mod plan;
pub mod prompt;
pub mod review;
pub mod session;
pub mod usage;
