//! The conversations of a docs run: started, looked at when they end, committed one by one.

use std::sync::Arc;

use orchestrator_contract::outcome::VerdictStatus;
use orchestrator_contract::{Level, Reason};

use super::EventLoop;
use super::steps::StepOutput;
use crate::agent::session::SessionExit;
use crate::agent::stream::truncate;
use crate::context::DocsRun;
use crate::docs::plan::Plan;
use crate::docs::usage::PreviousDocs;
use crate::docs::{collect, session};
use crate::run::{AgentPrompt, Batch, DocsSessionResult, Failure, RunEvent, SessionOutcome};
use crate::workspace::fetch::blocking;

/// Longest finding in the log.
const FINDING: usize = 200;

impl EventLoop {
    /// Takes in what there is to write: from now on the run knows its conversations.
    pub(super) fn take_plan(&mut self, plan: Plan, earlier: PreviousDocs) {
        let Some(prepared) = &mut self.facts.prepared else { return };
        prepared.working_directory.clone_from(&plan.folder);
        let names: Vec<String> = plan.pending().map(|subject| format!("task {}", subject.task)).collect();
        let text = format!(
            "{} of {} tasks in `{}` have documents to be written",
            names.len(),
            plan.subjects.len(),
            plan.tasks_file
        );
        self.context.journal.info(text);
        let at_once = self.context.task.docs_options().concurrency;
        self.run.set_batch(Batch::new(names, usize::try_from(at_once).unwrap_or(1)));
        let branch = collect::DocsBranch::new(&prepared.branch, prepared.start);
        self.facts.writing = Some(DocsRun { plan: Arc::new(plan), earlier, branch });
    }

    /// Starts the conversation about a task, or sends it back with what was found.
    pub(super) fn start_writing(&mut self, index: usize, message: &AgentPrompt) {
        let Some(DocsRun { plan, branch, .. }) = self.facts.writing.clone() else { return };
        let Some(subject) = plan.pending().nth(index).cloned() else { return };
        let current = self.ledger.account.session(index).map(str::to_owned);
        let planned = session::plan_conversation(
            &self.context,
            &self.facts,
            (&plan, &subject),
            message,
            current.as_deref(),
            self.left(),
        );
        let happened = self.results_tx.clone();
        let planned = match planned {
            Ok(planned) => planned,
            Err(failure) => {
                let end = DocsSessionResult::Failed(failure);
                tokio::spawn(async move { happened.send(StepOutput::ItemEnded(index, None, end)).await });
                return;
            }
        };
        if !self.ledger.sessions.contains(&planned.session) {
            self.ledger.sessions.push(planned.session.clone());
        }
        self.ledger.account.started(index, &planned.session, jiff::Timestamp::now());
        self.remember_attempt("", "");
        let talk = self.spawn_session(index, planned.conversation);
        let context = Arc::clone(&self.context);
        tokio::spawn(async move {
            let (conversed, end) = match talk.await {
                Ok(conversed) => (Some(Box::new(conversed)), None),
                Err(failure) => (None, Some(DocsSessionResult::Failed(failure))),
            };
            let end = match (end, conversed.as_ref().map(|conversed| conversed.end.clone())) {
                (Some(end), _) => end,
                (None, Some(SessionOutcome::Verdict(VerdictStatus::Blocked, question))) => {
                    DocsSessionResult::Failed(Failure::new(
                        Reason::AgentBlocked,
                        format!("the agent asks: {question}"),
                    ))
                }
                (None, Some(SessionOutcome::Failed(failure))) => DocsSessionResult::Failed(failure),
                // Whatever the agent says, its files are what counts.
                (
                    None,
                    Some(SessionOutcome::Verdict(VerdictStatus::Done | VerdictStatus::AlreadyDone, _)) | None,
                ) => blocking(move || Ok(collect::collect(&context, &branch, &plan, &subject)))
                    .await
                    .unwrap_or_else(DocsSessionResult::Failed),
            };
            drop(happened.send(StepOutput::ItemEnded(index, conversed, end)).await);
        });
    }

    /// Takes in how a conversation ended.
    pub(super) fn item_ended(
        &mut self,
        index: usize,
        conversed: Option<Box<SessionExit>>,
        end: DocsSessionResult,
    ) -> RunEvent {
        if let Some(conversed) = conversed {
            self.note_output(*conversed);
        }
        self.session_closed(index);
        self.ledger.account.finished(index, jiff::Timestamp::now());
        let name = self.subject(index).map(|subject| format!("task {}", subject.task)).unwrap_or_default();
        let journal = &self.context.journal;
        match &end {
            DocsSessionResult::Written => journal.info(format!("{name}: its documents are written")),
            DocsSessionResult::Rejected(findings) => {
                journal.warn(format!("{name}: its documents do not count yet"));
                for finding in findings {
                    journal.log(Level::Info, "supervisor", format!("| {}", truncate(finding, FINDING)));
                }
            }
            DocsSessionResult::Failed(failure) => journal.warn(format!("{name}: {}", failure.message)),
        }
        RunEvent::SessionEnded(index, end)
    }
}
