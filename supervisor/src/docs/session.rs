//! Prepares the conversation about one task: its prompt, its home, the one folder it may write.

use orchestrator_contract::Reason;

use super::collect::make_folder;
use super::plan::{DocsTask, Plan};
use super::prompt::{DocsPromptInput, render_findings, render_system_prompt, render_task};
use crate::agent::command_line::{AgentPaths, Session};
use crate::agent::prepare_session::{
    PlannedSession, RemainingLimits, SessionParams, compose_conversation, confinement, new_session, places,
    write,
};
use crate::agent::session::SessionScope;
use crate::context::{Context, StepOutputs, io_failure};
use crate::run::{AgentPrompt, Failure};

/// Plans the conversation about a task, or its second turn: then `current` is its session.
///
/// # Errors
/// What it needs cannot be written, or the model has no credential any more.
pub fn plan_conversation(
    context: &Context,
    facts: &StepOutputs,
    (plan, subject): (&Plan, &DocsTask),
    message: &AgentPrompt,
    current: Option<&str>,
    left: RemainingLimits,
) -> Result<PlannedSession, Failure> {
    let missing =
        |what: &str| Failure::new(Reason::InternalError, format!("the agent was started without {what}"));
    let tools = facts.tools.as_ref().ok_or_else(|| missing("tools"))?;
    let checked = facts.checked.as_ref().ok_or_else(|| missing("checks"))?;
    let tree = context.worktree();
    let shared = DocsPromptInput {
        service: &context.task.service,
        plan,
        tree: &tree,
        guidance: context.task.guidance.as_deref(),
        servers: &tools.described,
    };
    let folder = make_folder(&tree, &plan.folder_of(subject.task))?;
    let system = context.record.folder().join("system.md");
    write(&system, &render_system_prompt(&shared))?;
    let text = match message {
        AgentPrompt::Task => {
            let text = render_task(&shared, subject);
            write(&context.record.task_prompt(subject.task), &text)?;
            text
        }
        AgentPrompt::VerificationFailed(findings) => render_findings(findings),
    };
    // Two programs at once would write over each other's state in one home.
    let home = context.layout.agent_home(&context.task.run).join(format!("task{}", subject.task));
    std::fs::create_dir_all(&home).map_err(|error| io_failure(&home, &error))?;
    let mut confinement = confinement(context, tools.relay.folder(), Some(&checked.claude));
    confinement.writable.push(folder);
    let new = new_session();
    let (session, id) = match (message, current) {
        (AgentPrompt::VerificationFailed(_), Some(current)) => (Session::Resume(current), current),
        (AgentPrompt::Task | AgentPrompt::VerificationFailed(_), _) => (Session::New(&new), new.as_str()),
    };
    let held = SessionParams {
        session,
        places: AgentPaths { home, ..places(context) },
        system: &system,
        message: &text,
        directory: context.working_directory(&plan.folder),
        transcript: context.record.task_transcript(subject.task),
        confinement,
        company: SessionScope::Shared,
        left,
    };
    let conversation = compose_conversation(context, checked, tools, held)?;
    Ok(PlannedSession { conversation, session: id.to_owned(), note: None })
}
