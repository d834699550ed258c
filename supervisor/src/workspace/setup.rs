//! Setup commands: on the base, where they fill the trusted caches, and in the agent's tree.

use std::path::Path;

use orchestrator_contract::outcome::CommandResult;
use orchestrator_contract::task::Mode;
use orchestrator_contract::{Level, Reason};
use serde::{Deserialize, Serialize};

use super::branch::PreparedBranch;
use super::caches;
use super::export::{Export, ExportInput, create_export, remove_stale};
use super::fetch::{blocking, open};
use super::import_caches::import_caches;
use super::state::{TreeState, WorktreeStatus, stat_cache, write_tree_state};
use super::verify::SETUP_TIMEOUT;
use super::worktree::{Access, open_worktree};
use crate::agent::prepare_session::{base_environment, create_home};
use crate::commands::{CommandContext, CommandsResult, run_commands};
use crate::context::{Context, RepositoryRole};
use crate::failure::Failure;
use crate::git::{GitError, StatCache, snapshot};
use crate::record::file::{read_json, write_json};
use crate::sandbox::Role;
use crate::site::Site;

/// Records for which base and commands the trusted caches were filled last.
#[derive(Debug, Deserialize, Eq, PartialEq, Serialize)]
struct Filled {
    base: String,
    setup: Vec<String>,
}

/// Removes exports of earlier runs, and runs the setup commands on the base and in the agent's tree.
///
/// # Errors
/// Returns `InvalidConfiguration` if a command fails in the agent's tree, or an error if the tree
/// cannot be read.
pub async fn run_setup(
    context: &Context,
    prepared: &PreparedBranch,
    directory: &Path,
) -> Result<(), Failure> {
    let cleaned = context.clone();
    blocking(move || {
        remove_stale(&cleaned, &cleaned.agent_site);
        Ok(())
    })
    .await?;
    if context.task.setup.is_empty() {
        return Ok(());
    }
    fill_trusted_caches(context, prepared).await?;
    let site = context.agent_site.clone();
    let home = create_home(context, &site, context.layout.agent_dir()).await?;
    let command_context = CommandContext {
        environment: base_environment(context, &site, &home),
        site,
        sandbox: context.sandbox_spec(Role::Setup, home.folder()),
        directory: directory.to_owned(),
    };
    let results = run(context, &command_context, "setup").await?;
    if let Some(text) = results.failure_text() {
        let message = format!("setup command {}", crate::agent::stream::truncate(&text, 600));
        return Err(Failure::new(Reason::InvalidConfiguration, message));
    }
    let (context, prepared) = (context.clone(), prepared.clone());
    blocking(move || record_setup(&context, &prepared)).await
}

/// Runs the setup commands on the base branch, once for each of its commits.
///
/// Only reviewed code runs there: a retry, whose branch has the agent's work, fills nothing.
async fn fill_trusted_caches(context: &Context, prepared: &PreparedBranch) -> Result<(), Failure> {
    let record = caches::filled_record(&context.layout);
    let filled = Filled { base: prepared.base.to_string(), setup: context.task.setup.clone() };
    let is_filled = read_json::<Filled>(&record).is_ok_and(|last| last.as_ref() == Some(&filled));
    if context.task.mode == Mode::Retry || is_filled {
        return Ok(());
    }
    let input = ExportInput {
        commit: prepared.base,
        branch: prepared.branch.clone(),
        working_directory: prepared.working_directory.path.clone(),
    };
    let export = create_export(context, &context.agent_site, input).await?;
    let trusted = context.layout.trusted_caches();
    let mut environment = export.environment(context);
    environment.extend(match &context.agent_site {
        Site::Machine { .. } => {
            caches::trusted_environment(&context.layout).map_err(|error| Failure::io(&trusted, &error))?
        }
        // A container cannot write the trusted ones: they are imported from here.
        Site::Container(_) => caches::environment(&export.new_caches()),
    });
    let sandbox = export.sandbox(context).write([trusted]);
    let command_context = CommandContext {
        site: context.agent_site.clone(),
        environment,
        sandbox,
        directory: export.working_directory().to_owned(),
    };
    let results = run(context, &command_context, "setup on the base").await;
    let closing = context.clone();
    let passed = results.as_ref().is_ok_and(|results| results.passed);
    let imported = blocking(move || {
        let imported = if passed { import_new(&closing, &export) } else { Ok(()) };
        export.remove(&closing);
        Ok(imported)
    })
    .await?;
    if let Err(failure) = imported {
        context.journal.warn(format!("setup on the base filled no caches: {}", failure.message));
        return Ok(());
    }
    match results?.failure_text() {
        // The same commands run in the agent's tree; their failure there ends the run.
        Some(text) => {
            let text = crate::agent::stream::truncate(&text, 600);
            context.journal.warn(format!("setup on the base filled no caches: {text}"));
            Ok(())
        }
        None => write_json(&record, &filled).map_err(|error| Failure::io(&record, &error)),
    }
}

/// Imports the caches that setup commands filled in another container.
fn import_new(context: &Context, export: &Export) -> Result<(), Failure> {
    let Site::Container(_) = &context.agent_site else { return Ok(()) };
    let guest = context.agent_site.open(&export.new_caches())?;
    let imported = import_caches(&guest, Path::new(""), &context.layout.trusted_caches());
    imported.map(drop).map_err(|error| Failure::from_error(Reason::IoError, &error))
}

async fn run(context: &Context, commands: &CommandContext, source: &str) -> Result<CommandsResult, Failure> {
    let journal = context.journal.clone();
    let on_finished = |report: &CommandResult| {
        let line = format!("{} ({:.1} s)", report.command, report.seconds);
        journal.log(Level::Info, source, line);
    };
    run_commands(&context.task.setup, commands, &context.redactor, SETUP_TIMEOUT, on_finished).await
}

/// Records what the commands changed in the agent's tree, which is not work of the agent.
fn record_setup(context: &Context, prepared: &PreparedBranch) -> Result<(), Failure> {
    let git = |error: GitError| Failure::from_error(error.reason(), &error);
    let control = open(context, RepositoryRole::Target)?;
    let start = control.commit_tree(prepared.start).map_err(git)?;
    let cache_file = stat_cache(&context.layout, context.task.kind);
    let cache = StatCache::load(&cache_file);
    let guest = open_worktree(context, Access::Existing)?;
    let captured = snapshot::capture(&control, &guest, start, None, &cache).map_err(git)?;
    captured.cache.save(&cache_file).map_err(git)?;
    let state = TreeState {
        run: context.task.run.clone(),
        status: WorktreeStatus::Dirty,
        branch: prepared.branch.clone(),
        start: prepared.start.to_string(),
        base: prepared.base.to_string(),
        setup: (captured.tree != start).then(|| captured.tree.to_string()),
    };
    let file = context.tree_state();
    write_tree_state(&file, &state).map_err(|error| Failure::io(&file, &error))
}
