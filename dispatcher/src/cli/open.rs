//! `dispatcher open`.

use orchestrator_contract::RunName;
use serde_json::json;

use super::context::CliContext;
use super::run_selector::RunSelector;
use crate::error::Error;

/// Open the pull request of a run in the browser
///
/// Prints its URL. Without a terminal or a browser, only prints it.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  dispatcher open
  dispatcher open trader-claude-agent-1-task1-attempt1
  dispatcher open --task 3 | cat")]
pub(super) struct Arguments {
    /// Run name, or latest, current, task3 or a service [default: the latest with a pull request]
    run: Option<RunName>,
    #[command(flatten)]
    which: RunSelector,
}

pub(super) async fn run(context: &CliContext, arguments: Arguments) -> Result<u8, Error> {
    let Arguments { run, which } = arguments;
    let run = which.newest(context, run, |status| status.pull_request.is_some()).await?;
    let page = context.dispatcher.pull_request_page(&run).await?;
    let opened = context.output.is_on_terminal() && context.dispatcher.open_page(&page)?;
    if !page.is_trusted {
        context.output.note("not opened: the URL is not an https page of the repository's host");
    }
    let value = json!({ "run": run, "url": page.url, "opened": opened });
    context.output.result(&value, || format!("{}\n", page.url))?;
    Ok(0)
}
