//! Sessions of a docs run: a queue with limited concurrency and one retry each. Pure.
//!
//! A failed session does not stop the others, unless its reason would fail them all.

use orchestrator_contract::Reason;

use super::effect::{AgentPrompt, Effect};
use crate::failure::Failure;

/// Result of one session of a batch, after the review of its documents.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum DocsSessionResult {
    /// The documents passed the review and are committed.
    Written,
    /// The review rejected the documents with these findings.
    Rejected(Vec<String>),
    /// The session had no verdict, or the agent is blocked.
    Failed(Failure),
}

/// Status of one session of a batch.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum DocsSessionStatus {
    Queued,
    Running {
        /// Whether the review rejected its first documents.
        retried: bool,
    },
    /// The documents are committed.
    Written,
    Failed {
        failure: Failure,
        /// Findings of the review, or the failure's message.
        findings: Vec<String>,
    },
    /// The run ended before this session started or finished.
    NotStarted,
}

/// Session to start, by index, with its prompt.
pub(super) type SessionStart = (usize, AgentPrompt);

/// Returns the effects that start sessions.
pub(super) fn start_effects(starts: Vec<SessionStart>) -> Vec<Effect> {
    starts.into_iter().map(|(index, prompt)| Effect::StartAgent(index, prompt)).collect()
}

/// Sessions of a docs run.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Batch {
    names: Vec<String>,
    items: Vec<DocsSessionStatus>,
    concurrency: usize,
    /// Whether no further session may start.
    closed: bool,
}

/// Maximum failed sessions to list in the run's message.
const MAX_LISTED_FAILURES: usize = 5;

/// Maximum characters of each listed failure.
const MAX_FAILURE_CHARS: usize = 160;

impl Batch {
    /// Creates a batch of queued sessions with display names such as `task 8`.
    #[must_use]
    pub fn new(names: Vec<String>, concurrency: usize) -> Self {
        let items = names.iter().map(|_| DocsSessionStatus::Queued).collect();
        Self { names, items, concurrency: concurrency.max(1), closed: false }
    }

    /// Returns the status of each session, by index.
    #[must_use]
    pub fn items(&self) -> &[DocsSessionStatus] {
        &self.items
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// Returns whether no session is running or queued.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.running() == 0 && !self.items.contains(&DocsSessionStatus::Queued)
    }

    fn running(&self) -> usize {
        self.items.iter().filter(|item| matches!(item, DocsSessionStatus::Running { .. })).count()
    }

    /// Starts queued sessions up to the concurrency limit.
    pub(super) fn start_queued(&mut self) -> Vec<SessionStart> {
        let mut starts = Vec::new();
        let mut free = self.concurrency.saturating_sub(self.running());
        for (index, item) in self.items.iter_mut().enumerate() {
            if free == 0 || self.closed {
                break;
            }
            if *item == DocsSessionStatus::Queued {
                *item = DocsSessionStatus::Running { retried: false };
                starts.push((index, AgentPrompt::Task));
                free -= 1;
            }
        }
        starts
    }

    /// Cancels queued sessions; running ones continue.
    pub(super) fn close(&mut self) {
        self.closed = true;
        for item in &mut self.items {
            if *item == DocsSessionStatus::Queued {
                *item = DocsSessionStatus::NotStarted;
            }
        }
    }

    /// Records the result of a session and returns the sessions to start.
    pub(super) fn session_ended(&mut self, index: usize, result: DocsSessionResult) -> Vec<SessionStart> {
        let Some(item) = self.items.get_mut(index) else { return Vec::new() };
        let DocsSessionStatus::Running { retried } = *item else { return Vec::new() };
        let mut is_fatal = false;
        *item = match result {
            DocsSessionResult::Written => DocsSessionStatus::Written,
            DocsSessionResult::Rejected(findings) if !retried && !self.closed => {
                *item = DocsSessionStatus::Running { retried: true };
                return vec![(index, AgentPrompt::VerificationFailed(findings.join("\n")))];
            }
            DocsSessionResult::Rejected(findings) => {
                let failure = Failure::new(Reason::VerificationFailed, summarize(&findings));
                DocsSessionStatus::Failed { failure, findings }
            }
            // The run was stopped; its own failure has the reason.
            DocsSessionResult::Failed(_) if self.closed => DocsSessionStatus::NotStarted,
            DocsSessionResult::Failed(failure) => {
                is_fatal = is_fatal_for_batch(failure.reason);
                let findings = vec![failure.message.clone()];
                DocsSessionStatus::Failed { failure, findings }
            }
        };
        if is_fatal {
            self.close();
        }
        self.start_queued()
    }

