//! Starts the sessions of a docs run and handles their results.

use std::sync::Arc;

use orchestrator_contract::outcome::VerdictStatus;
use orchestrator_contract::{Level, Reason};

use super::EventLoop;
use super::outputs::{DocsRun, StepOutput};
use crate::agent::prepare_session::PlannedSession;
use crate::agent::session::SessionExit;
use crate::agent::stream::truncate;
use crate::context::Context;
use crate::docs::collect::{self, DocsBranch};
use crate::docs::plan::{DocsTask, Plan};
use crate::docs::session::plan_session;
use crate::failure::Failure;
use crate::run::{AgentPrompt, Batch, DocsSessionResult, RunEvent, SessionOutcome};
use crate::workspace::fetch::blocking;

/// Maximum characters of a finding in the log.
const FINDING_MAX_CHARS: usize = 200;

/// What a docs session needs to start, and its documents to be collected.
struct DocsSession {
    session: PlannedSession,
    plan: Arc<Plan>,
    task: DocsTask,
    branch: DocsBranch,
}

impl EventLoop {
    /// Records the plan of a docs run and returns its sessions.
    pub(super) fn set_docs(&mut self, docs: DocsRun) -> Batch {
        let plan = &docs.plan;
        if let Some(prepared) = &mut self.outputs.prepared {
            prepared.working_directory.path.clone_from(&plan.folder);
        }
        let names: Vec<String> = plan.pending().map(|task| format!("task {}", task.task)).collect();
        let (pending, all) = (names.len(), plan.subjects.len());
        let text = format!("{pending} of {all} tasks in `{}` need documents", plan.tasks_file);
        self.context.journal.info(text);
        for note in &plan.notes {
            self.context.journal.warn(note.clone());
        }
        let concurrency = self.context.task.docs_options().concurrency;
        self.outputs.docs = Some(docs);
        Batch::new(names, usize::try_from(concurrency).unwrap_or(1))
    }

    /// Starts the session of a docs task, or continues it after a rejected review.
    pub(super) fn start_docs_session(&mut self, index: usize, prompt: &AgentPrompt) {
        if let (AgentPrompt::VerificationFailed(_), Some(task)) = (prompt, self.docs_task(index)) {
            self.context.journal.info(format!("task {}: review failed, sent back to the agent", task.task));
        }
        let failed =
            move |failure| StepOutput::DocsSessionEnded(index, None, DocsSessionResult::Failed(failure));
        let planned = self.plan_docs_session(index, prompt);
        self.start_with(planned, failed, |this, planned| match planned {
            Ok(session) => this.run_docs_session(index, session),
            Err(failure) => this.send_output(failed(failure)),
        });
    }

    fn plan_docs_session(&self, index: usize, prompt: &AgentPrompt) -> Option<Result<DocsSession, Failure>> {
        let input = self.outputs.docs_session_input(index)?;
        let DocsRun { plan, branch, .. } = self.outputs.docs.clone()?;
        let task = input.task.clone();
        let current = self.report.docs_usage.session(index);
        let planned = plan_session(&self.context, &input, prompt, current, self.remaining_limits());
        Some(planned.map(|session| DocsSession { session, plan, task, branch }))
    }

    fn run_docs_session(&mut self, index: usize, docs: DocsSession) {
        let DocsSession { session, plan, task, branch } = docs;
        self.report.add_session(&session.session_id);
        self.report.docs_usage.started(index, &session.session_id, jiff::Timestamp::now());
        self.report.save_attempt(&self.context, &self.outputs, "", "");
        let running = self.spawn_session(index, session.command);
        let (context, results_tx) = (Arc::clone(&self.context), self.results_tx.clone());
        tokio::spawn(async move {
            let (exit, result) = match running.await {
                Ok(exit) => {
                    let outcome = exit.end.clone();
                    (Some(Box::new(exit)), collect_documents(context, branch, plan, task, outcome).await)
                }
                Err(failure) => (None, DocsSessionResult::Failed(failure)),
            };
            drop(results_tx.send(StepOutput::DocsSessionEnded(index, exit, result)).await);
        });
    }

    pub(super) fn docs_session_ended(
        &mut self,
        index: usize,
        exit: Option<Box<SessionExit>>,
        result: DocsSessionResult,
    ) -> RunEvent {
        if let Some(exit) = exit {
            self.record_exit(*exit);
        }
        self.session_closed(index);
        self.report.docs_usage.finished(index, jiff::Timestamp::now());
        let name = self.docs_task(index).map(|task| format!("task {}", task.task)).unwrap_or_default();
        let journal = &self.context.journal;
        match &result {
            DocsSessionResult::Written => journal.info(format!("{name}: documents committed")),
            DocsSessionResult::Rejected(findings) => {
                journal.warn(format!("{name}: documents rejected by the review"));
                for finding in findings {
                    let text = format!("| {}", truncate(finding, FINDING_MAX_CHARS));
                    journal.log(Level::Info, "supervisor", text);
                }
            }
            DocsSessionResult::Failed(failure) => journal.warn(format!("{name}: {}", failure.message)),
        }
        RunEvent::SessionEnded(index, result)
    }
}

/// Collects the documents of an ended session, unless the agent is blocked or failed.
async fn collect_documents(
    context: Arc<Context>,
    branch: DocsBranch,
    plan: Arc<Plan>,
    task: DocsTask,
    outcome: SessionOutcome,
) -> DocsSessionResult {
    match outcome {
        SessionOutcome::Verdict(VerdictStatus::Blocked, question) => DocsSessionResult::Failed(Failure::new(
            Reason::AgentBlocked,
            format!("the agent asks: {question}"),
        )),
        SessionOutcome::Failed(failure) => DocsSessionResult::Failed(failure),
        // The files decide, not the verdict.
        SessionOutcome::Verdict(VerdictStatus::Done | VerdictStatus::AlreadyDone, _) => {
            blocking(move || Ok(collect::collect(&context, &branch, &plan, &task)))
                .await
                .unwrap_or_else(DocsSessionResult::Failed)
        }
    }
}
