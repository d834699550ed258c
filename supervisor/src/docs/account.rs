//! What became of each task of a docs run, and at what cost. Pure.

use jiff::Timestamp;
use orchestrator_contract::RunName;
use orchestrator_contract::outcome::{DocumentedState, DocumentedTask, ModelUsage};

use super::plan::{Plan, Subject};
use crate::agent::stream::AgentResult;
use crate::run::Item;

/// What the conversations of a docs run have used so far.
#[derive(Clone, Debug, Default)]
pub struct Account {
    seats: Vec<Seat>,
}

/// What one conversation has used.
#[derive(Clone, Debug, Default)]
struct Seat {
    session: Option<String>,
    turns: u32,
    cost_usd: f64,
    /// When it began, while it is held.
    since: Option<Timestamp>,
    minutes: f64,
}

impl Account {
    fn seat(&mut self, index: usize) -> &mut Seat {
        if self.seats.len() <= index {
            self.seats.resize_with(index + 1, Seat::default);
        }
        &mut self.seats[index]
    }

    /// A conversation begins, or goes on.
    pub fn begins(&mut self, index: usize, session: &str, now: Timestamp) {
        let seat = self.seat(index);
        seat.session = Some(session.to_owned());
        seat.since = Some(now);
    }

    /// A conversation came to a result.
    pub fn hears(&mut self, index: usize, result: &AgentResult) {
        let seat = self.seat(index);
        seat.turns += result.num_turns;
        let mut used = ModelUsage::default();
        for model in result.model_usage_since_last_result.values() {
            model.add_to(&mut used);
        }
        seat.cost_usd += used.cost_usd;
    }

    /// A conversation has ended, or its turn in it.
    pub fn ends(&mut self, index: usize, now: Timestamp) {
        let seat = self.seat(index);
        if let Some(since) = seat.since.take() {
            seat.minutes += now.duration_since(since).as_secs_f64().max(0.0) / 60.0;
        }
    }

    /// The conversation about a task, if there was one.
    #[must_use]
    pub fn session(&self, index: usize) -> Option<&str> {
        self.seats.get(index)?.session.as_deref()
    }

    /// What became of each task. `items` are those of the subjects that have something to
    /// write; `earlier` is what the attempt before said.
    #[must_use]
    pub fn documented(&self, plan: &Plan, items: &[Item], earlier: &Earlier) -> Vec<DocumentedTask> {
        let mut index = 0;
        let one = |subject: &Subject| {
            if subject.wanted.is_empty() {
                return earlier.kept(subject);
            }
            let (item, seat) = (items.get(index), self.seats.get(index).cloned().unwrap_or_default());
            index += 1;
            let (state, findings) = match item {
                Some(Item::Written) => (DocumentedState::Written, Vec::new()),
                Some(Item::Failed { failure: _, findings }) => (DocumentedState::Failed, findings.clone()),
                Some(Item::Waiting | Item::Talking { .. } | Item::Missing) | None => {
                    (DocumentedState::Missing, Vec::new())
                }
            };
            DocumentedTask {
                findings,
                minutes: seat.minutes,
                turns: seat.turns,
                cost_usd: seat.cost_usd,
                session_id: seat.session,
                ..blank(subject, state)
            }
        };
        plan.subjects.iter().map(one).collect()
    }
}

/// What an earlier attempt on the same branch wrote.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Earlier {
    /// The attempt.
    pub run: Option<RunName>,
    /// What it said.
    pub documented: Vec<DocumentedTask>,
}

impl Earlier {
    fn kept(&self, subject: &Subject) -> DocumentedTask {
        let blank = blank(subject, DocumentedState::Kept);
        let known = self.documented.iter().find(|known| known.task_id == subject.task);
        match known {
            Some(known) if known.state == DocumentedState::Written => {
                DocumentedTask { state: blank.state, written_by: self.run.clone(), ..known.clone() }
            }
            Some(known) if known.written_by.is_some() => known.clone(),
            Some(_) | None => blank,
        }
    }
}

fn blank(subject: &Subject, state: DocumentedState) -> DocumentedTask {
    DocumentedTask {
        task_id: subject.task,
        title: subject.entry.title.clone(),
        state,
        findings: Vec::new(),
        minutes: 0.0,
        turns: 0,
        cost_usd: 0.0,
        session_id: None,
        written_by: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::docs::plan::Document;
    use crate::run::Failure;
    use crate::workspace::documents::Entry;
    use orchestrator_contract::{Reason, TaskId};

    fn plan(wanted: &[bool]) -> Plan {
        let subject = |(at, wanted): (usize, &bool)| Subject {
            task: TaskId::new(u32::try_from(at).unwrap() + 1).unwrap(),
            entry: Entry { id: (at + 1).to_string(), title: format!("T{}", at + 1), ..Entry::default() },
            wanted: if *wanted { Document::ALL.to_vec() } else { Vec::new() },
            existing: Vec::new(),
            needs: Vec::new(),
            needed_by: Vec::new(),
        };
        Plan {
            folder: String::new(),
            tasks_file: String::new(),
            tag: None,
            architecture: None,
            requirements: None,
            overview: Vec::new(),
            subjects: wanted.iter().enumerate().map(subject).collect(),
            notes: Vec::new(),
        }
    }

    #[test]
    fn what_was_written_before_keeps_its_cost_and_names_its_run() {
        let plan = plan(&[false, true, false, true]);
        let failure = Failure::new(Reason::VerificationFailed, "a stub");
        let items = [Item::Written, Item::Failed { failure, findings: vec!["a stub".to_owned()] }];
        let mut account = Account::default();
        let at = |text: &str| text.parse::<Timestamp>().unwrap();
        account.begins(0, "s", at("2026-11-22T10:00:00Z"));
        account.ends(0, at("2026-11-22T10:01:30Z"));
        let before = DocumentedTask { cost_usd: 0.5, ..blank(&plan.subjects[0], DocumentedState::Written) };
        let run = RunName::new("trader-claude-agent-1-docs-attempt1").unwrap();
        let earlier = Earlier { run: Some(run.clone()), documented: vec![before] };
        let documented = account.documented(&plan, &items, &earlier);
        let states: Vec<DocumentedState> = documented.iter().map(|task| task.state).collect();
        use DocumentedState::{Failed, Kept, Written};
        assert_eq!(states, [Kept, Written, Kept, Failed]);
        assert_eq!((documented[0].cost_usd, documented[0].written_by.as_ref()), (0.5, Some(&run)));
        assert_eq!((documented[1].minutes, documented[1].session_id.as_deref()), (1.5, Some("s")));
        assert_eq!((documented[2].written_by.as_ref(), documented[3].findings.len()), (None, 1));
    }
}
