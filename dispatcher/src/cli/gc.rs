//! `dispatcher gc`.

use jiff::Timestamp;
use orchestrator_contract::ServiceName;
use serde_json::json;

use super::context::CliContext;
use crate::error::Error;
use crate::task::retention::DEFAULT_KEEP_RUNS;
use crate::task::workspace::{WorkspaceAction, WorkspacePlan, size_text};

/// Remove the records of old runs, or workspaces
///
/// Keeps active runs, runs with unpushed work, and lost runs that were not retried. Workspaces and
/// attempt numbers are kept as well.
///
/// With `--workspaces`, lists the workspaces of services with their size, last use and what would be lost;
/// with `--yes` too, removes them. A workspace of an active run is kept, and one with unpushed work unless
/// `--service` names it. Records and attempt numbers are kept.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  dispatcher gc --dry-run
  dispatcher gc --keep 5
  dispatcher gc --workspaces
  dispatcher gc --workspaces --service trader --yes")]
pub(super) struct Arguments {
    /// Number of runs to keep per service
    #[arg(long, value_name = "N", default_value_t = DEFAULT_KEEP_RUNS)]
    keep: usize,
    /// Print what would be removed, remove nothing
    #[arg(long, conflicts_with = "yes")]
    dry_run: bool,
    /// List the workspaces of services, and with --yes remove them
    #[arg(long, conflicts_with = "keep")]
    workspaces: bool,
    /// Only the workspace of this service, with its unpushed work
    #[arg(long, value_name = "NAME", requires = "workspaces")]
    service: Option<ServiceName>,
    /// Remove the listed workspaces
    #[arg(long, requires = "workspaces")]
    yes: bool,
}

pub(super) async fn run(context: &CliContext, arguments: Arguments) -> Result<u8, Error> {
    let Arguments { keep, dry_run, workspaces, service, yes } = arguments;
    if workspaces {
        return gc_workspaces(context, service.as_ref(), yes).await;
    }
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

async fn gc_workspaces(context: &CliContext, service: Option<&ServiceName>, yes: bool) -> Result<u8, Error> {
    let dispatcher = &context.dispatcher;
    let plans = if yes {
        dispatcher.gc_workspaces(service).await?
    } else {
        dispatcher.plan_workspaces(service).await?
    };
    let result = json!({ "dry_run": !yes, "workspaces": plans });
    context.output.result(&result, || {
        let now = Timestamp::now();
        let mut text: String = plans.iter().map(|plan| plan.render(now)).collect();
        text.push_str(&summary(&plans, service, yes));
        text
    })?;
    Ok(0)
}

/// Summarizes what was or would be removed, and names the command that removes it.
fn summary(plans: &[WorkspacePlan], service: Option<&ServiceName>, yes: bool) -> String {
    let wanted = if yes { WorkspaceAction::Removed } else { WorkspaceAction::Remove };
    let removed = plans.iter().filter(|plan| plan.action == wanted);
    let (count, bytes) =
        removed.fold((0_u32, 0), |(count, bytes), plan| (count + 1, bytes + plan.bytes.unwrap_or_default()));
    let space = if bytes > 0 { format!(" ({})", size_text(bytes)) } else { String::new() };
    let what = format!("{count} workspace{}{space}", if count == 1 { "" } else { "s" });
    if yes {
        return format!("removed {what}\n");
    }
    if count == 0 {
        return "nothing to remove\n".to_owned();
    }
    let named = service.map_or(String::new(), |service| format!(" --service {service}"));
    format!("nothing was removed; `dispatcher gc --workspaces{named} --yes` removes {what}\n")
}
