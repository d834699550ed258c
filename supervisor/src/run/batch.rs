//! The conversations of a docs run: a queue, a few at a time, each with a second try. Pure.
//!
//! One that fails does not end the others, unless the cause would fail them all.

use orchestrator_contract::Reason;

use super::{AgentPrompt, Failure};

/// How one conversation of a batch ended.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum DocsSessionResult {
    /// What it wrote passed the checks and is committed.
    Written,
    /// The checks found this.
    Rejected(Vec<String>),
    /// It came to no verdict, or to one that is a question.
    Failed(Failure),
}

/// Where one conversation stands.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum DocsSessionStatus {
    /// Its turn has not come.
    Queued,
    /// It is held; perhaps it was sent back.
    Running {
        /// Whether the checks have sent it back.
        retried: bool,
    },
    /// Its documents are committed.
    Written,
    /// There are none.
    Failed {
        /// Why, in one line.
        failure: Failure,
        /// What the checks found, one by one.
        findings: Vec<String>,
    },
    /// The run ended before its turn came, or before its end.
    NotStarted,
}

/// A conversation to start, and what it is told.
pub(super) type SessionStart = (usize, AgentPrompt);

/// A list of conversations.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Batch {
    names: Vec<String>,
    items: Vec<DocsSessionStatus>,
    concurrency: usize,
    /// No more are begun.
    closed: bool,
}

/// Failures that are named in the message of the run's end.
const MAX_LISTED_FAILURES: usize = 5;

/// Longest text of one of them, in characters.
const MAX_FAILURE_CHARS: usize = 160;

impl Batch {
    /// Conversations by the names that people know them by, such as `task 8`.
    #[must_use]
    pub fn new(names: Vec<String>, at_once: usize) -> Self {
        let items = names.iter().map(|_| DocsSessionStatus::Queued).collect();
        Self { names, items, concurrency: at_once.max(1), closed: false }
    }

    /// Where each conversation stands, in their order.
    #[must_use]
    pub fn items(&self) -> &[DocsSessionStatus] {
        &self.items
    }

