//! Decides what a submission does, given the earlier runs of its task key.

use orchestrator_contract::outcome::{ModelUsage, Usage, Work};
use orchestrator_contract::task::Mode;
use orchestrator_contract::{Outcome, Phase, Reason, RunName};

use super::advice::Advice;
use crate::error::Error;

/// A run of the same task key.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct PriorRun {
    pub run: RunName,
    pub attempt: u32,
    pub phase: Phase,
    /// Why it ended, if it is finished.
    pub reason: Option<Reason>,
    /// Whether its task spec equals that of the submission.
    pub same: bool,
    /// Whether it ended before the agent did anything, see [`never_reached_agent`].
    pub is_blank: bool,
}

/// Returns whether a run ended before its agent did anything, such as with a wrong key: nothing can be
/// continued, so the next submission need not say how.
#[must_use]
pub fn never_reached_agent(outcome: &Outcome) -> bool {
    let Outcome { phase, work, commits, pull_request, verdict, usage, docs_results, .. } = outcome;
    let Usage { turns, cost_usd, unconfirmed_usd, models, .. } = usage;
    let used = |model: &ModelUsage| {
        model.input_tokens + model.output_tokens + model.cache_read_tokens + model.cache_creation_tokens > 0
    };
    let spent = *turns > 0 || *cost_usd > 0.0 || *unconfirmed_usd > 0.0 || models.values().any(used);
    let kept = *work != Work::default() || *commits > 0 || pull_request.is_some() || !docs_results.is_empty();
    *phase != Phase::Succeeded && !spent && !kept && verdict.is_none()
}

/// What to do with a submission.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum SubmitDecision {
    /// Start a new attempt.
    Start,
    /// Return the active run.
    ReuseRunning {
        run: RunName,
        /// Whether its task spec equals that of the submission.
        same: bool,
    },
    /// Refuse the submission.
    Reject(Rejection),
}

/// Why a submission is refused.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Rejection {
    /// An earlier attempt exists, and the submission is neither a retry nor fresh.
    AlreadyAttempted(PriorRun),
    /// The earlier attempt is still active.
    StillRunning(RunName),
    /// No earlier attempt exists.
    NothingToRetry,
}

/// Decides what a submission does; `last_attempt` is the highest number ever allocated.
#[must_use]
pub fn decide_submission(mode: Mode, prior: &[PriorRun], last_attempt: u32) -> SubmitDecision {
    let newest = |matches: fn(&PriorRun) -> bool| {
        prior.iter().filter(|run| matches(run)).max_by_key(|run| run.attempt)
    };
    let active = newest(|run| !run.phase.is_final());
    let finished = newest(|run| run.phase.is_final() && !run.is_blank);
    match (mode, active, finished) {
        (_, Some(run), _) if run.same => SubmitDecision::ReuseRunning { run: run.run.clone(), same: true },
        (Mode::First, Some(run), _) => SubmitDecision::ReuseRunning { run: run.run.clone(), same: false },
        (Mode::Retry | Mode::Fresh, Some(run), _) => {
            SubmitDecision::Reject(Rejection::StillRunning(run.run.clone()))
        }
        (Mode::First, None, Some(run)) => SubmitDecision::Reject(Rejection::AlreadyAttempted(run.clone())),
        // A number without a record: gc removed the records, but the branch may exist.
        (Mode::Retry, None, None) if last_attempt == 0 => SubmitDecision::Reject(Rejection::NothingToRetry),
        (Mode::First, None, None) | (Mode::Retry | Mode::Fresh, None, _) => SubmitDecision::Start,
    }
}

impl From<Rejection> for Error {
    fn from(rejection: Rejection) -> Self {
        match rejection {
            Rejection::AlreadyAttempted(PriorRun { run, phase, reason, .. }) => {
                let reason = reason.map_or(String::new(), |reason| format!(" ({reason})"));
                Self::invalid_request(format!(
                    "this task has an earlier attempt: `{run}` ended as {phase}{reason}"
                ))
                .with_hint(Advice::RetryOrStartFresh)
            }
            Rejection::StillRunning(run) => {
                Self::new(Reason::WorkspaceBusy, format!("the earlier attempt `{run}` is still active"))
                    .with_hint(Advice::WaitOrStop(run))
            }
            Rejection::NothingToRetry => Self::invalid_request("this task has no earlier attempt to retry")
                .with_hint(Advice::SubmitFirstAttempt),
        }
    }
}

#[cfg(test)]
mod tests {
    use orchestrator_contract::outcome::{Verdict, VerdictStatus, WorkLocation};

    use super::*;
    use crate::task::event_fold::LockState;

    fn prior(attempt: u32, phase: Phase, same: bool) -> PriorRun {
        let run = RunName::new(format!("a{attempt}")).unwrap();
        PriorRun { run, attempt, phase, reason: None, same, is_blank: false }
    }

    fn blank(attempt: u32) -> PriorRun {
        PriorRun { is_blank: true, ..prior(attempt, Phase::Failed, false) }
    }

    /// The outcome of a run with a wrong key.
    fn wrong_key() -> Outcome {
        let mut outcome = *crate::task::status::tests::sample(5, LockState::Free).outcome.unwrap();
        outcome.phase = Phase::Failed;
        outcome.reason = Reason::ModelAuthenticationFailed;
        outcome.work = Work::default();
        outcome.commits = 0;
        outcome.pull_request = None;
        outcome.verdict = None;
        outcome.usage = Usage::default();
        outcome
    }

