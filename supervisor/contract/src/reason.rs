//! Why a run ended: the one table of reasons, phases, exit codes and hints.
//!
//! Nothing else defines an exit code. The numbers follow sysexits(3) where it
//! has a word for the case, timeout(1) for limits, and 128 + signal for a stop.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Where a run stands.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, JsonSchema, Ord, PartialEq, PartialOrd, Serialize)]
pub enum Phase {
    /// Submitted, not yet at work: waiting for its turn or its place.
    Pending,
    /// Fetching, preparing the branch, starting MCP servers.
    Preparing,
    /// The agent works, or its work is verified.
    Running,
    /// Saving, pushing, opening the pull request.
    Publishing,
    /// Ended with evidence of success.
    Succeeded,
    /// Ended without success.
    Failed,
    /// Ended because somebody asked for it.
    Stopped,
}

impl Phase {
    /// Whether a run in this phase has ended.
    #[must_use]
    pub fn is_final(self) -> bool {
        match self {
            Self::Pending | Self::Preparing | Self::Running | Self::Publishing => false,
            Self::Succeeded | Self::Failed | Self::Stopped => true,
        }
    }

    /// The phase's name.
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

/// Whether it makes sense to try the same run again.
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Retryable {
    /// There is nothing to try again.
    No,
    /// The supervisor itself has already tried, and a later run may succeed.
    Yes,
    /// Later, when the cause is gone by itself.
    Later,
    /// With guidance that tells the agent what to do differently.
    WithGuidance,
    /// After the request, the credentials or the configuration were mended.
    AfterFix,
    /// After a person looked at what was refused.
    AfterReview,
    /// It is a fault of this program: report it.
    ReportBug,
}

macro_rules! reasons {
    ($($name:ident $phase:ident $code:literal $retry:ident $reported_by:ident $hint:literal)+) => {
        /// Why a run ended. Each end has exactly one.
        #[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, JsonSchema, Ord, PartialEq, PartialOrd, Serialize)]
        pub enum Reason {
            $(#[doc = $hint] $name,)+
        }

        impl Reason {
            /// Every reason, in the order of the table.
            pub const ALL: &[Self] = &[$(Self::$name),+];

            /// The reason's name.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self { $(Self::$name => stringify!($name),)+ }
            }

            /// The phase that a run ends in for this reason.
            #[must_use]
            pub fn phase(self) -> Phase {
                match self { $(Self::$name => Phase::$phase,)+ }
            }

            /// The supervisor's exit code.
            #[must_use]
            pub fn exit_code(self) -> u8 {
                match self { $(Self::$name => $code,)+ }
            }

            /// Whether it makes sense to try again.
            #[must_use]
            pub fn retryable(self) -> Retryable {
                match self { $(Self::$name => Retryable::$retry,)+ }
            }

            /// Who finds out: the supervisor itself, or the dispatcher from outside.
            #[must_use]
            pub fn reported_by(self) -> ReportedBy {
                match self { $(Self::$name => ReportedBy::$reported_by,)+ }
            }

            /// What to do next, in a sentence.
            #[must_use]
            pub fn hint(self) -> &'static str {
                match self { $(Self::$name => $hint,)+ }
            }
        }
    };
}

/// Which program can know a reason.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ReportedBy {
    /// The supervisor, in its outcome.
    Supervisor,
    /// The dispatcher, where the supervisor could not tell its end.
    Dispatcher,
}

