//! States of the run machine. Pure.

use orchestrator_contract::Step;

use super::batch::Batch;

/// State of a run, with the data that exists in that state only.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum State {
    Preparing(Step),
    /// The MCP servers of a docs run are started; its sessions follow.
    PreparingBatch(Batch),
    Agent {
        attempt: VerifyAttempt,
    },
    /// No agent runs until a usage limit of the model ends; then the conversation continues.
    WaitingForQuota {
        attempt: VerifyAttempt,
    },
    /// The sessions of a docs run are active.
    Batch(Batch, BatchState),
    /// The agent was terminated or killed and has not exited yet.
    Stopping {
        killed: bool,
    },
    Verifying {
        attempt: VerifyAttempt,
    },
    /// The verification was cancelled and its processes have not exited yet.
    CancellingVerify,
    Publishing(Step),
    Done,
}

/// State of an active batch.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum BatchState {
    Running,
    /// The sessions were terminated or killed and have not all exited yet.
    Stopping {
        killed: bool,
    },
}

/// Number of the verification; after a failed first one the agent continues.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum VerifyAttempt {
    First,
    Second,
}

/// Verification that follows the commit of the agent's work.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum PendingVerification {
    /// The work is published without one: the agent failed, or the run was stopped.
    None,
    Of(VerifyAttempt),
}

impl State {
    pub(super) fn step(&self) -> Step {
        match self {
            Self::Preparing(step) | Self::Publishing(step) => *step,
            Self::PreparingBatch(_) => Step::Mcp,
            Self::Agent { .. } | Self::WaitingForQuota { .. } | Self::Batch(..) | Self::Stopping { .. } => {
                Step::Agent
            }
            Self::Verifying { .. } | Self::CancellingVerify => Step::Verify,
            Self::Done => Step::Report,
        }
    }

    /// Returns whether results of this step are expected; those of cancelled steps arrive late.
    pub(super) fn awaits(&self, step: Step) -> bool {
        let is_step = matches!(self, Self::Preparing(_) | Self::PreparingBatch(_) | Self::Publishing(_));
        is_step && self.step() == step
    }

    /// Returns whether the agent has ended, so that its limits no longer apply.
    pub(super) fn is_after_agent(&self) -> bool {
        match self {
            Self::Verifying { .. } | Self::CancellingVerify | Self::Publishing(_) | Self::Done => true,
            Self::Preparing(_)
            | Self::PreparingBatch(_)
            | Self::Agent { .. }
            | Self::WaitingForQuota { .. }
            | Self::Batch(..)
            | Self::Stopping { .. } => false,
        }
    }

    pub(super) fn batch(&self) -> Option<&Batch> {
        match self {
            Self::PreparingBatch(batch) | Self::Batch(batch, _) => Some(batch),
            Self::Preparing(_)
            | Self::Agent { .. }
            | Self::WaitingForQuota { .. }
            | Self::Stopping { .. }
            | Self::Verifying { .. }
            | Self::CancellingVerify
            | Self::Publishing(_)
            | Self::Done => None,
        }
    }
}
