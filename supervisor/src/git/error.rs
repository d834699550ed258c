//! Errors of local repositories and worktrees.

use std::io;
use std::path::{Path, PathBuf};

use orchestrator_contract::Reason;

use crate::guest::GuestError;

/// Failed operation on a local repository or directory.
#[derive(Debug, thiserror::Error)]
pub enum GitError {
    /// libgit2 returned an error.
    #[error("cannot {doing}")]
    Library {
        /// Operation and object, as an infinitive phrase.
        doing: String,
        source: git2::Error,
    },
    /// The file system returned an error.
    #[error("cannot {doing} `{}`", path.display())]
    File {
        /// Operation, as an infinitive.
        doing: &'static str,
        /// File or directory.
        path: PathBuf,
        source: io::Error,
    },
    /// The guest of the worktree failed.
    #[error(transparent)]
    Guest(#[from] GuestError),
    /// The repository format is not supported.
    #[error("{0}")]
    Unsupported(String),
}

impl GitError {
    /// Returns the reason for a run that this error ends.
    #[must_use]
    pub fn reason(&self) -> Reason {
        match self {
            Self::Unsupported(_) => Reason::UnsupportedRepository,
            Self::File { source, .. } if source.kind() == io::ErrorKind::StorageFull => Reason::DiskFull,
            Self::Guest(error @ (GuestError::Lost { .. } | GuestError::NoContainer { .. })) => error.reason(),
            Self::File { .. } | Self::Guest(_) => Reason::IoError,
            Self::Library { source, .. } => reason_of_library(source),
        }
    }

    pub(super) fn file(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::File { doing, path, source }
    }

    pub(super) fn library(doing: impl Into<String>) -> impl FnOnce(git2::Error) -> Self {
        let doing = doing.into();
        move |source| Self::Library { doing, source }
    }
}

/// Classifies a libgit2 error by its text; it has no code for these causes.
pub(super) fn reason_of_library(error: &git2::Error) -> Reason {
    let text = error.message();
    if text.contains("No space left") || text.contains("quota exceeded") {
        Reason::DiskFull
    } else if text.contains("sha256") || text.contains("unsupported extension") {
        Reason::UnsupportedRepository
    } else {
        Reason::IoError
    }
}
