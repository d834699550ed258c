//! How the host can fail us.

use std::time::Duration;

use orchestrator_contract::Reason;

/// The host did not do what was asked. Messages are the host's own words at most, never
/// headers.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum ForgeError {
    /// There is no token.
    #[error("no GitHub token is given")]
    TokenMissing,
    /// The token is not accepted.
    #[error("GitHub does not accept the token: {message}")]
    Authentication {
        /// The host's words.
        message: String,
    },
    /// The token may not do this.
    #[error("the GitHub token may not do this on `{subject}`: {message}")]
    PermissionDenied {
        /// The repository.
        subject: String,
        /// The host's words.
        message: String,
    },
    /// It is not there, or the token may not see it.
    #[error("GitHub has no repository `{subject}`, or the token may not see it")]
    NotFound {
        /// The repository.
        subject: String,
    },
    /// The branch has nothing that the base has not.
    #[error("GitHub sees no commits between `{base}` and `{head}`")]
    NoDifference {
        /// The branch.
        head: String,
        /// The base.
        base: String,
    },
    /// Any other refusal.
    #[error("GitHub refuses with status {status}: {message}")]
    Refused {
        /// The status of the answer.
        status: u16,
        /// The host's words.
        message: String,
    },
    /// No useful answer in the time there was.
    #[error("GitHub is not available: {why}")]
    Unavailable {
        /// How it failed.
        why: String,
        /// How long the host asks to wait.
        retry_after: Option<Duration>,
        /// Whether the host said that it did nothing.
        refused: bool,
    },
    /// The answer leads to another host.
    #[error("GitHub's answer leads to another host: {host}")]
    OtherHost {
        /// That host.
        host: String,
    },
    /// The pull request has another head than was pushed.
    #[error("pull request {url} has the head {found}, and {expected} was pushed")]
    OtherHead {
        /// Its page.
        url: String,
        /// What was pushed.
        expected: String,
        /// What the host shows.
        found: String,
    },
}

impl ForgeError {
    /// Why the run ends, once the branch is pushed.
    #[must_use]
    pub fn reason(&self) -> Reason {
        match self {
            Self::TokenMissing => Reason::CredentialMissing,
            Self::Authentication { .. } => Reason::AuthenticationFailed,
            Self::PermissionDenied { .. } => Reason::PermissionDenied,
            Self::NotFound { .. } => Reason::RepositoryNotFound,
            Self::NoDifference { .. }
            | Self::Refused { .. }
            | Self::Unavailable { .. }
            | Self::OtherHost { .. }
            | Self::OtherHead { .. } => Reason::PullRequestFailed,
        }
    }

    /// Why the run ends, where nothing was done yet.
    #[must_use]
    pub fn check_reason(&self) -> Reason {
        let reason = self.reason();
        if reason == Reason::PullRequestFailed { Reason::RemoteUnavailable } else { reason }
    }
}
