//! A fresh directory: created exclusively, under a name that nothing could predict.

use std::io;
use std::path::{Path, PathBuf};

use orchestrator_contract::Reason;

use crate::guest::{Guest, GuestError};

/// Characters of a name: 60 random bits, and short, because paths of sockets are limited to 107 bytes.
const NAME_LENGTH: usize = 16;

/// Maximum entries of the directory of homes that one removal takes.
const MAX_HOMES: usize = 100_000;

/// A fresh directory of one sandbox, with subdirectories for home, temporary files and caches.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Home {
    folder: PathBuf,
}

impl Home {
    /// Chooses a directory in `parent`, which [`Self::create`] creates.
    #[must_use]
    pub fn new(parent: &Path) -> Self {
        let mut name = uuid::Uuid::new_v4().simple().to_string();
        name.truncate(NAME_LENGTH);
        Self { folder: parent.join(name) }
    }

    /// Creates the directory, which must not exist, for its owner only.
    ///
    /// The guest's folder contains the directory. The directory's parent is created if it is missing;
    /// something planted in the place of either is neither used nor changed.
    ///
    /// # Errors
    /// Returns an error if the directory exists or cannot be created.
    pub fn create(&self, guest: &Guest) -> Result<(), CreateError> {
        let relative =
            |path: &Path| guest.relative(path).map(<[u8]>::to_vec).ok_or(io::ErrorKind::InvalidInput);
        let parent = self.folder.parent().unwrap_or(&self.folder);
        guest.ensure_folder(&relative(parent)?)??;
        let folders = [self.folder.clone(), self.home(), self.tmp(), self.cache()];
        let folders: Vec<Vec<u8>> =
            folders.iter().map(|folder| relative(folder)).collect::<Result<_, _>>()?;
        Ok(guest.create_folders(&folders.iter().map(Vec::as_slice).collect::<Vec<_>>())??)
    }

    /// Returns the directory of a name in `parent`, as [`Self::name`] returned it.
    ///
    /// Returns `None` if it is not a name of this module.
    #[must_use]
    pub fn named(parent: &Path, name: &str) -> Option<Self> {
        let is_name = name.len() == NAME_LENGTH && name.bytes().all(|byte| byte.is_ascii_hexdigit());
        is_name.then(|| Self { folder: parent.join(name) })
    }

    /// Returns the directory itself.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Returns the name of the directory.
    #[must_use]
    pub fn name(&self) -> String {
        self.folder.file_name().unwrap_or_default().to_string_lossy().into_owned()
    }

    /// Returns the home directory.
    #[must_use]
    pub fn home(&self) -> PathBuf {
        self.folder.join("home")
    }

    /// Returns the directory for temporary files.
    #[must_use]
    pub fn tmp(&self) -> PathBuf {
        self.folder.join("tmp")
    }

    /// Returns the directory for caches of tools.
    #[must_use]
    pub fn cache(&self) -> PathBuf {
        self.folder.join("cache")
    }
}

/// Why a home was not created.
#[derive(Debug, thiserror::Error)]
pub enum CreateError {
    #[error(transparent)]
    Guest(#[from] GuestError),
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl CreateError {
    /// Returns the reason for a run that this error ends.
    #[must_use]
    pub fn reason(&self) -> Reason {
        match self {
            Self::Guest(error) => error.reason(),
            Self::Io(_) => Reason::IoError,
        }
    }
}

impl From<io::ErrorKind> for CreateError {
    fn from(kind: io::ErrorKind) -> Self {
        Self::Io(kind.into())
    }
}

/// Removes every entry of a directory of homes, without following links; returns whether all are removed.
///
/// Call it only while nothing runs that could write there.
///
/// # Errors
/// Returns an error if the guest is broken.
pub fn remove_all(guest: &Guest, parent: &Path) -> Result<bool, GuestError> {
    let Some(parent) = guest.relative(parent) else { return Ok(false) };
    let listing = guest.list_one(parent, MAX_HOMES)?;
    if listing.failed.is_some_and(|error| error.kind() != io::ErrorKind::NotFound) {
        return Ok(false);
    }
    let mut all = true;
    for (name, _) in &listing.entries {
        let path = [parent, name].join(&b'/');
        // One request for each, since a large tree may use up the patience of one.
        all &= guest.remove(&[&path], false)?.iter().all(Result::is_ok);
    }
    Ok(all)
}
