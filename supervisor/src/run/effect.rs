//! Effects that the run machine requests. Pure.

use std::time::Duration;

use orchestrator_contract::Step;

use crate::failure::Failure;

/// Prompt that starts or continues a session.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum AgentPrompt {
    Task,
    /// Output of the failed verification or review, for the agent to fix.
    VerificationFailed(String),
    /// The model's usage limit interrupted the session and has ended.
    Continue,
}

/// Whether a pull request may be opened.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum PullRequestMode {
    /// Open or update it.
    Open,
    /// Comment on an open one; open none.
    CommentIfOpen,
}

/// Action for the event loop, which performs it without deciding anything.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Effect {
    /// Start a preparation step, the commit or the policy check.
    Perform(Step),
    /// Cancel the running step or verification.
    Cancel,
    /// Start or continue the session with this index.
    StartAgent(usize, AgentPrompt),
    /// Start the timer of a wait for the model's usage limit; every other effect ends the wait.
    WaitForQuota(Duration),
    /// Send SIGTERM to the agent's process groups and start the grace period.
    TerminateAgent,
    /// Kill all processes that the agent started.
    KillAgent,
    /// Run the verify commands on an export of the saved commit.
    Verify,
    /// Push the work, with fallbacks if the branch is refused.
    Push,
    /// Keep the work in the workspace: it may not be pushed, or a stop leaves no time.
    KeepInWorkspace(Failure),
    /// Open, update or comment on the pull request.
    PullRequest(PullRequestMode),
    /// Write the outcome and exit.
    Report,
}
