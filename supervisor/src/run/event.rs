//! Events that the run machine handles. Pure.

use std::time::Duration;

use orchestrator_contract::outcome::VerdictStatus;
use orchestrator_contract::{Reason, Step};

use super::batch::{Batch, DocsSessionResult};
use super::stop::StopMode;
use crate::failure::Failure;

/// Limit of the task that ends the agent.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Limit {
    /// Wall-clock time.
    Time,
    /// Time without agent output.
    Silence,
    /// Cost in US dollars.
    Cost,
    Turns,
}

impl Limit {
    /// Returns the reason of a run that reached this limit.
    #[must_use]
    pub fn reason(self) -> Reason {
        match self {
            Self::Time => Reason::TimeLimit,
            Self::Silence => Reason::IdleLimit,
            Self::Cost => Reason::CostLimit,
            Self::Turns => Reason::TurnLimit,
        }
    }
}

/// Result of one session.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum SessionOutcome {
    /// A verdict that matches the schema, with its summary or question.
    Verdict(VerdictStatus, String),
    Failed(Failure),
}

/// Result of the verify commands.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum VerifyResult {
    /// All commands passed, or none are configured.
    Passed,
    /// A command failed; the text is the agent's next prompt.
    Failed(String),
    /// The commands could not be run.
    Error(Failure),
}

/// Input of the run machine.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum RunEvent {
    StepDone(Step),
    StepFailed(Step, Failure),
    /// The documents step of a docs run completed with these sessions to run.
    DocsPlanned(Batch),
    /// The agent exited, its output is fully read and its processes are reaped.
    AgentEnded(SessionOutcome),
    /// The agent exited with this failure at a usage limit of the model, which ends after this time if the
    /// API named one.
    UsageLimitReached(Failure, Option<Duration>),
    /// The timer of the wait for a usage limit expired.
    QuotaWaitOver,
    /// One session of a batch ended and its documents were reviewed.
    SessionEnded(usize, DocsSessionResult),
    Verified(VerifyResult),
    /// The work is committed; the number of commits that are not in the base.
    Saved(u32),
    /// The push finished; `Some` says why the work is not on its branch.
    Pushed(Option<Failure>),
    StopRequested(StopMode),
    LimitReached(Limit),
    /// The agent still runs at the end of its grace period.
    GracePeriodExpired,
}