reasons! {
    Completed Succeeded 0 No Supervisor "Review the pull request."
    AlreadyDone Succeeded 0 No Supervisor "The agent found the task already done; read its summary."
    NoChanges Failed 1 WithGuidance Supervisor "Read the log, then retry with guidance that says what to change."
    AgentBlocked Failed 1 WithGuidance Supervisor "Answer the agent's question in the guidance of a retry."
    AgentFailed Failed 1 WithGuidance Supervisor "Read the end of the log, then retry, with guidance if the agent went wrong."
    VerificationFailed Failed 1 WithGuidance Supervisor "The branch is pushed; read the failing check, then retry with guidance."
    AgentOutOfMemory Failed 1 WithGuidance Supervisor "Give the run more memory, or tell the agent to build with fewer jobs, then retry."
    InvalidTask Failed 64 AfterFix Supervisor "Mend the request as the message says and submit again."
    TaskNotFound Failed 64 AfterFix Supervisor "Give the id of a task that tasks.json has, or name the right docs directory or branch."
    DocumentsNotFound Failed 64 AfterFix Supervisor "Write the task's documents, or give the docs directory or branch that has them."
    BranchNotFound Failed 64 AfterFix Supervisor "Give a branch that exists on the remote."
    BranchExists Failed 64 AfterFix Supervisor "Retry to build on the existing branch, or start fresh on a new one."
    UnsupportedRepository Failed 65 No Supervisor "This repository uses a feature that is not supported; the message names it."
    RepositoryNotFound Failed 69 Yes Supervisor "Check the address, and that the token may read the repository."
    McpServerFailed Failed 69 Yes Supervisor "Check the server's command and log, or make it optional."
    PullRequestFailed Failed 69 Yes Supervisor "The branch is pushed; retry, or open the pull request by hand."
    ModelUnavailable Failed 69 Yes Supervisor "The model's service did not answer; retry later."
    InternalError Failed 70 ReportBug Supervisor "This is a fault of the supervisor: report it with the log."
    WorkspaceUnwritable Failed 73 AfterFix Supervisor "Make the workspace writable for the supervisor's user."
    DiskFull Failed 74 AfterFix Supervisor "Free space in the workspace (dispatcher gc), then retry."
    IoError Failed 74 AfterFix Supervisor "Check the workspace's disk, then retry."
    NetworkUnavailable Failed 75 Yes Supervisor "The network was away; retry."
    RemoteUnavailable Failed 75 Yes Supervisor "The git server did not answer as it should; retry."
    WorkspaceBusy Failed 75 Later Supervisor "Another run holds the workspace; wait for it or stop it, then submit again."
    SecretInCommit Failed 76 AfterReview Supervisor "Remove the secret from the kept work before anything is pushed, and rotate it if it was real."
    ProtectedPath Failed 76 AfterReview Supervisor "Look at the change of the protected path; allow it in the configuration or retry with guidance."
    PushRejected Failed 76 AfterReview Supervisor "Read the server's message; the work is kept."
    BranchDiverged Failed 76 AfterReview Supervisor "Somebody else moved the branch; the work is on a sibling branch or in the workspace."
    AuthenticationFailed Failed 77 AfterFix Supervisor "Give a token or key that the server accepts."
    PermissionDenied Failed 77 AfterFix Supervisor "Give the agent's account write access, or the token the missing scope."
    HostKeyUnknown Failed 77 AfterFix Supervisor "Add the server's host key to the known hosts file."
    ModelAuthenticationFailed Failed 77 AfterFix Supervisor "Give a model credential that the service accepts."
    InvalidConfiguration Failed 78 AfterFix Supervisor "Mend the configuration as the message says."
    CredentialMissing Failed 78 AfterFix Supervisor "Give the credential that the message names."
    AgentCliNotFound Failed 78 AfterFix Supervisor "Install the Claude Code CLI, or name its path with --claude."
    ModelNotFound Failed 78 AfterFix Supervisor "Give a model that the service has."
    TimeLimit Failed 124 WithGuidance Supervisor "The work so far is kept; retry with more minutes or a smaller task."
    IdleLimit Failed 124 WithGuidance Supervisor "The agent stopped talking; the work so far is kept; retry."
    CostLimit Failed 124 WithGuidance Supervisor "The work so far is kept; retry with a higher limit or a smaller task."
    TurnLimit Failed 124 WithGuidance Supervisor "The work so far is kept; retry with more turns or a smaller task."
    Stopped Stopped 143 Yes Supervisor "The work so far is kept; retry to go on."
    SupervisorLost Failed 70 Yes Dispatcher "The supervisor ended without an outcome; the work is in the workspace, and a retry saves it first."
    OutOfMemory Failed 137 Yes Dispatcher "The whole container ran out of memory; give it more, then retry."
    Evicted Failed 75 Yes Dispatcher "The cluster evicted the run; retry."
    NodeLost Failed 75 Yes Dispatcher "The node was lost; retry."
    ImageUnavailable Failed 69 Yes Dispatcher "Check the image's name and pull secret, then retry."
    Unschedulable Failed 75 Yes Dispatcher "No node has room; free some or ask for less, then retry."
}

impl std::fmt::Display for Reason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.name())
    }
}

/// The table of exit codes as text, for `--help`.
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
