//! What became of each task of a docs run, and at what cost. Pure.

use jiff::Timestamp;
use orchestrator_contract::RunName;
use orchestrator_contract::outcome::{DocsResult, DocsStatus, ModelUsage};

use super::plan::{DocsTask, Plan};
use crate::agent::stream::AgentResult;
use crate::run::DocsSessionStatus;

/// What the conversations of a docs run have used so far.
#[derive(Clone, Debug, Default)]
pub struct DocsUsage {
    seats: Vec<SessionUsage>,
}

/// What one conversation has used.
#[derive(Clone, Debug, Default)]
struct SessionUsage {
    session: Option<String>,
    turns: u32,
    cost_usd: f64,
    /// When it began, while it is held.
    since: Option<Timestamp>,
    minutes: f64,
}

impl DocsUsage {
    fn seat(&mut self, index: usize) -> &mut SessionUsage {
        if self.seats.len() <= index {
            self.seats.resize_with(index + 1, SessionUsage::default);
        }
        &mut self.seats[index]
    }

    /// A conversation begins, or goes on.
    pub fn started(&mut self, index: usize, session: &str, now: Timestamp) {
        let seat = self.seat(index);
        seat.session = Some(session.to_owned());
        seat.since = Some(now);
    }

    /// A conversation came to a result.
    pub fn record(&mut self, index: usize, result: &AgentResult) {
        let seat = self.seat(index);
        seat.turns += result.num_turns;
        let mut used = ModelUsage::default();
        for model in result.model_usage_since_last_result.values() {
            model.add_to(&mut used);
        }
        seat.cost_usd += used.cost_usd;
    }

    /// A conversation has ended, or its turn in it.
    pub fn finished(&mut self, index: usize, now: Timestamp) {
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
    pub fn documented(
        &self,
        plan: &Plan,
        items: &[DocsSessionStatus],
        earlier: &PreviousDocs,
    ) -> Vec<DocsResult> {
        let mut index = 0;
        let one = |subject: &DocsTask| {
            if subject.missing.is_empty() {
                return earlier.kept(subject);
            }
            let (item, seat) = (items.get(index), self.seats.get(index).cloned().unwrap_or_default());
            index += 1;
            let (state, findings) = match item {
                Some(DocsSessionStatus::Written) => (DocsStatus::Written, Vec::new()),
                Some(DocsSessionStatus::Failed { failure: _, findings }) => {
                    (DocsStatus::Failed, findings.clone())
                }
                Some(
                    DocsSessionStatus::Queued
                    | DocsSessionStatus::Running { .. }
                    | DocsSessionStatus::NotStarted,
                )
                | None => (DocsStatus::NotWritten, Vec::new()),
            };
            DocsResult {
                findings,
                minutes: seat.minutes,
                turns: seat.turns,
                cost_usd: seat.cost_usd,
                session_id: seat.session,
                ..empty_result(subject, state)
            }
        };
        plan.subjects.iter().map(one).collect()
    }
}

/// What an earlier attempt on the same branch wrote.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PreviousDocs {
    /// The attempt.
    pub run: Option<RunName>,
    /// What it said.
    pub documented: Vec<DocsResult>,
}

impl PreviousDocs {
    fn kept(&self, subject: &DocsTask) -> DocsResult {
        let blank = empty_result(subject, DocsStatus::Unchanged);
        let known = self.documented.iter().find(|known| known.task_id == subject.task);
        match known {
            Some(known) if known.status == DocsStatus::Written => {
                DocsResult { status: blank.status, written_by_run: self.run.clone(), ..known.clone() }
            }
            Some(known) if known.written_by_run.is_some() => known.clone(),
            Some(_) | None => blank,
        }
    }
}

fn empty_result(subject: &DocsTask, state: DocsStatus) -> DocsResult {
    DocsResult {
        task_id: subject.task,
        title: subject.entry.title.clone(),
        status: state,
        findings: Vec::new(),
        minutes: 0.0,
        turns: 0,
        cost_usd: 0.0,
        session_id: None,
        written_by_run: None,
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
        let subject = |(at, wanted): (usize, &bool)| DocsTask {
            task: TaskId::new(u32::try_from(at).unwrap() + 1).unwrap(),
            entry: Entry { id: (at + 1).to_string(), title: format!("T{}", at + 1), ..Entry::default() },
            missing: if *wanted { Document::ALL.to_vec() } else { Vec::new() },
            existing: Vec::new(),
            dependencies: Vec::new(),
            dependents: Vec::new(),
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
    fn unchanged_docs_keep_cost_of_earlier_run() {
        let plan = plan(&[false, true, false, true]);
        let failure = Failure::new(Reason::VerificationFailed, "a stub");
        let items = [
            DocsSessionStatus::Written,
            DocsSessionStatus::Failed { failure, findings: vec!["a stub".to_owned()] },
        ];
        let mut account = DocsUsage::default();
        let at = |text: &str| text.parse::<Timestamp>().unwrap();
        account.started(0, "s", at("2026-11-22T10:00:00Z"));
        account.finished(0, at("2026-11-22T10:01:30Z"));
        let before = DocsResult { cost_usd: 0.5, ..empty_result(&plan.subjects[0], DocsStatus::Written) };
        let run = RunName::new("trader-claude-agent-1-docs-attempt1").unwrap();
        let earlier = PreviousDocs { run: Some(run.clone()), documented: vec![before] };
        let documented = account.documented(&plan, &items, &earlier);
        let states: Vec<DocsStatus> = documented.iter().map(|task| task.status).collect();
        use DocsStatus::{Failed, Unchanged, Written};
        assert_eq!(states, [Unchanged, Written, Unchanged, Failed]);
        assert_eq!((documented[0].cost_usd, documented[0].written_by_run.as_ref()), (0.5, Some(&run)));
        assert_eq!((documented[1].minutes, documented[1].session_id.as_deref()), (1.5, Some("s")));
        assert_eq!((documented[2].written_by_run.as_ref(), documented[3].findings.len()), (None, 1));
    }
}
