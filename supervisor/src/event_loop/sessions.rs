//! Starts agent sessions, forwards their messages and handles their exits.

use std::sync::Arc;

use orchestrator_contract::{Kind, Level, Step};
use tokio::sync::mpsc;

use super::outputs::StepOutput;
use super::quota_wait::time_until_end;
use super::{ActiveSession, EventLoop};
use crate::agent::prepare_session::{PlannedSession, RemainingLimits, plan_session};
use crate::agent::reader::IdleTimer;
use crate::agent::session::{SessionCommand, SessionExit};
use crate::failure::Failure;
use crate::run::{AgentPrompt, RunEvent, SessionOutcome};
use crate::workspace::fetch::blocking;
use crate::workspace::reopen::reopen_worktree;

impl EventLoop {
    pub(super) fn remaining_limits(&self) -> RemainingLimits {
        let limits = &self.context.task.limits;
        RemainingLimits {
            turns: limits.turns.map(|turns| turns.saturating_sub(self.report.turns_used()).max(1)),
            cost_usd: limits.cost_usd.map(|cost| (cost - self.report.cost_used()).max(0.000_001)),
        }
    }

    pub(super) fn start_session(&mut self, index: usize, prompt: &AgentPrompt) {
        match self.context.task.kind {
            Kind::Implementation => self.start_agent(prompt),
            Kind::Docs => self.start_docs_session(index, prompt),
        }
    }

    fn start_agent(&mut self, prompt: &AgentPrompt) {
        let current = match prompt {
            AgentPrompt::Task => None,
            AgentPrompt::VerificationFailed(_) => {
                // Otherwise the log does not show why the agent starts again.
                self.context.journal.log(
                    Level::Info,
                    "verify",
                    "verification failed, sent back to the agent",
                );
                self.report.sessions.last().map(String::as_str)
            }
            AgentPrompt::Continue => {
                self.context
                    .journal
                    .info("the wait for the model's usage limit is over; the agent continues");
                self.report.set_activity("continuing the conversation");
                self.report.sessions.last().map(String::as_str)
            }
        };
        let input = self.outputs.session_input(self.context.task.task_id);
        let limits = self.remaining_limits();
        let reopens = matches!(prompt, AgentPrompt::VerificationFailed(_));
        let planned = input.map(|input| plan_session(&self.context, &input, prompt, current, limits));
        let failed = |failure| StepOutput::AgentEnded(Err(failure));
        self.start_with(planned, failed, |this, planned| match planned {
            Ok(session) => this.run_agent(session, reopens),
            Err(failure) => this.send_output(failed(failure)),
        });
    }

    /// Runs the agent; if it `reopens` the worktree after a failed verification, that is its again.
    fn run_agent(&mut self, session: PlannedSession, reopens: bool) {
        let PlannedSession { command, session_id, notes } = session;
        for note in notes {
            self.context.journal.info(note.clone());
            self.report.notes.push(note);
        }
        self.report.add_session(&session_id);
        self.report.save_attempt(&self.context, &self.outputs, "", "");
        let running = self.spawn_session(0, command);
        let results_tx = self.results_tx.clone();
        let (context, outputs) = (Arc::clone(&self.context), &self.outputs);
        let saved = outputs.saved.as_ref().map(|saved| saved.tip).filter(|_| reopens);
        let reopened = outputs.prepared.clone().zip(saved);
        tokio::spawn(async move {
            if let Some((prepared, tip)) = reopened
                && let Err(failure) = blocking(move || reopen_worktree(&context, &prepared, tip)).await
            {
                drop(results_tx.send(StepOutput::AgentEnded(Err(failure))).await);
                return;
            }
            let exit = running.await;
            drop(results_tx.send(StepOutput::AgentEnded(exit.map(Box::new))).await);
        });
    }

    /// Runs a session and forwards its messages with its index.
    ///
    /// All messages are forwarded before the returned future completes.
    pub(super) fn spawn_session(
        &mut self,
        index: usize,
        command: SessionCommand,
    ) -> impl Future<Output = Result<SessionExit, Failure>> + Send + use<> {
        let idle_timer = IdleTimer::new();
        let (controls_tx, controls_rx) = mpsc::channel(4);
        self.sessions.insert(index, ActiveSession { controls_tx, idle_timer: idle_timer.clone() });
        let (messages_tx, redactor) = (self.messages_tx.clone(), self.context.redactor.clone());
        let (session_tx, mut session_rx) = mpsc::channel(1024);
        let forwarder = tokio::spawn(async move {
            while let Some(message) = session_rx.recv().await {
                drop(messages_tx.send((index, message)).await);
            }
        });
        async move {
            let exit = command.run(&redactor, idle_timer, session_tx, controls_rx).await;
            drop(forwarder.await);
            exit
        }
    }

    pub(super) fn agent_ended(&mut self, result: Result<Box<SessionExit>, Failure>) -> RunEvent {
        let (outcome, usage_limit) = match result {
            Ok(exit) => {
                let usage_limit = exit.usage_limit;
                (self.record_exit(*exit), usage_limit)
            }
            Err(failure) => (SessionOutcome::Failed(failure), None),
        };
        self.session_closed(0);
        if let (SessionOutcome::Failed(failure), Some(limit)) = (&outcome, usage_limit) {
            // The run machine decides whether the step has ended.
            return RunEvent::UsageLimitReached(failure.clone(), time_until_end(limit));
        }
        let failed = match &outcome {
            SessionOutcome::Verdict(..) => None,
            SessionOutcome::Failed(failure) => Some(failure.message.clone()),
        };
        self.step_ended(Step::Agent, failed.as_deref());
        RunEvent::AgentEnded(outcome)
    }

    pub(super) fn session_closed(&mut self, index: usize) {
        self.sessions.remove(&index);
        if self.sessions.is_empty() {
            self.grace_ends = None;
        }
    }

    /// Records faults of a session's output and processes; returns its outcome.
    pub(super) fn record_exit(&mut self, exit: SessionExit) -> SessionOutcome {
        let SessionExit { end, result: _, drained, survivors, not_kept, refused, usage_limit: _ } = exit;
        if drained.too_long > 0 || drained.garbage > 0 {
            let text = format!(
                "skipped agent output: {} overlong lines, {} unparsable lines",
                drained.too_long, drained.garbage
            );
            self.context.journal.log(Level::Debug, "agent", text);
        }
        if let Some(error) = drained.transcript_error {
            self.report.notes.push(format!("incomplete transcript: {error}"));
        }
        if let Some(why) = not_kept {
            self.report.notes.push(format!("a retry cannot continue the session: {why}"));
        }
        // The sessions of a docs run are new in each attempt.
        if let Some(why) = refused.filter(|_| self.context.task.kind == Kind::Implementation) {
            self.report.refused_conversation = true;
            self.report.notes.push(format!("a retry starts a new conversation with a summary: {why}"));
        }
        if !survivors.is_empty() {
            let note = format!("processes of the agent that could not be killed: {survivors:?}");
            self.report.notes.push(note);
        }
        end
    }
}
