//! What a submission means, given the runs that are already there.

use orchestrator_contract::task::Mode;
use orchestrator_contract::{Phase, Reason, RunName};

use crate::error::Error;

/// A run of the same identity.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct PriorRun {
    /// Its name.
    pub run: RunName,
    /// Its number.
    pub attempt: u32,
    /// Where it stands.
    pub phase: Phase,
    /// Why it ended, once it has.
    pub reason: Option<Reason>,
    /// Whether it was asked for the same.
    pub same: bool,
}

/// What to do with a submission.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum SubmitDecision {
    /// Start a new attempt.
    Start,
    /// It is being done already: answer with that run.
    ReuseRunning {
        /// The run.
        run: RunName,
        /// Whether it was asked for exactly the same.
        same: bool,
    },
    /// It cannot be done as asked.
    Reject(Rejection),
}

/// Why a submission is refused.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Rejection {
    /// The task was attempted before, and the submission is neither retry nor fresh.
    AlreadyAttempted(PriorRun),
    /// The attempt before is still at work.
    StillRunning(RunName),
    /// There is nothing to try again.
    NothingToRetry,
}

/// Decides about a submission. `mark` is the highest attempt number ever given out.
#[must_use]
pub fn decide_submission(mode: Mode, known: &[PriorRun], mark: u32) -> SubmitDecision {
    let newest =
        |wanted: fn(&PriorRun) -> bool| known.iter().filter(|run| wanted(run)).max_by_key(|run| run.attempt);
    let live = newest(|run| !run.phase.is_final());
    let ended = newest(|run| run.phase.is_final());
    match (mode, live, ended) {
        (_, Some(run), _) if run.same => SubmitDecision::ReuseRunning { run: run.run.clone(), same: true },
        (Mode::First, Some(run), _) => SubmitDecision::ReuseRunning { run: run.run.clone(), same: false },
        (Mode::Retry | Mode::Fresh, Some(run), _) => {
            SubmitDecision::Reject(Rejection::StillRunning(run.run.clone()))
        }
        (Mode::First, None, Some(run)) => SubmitDecision::Reject(Rejection::AlreadyAttempted(run.clone())),
        // A mark without a record: the records were cleared away, the branch may be there.
        (Mode::Retry | Mode::Fresh, None, None) if mark == 0 => {
            SubmitDecision::Reject(Rejection::NothingToRetry)
        }
        (Mode::First, None, None) | (Mode::Retry | Mode::Fresh, None, _) => SubmitDecision::Start,
    }
}

impl From<Rejection> for Error {
    fn from(refusal: Rejection) -> Self {
        match refusal {
            Rejection::AlreadyAttempted(PriorRun { run, phase, reason, .. }) => {
                let reason = reason.map_or(String::new(), |reason| format!(" ({reason})"));
                Self::invalid_request(format!(
                    "this task has an attempt already: `{run}` ended {phase}{reason}"
                ))
                .with_hint(
                    "Go on from it with --retry (same branch and conversation), or start over with --fresh \
                     (new branch).",
                )
            }
            Rejection::StillRunning(run) => {
                Self::new(Reason::WorkspaceBusy, format!("the attempt before, `{run}`, is still at work"))
                    .with_hint(format!(
                        "Wait for it (dispatcher wait {run}) or stop it (dispatcher stop {run}), then retry."
                    ))
            }
            Rejection::NothingToRetry => Self::invalid_request(
                "this task has no earlier attempt to go on from",
            )
            .with_hint(
                "Submit it without --retry and --fresh; service, agent and task must be the same as before.",
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(attempt: u32, phase: Phase, same: bool) -> PriorRun {
        let run = RunName::new(format!("a{attempt}")).unwrap();
        PriorRun { run, attempt, phase, reason: None, same }
    }

    /// One character a decision, for a table: Start, Answer, Refuse with its case.
    fn short(mode: Mode, known: &[PriorRun], mark: u32) -> String {
        match decide_submission(mode, known, mark) {
            SubmitDecision::Start => "start".to_owned(),
            SubmitDecision::ReuseRunning { run, same } => format!("answer {run} {same}"),
            SubmitDecision::Reject(Rejection::AlreadyAttempted(run)) => {
                format!("refuse: attempted {}", run.run)
            }
            SubmitDecision::Reject(Rejection::StillRunning(run)) => format!("refuse: at work {run}"),
            SubmitDecision::Reject(Rejection::NothingToRetry) => "refuse: nothing".to_owned(),
        }
    }

    #[test]
    fn submission_decisions_match_documented_table() {
        use Mode::{First, Fresh, Retry};
        let failed = known(1, Phase::Failed, false);
        let done = known(2, Phase::Succeeded, true);
        let live = known(3, Phase::Running, false);
        let twin = known(3, Phase::Pending, true);
        let cases: &[(Mode, Vec<PriorRun>, u32, &str)] = &[
            (First, vec![], 0, "start"),
            (First, vec![], 4, "start"),
            (First, vec![failed.clone(), done.clone()], 2, "refuse: attempted a2"),
            (First, vec![failed.clone(), live.clone()], 3, "answer a3 false"),
            (First, vec![twin.clone()], 3, "answer a3 true"),
            (Retry, vec![], 0, "refuse: nothing"),
            (Retry, vec![], 4, "start"),
            (Retry, vec![failed.clone()], 1, "start"),
            (Retry, vec![failed.clone(), live.clone()], 3, "refuse: at work a3"),
            (Retry, vec![failed.clone(), twin.clone()], 3, "answer a3 true"),
            (Fresh, vec![], 0, "refuse: nothing"),
            (Fresh, vec![done], 2, "start"),
            (Fresh, vec![failed.clone(), live], 3, "refuse: at work a3"),
            (Fresh, vec![failed, twin], 3, "answer a3 true"),
        ];
        for (mode, known, mark, expected) in cases {
            assert_eq!(short(*mode, known, *mark), *expected, "{mode:?} {known:?} {mark}");
        }
    }

    #[test]
    fn submit_rejection_names_alternatives() {
        let problem = Error::from(Rejection::AlreadyAttempted(known(1, Phase::Failed, false)));
        assert_eq!(problem.exit_code(), 64);
        insta::assert_snapshot!(problem, @"this task has an attempt already: `a1` ended Failed. Go on from it with --retry (same branch and conversation), or start over with --fresh (new branch).");
        insta::assert_snapshot!(Error::from(Rejection::StillRunning(RunName::new("a1").unwrap())), @"the attempt before, `a1`, is still at work. Wait for it (dispatcher wait a1) or stop it (dispatcher stop a1), then retry.");
        insta::assert_snapshot!(Error::from(Rejection::NothingToRetry), @"this task has no earlier attempt to go on from. Submit it without --retry and --fresh; service, agent and task must be the same as before.");
    }
}
