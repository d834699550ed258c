//! Why a run ended: the table of reasons with their phases, exit codes, retry advice and hints.
//!
//! Exit codes are defined here only. They follow sysexits(3) where it has a matching code, timeout(1)
//! for limits, and 128 + signal number for a stop.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Coarse state of a run.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, JsonSchema, Ord, PartialEq, PartialOrd, Serialize)]
pub enum Phase {
    /// Submitted; waiting for admission, resources or the workspace.
    Pending,
    /// Fetching repositories, preparing the branch, starting MCP servers.
    Preparing,
    /// The agent is running, or its work is being committed, checked and verified.
    Running,
    /// Pushing, opening the pull request.
    Publishing,
    /// Finished successfully; the result was read back from the remote.
    Succeeded,
    /// Finished without success; the reason says why.
    Failed,
    /// Finished because a stop was requested.
    Stopped,
}

impl Phase {
    /// Returns whether a run in this phase is finished.
    #[must_use]
    pub fn is_final(self) -> bool {
        match self {
            Self::Pending | Self::Preparing | Self::Running | Self::Publishing => false,
            Self::Succeeded | Self::Failed | Self::Stopped => true,
        }
    }

    /// Returns the name used in JSON.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Pending => "Pending",
            Self::Preparing => "Preparing",
            Self::Running => "Running",
            Self::Publishing => "Publishing",
            Self::Succeeded => "Succeeded",
            Self::Failed => "Failed",
            Self::Stopped => "Stopped",
        }
    }
}

impl std::fmt::Display for Phase {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.name())
    }
}

/// Whether and when a retry can succeed.
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Retryable {
    /// Nothing to retry, or a retry ends the same way.
    No,
    /// A retry may succeed without changes; the supervisor's own retries did not.
    Yes,
    /// A retry may succeed later, when another run has released the workspace.
    Later,
    /// Retry with guidance that tells the agent what to do differently.
    WithGuidance,
    /// Retry after fixing the request, the credentials or the configuration.
    AfterFix,
    /// Retry after a person has reviewed the rejected change.
    AfterReview,
    /// A bug in the supervisor; report it.
    ReportBug,
}

macro_rules! reasons {
    ($($name:ident $phase:ident $code:literal $retry:ident $reported_by:ident $hint:literal)+) => {
        /// Why a run ended; every finished run has exactly one reason.
        #[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, JsonSchema, Ord, PartialEq, PartialOrd, Serialize)]
        pub enum Reason {
            $(#[doc = $hint] $name,)+
        }

        impl Reason {
            /// All reasons, in table order.
            pub const ALL: &[Self] = &[$(Self::$name),+];

            /// Returns the name used in JSON.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self { $(Self::$name => stringify!($name),)+ }
            }

            /// Returns the final phase of a run with this reason.
            #[must_use]
            pub fn phase(self) -> Phase {
                match self { $(Self::$name => Phase::$phase,)+ }
            }

            /// Returns the supervisor's exit code.
            #[must_use]
            pub fn exit_code(self) -> u8 {
                match self { $(Self::$name => $code,)+ }
            }

            /// Returns whether and when a retry can succeed.
            #[must_use]
            pub fn retryable(self) -> Retryable {
                match self { $(Self::$name => Retryable::$retry,)+ }
            }

            /// Returns which program reports this reason.
            #[must_use]
            pub fn reported_by(self) -> ReportedBy {
                match self { $(Self::$name => ReportedBy::$reported_by,)+ }
            }

            /// Returns advice on what to do next: sentences that name no command and no flag.
            #[must_use]
            pub fn hint(self) -> &'static str {
                match self { $(Self::$name => $hint,)+ }
            }
        }
    };
}

/// Program that reports a reason.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ReportedBy {
    /// The supervisor, in the outcome.
    Supervisor,
    /// The dispatcher, when the supervisor exited without an outcome.
    Dispatcher,
}