    type Change = fn(&mut Outcome);

    #[test]
    fn attempt_without_figures_or_work_never_reached_agent() {
        assert!(never_reached_agent(&wrong_key()));
        assert!(
            never_reached_agent(&Outcome { phase: Phase::Stopped, ..wrong_key() }),
            "stopped in the queue"
        );
        let changes: [(&str, Change); 11] = [
            ("a turn", |outcome| outcome.usage.turns = 1),
            ("a cost", |outcome| outcome.usage.cost_usd = 0.01),
            ("an unconfirmed cost", |outcome| outcome.usage.unconfirmed_usd = 0.01),
            ("tokens", |outcome| {
                let used = ModelUsage { output_tokens: 1, ..ModelUsage::default() };
                outcome.usage.models.insert("claude-sonnet-5-5".to_owned(), used);
            }),
            ("work in the workspace", |outcome| outcome.work.location = WorkLocation::Workspace),
            ("work on the remote", |outcome| outcome.work.location = WorkLocation::Remote),
            ("a branch", |outcome| outcome.work.branch = Some("b".to_owned())),
            ("a path", |outcome| outcome.work.path = Some("/w".to_owned())),
            ("commits", |outcome| outcome.commits = 1),
            ("success", |outcome| outcome.phase = Phase::Succeeded),
            ("a verdict", |outcome| {
                let (status, summary) = (VerdictStatus::Blocked, String::new());
                outcome.verdict = Some(Verdict { status, summary, question: None });
            }),
        ];
        for (what, change) in changes {
            let mut outcome = wrong_key();
            change(&mut outcome);
            assert!(!never_reached_agent(&outcome), "{what}");
        }
    }

    /// Renders a decision for the table.
    fn short(mode: Mode, prior: &[PriorRun], last_attempt: u32) -> String {
        match decide_submission(mode, prior, last_attempt) {
            SubmitDecision::Start => "start".to_owned(),
            SubmitDecision::ReuseRunning { run, same } => format!("reuse {run} {same}"),
            SubmitDecision::Reject(Rejection::AlreadyAttempted(run)) => {
                format!("reject: attempted {}", run.run)
            }
            SubmitDecision::Reject(Rejection::StillRunning(run)) => format!("reject: active {run}"),
            SubmitDecision::Reject(Rejection::NothingToRetry) => "reject: nothing".to_owned(),
        }
    }

    #[test]
    fn submission_decisions_match_documented_table() {
        use Mode::{First, Fresh, Retry};
        let failed = prior(1, Phase::Failed, false);
        let done = prior(2, Phase::Succeeded, true);
        let live = prior(3, Phase::Running, false);
        let twin = prior(3, Phase::Pending, true);
        let cases: &[(Mode, Vec<PriorRun>, u32, &str)] = &[
            (First, vec![], 0, "start"),
            (First, vec![], 4, "start"),
            (First, vec![blank(1)], 1, "start"),
            (First, vec![failed.clone(), blank(2)], 2, "reject: attempted a1"),
            (First, vec![blank(1), live.clone()], 3, "reuse a3 false"),
            (Retry, vec![blank(1)], 1, "start"),
            (Fresh, vec![blank(1)], 1, "start"),
            (First, vec![failed.clone(), done.clone()], 2, "reject: attempted a2"),
            (First, vec![failed.clone(), live.clone()], 3, "reuse a3 false"),
            (First, vec![twin.clone()], 3, "reuse a3 true"),
            (Retry, vec![], 0, "reject: nothing"),
            (Retry, vec![], 4, "start"),
            (Retry, vec![failed.clone()], 1, "start"),
            (Retry, vec![failed.clone(), live.clone()], 3, "reject: active a3"),
            (Retry, vec![failed.clone(), twin.clone()], 3, "reuse a3 true"),
            (Fresh, vec![], 0, "start"),
            (Fresh, vec![done], 2, "start"),
            (Fresh, vec![failed.clone(), live], 3, "reject: active a3"),
            (Fresh, vec![failed, twin], 3, "reuse a3 true"),
        ];
        for (mode, prior, last_attempt, expected) in cases {
            assert_eq!(short(*mode, prior, *last_attempt), *expected, "{mode:?} {prior:?} {last_attempt}");
        }
    }

    #[test]
    fn submit_rejection_names_alternatives() {
        let run = || RunName::new("a1").unwrap();
        let error = Error::from(Rejection::AlreadyAttempted(prior(1, Phase::Failed, false)));
        assert_eq!((error.exit_code(), error.hint()), (64, &Advice::RetryOrStartFresh));
        insta::assert_snapshot!(error, @"this task has an earlier attempt: `a1` ended as Failed");
        let error = Error::from(Rejection::StillRunning(run()));
        assert_eq!(error.hint(), &Advice::WaitOrStop(run()));
        insta::assert_snapshot!(error, @"the earlier attempt `a1` is still active");
        let error = Error::from(Rejection::NothingToRetry);
        assert_eq!(error.hint(), &Advice::SubmitFirstAttempt);
        insta::assert_snapshot!(error, @"this task has no earlier attempt to retry");
    }
}
