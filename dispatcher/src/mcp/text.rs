//! Text output of the tools, for the model. Pure.

mod advice;
mod diff;
mod log;
mod markdown;
mod status;
mod submission;

pub use advice::{render_error, render_for_mcp};
pub use diff::{listed_files, render_diff};
pub use log::{LogPage, LogRange, paginate, render_log};
pub use status::{candidates, render_damaged, render_list, render_run, render_stop, render_wait};
pub use submission::{PriorRuns, render_submission};
