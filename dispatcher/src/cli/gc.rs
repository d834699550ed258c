//! gc.

use serde_json::json;

use super::CliContext;
use crate::error::Error;
use crate::task::retention::DEFAULT_KEEP_RUNS;

/// Removes the records of old runs.
///
/// Never that of a run at work, of one whose work only the workspace has, or of
/// a lost one that nobody followed up. Workspaces and attempt numbers stay.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  dispatcher gc --dry-run
  dispatcher gc --keep 5")]
pub(super) struct Arguments {
    /// How many runs of each service to keep.
    #[arg(long, value_name = "N", default_value_t = DEFAULT_KEEP_RUNS)]
    keep: usize,
    /// Say what would be removed, and remove nothing.
    #[arg(long)]
    dry_run: bool,
}

pub(super) async fn run(session: &CliContext, arguments: Arguments) -> Result<u8, Error> {
    let Arguments { keep, dry_run } = arguments;
    let removals = session.dispatcher.gc(keep, dry_run).await?;
    let bytes: u64 = removals.iter().map(|removal| removal.bytes).sum();
    let result = json!({ "dry_run": dry_run, "removed": removals, "bytes": bytes });
    session.output.result(&result, || {
        let verb = if dry_run { "would remove" } else { "removed" };
        let each = removals.iter().map(|one| (one.run.to_string(), one.bytes));
        let all = (format!("{} records in all", removals.len()), bytes);
        each.chain([all])
            .map(|(what, bytes)| format!("{verb} {what} ({} KiB)\n", bytes.div_ceil(1024)))
            .collect()
    })?;
    Ok(0)
}
