//! Holds conversations: starts them, hears them, takes in how they ended.

use orchestrator_contract::{Kind, Level, Step};
use tokio::sync::mpsc;

use super::steps::StepOutput;
use super::{ActiveSession, EventLoop};
use crate::agent::prepare_session::{self, plan_conversation};
use crate::agent::reader::IdleTimer;
use crate::agent::session::{SessionCommand, SessionExit};
use crate::run::{AgentPrompt, Failure, RunEvent, SessionOutcome};
use crate::workspace::state::{LastAttempt, write_last_attempt};

impl EventLoop {
    /// What is left of the task's limits.
    pub(super) fn left(&self) -> prepare_session::RemainingLimits {
        let limits = &self.context.task.limits;
        prepare_session::RemainingLimits {
            turns: limits.turns.map(|turns| turns.saturating_sub(self.ledger.usage.turns).max(1)),
            cost_usd: limits.cost_usd.map(|cost| (cost - self.ledger.usage.cost_usd).max(0.000_001)),
        }
    }

    pub(super) fn start_conversation(&mut self, index: usize, message: &AgentPrompt) {
        match self.context.task.kind {
            Kind::Implementation => self.start_agent(message),
            Kind::Docs => self.start_writing(index, message),
        }
    }

    fn start_agent(&mut self, message: &AgentPrompt) {
        let left = self.left();
        let current = match message {
            AgentPrompt::Task => None,
            AgentPrompt::VerificationFailed(_) => self.ledger.sessions.last().cloned(),
        };
        let planned = plan_conversation(&self.context, &self.facts, message, current.as_deref(), left);
        let happened = self.results_tx.clone();
        let planned = match planned {
            Ok(planned) => planned,
            Err(failure) => {
                tokio::spawn(async move { happened.send(StepOutput::Conversed(Err(failure))).await });
                return;
            }
        };
        if let Some(note) = planned.note {
            self.context.journal.info(note.clone());
            self.ledger.notes.push(note);
        }
        if !self.ledger.sessions.contains(&planned.session) {
            self.ledger.sessions.push(planned.session.clone());
        }
        self.remember_attempt("", "");
        let talk = self.spawn_session(0, planned.conversation);
        tokio::spawn(async move {
            let conversed = talk.await;
            drop(happened.send(StepOutput::Conversed(conversed.map(Box::new))).await);
        });
    }

    /// Holds a conversation; what it says is told with its place in the list.
    pub(super) fn spawn_session(
        &mut self,
        index: usize,
        conversation: SessionCommand,
    ) -> impl Future<Output = Result<SessionExit, Failure>> + Send + use<> {
        let pulse = IdleTimer::new();
        let (controls, controlled) = mpsc::channel(4);
        self.talking.insert(index, ActiveSession { controls, pulse: pulse.clone() });
        let (said, redactor) = (self.messages_tx.clone(), self.context.redactor.clone());
        let (one, mut ones) = mpsc::channel(1024);
        // Ends when the conversation does: all that was said is told before its end.
        let telling = tokio::spawn(async move {
            while let Some(what) = ones.recv().await {
                drop(said.send((index, what)).await);
            }
        });
        async move {
            let conversed = conversation.run(&redactor, pulse, one, controlled).await;
            drop(telling.await);
            conversed
        }
    }

    /// Records the attempt, so that a retry knows its conversation even after a crash.
    pub(super) fn remember_attempt(&self, end: &str, summary: &str) {
        let Some(prepared) = &self.facts.prepared else { return };
        let attempt = LastAttempt {
            run: self.context.task.run.to_string(),
            branch: prepared.branch.clone(),
            session: self.ledger.sessions.last().cloned(),
            end: end.to_owned(),
            summary: summary.to_owned(),
        };
        if let Err(error) = write_last_attempt(&self.context.layout, &self.context.task.identity(), &attempt)
        {
            self.context.journal.warn(format!("the attempt could not be recorded: {error}"));
        }
    }

    pub(super) fn session_finished(&mut self, conversed: Result<Box<SessionExit>, Failure>) -> RunEvent {
        let end = match conversed {
            Ok(conversed) => self.note_output(*conversed),
            Err(failure) => SessionOutcome::Failed(failure),
        };
        self.session_closed(0);
        let failed = match &end {
            SessionOutcome::Verdict(..) => None,
            SessionOutcome::Failed(failure) => Some(failure.message.clone()),
        };
        self.step_ended(Step::Agent, failed.as_deref());
        RunEvent::AgentEnded(end)
    }

    /// A conversation is over, or its turn in it.
    pub(super) fn session_closed(&mut self, index: usize) {
        self.talking.remove(&index);
        if self.talking.is_empty() {
            self.grace_ends = None;
        }
    }

    /// Notes what a person should know about a conversation beyond its end.
    pub(super) fn note_output(&mut self, conversed: SessionExit) -> SessionOutcome {
        let SessionExit { end, result: _, drained, survivors } = conversed;
        if drained.too_long > 0 || drained.garbage > 0 {
            let text = format!(
                "the agent printed {} lines that were too long and {} that were none of its protocol",
                drained.too_long, drained.garbage
            );
            self.context.journal.log(Level::Debug, "agent", text);
        }
        if let Some(error) = drained.transcript_error {
            self.ledger.notes.push(format!("the transcript is not whole: {error}"));
        }
        if !survivors.is_empty() {
            self.ledger.notes.push(format!("processes of the agent that could not be ended: {survivors:?}"));
        }
        end
    }
}
