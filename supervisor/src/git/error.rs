//! What goes wrong with a repository on this machine.

use std::io;
use std::path::{Path, PathBuf};

use orchestrator_contract::Reason;

/// An operation on a local repository or folder failed.
#[derive(Debug, thiserror::Error)]
pub enum GitError {
    /// libgit2 refused.
    #[error("cannot {doing}")]
    Library {
        /// What was tried, with the object's name.
        doing: String,
        /// What libgit2 said.
        source: git2::Error,
    },
    /// The file system refused.
    #[error("cannot {doing} `{}`", path.display())]
    File {
        /// What was tried.
        doing: &'static str,
        /// With which file or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The repository has a form that is not supported.
    #[error("{0}")]
    Unsupported(String),
}

impl GitError {
    /// The reason that a run ends with when this ends it.
    #[must_use]
    pub fn reason(&self) -> Reason {
        match self {
            Self::Unsupported(_) => Reason::UnsupportedRepository,
            Self::File { source, .. } if source.kind() == io::ErrorKind::StorageFull => Reason::DiskFull,
            Self::File { .. } => Reason::IoError,
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

/// libgit2 tells the cause in its text only.
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