    /// Whether there is nothing to do at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// Whether no conversation is held and none will be.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.talking() == 0 && !self.items.contains(&DocsSessionStatus::Queued)
    }

    fn talking(&self) -> usize {
        self.items.iter().filter(|item| matches!(item, DocsSessionStatus::Running { .. })).count()
    }

    /// Begins as many conversations as may be held at once.
    pub(super) fn begin(&mut self) -> Vec<SessionStart> {
        let mut next = Vec::new();
        let mut free = self.concurrency.saturating_sub(self.talking());
        for (index, item) in self.items.iter_mut().enumerate() {
            if free == 0 || self.closed {
                break;
            }
            if *item == DocsSessionStatus::Queued {
                *item = DocsSessionStatus::Running { retried: false };
                next.push((index, AgentPrompt::Task));
                free -= 1;
            }
        }
        next
    }

    /// Begins no more: those that wait are missing from now on, those that are held go on.
    pub(super) fn close(&mut self) {
        self.closed = true;
        for item in &mut self.items {
            if *item == DocsSessionStatus::Queued {
                *item = DocsSessionStatus::NotStarted;
            }
        }
    }

    /// Takes in how a conversation ended and says which are started now.
    pub(super) fn ended(&mut self, index: usize, end: DocsSessionResult) -> Vec<SessionStart> {
        let Some(item) = self.items.get_mut(index) else { return Vec::new() };
        let DocsSessionStatus::Running { retried: again } = *item else { return Vec::new() };
        let mut hopeless = false;
        *item = match end {
            DocsSessionResult::Written => DocsSessionStatus::Written,
            DocsSessionResult::Rejected(findings) if !again && !self.closed => {
                *item = DocsSessionStatus::Running { retried: true };
                return vec![(index, AgentPrompt::VerificationFailed(findings.join("\n")))];
            }
            DocsSessionResult::Rejected(findings) => {
                let failure = Failure::new(Reason::VerificationFailed, summarize(&findings));
                DocsSessionStatus::Failed { failure, findings }
            }
            // It was stopped together with the run, which says why.
            DocsSessionResult::Failed(_) if self.closed => DocsSessionStatus::NotStarted,
            DocsSessionResult::Failed(failure) => {
                hopeless = is_fatal_for_batch(failure.reason);
                let findings = vec![failure.message.clone()];
                DocsSessionStatus::Failed { failure, findings }
            }
        };
        if hopeless {
            self.close();
        }
        self.begin()
    }

    /// What the batch as a whole failed for; none if all has been written.
    #[must_use]
    pub fn failure(&self) -> Option<Failure> {
        let failed: Vec<(&String, &Failure)> = self
            .names
            .iter()
            .zip(&self.items)
            .filter_map(|(name, item)| match item {
                DocsSessionStatus::Failed { failure, findings: _ } => Some((name, failure)),
                DocsSessionStatus::Queued
                | DocsSessionStatus::Running { .. }
                | DocsSessionStatus::Written
                | DocsSessionStatus::NotStarted => None,
            })
            .collect();
        let (_, first) = failed.first()?;
        let hopeless =
            failed.iter().map(|(_, failure)| failure.reason).find(|reason| is_fatal_for_batch(*reason));
        let same = failed.iter().all(|(_, failure)| failure.reason == first.reason);
        let reason = hopeless.unwrap_or(if same { first.reason } else { Reason::AgentFailed });
        let missing = self.items.iter().filter(|item| **item == DocsSessionStatus::NotStarted).count();
        let (without, all) = (failed.len() + missing, self.items.len());
        let verb = if without == 1 { "has" } else { "have" };
        let mut named: Vec<String> = failed
            .iter()
            .take(MAX_LISTED_FAILURES)
            .map(|(name, failure)| {
                format!("{name} ({})", failure.message.chars().take(MAX_FAILURE_CHARS).collect::<String>())
            })
            .collect();
        let more = failed.len().saturating_sub(MAX_LISTED_FAILURES);
        named.extend((more > 0).then(|| format!("{more} more")));
        named.extend((missing > 0).then(|| format!("{missing} not begun")));
        Some(Failure::new(
            reason,
            format!("{without} of {all} tasks {verb} no documents: {}", named.join(", ")),
        ))
    }

    /// How far the batch is: `7 of 22 tasks`, and which were sent back.
    #[must_use]
    pub fn progress(&self) -> String {
        let ended = |item: &&DocsSessionStatus| {
            matches!(
                item,
                DocsSessionStatus::Written | DocsSessionStatus::Failed { .. } | DocsSessionStatus::NotStarted
            )
        };
        let done = self.items.iter().filter(ended).count();
        let again: Vec<&str> = self
            .names
            .iter()
            .zip(&self.items)
            .filter(|(_, item)| **item == DocsSessionStatus::Running { retried: true })
            .map(|(name, _)| name.as_str())
            .collect();
        let review =
            if again.is_empty() { String::new() } else { format!(", {} in review", again.join(" and ")) };
        format!("{done} of {} tasks{review}", self.items.len())
    }
}

/// The first finding, without its explanation, and how many more there are.
fn summarize(findings: &[String]) -> String {
    let first = findings.first().and_then(|finding| finding.split(": ").next()).unwrap_or_default();
    match findings.len().saturating_sub(1) {
        0 => first.to_owned(),
        1 => format!("{first}, and one more finding"),
        more => format!("{first}, and {more} more findings"),
    }
}

