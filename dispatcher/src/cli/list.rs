//! `dispatcher list`.

use jiff::Timestamp;
use orchestrator_contract::{Phase, TaskId};
use serde_json::json;

use super::context::CliContext;
use super::watch;
use crate::error::Error;
use crate::operations::Filter;
use crate::output::OutputFormat;
use crate::task::advice::{Advice, render_for_cli};
use crate::task::run_table::render_table;
use crate::task::selection::{self, PHASES};

/// List runs, newest first
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  dispatcher list
  dispatcher list --service trader --phase Running,Publishing
  dispatcher list --all
  dispatcher list -o json")]
pub(super) struct Arguments {
    /// Filter by service
    #[arg(long, value_name = "NAME")]
    service: Option<String>,
    /// Filter by task ID
    #[arg(long, value_name = "ID")]
    task: Option<TaskId>,
    /// Filter by phase, comma-separated
    ///
    /// Phases: Pending, Preparing, Running, Publishing, Succeeded, Failed, Stopped.
    #[arg(long, value_name = "PHASE", value_parser = parse_phase, value_delimiter = ',')]
    phase: Vec<Phase>,
    /// Maximum number of runs [default: 20 in a table, all in JSON and YAML]
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
    /// List all runs
    #[arg(long, conflicts_with = "limit")]
    all: bool,
    /// Refresh the list until Ctrl-C, as `watch` does
    #[arg(long, conflicts_with_all = ["limit", "all", "phase"])]
    pub(super) watch: bool,
}

/// Runs in a table without `--limit` and `--all`: they fit a screen.
const DEFAULT_LIMIT: usize = 20;

fn parse_phase(text: &str) -> Result<Phase, String> {
    selection::parse_phase(text).ok_or_else(|| {
        let names = PHASES.map(Phase::name);
        format!("unknown phase `{text}`: use one of {}", names.join(", "))
    })
}

pub(super) async fn run(context: &CliContext, arguments: &Arguments) -> Result<u8, Error> {
    let Arguments { service, task, phase, limit, all, watch } = arguments;
    let filter = context.filter(service.as_deref(), *task).await?;
    if *watch {
        return watch::watch(context, &filter).await;
    }
    let mut runs = context.dispatcher.list(&filter).await?;
    runs.retain(|status| phase.is_empty() || phase.contains(&status.phase));
    let limit = match (limit, context.output.format()) {
        (Some(limit), _) => *limit,
        (None, OutputFormat::Table) if !all => DEFAULT_LIMIT,
        (None, OutputFormat::Table | OutputFormat::Json | OutputFormat::Yaml) => usize::MAX,
    };
    let total = runs.len();
    runs.truncate(limit);
    // The service, task and phase of a damaged record are not known.
    let is_filtered = service.is_some() || task.is_some() || !phase.is_empty();
    let damaged = if is_filtered { Vec::new() } else { context.dispatcher.damaged().await? };
    if runs.is_empty() && damaged.is_empty() {
        context.output.note("no runs found");
        let others =
            if is_filtered { context.dispatcher.list(&Filter::default()).await? } else { Vec::new() };
        let hint = Advice::after_no_match(others.iter().map(|status| &status.run));
        context.output.note(&format!("hint: {}", render_for_cli(&hint)));
    }
    context.output.result(&json!({ "runs": runs, "damaged": damaged }), || {
        if runs.is_empty() && damaged.is_empty() {
            return String::new();
        }
        render_table(&runs, &damaged, Timestamp::now(), context.output.table_style())
    })?;
    if runs.len() < total {
        let rest = total - runs.len();
        context.output.note(&format!("{rest} older runs are not shown; --all shows them"));
    }
    Ok(0)
}
