//! The conversations of a docs run: started, looked at when they end, committed one by one.

use std::sync::Arc;

use orchestrator_contract::outcome::VerdictStatus;
use orchestrator_contract::{Level, Reason};

use super::Loop;
use super::steps::Happened;
use crate::agent::conversation::Conversed;
use crate::agent::stream::shorten;
use crate::context::Writing;
use crate::docs::account::Earlier;
use crate::docs::plan::Plan;
use crate::docs::{take, talk};
use crate::run::{AgentEnd, Batch, Event, Failure, ItemEnd, Message};
use crate::workspace::fetch::blocking;

/// Longest finding in the log.
const FINDING: usize = 200;

impl Loop {
    /// Takes in what there is to write: from now on the run knows its conversations.
    pub(super) fn take_plan(&mut self, plan: Plan, earlier: Earlier) {
        let Some(prepared) = &mut self.facts.prepared else { return };
        prepared.working_directory.clone_from(&plan.folder);
        let names: Vec<String> = plan.to_write().map(|subject| format!("task {}", subject.task)).collect();
        let text = format!(
            "{} of {} tasks in `{}` have documents to be written",
            names.len(),
            plan.subjects.len(),
            plan.tasks_file
        );
        self.context.journal.info(text);
        let at_once = self.context.task.docs_options().at_once;
        self.run.hold(Batch::new(names, usize::try_from(at_once).unwrap_or(1)));
        let branch = take::Branch::new(&prepared.branch, prepared.start);
        self.facts.writing = Some(Writing { plan: Arc::new(plan), earlier, branch });
    }

    /// Starts the conversation about a task, or sends it back with what was found.
    pub(super) fn start_writing(&mut self, index: usize, message: &Message) {
        let Some(Writing { plan, branch, .. }) = self.facts.writing.clone() else { return };
        let Some(subject) = plan.to_write().nth(index).cloned() else { return };
        let current = self.ledger.account.session(index).map(str::to_owned);
        let planned = talk::plan_conversation(
            &self.context,
            &self.facts,
            (&plan, &subject),
            message,
            current.as_deref(),
            self.left(),
        );
        let happened = self.happened.clone();
        let planned = match planned {
            Ok(planned) => planned,
            Err(failure) => {
                let end = ItemEnd::Failed(failure);
                tokio::spawn(async move { happened.send(Happened::ItemEnded(index, None, end)).await });
                return;
            }
        };
        if !self.ledger.sessions.contains(&planned.session) {
            self.ledger.sessions.push(planned.session.clone());
        }
        self.ledger.account.begins(index, &planned.session, jiff::Timestamp::now());
        self.remember_attempt("", "");
        let talk = self.talk(index, planned.conversation);
        let context = Arc::clone(&self.context);
        tokio::spawn(async move {
            let (conversed, end) = match talk.await {
                Ok(conversed) => (Some(Box::new(conversed)), None),
                Err(failure) => (None, Some(ItemEnd::Failed(failure))),
            };
            let end = match (end, conversed.as_ref().map(|conversed| conversed.end.clone())) {
                (Some(end), _) => end,
                (None, Some(AgentEnd::Verdict(VerdictStatus::Blocked, question))) => {
                    ItemEnd::Failed(Failure::new(Reason::AgentBlocked, format!("the agent asks: {question}")))
                }
                (None, Some(AgentEnd::Failed(failure))) => ItemEnd::Failed(failure),
                // Whatever the agent says, its files are what counts.
                (
                    None,
                    Some(AgentEnd::Verdict(VerdictStatus::Done | VerdictStatus::NothingNeeded, _)) | None,
                ) => blocking(move || Ok(take::take(&context, &branch, &plan, &subject)))
                    .await
                    .unwrap_or_else(ItemEnd::Failed),
            };
            drop(happened.send(Happened::ItemEnded(index, conversed, end)).await);
        });
    }

    /// Takes in how a conversation ended.
    pub(super) fn item_ended(
        &mut self,
        index: usize,
        conversed: Option<Box<Conversed>>,
        end: ItemEnd,
    ) -> Event {
        if let Some(conversed) = conversed {
            self.note_output(*conversed);
        }
        self.talked(index);
        self.ledger.account.ends(index, jiff::Timestamp::now());
        let name = self.subject(index).map(|subject| format!("task {}", subject.task)).unwrap_or_default();
        let journal = &self.context.journal;
        match &end {
            ItemEnd::Written => journal.info(format!("{name}: its documents are written")),
            ItemEnd::Refused(findings) => {
                journal.warn(format!("{name}: its documents do not count yet"));
                for finding in findings {
                    journal.log(Level::Info, "supervisor", format!("| {}", shorten(finding, FINDING)));
                }
            }
            ItemEnd::Failed(failure) => journal.warn(format!("{name}: {}", failure.message)),
        }
        Event::ItemEnded(index, end)
    }
}
