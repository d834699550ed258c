//! Prepares the session about one task: its prompt and writable folder.

use super::plan::{DocsTask, Plan};
use super::prompt::{DocsPromptInput, render_findings, render_system_prompt, render_task};
use crate::agent::command_line::Session;
use crate::agent::prepare_session::{
    AgentTools, PlannedSession, RemainingLimits, SessionParams, compose_session, new_session_id, write,
};
use crate::agent::prompt::render_continuation;
use crate::agent::session::SessionScope;
use crate::context::Context;
use crate::failure::Failure;
use crate::run::AgentPrompt;
use crate::workspace::preflight::Preflight;

/// Values that a docs session receives from earlier steps.
#[derive(Clone, Copy, Debug)]
pub struct DocsSessionInput<'a> {
    pub preflight: &'a Preflight,
    pub tools: &'a AgentTools,
    pub plan: &'a Plan,
    pub task: &'a DocsTask,
}

/// Plans the session about a task; after a rejected review, `current` is resumed.
///
/// # Errors
/// Returns an error if prompt, settings or folders cannot be written, or if the model has no
/// credential.
pub fn plan_session(
    context: &Context,
    input: &DocsSessionInput<'_>,
    prompt: &AgentPrompt,
    current: Option<&str>,
    limits: RemainingLimits,
) -> Result<PlannedSession, Failure> {
    let DocsSessionInput { preflight, tools, plan, task } = *input;
    let worktree = context.worktree();
    let prompt_input = DocsPromptInput {
        service: &context.task.service,
        plan,
        worktree: &worktree,
        guidance: context.task.guidance.as_deref(),
        servers: &tools.described,
    };
    let folder = plan.folder_of(task.task);
    let message = match prompt {
        AgentPrompt::Task => {
            let text = render_task(&prompt_input, task);
            write(&context.record.task_prompt(task.task), &text)?;
            text
        }
        AgentPrompt::VerificationFailed(findings) => render_findings(findings),
        AgentPrompt::Continue => render_continuation(),
    };
    let new_id = new_session_id();
    let (session, id) = match (prompt, current) {
        (AgentPrompt::VerificationFailed(_) | AgentPrompt::Continue, Some(current)) => {
            (Session::Resume(current), current)
        }
        (AgentPrompt::Task | AgentPrompt::VerificationFailed(_) | AgentPrompt::Continue, _) => {
            (Session::New(&new_id), new_id.as_str())
        }
    };
    let params = SessionParams {
        session,
        system_prompt: &render_system_prompt(&prompt_input),
        message: &message,
        directory: context.working_directory(&plan.folder),
        transcript: context.record.task_transcript(task.task),
        folder: Some(&folder),
        scope: SessionScope::Shared,
        limits,
    };
    let command = compose_session(context, preflight, tools, params)?;
    Ok(PlannedSession { command, session_id: id.to_owned(), notes: Vec::new() })
}