    /// Returns the failure of the whole batch; `None` if all sessions wrote their documents.
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
        let fatal =
            failed.iter().map(|(_, failure)| failure.reason).find(|reason| is_fatal_for_batch(*reason));
        let same_reason = failed.iter().all(|(_, failure)| failure.reason == first.reason);
        let reason = fatal.unwrap_or(if same_reason { first.reason } else { Reason::AgentFailed });
        let not_started = self.items.iter().filter(|item| **item == DocsSessionStatus::NotStarted).count();
        let (without, all) = (failed.len() + not_started, self.items.len());
        let verb = if without == 1 { "has" } else { "have" };
        let mut listed: Vec<String> = failed
            .iter()
            .take(MAX_LISTED_FAILURES)
            .map(|(name, failure)| {
                format!("{name} ({})", failure.message.chars().take(MAX_FAILURE_CHARS).collect::<String>())
            })
            .collect();
        let more = failed.len().saturating_sub(MAX_LISTED_FAILURES);
        listed.extend((more > 0).then(|| format!("{more} more")));
        listed.extend((not_started > 0).then(|| format!("{not_started} not started")));
        Some(Failure::new(
            reason,
            format!("{without} of {all} tasks {verb} no documents: {}", listed.join(", ")),
        ))
    }

    /// Returns the progress, such as `7 of 22 tasks, task 8 in review`.
    #[must_use]
    pub fn progress(&self) -> String {
        let is_finished = |item: &&DocsSessionStatus| {
            matches!(
                item,
                DocsSessionStatus::Written | DocsSessionStatus::Failed { .. } | DocsSessionStatus::NotStarted
            )
        };
        let done = self.items.iter().filter(is_finished).count();
        let retried: Vec<&str> = self
            .names
            .iter()
            .zip(&self.items)
            .filter(|(_, item)| **item == DocsSessionStatus::Running { retried: true })
            .map(|(name, _)| name.as_str())
            .collect();
        let review =
            if retried.is_empty() { String::new() } else { format!(", {} in review", retried.join(" and ")) };
        format!("{done} of {} tasks{review}", self.items.len())
    }
}

/// Returns the first finding without its explanation, and the number of further findings.
fn summarize(findings: &[String]) -> String {
    let first = findings.first().and_then(|finding| finding.split(": ").next()).unwrap_or_default();
    match findings.len().saturating_sub(1) {
        0 => first.to_owned(),
        1 => format!("{first}, and one more finding"),
        more => format!("{first}, and {more} more findings"),
    }
}

/// Returns whether every further session would fail for the same reason.
fn is_fatal_for_batch(reason: Reason) -> bool {
    matches!(
        reason,
        Reason::ModelAuthenticationFailed
            | Reason::ModelNotFound
            | Reason::ModelUnavailable
            | Reason::ModelQuotaExceeded
            | Reason::CredentialMissing
            | Reason::InvalidConfiguration
            | Reason::SandboxUnavailable
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

    fn batch(tasks: usize, concurrency: usize) -> Batch {
        Batch::new((1..=tasks).map(|task| format!("task {task}")).collect(), concurrency)
    }

    fn indices(starts: &[SessionStart]) -> Vec<usize> {
        starts.iter().map(|(index, _)| *index).collect()
    }

    fn rejected() -> DocsSessionResult {
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
        assert_eq!(indices(&batch.start_queued()), [0, 1]);
        assert_eq!(indices(&batch.session_ended(1, DocsSessionResult::Written)), [2]);
        assert_eq!(indices(&batch.session_ended(0, failed(Reason::AgentFailed))), [3]);
        assert_eq!(batch.progress(), "2 of 4 tasks");
        assert!(batch.session_ended(2, DocsSessionResult::Written).is_empty());
        assert!(!batch.is_finished());
        assert!(batch.session_ended(3, DocsSessionResult::Written).is_empty());
        assert!(batch.is_finished());
        let failure = batch.failure().unwrap();
        assert_eq!(failure.reason, Reason::AgentFailed);
        assert_eq!(failure.message, "1 of 4 tasks has no documents: task 1 (because)");
    }

    #[test]
    fn rejected_documents_are_retried_once() {
        let mut batch = batch(1, 2);
        batch.start_queued();
        let starts = batch.session_ended(0, rejected());
        let findings = "`task.md` is missing\n`prompt.md` is missing".to_owned();
        assert_eq!(starts, [(0, AgentPrompt::VerificationFailed(findings))]);
        assert_eq!(batch.progress(), "0 of 1 tasks, task 1 in review");
        assert!(batch.session_ended(0, rejected()).is_empty());
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
        batch.start_queued();
        assert!(batch.session_ended(0, failed(Reason::ModelAuthenticationFailed)).is_empty());
        assert!(!batch.is_finished());
        assert!(batch.session_ended(1, DocsSessionResult::Written).is_empty());
        assert!(batch.is_finished());
        let failure = batch.failure().unwrap();
        assert_eq!(failure.reason, Reason::ModelAuthenticationFailed);
        assert_eq!(failure.message, "4 of 5 tasks have no documents: task 1 (because), 3 not started");
    }

    #[test]
    fn stopped_batch_keeps_written_documents_without_retry() {
        let mut batch = batch(4, 3);
        batch.start_queued();
        batch.session_ended(0, DocsSessionResult::Written);
        batch.close();
        assert!(batch.session_ended(1, rejected()).is_empty());
        assert!(batch.session_ended(2, failed(Reason::AgentFailed)).is_empty());
        batch.session_ended(3, failed(Reason::AgentFailed));
        assert!(batch.is_finished());
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
            tasks in 0_usize..12, concurrency in 1_usize..5, results in prop::collection::vec((0_usize..12, 0_u8..4), 0..60),
        ) {
            let mut batch = batch(tasks, concurrency);
            batch.start_queued();
            for (index, result) in results {
                let result = match result {
                    0 => DocsSessionResult::Written,
                    1 => rejected(),
                    2 => failed(Reason::AgentFailed),
                    _ => failed(Reason::CostLimit),
                };
                batch.session_ended(index, result);
                prop_assert!(batch.running() <= concurrency);
            }
            for _ in 0..2 * tasks {
                if let Some(index) = batch.items.iter().position(|item| matches!(item, DocsSessionStatus::Running { .. })) {
                    batch.session_ended(index, DocsSessionResult::Written);
                }
            }
            prop_assert!(batch.is_finished());
        }
    }
}
