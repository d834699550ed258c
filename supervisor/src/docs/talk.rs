//! Prepares the conversation about one task: its prompt, its home, the one folder it may write.

use orchestrator_contract::Reason;

use super::plan::{Plan, Subject};
use super::prompt::{Shared, render_findings, render_system_prompt, render_task};
use super::take::make_folder;
use crate::agent::command_line::{Places, Session};
use crate::agent::conversation::Company;
use crate::agent::work::{
    Held, Left, Planned, compose_conversation, confinement, new_session, places, write,
};
use crate::context::{Context, Facts, io_failure};
use crate::run::{Failure, Message};

/// Plans the conversation about a task, or its second turn: then `current` is its session.
///
/// # Errors
/// What it needs cannot be written, or the model has no credential any more.
pub fn plan_conversation(
    context: &Context,
    facts: &Facts,
    (plan, subject): (&Plan, &Subject),
    message: &Message,
    current: Option<&str>,
    left: Left,
) -> Result<Planned, Failure> {
    let missing =
        |what: &str| Failure::new(Reason::Internal, format!("the agent was started without {what}"));
    let tools = facts.tools.as_ref().ok_or_else(|| missing("tools"))?;
    let checked = facts.checked.as_ref().ok_or_else(|| missing("checks"))?;
    let tree = context.worktree();
    let shared = Shared {
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
        Message::Task => {
            let text = render_task(&shared, subject);
            write(&context.record.prompt_of(subject.task), &text)?;
            text
        }
        Message::VerificationFailed(findings) => render_findings(findings),
    };
    // Two programs at once would write over each other's state in one home.
    let home = context.layout.agent_home(&context.task.run).join(format!("task{}", subject.task));
    std::fs::create_dir_all(&home).map_err(|error| io_failure(&home, &error))?;
    let mut confinement = confinement(context, tools.relay.folder(), Some(&checked.claude));
    confinement.writable.push(folder);
    let new = new_session();
    let (session, id) = match (message, current) {
        (Message::VerificationFailed(_), Some(current)) => (Session::Resume(current), current),
        (Message::Task | Message::VerificationFailed(_), _) => (Session::New(&new), new.as_str()),
    };
    let held = Held {
        session,
        places: Places { home, ..places(context) },
        system: &system,
        message: &text,
        directory: context.working_directory(&plan.folder),
        transcript: context.record.transcript_of(subject.task),
        confinement,
        company: Company::Others,
        left,
    };
    let conversation = compose_conversation(context, checked, tools, held)?;
    Ok(Planned { conversation, session: id.to_owned(), note: None })
}
