//! Result and usage of each task of a docs run. Pure.

use jiff::Timestamp;
use orchestrator_contract::outcome::{DocsResult, DocsStatus, ModelUsage};
use orchestrator_contract::{RunName, figures};

use super::plan::{DocsTask, Plan};
use crate::agent::stream::AgentResult;
use crate::run::DocsSessionStatus;

/// Usage of the sessions of a docs run, by index.
#[derive(Clone, Debug, Default)]
pub struct DocsUsage {
    sessions: Vec<SessionUsage>,
}

/// Usage of one session.
#[derive(Clone, Debug, Default)]
struct SessionUsage {
    id: Option<String>,
    turns: u32,
    cost_usd: f64,
    /// Start of the session while it runs.
    since: Option<Timestamp>,
    minutes: f64,
}

impl DocsUsage {
    fn session_mut(&mut self, index: usize) -> &mut SessionUsage {
        if self.sessions.len() <= index {
            self.sessions.resize_with(index + 1, SessionUsage::default);
        }
        &mut self.sessions[index]
    }

    /// Records that a session started or continued.
    pub fn started(&mut self, index: usize, session_id: &str, now: Timestamp) {
        let session = self.session_mut(index);
        session.id = Some(session_id.to_owned());
        session.since = Some(now);
    }

    /// Records a result message of a session.
    pub fn record(&mut self, index: usize, result: &AgentResult) {
        let session = self.session_mut(index);
        session.turns = session.turns.saturating_add(result.num_turns);
        let mut used = ModelUsage::default();
        for model in result.model_usage_since_last_result.values() {
            model.add_to(&mut used);
        }
        session.cost_usd += used.cost_usd;
    }

    /// Records that a session exited.
    pub fn finished(&mut self, index: usize, now: Timestamp) {
        let session = self.session_mut(index);
        if let Some(since) = session.since.take() {
            session.minutes += now.duration_since(since).as_secs_f64().max(0.0) / 60.0;
        }
    }

    /// Returns the id of a started session.
    #[must_use]
    pub fn session(&self, index: usize) -> Option<&str> {
        self.sessions.get(index)?.id.as_deref()
    }

    /// Returns the result of each task.
    ///
    /// `spent` has turns and cost in US dollars of a session, if the gateway counted them; else those
    /// of the CLI are used.
    /// `items` has the status of each task with documents to write; `previous` has the results
    /// of the earlier attempt for the others.
    #[must_use]
    pub fn results(
        &self,
        plan: &Plan,
        items: &[DocsSessionStatus],
        previous: &PreviousDocs,
        spent: &dyn Fn(&str) -> Option<(u32, f64)>,
    ) -> Vec<DocsResult> {
        let mut index = 0;
        let one = |subject: &DocsTask| {
            if subject.missing.is_empty() {
                return previous.unchanged(subject);
            }
            let item = items.get(index);
            let session = self.sessions.get(index).cloned().unwrap_or_default();
            index += 1;
            let (status, findings) = match item {
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
            let counted = session.id.as_deref().and_then(spent);
            let (turns, cost_usd) = counted.unwrap_or((session.turns, session.cost_usd));
            DocsResult {
                findings,
                minutes: session.minutes,
                turns,
                cost_usd: figures::round_usd(cost_usd),
                session_id: session.id,
                ..empty_result(subject, status)
            }
        };
        plan.subjects.iter().map(one).collect()
    }
}

/// Results of the earlier attempt on the same branch.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PreviousDocs {
    /// The earlier attempt.
    pub run: Option<RunName>,
    pub results: Vec<DocsResult>,
}

impl PreviousDocs {
    fn unchanged(&self, subject: &DocsTask) -> DocsResult {
        let empty = empty_result(subject, DocsStatus::Unchanged);
        let known = self.results.iter().find(|known| known.task_id == subject.task);
        match known {
            Some(known) if known.status == DocsStatus::Written => {
                DocsResult { status: empty.status, written_by_run: self.run.clone(), ..known.clone() }
            }
            Some(known) if known.written_by_run.is_some() => known.clone(),
            Some(_) | None => empty,
        }
    }
}

fn empty_result(subject: &DocsTask, status: DocsStatus) -> DocsResult {
    DocsResult {
        task_id: subject.task,
        title: subject.entry.title.clone(),
        status,
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
    use crate::failure::Failure;
    use crate::workspace::documents::Entry;
    use orchestrator_contract::{Reason, TaskId};

    fn plan(pending: &[bool]) -> Plan {
        let subject = |(at, pending): (usize, &bool)| DocsTask {
            task: TaskId::new(u32::try_from(at).unwrap() + 1).unwrap(),
            entry: Entry { id: (at + 1).to_string(), title: format!("T{}", at + 1), ..Entry::default() },
            missing: if *pending { Document::ALL.to_vec() } else { Vec::new() },
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
            subjects: pending.iter().enumerate().map(subject).collect(),
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
        let mut usage = DocsUsage::default();
        let at = |text: &str| text.parse::<Timestamp>().unwrap();
        usage.started(0, "s", at("2026-11-22T10:00:00Z"));
        usage.finished(0, at("2026-11-22T10:01:30Z"));
        let before = DocsResult { cost_usd: 0.5, ..empty_result(&plan.subjects[0], DocsStatus::Written) };
        let run = RunName::new("trader-claude-agent-1-docs-attempt1").unwrap();
        let previous = PreviousDocs { run: Some(run.clone()), results: vec![before] };
        let results = usage.results(&plan, &items, &previous, &|_| Some((3, 0.25)));
        let states: Vec<DocsStatus> = results.iter().map(|task| task.status).collect();
        use DocsStatus::{Failed, Unchanged, Written};
        assert_eq!(states, [Unchanged, Written, Unchanged, Failed]);
        assert_eq!((results[0].cost_usd, results[0].written_by_run.as_ref()), (0.5, Some(&run)));
        assert_eq!((results[1].turns, results[1].cost_usd, results[3].turns), (3, 0.25, 0));
        assert_eq!((results[1].minutes, results[1].session_id.as_deref()), (1.5, Some("s")));
        assert_eq!((results[2].written_by_run.as_ref(), results[3].findings.len()), (None, 1));
    }
}
