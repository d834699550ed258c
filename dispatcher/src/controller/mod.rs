//! Runs in a cluster: TaskRuns, and the controller that has Jobs perform them.
//!
//! | module | what it knows |
//! |---|---|
//! | [`crd`] | the TaskRun: one run, as a cluster keeps it |

pub mod crd;
pub mod decide;
pub mod objects;
pub mod pod;
pub mod queue;
pub mod status;
