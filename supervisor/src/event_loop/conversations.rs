//! Holds conversations: starts them, hears them, takes in how they ended.

use orchestrator_contract::{Kind, Level, Step};
use tokio::sync::mpsc;

use super::steps::Happened;
use super::{Loop, Talking};
use crate::agent::conversation::{Conversation, Conversed};
use crate::agent::reader::Pulse;
use crate::agent::work::{self, plan_conversation};
use crate::run::{AgentEnd, Event, Failure, Message};
use crate::workspace::state::{LastAttempt, write_last_attempt};

impl Loop {
    /// What is left of the task's limits.
    pub(super) fn left(&self) -> work::Left {
        let limits = &self.context.task.limits;
        work::Left {
            turns: limits.turns.map(|turns| turns.saturating_sub(self.ledger.usage.turns).max(1)),
            cost_usd: limits.cost_usd.map(|cost| (cost - self.ledger.usage.cost_usd).max(0.000_001)),
        }
    }

    pub(super) fn start_conversation(&mut self, index: usize, message: &Message) {
        match self.context.task.kind {
            Kind::Implementation => self.start_agent(message),
            Kind::Docs => self.start_writing(index, message),
        }
    }

    fn start_agent(&mut self, message: &Message) {
        let left = self.left();
        let current = match message {
            Message::Task => None,
            Message::VerificationFailed(_) => self.ledger.sessions.last().cloned(),
        };
        let planned = plan_conversation(&self.context, &self.facts, message, current.as_deref(), left);
        let happened = self.happened.clone();
        let planned = match planned {
            Ok(planned) => planned,
            Err(failure) => {
                tokio::spawn(async move { happened.send(Happened::Conversed(Err(failure))).await });
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
        let talk = self.talk(0, planned.conversation);
        tokio::spawn(async move {
            let conversed = talk.await;
            drop(happened.send(Happened::Conversed(conversed.map(Box::new))).await);
        });
    }

    /// Holds a conversation; what it says is told with its place in the list.
    pub(super) fn talk(
        &mut self,
        index: usize,
        conversation: Conversation,
    ) -> impl Future<Output = Result<Conversed, Failure>> + Send + use<> {
        let pulse = Pulse::new();
        let (controls, controlled) = mpsc::channel(4);
        self.talking.insert(index, Talking { controls, pulse: pulse.clone() });
        let (said, redactor) = (self.said.clone(), self.context.redactor.clone());
        let (one, mut ones) = mpsc::channel(1024);
        // Ends when the conversation does: all that was said is told before its end.
        let telling = tokio::spawn(async move {
            while let Some(what) = ones.recv().await {
                drop(said.send((index, what)).await);
            }
        });
        async move {
            let conversed = conversation.converse(&redactor, pulse, one, controlled).await;
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

    pub(super) fn conversed(&mut self, conversed: Result<Box<Conversed>, Failure>) -> Event {
        let end = match conversed {
            Ok(conversed) => self.note_output(*conversed),
            Err(failure) => AgentEnd::Failed(failure),
        };
        self.talked(0);
        let failed = match &end {
            AgentEnd::Verdict(..) => None,
            AgentEnd::Failed(failure) => Some(failure.message.clone()),
        };
        self.step_ended(Step::Agent, failed.as_deref());
        Event::AgentEnded(end)
    }

    /// A conversation is over, or its turn in it.
    pub(super) fn talked(&mut self, index: usize) {
        self.talking.remove(&index);
        if self.talking.is_empty() {
            self.grace_ends = None;
        }
    }

    /// Notes what a person should know about a conversation beyond its end.
    pub(super) fn note_output(&mut self, conversed: Conversed) -> AgentEnd {
        let Conversed { end, result: _, drained, survivors } = conversed;
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
