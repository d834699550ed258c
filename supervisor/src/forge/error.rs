//! Errors of the GitHub API.

use std::time::Duration;

use orchestrator_contract::Reason;

/// Failed request to the host. Messages contain at most the host's own text, never headers.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum ForgeError {
    /// No token is configured.
    #[error("missing GitHub token")]
    TokenMissing,
    /// The token is invalid.
    #[error("GitHub rejected the token: {message}")]
    Authentication { message: String },
    /// The token lacks a permission.
    #[error("the GitHub token lacks a permission on `{subject}`: {message}")]
    PermissionDenied {
        /// Repository.
        subject: String,
        message: String,
    },
    /// The repository does not exist, or the token cannot read it.
    #[error("GitHub repository `{subject}` does not exist, or the token cannot read it")]
    NotFound {
        /// Repository.
        subject: String,
    },
    /// The branch has no commits that the base does not have.
    #[error("GitHub found no commits between `{base}` and `{head}`")]
    NoDifference {
        /// Head branch.
        head: String,
        /// Base branch.
        base: String,
    },
    /// Any other rejection.
    #[error("GitHub returned status {status}: {message}")]
    Refused {
        /// HTTP status.
        status: u16,
        message: String,
    },
    /// No request can be sent.
    #[error("cannot call the GitHub API: {message}")]
    Client { message: String },
    /// The redirects do not end.
    #[error("GitHub redirects more than {limit} times")]
    TooManyRedirects { limit: u32 },
    /// No valid response in time.
    #[error("GitHub is not available: {why}")]
    Unavailable {
        why: String,
        /// Wait requested by the host.
        retry_after: Option<Duration>,
        /// Whether the host reported that it did nothing.
        refused: bool,
    },
    /// The response redirects to another host.
    #[error("GitHub redirects to another host: {host}")]
    OtherHost {
        /// Target host.
        host: String,
    },
    /// The pull request does not show the pushed commit.
    #[error("pull request {url} has head {found}, expected {expected}")]
    OtherHead {
        /// URL of the pull request.
        url: String,
        /// Pushed commit.
        expected: String,
        /// Commit that the host shows.
        found: String,
    },
}

impl ForgeError {
    /// Returns the reason for a run that failed after the push.
    #[must_use]
    pub fn reason(&self) -> Reason {
        match self {
            Self::TokenMissing => Reason::CredentialMissing,
            Self::Authentication { .. } => Reason::AuthenticationFailed,
            Self::PermissionDenied { .. } => Reason::PermissionDenied,
            Self::NotFound { .. } => Reason::RepositoryNotFound,
            Self::Client { .. } => Reason::InvalidConfiguration,
            Self::NoDifference { .. }
            | Self::TooManyRedirects { .. }
            | Self::Refused { .. }
            | Self::Unavailable { .. }
            | Self::OtherHost { .. }
            | Self::OtherHead { .. } => Reason::PullRequestFailed,
        }
    }

    /// Returns the reason for a run that failed in preflight.
    #[must_use]
    pub fn check_reason(&self) -> Reason {
        let reason = self.reason();
        if reason == Reason::PullRequestFailed { Reason::RemoteUnavailable } else { reason }
    }
}