/// Whether the next conversation would fail for the same reason.
fn is_fatal_for_batch(reason: Reason) -> bool {
    matches!(
        reason,
        Reason::ModelAuthenticationFailed
            | Reason::ModelNotFound
            | Reason::ModelUnavailable
            | Reason::CredentialMissing
            | Reason::InvalidConfiguration
            | Reason::AgentCliNotFound
            | Reason::AgentOutOfMemory
            | Reason::CostLimit
            | Reason::TurnLimit
            | Reason::DiskFull
            | Reason::IoError
            | Reason::WorkspaceUnwritable
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn batch(tasks: usize, at_once: usize) -> Batch {
        Batch::new((1..=tasks).map(|task| format!("task {task}")).collect(), at_once)
    }

    fn indices(next: &[SessionStart]) -> Vec<usize> {
        next.iter().map(|(index, _)| *index).collect()
    }

    fn refused() -> DocsSessionResult {
        DocsSessionResult::Rejected(vec![
            "`task.md` is missing".to_owned(),
            "`prompt.md` is missing".to_owned(),
        ])
    }

    fn failed(reason: Reason) -> DocsSessionResult {
        DocsSessionResult::Failed(Failure::new(reason, "because"))
    }

    #[test]
    fn finished_session_starts_next_within_concurrency() {
        let mut batch = batch(4, 2);
        assert_eq!(indices(&batch.begin()), [0, 1]);
        assert_eq!(indices(&batch.ended(1, DocsSessionResult::Written)), [2]);
        assert_eq!(indices(&batch.ended(0, failed(Reason::AgentFailed))), [3]);
        assert_eq!(batch.progress(), "2 of 4 tasks");
        assert!(batch.ended(2, DocsSessionResult::Written).is_empty());
        assert!(!batch.is_over());
        assert!(batch.ended(3, DocsSessionResult::Written).is_empty());
        assert!(batch.is_over());
        let failure = batch.failure().unwrap();
        assert_eq!(failure.reason, Reason::AgentFailed);
        assert_eq!(failure.message, "1 of 4 tasks has no documents: task 1 (because)");
    }

    #[test]
    fn rejected_documents_are_retried_once() {
        let mut batch = batch(1, 2);
        batch.begin();
        let next = batch.ended(0, refused());
        let findings = "`task.md` is missing\n`prompt.md` is missing".to_owned();
        assert_eq!(next, [(0, AgentPrompt::VerificationFailed(findings))]);
        assert_eq!(batch.progress(), "0 of 1 tasks, task 1 in review");
        assert!(batch.ended(0, refused()).is_empty());
        let failure = batch.failure().unwrap();
        assert_eq!(failure.reason, Reason::VerificationFailed);
        let expected = "1 of 1 tasks has no documents: task 1 (`task.md` is missing, and one more finding)";
        assert_eq!(failure.message, expected);
        let DocsSessionStatus::Failed { findings, .. } = &batch.items()[0] else { panic!("{batch:?}") };
        assert_eq!(findings.len(), 2);
    }

    #[test]
    fn fatal_failure_starts_no_further_sessions() {
        let mut batch = batch(5, 2);
        batch.begin();
        assert!(batch.ended(0, failed(Reason::ModelAuthenticationFailed)).is_empty());
        assert!(!batch.is_over());
        assert!(batch.ended(1, DocsSessionResult::Written).is_empty());
        assert!(batch.is_over());
        let failure = batch.failure().unwrap();
        assert_eq!(failure.reason, Reason::ModelAuthenticationFailed);
        assert_eq!(failure.message, "4 of 5 tasks have no documents: task 1 (because), 3 not begun");
    }

    #[test]
    fn stopped_batch_keeps_written_documents_without_retry() {
        let mut batch = batch(4, 3);
        batch.begin();
        batch.ended(0, DocsSessionResult::Written);
        batch.close();
        assert!(batch.ended(1, refused()).is_empty());
        assert!(batch.ended(2, failed(Reason::AgentFailed)).is_empty());
        batch.ended(3, failed(Reason::AgentFailed));
        assert!(batch.is_over());
        assert!(matches!(
            batch.items(),
            [
                DocsSessionStatus::Written,
                DocsSessionStatus::Failed { .. },
                DocsSessionStatus::NotStarted,
                DocsSessionStatus::NotStarted
            ]
        ));
    }

    proptest! {
        #[test]
        fn batch_finishes_within_concurrency_for_any_order(
            tasks in 0_usize..12, at_once in 1_usize..5, ends in prop::collection::vec((0_usize..12, 0_u8..4), 0..60),
        ) {
            let mut batch = batch(tasks, at_once);
            batch.begin();
            for (index, end) in ends {
                let end = match end {
                    0 => DocsSessionResult::Written,
                    1 => refused(),
                    2 => failed(Reason::AgentFailed),
                    _ => failed(Reason::CostLimit),
                };
                batch.ended(index, end);
                prop_assert!(batch.talking() <= at_once);
            }
            for _ in 0..2 * tasks {
                if let Some(index) = batch.items.iter().position(|item| matches!(item, DocsSessionStatus::Running { .. })) {
                    batch.ended(index, DocsSessionResult::Written);
                }
            }
            prop_assert!(batch.is_over());
        }
    }
}