reasons! {
    Completed Succeeded 0 No Supervisor "Review the pull request."
    AlreadyDone Succeeded 0 No Supervisor "The agent found the task already implemented; read its summary."
    NoChanges Failed 1 WithGuidance Supervisor "Read the log, then retry with guidance that says what to change."
    AgentBlocked Failed 1 WithGuidance Supervisor "Answer the agent's question in the guidance of a retry."
    AgentFailed Failed 1 WithGuidance Supervisor "Read the end of the log, then retry; add guidance if the agent took a wrong approach."
    VerificationFailed Failed 1 WithGuidance Supervisor "The branch is pushed; read the output of the failed command, then retry with guidance."
    AgentOutOfMemory Failed 1 WithGuidance Supervisor "Increase the run's memory, or ask the agent in guidance to build with fewer jobs, then retry."
    InvalidTask Failed 64 AfterFix Supervisor "Fix the request as described and submit again."
    TaskNotFound Failed 64 AfterFix Supervisor "Use the id of a task in tasks.json, or set the docs directory or branch that contains it."
    DocumentsNotFound Failed 64 AfterFix Supervisor "Write the task's documents, or set the docs directory or branch that contains them."
    BranchNotFound Failed 64 AfterFix Supervisor "Set a branch that exists on the remote."
    BranchExists Failed 64 AfterFix Supervisor "Retry to continue on the existing branch, or start fresh on a new one."
    UnsupportedRepository Failed 65 No Supervisor "The repository uses an unsupported feature; see the message."
    RepositoryNotFound Failed 69 Yes Supervisor "Check the repository URL, and that the token may read the repository."
    McpServerFailed Failed 69 Yes Supervisor "Check the MCP server's command and log, or make the server optional."
    PullRequestFailed Failed 69 Yes Supervisor "The branch is pushed; retry, or open the pull request yourself."
    ModelUnavailable Failed 69 Yes Supervisor "Retry when the model service responds again."
    ModelQuotaExceeded Failed 69 AfterFix Supervisor "Add credit, raise the account's limit or wait until it resets, then retry."
    InternalError Failed 70 ReportBug Supervisor "This is a bug in the supervisor; report it with the log."
    WorkspaceUnwritable Failed 73 AfterFix Supervisor "Make the workspace writable for the supervisor's user."
    DiskFull Failed 74 AfterFix Supervisor "Free space on the workspace's disk, then retry."
    IoError Failed 74 AfterFix Supervisor "Check the workspace's disk, then retry."
    NetworkUnavailable Failed 75 Yes Supervisor "Retry when the network works again."
    RemoteUnavailable Failed 75 Yes Supervisor "Retry when the git server responds again."
    WorkspaceBusy Failed 75 Later Supervisor "Wait for the run that holds the workspace, or stop it, then submit again."
    SecretInCommit Failed 76 AfterReview Supervisor "Remove the secret from the saved work before pushing it, and rotate the secret if it is real."
    ProtectedPath Failed 76 AfterReview Supervisor "Review the protected path's change; allow it in the configuration or retry with guidance."
    PushRejected Failed 76 AfterReview Supervisor "Read the server's message; the work is kept."
    BranchDiverged Failed 76 AfterReview Supervisor "Another user or run changed the branch; the work is on a sibling branch or in the workspace."
    AuthenticationFailed Failed 77 AfterFix Supervisor "Provide a token or key that the server accepts."
    PermissionDenied Failed 77 AfterFix Supervisor "Grant the agent's account write access, or add the missing scope to the token."
    HostKeyUnknown Failed 77 AfterFix Supervisor "Add the server's host key to the known hosts file."
    ModelAuthenticationFailed Failed 77 AfterFix Supervisor "Provide a model credential that the service accepts."
    InvalidConfiguration Failed 78 AfterFix Supervisor "Fix the configuration as described."
    CredentialMissing Failed 78 AfterFix Supervisor "Provide the credential named in the message."
    SandboxUnavailable Failed 78 AfterFix Supervisor "Let the machine make a sandbox as described, run in a container, or turn the sandbox off for code that you trust."
    AgentCliNotFound Failed 78 AfterFix Supervisor "Install the Claude Code CLI, or configure its path."
    ModelNotFound Failed 78 AfterFix Supervisor "Set a model that the service provides."
    TimeLimit Failed 124 WithGuidance Supervisor "Retry with a longer timeout or a smaller task."
    IdleLimit Failed 124 WithGuidance Supervisor "Retry, with guidance if the agent waited for something."
    CostLimit Failed 124 WithGuidance Supervisor "Retry with a higher cost limit or a smaller task."
    TurnLimit Failed 124 WithGuidance Supervisor "Retry with more turns or a smaller task."
    Stopped Stopped 143 Yes Supervisor "Retry to continue."
    SupervisorLost Failed 70 Yes Dispatcher "Retry; work that is in the workspace is saved first."
    OutOfMemory Failed 137 Yes Dispatcher "Increase the memory of the container, then retry."
    Evicted Failed 75 Yes Dispatcher "Retry when the cluster has room."
    PodDeleted Failed 75 Yes Dispatcher "Retry to continue."
    NodeLost Failed 75 Yes Dispatcher "Retry when a node is available."
    ImageUnavailable Failed 69 Yes Dispatcher "Check the image name and the pull secret, then retry."
    Unschedulable Failed 75 Yes Dispatcher "Free resources on a node or request less, then retry."
}

impl std::fmt::Display for Reason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.name())
    }
}

/// Renders the supervisor's exit codes and their reasons as text, for `--help`.
#[must_use]
pub fn render_exit_codes() -> String {
    let mut codes: Vec<u8> = Reason::ALL
        .iter()
        .filter(|reason| reason.reported_by() == ReportedBy::Supervisor)
        .map(|reason| reason.exit_code())
        .collect();
    codes.sort_unstable();
    codes.dedup();
    let row = |code: u8| {
        let names: Vec<&str> = Reason::ALL
            .iter()
            .filter(|reason| reason.exit_code() == code && reason.reported_by() == ReportedBy::Supervisor)
            .map(|reason| reason.name())
            .collect();
        format!("  {code:>3}  {}", names.join(", "))
    };
    codes.into_iter().map(row).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_code_is_zero_only_for_succeeded() {
        for reason in Reason::ALL {
            assert_eq!(reason.exit_code() == 0, reason.phase() == Phase::Succeeded, "{reason}");
        }
    }

    #[test]
    fn every_reason_has_final_phase_with_hint() {
        for reason in Reason::ALL {
            assert!(reason.phase().is_final(), "{reason}");
            assert!(reason.hint().ends_with('.'), "{reason}");
        }
    }

    #[test]
    fn exit_code_table_matches_snapshot() {
        insta::assert_snapshot!(render_exit_codes());
    }
}
