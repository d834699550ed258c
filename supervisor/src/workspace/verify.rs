//! Step `verify`: runs the verify commands on a clean export of exactly the commit to push.

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
    let remaining = context.agent_site.kill_all().await;
    if !remaining.is_empty() {
        let message = format!(
            "not verified: processes of the agent could not be killed and may interfere: {remaining:?}"
        );
        return Err(Failure::new(Reason::AgentFailed, message));
    }
    let commit = input.commit;
    let cleaned = Arc::clone(context);
    blocking(move || {
        remove_stale(&cleaned, &cleaned.verify_site);
        Ok(())
    })
    .await?;
    let export = create_export(context, &context.verify_site, input).await?;
    let (restored, repository) = (Arc::clone(context), export.repository());
    let kept = blocking(move || {
        if restored.task.verify_keep.is_empty() {
            return Ok(Vec::new());
        }
        let guest = restored.verify_site.open(restored.layout.root())?;
        let store = restored.layout.verify_kept(&restored.task.service);
        Ok(keep::restore(&guest, &store, &repository, &restored.task.verify_keep))
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
        site: context.verify_site.clone(),
        environment: export.environment(context),
        sandbox: export.sandbox(context),
        directory: export.working_directory().to_owned(),
    };
    let task = &context.task;
    let redactor = &context.redactor;
    let setup = run_commands(&task.setup, &command_context, redactor, SETUP_TIMEOUT, &on_finished).await?;
    if !setup.passed {
        return Ok(setup);
    }
    let limit = Duration::try_from_secs_f64(task.limits.verify_minutes * 60.0).unwrap_or(Duration::MAX);
    run_commands(&task.verify, &command_context, redactor, limit, &on_finished).await
}

/// Moves the kept directories out and removes the export.
async fn close(context: &Arc<Context>, export: Export) -> Vec<String> {
    let context = Arc::clone(context);
    let closing = tokio::task::spawn_blocking(move || {
        let store = context.layout.verify_kept(&context.task.service);
        let keep = &context.task.verify_keep;
        let store_kept = || match context.verify_site.open(context.layout.root()) {
            Ok(guest) => keep::store(&guest, &store, &export.repository(), keep),
            Err(failure) => vec![format!("nothing was kept for the next verification: {}", failure.message)],
        };
        let notes = if keep.is_empty() { Vec::new() } else { store_kept() };
        export.remove(&context);
        notes
    });
    tokio::time::timeout(REMOVE_TIMEOUT, closing).await.ok().and_then(Result::ok).unwrap_or_default()
}
