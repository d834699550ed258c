//! `dispatcher checkout`.

use orchestrator_contract::RunName;

use super::context::CliContext;
use super::run_selector::RunSelector;
use crate::error::Error;
use crate::operations::is_pushed;

/// Check out the branch of a run in this clone
///
/// Fetches the pushed branch of the run from the remote and checks it out as `orchestrator/RUN`. Other
/// branches are not changed, and no hook runs. Does nothing if it would overwrite uncommitted changes.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  dispatcher checkout
  dispatcher checkout trader-claude-agent-1-task1-attempt1 && cargo test
  git switch -                     # back to your branch")]
pub(super) struct Arguments {
    /// Run name, or latest, current, task3 or a service [default: the latest that is pushed]
    run: Option<RunName>,
    #[command(flatten)]
    which: RunSelector,
}

pub(super) async fn run(context: &CliContext, arguments: Arguments) -> Result<u8, Error> {
    let Arguments { run, which } = arguments;
    let run = which.newest(context, run, is_pushed).await?;
    let done = context.dispatcher.check_out(&run).await?;
    context.output.result(&done, || format!("checked out {} in {}\n", done.branch, done.folder))?;
    if done.uses_lfs {
        context.output.note(
            "files of git-lfs were not downloaded: read .lfsconfig, which names their server, then run: git lfs \
             pull",
        );
    }
    Ok(0)
}
