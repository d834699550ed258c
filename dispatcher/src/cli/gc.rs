//! `dispatcher gc`.

use serde_json::json;

use super::context::CliContext;
use crate::error::Error;
use crate::task::retention::DEFAULT_KEEP_RUNS;

/// Remove the records of old runs
///
/// Keeps active runs, runs with unpushed work, and lost runs that were not retried. Workspaces and
/// attempt numbers are kept as well.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  dispatcher gc --dry-run
  dispatcher gc --keep 5")]
pub(super) struct Arguments {
    /// Number of runs to keep per service
    #[arg(long, value_name = "N", default_value_t = DEFAULT_KEEP_RUNS)]
    keep: usize,
    /// Print what would be removed, remove nothing
    #[arg(long)]
    dry_run: bool,
}

pub(super) async fn run(context: &CliContext, arguments: Arguments) -> Result<u8, Error> {
    let Arguments { keep, dry_run } = arguments;
    let removals = context.dispatcher.gc(keep, dry_run).await?;
    let bytes: u64 = removals.iter().map(|removal| removal.bytes).sum();
    let result = json!({ "dry_run": dry_run, "removed": removals, "bytes": bytes });
    context.output.result(&result, || {
        let verb = if dry_run { "would remove" } else { "removed" };
        let each = removals.iter().map(|removal| (removal.run.to_string(), removal.bytes));
        let all = (format!("{} records in total", removals.len()), bytes);
        each.chain([all])
            .map(|(what, bytes)| format!("{verb} {what} ({} KiB)\n", bytes.div_ceil(1024)))
            .collect()
    })?;
    Ok(0)
}
