//! `dispatcher diff`.

use orchestrator_contract::RunName;
use serde_json::json;

use super::context::CliContext;
use super::run_selector::RunSelector;
use crate::error::Error;
use crate::task::diff::color_patch;

/// Print the changes of a run's branch
///
/// The changes are those since the base of the branch, as of the last time that the run saved its work.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  dispatcher diff
  dispatcher diff trader-claude-agent-1-task1-attempt1 --stat
  dispatcher diff --service trader --path src/ | less -R")]
pub(super) struct Arguments {
    /// Run name, or latest, current, task3 or a service [default: the latest with saved work]
    run: Option<RunName>,
    #[command(flatten)]
    which: RunSelector,
    /// Print only the number of changed lines per file
    #[arg(long)]
    stat: bool,
    /// Print only files whose path contains this text
    #[arg(long, value_name = "TEXT")]
    path: Option<String>,
}

pub(super) async fn run(context: &CliContext, arguments: Arguments) -> Result<u8, Error> {
    let Arguments { run, which, stat, path } = arguments;
    let runs = which.all(context, run).await?;
    let (run, mut diff) = context.dispatcher.newest_diff(&runs).await?;
    if let Some(path) = path {
        diff = diff.with_paths(&path);
    }
    context.output.note(&format!("diff of {run}: {}", diff.summary()));
    let mut value = json!({ "run": run, "files": diff.files, "truncated": diff.truncated });
    if !stat && let Some(fields) = value.as_object_mut() {
        fields.insert("patch".to_owned(), diff.patch().into());
    }
    context.output.result(&value, || {
        if stat { diff.render_stat() } else { color_patch(&diff.patch(), context.output.color()) }
    })?;
    Ok(0)
}
