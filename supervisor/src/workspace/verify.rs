//! Step `verify`: runs the verify commands on a clean export of exactly the commit to push.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use orchestrator_contract::Reason;
use orchestrator_contract::outcome::CommandResult;

use super::export::{Export, ExportInput, create_export, remove_stale};
use super::fetch::blocking;
use super::keep;
use crate::commands::{CommandContext, CommandsResult, run_commands};
use crate::context::Context;
use crate::failure::Failure;
use crate::git::Oid;
use crate::process::kill_descendants;

/// Maximum time of all setup commands of one tree together.
pub const SETUP_TIMEOUT: Duration = Duration::from_secs(30 * 60);

/// Maximum time to wait for the removal of an export; the next run removes the rest.
const REMOVE_TIMEOUT: Duration = Duration::from_secs(20);

/// Result of a verification.
#[derive(Clone, Debug)]
pub struct VerifiedCommit {
    /// Verified commit; `None` without verify commands.
    pub commit: Option<Oid>,
    /// Results of the verify commands, or of the setup commands if one failed.
    pub results: CommandsResult,
    /// Directories from an earlier verification.
    pub kept: Vec<String>,
    /// Notes for people.
    pub notes: Vec<String>,
}

/// Verifies a commit: exports it, runs the setup and the verify commands there, removes the export.
///
/// No process of the agent may be left: it could answer for a command. Calls `on_finished` with the
/// result of each command. If cancelled, processes and the export remain.
///
/// # Errors
/// Returns an error if the commit cannot be exported, a command cannot be spawned, or processes of the
/// agent cannot be killed.
pub async fn verify(
    context: &Arc<Context>,
    input: ExportInput,
    on_finished: impl Fn(&CommandResult),
) -> Result<VerifiedCommit, Failure> {
    let task = &context.task;
    if task.verify.is_empty() {
        let results = CommandsResult { reports: Vec::new(), passed: true };
        return Ok(VerifiedCommit { commit: None, results, kept: Vec::new(), notes: Vec::new() });
    }
    let remaining = kill_descendants(&BTreeSet::new()).await;
    if !remaining.is_empty() {
        let message = format!(
            "not verified: processes of the agent could not be killed and may interfere: {remaining:?}"
        );
        return Err(Failure::new(Reason::AgentFailed, message));
    }
    let commit = input.commit;
    let prepare = Arc::clone(context);
    let (export, kept) = blocking(move || {
        remove_stale(&prepare);
        let export = create_export(&prepare, &input)?;
        let store = prepare.layout.verify_kept(&prepare.task.service);
        let kept = keep::restore(&store, &export.repository(), &prepare.task.verify_keep);
        Ok((export, kept))
    })
    .await?;
    let results = run_in(context, &export, on_finished).await;
    let notes = close(context, export).await;
    Ok(VerifiedCommit { commit: Some(commit), results: results?, kept, notes })
}

/// Runs the setup commands, then the verify commands.
async fn run_in(
    context: &Context,
    export: &Export,
    on_finished: impl Fn(&CommandResult),
) -> Result<CommandsResult, Failure> {
    let command_context = CommandContext {
        supervisor: context.supervisor.clone(),
        environment: export.environment(context),
        sandbox: export.sandbox(context),
        directory: export.working_directory().to_owned(),
    };
    let failed = |error| Failure::from_error(Reason::InternalError, &error);
    let task = &context.task;
    let redactor = &context.redactor;
    let setup = run_commands(&task.setup, &command_context, redactor, SETUP_TIMEOUT, &on_finished).await;
    let setup = setup.map_err(failed)?;
    if !setup.passed {
        return Ok(setup);
    }
    let limit = Duration::try_from_secs_f64(task.limits.verify_minutes * 60.0).unwrap_or(Duration::MAX);
    run_commands(&task.verify, &command_context, redactor, limit, &on_finished).await.map_err(failed)
}

/// Moves the kept directories out and removes the export.
async fn close(context: &Arc<Context>, export: Export) -> Vec<String> {
    let context = Arc::clone(context);
    let closing = tokio::task::spawn_blocking(move || {
        let store = context.layout.verify_kept(&context.task.service);
        let notes = keep::store(&store, &export.repository(), &context.task.verify_keep);
        if let Err(error) = export.remove() {
            context.journal.warn(format!("cannot remove an export: {error}"));
        }
        notes
    });
    tokio::time::timeout(REMOVE_TIMEOUT, closing).await.ok().and_then(Result::ok).unwrap_or_default()
}
