//! Stores the sessions of the agent CLI, so that a retry can continue them in another home.
//!
//! The CLI keeps a session in `projects/{folder}/{session}.jsonl` of its configuration directory,
//! and needs nothing else to resume it. The folder's name derives from the working directory.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use orchestrator_contract::layout::Layout;

use super::home::Home;
use super::read::{ReadError, copy_file};
use crate::guest::{Guest, NodeKind, WriteKind};

/// Maximum size of a session's file; a longer session is not resumed.
pub const SESSION_MAX_BYTES: u64 = 128 * 1024 * 1024;

/// Maximum size of all stored sessions; the oldest ones are removed.
const STORE_MAX_BYTES: u64 = 512 * 1024 * 1024;

/// Maximum number of stored sessions.
const STORE_MAX_FILES: usize = 500;

/// Maximum number of project folders that are searched in a home.
const FOLDERS_MAX: usize = 256;

/// Maximum length of a project folder's name, as in the CLI.
const FOLDER_NAME_MAX: usize = 200;

/// The sessions of a workspace.
#[derive(Clone, Debug)]
pub struct SessionStore {
    homes: PathBuf,
    store: PathBuf,
}

impl SessionStore {
    /// Returns the store of a workspace.
    #[must_use]
    pub fn new(layout: &Layout) -> Self {
        Self { homes: layout.agent_dir(), store: layout.sessions() }
    }

    fn stored(&self, session: &str) -> Option<PathBuf> {
        self.file(session, "jsonl")
    }

    /// Returns a file of a session. Its id comes from files, so it must be a UUID.
    fn file(&self, session: &str, extension: &str) -> Option<PathBuf> {
        uuid::Uuid::parse_str(session).ok()?;
        Some(self.store.join(format!("{session}.{extension}")))
    }

    /// Records the home of a session before the CLI starts, so that a later run finds it.
    ///
    /// # Errors
    /// Returns an error if the record cannot be written.
    pub fn record(&self, session: &str, home: &Home) -> io::Result<()> {
        let path = self.file(session, "home").ok_or(io::ErrorKind::InvalidInput)?;
        crate::record::file::write_atomically(&path, home.name().as_bytes())
    }

    /// Stores a session of the recorded home; returns whether it is stored.
    ///
    /// # Errors
    /// Returns an error if the session's file is not regular or too large, or if it cannot be
    /// read or written. What was stored before stays.
    pub fn collect(&self, session: &str, guest: &Guest) -> Result<bool, ReadError> {
        let (Some(record), Some(target)) = (self.file(session, "home"), self.stored(session)) else {
            return Ok(false);
        };
        let name = match std::fs::read_to_string(&record) {
            Ok(name) => name,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(target.is_file()),
            Err(error) => return Err(error.into()),
        };
        let Some(home) = Home::named(&self.homes, &name) else { return Ok(target.is_file()) };
        let mut file = tempfile::NamedTempFile::new_in(&self.store)?;
        let Some(size) = copy_session(&home, session, guest, file.as_file_mut())? else {
            return Ok(target.is_file());
        };
        if size > 0 {
            file.persist(&target).map_err(|error| error.error)?;
        }
        Ok(target.is_file())
    }

    /// Stores the sessions of runs that were killed, and forgets their homes.
    ///
    /// Returns what could not be stored. Call it before the homes are removed.
    #[must_use]
    pub fn collect_leftovers(&self, guest: &Guest) -> Vec<String> {
        let mut problems = Vec::new();
        let Ok(entries) = std::fs::read_dir(&self.store) else { return problems };
        for entry in entries.flatten() {
            let path = entry.path();
            if path.extension().is_none_or(|extension| extension != "home") {
                continue;
            }
            let session = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            if let Err(error) = self.collect(&session, guest) {
                problems.push(format!("session {session} of an earlier run is not kept: {error}"));
            }
            drop(std::fs::remove_file(&path));
        }
        self.prune();
        problems
    }

    /// Removes the oldest sessions beyond the limits of the store.
    fn prune(&self) {
        let Ok(entries) = std::fs::read_dir(&self.store) else { return };
        let mut files: Vec<_> = entries
            .flatten()
            .filter(|entry| entry.path().extension().is_some_and(|extension| extension == "jsonl"))
            .filter_map(|entry| {
                let data = entry.metadata().ok()?;
                Some((data.modified().ok()?, data.len(), entry.path()))
            })
            .collect();
        files.sort();
        let mut total = 0;
        for (number, (_, size, path)) in files.into_iter().rev().enumerate() {
            total += size;
            if number >= STORE_MAX_FILES || total > STORE_MAX_BYTES {
                drop(std::fs::remove_file(path));
            }
        }
    }

    /// Returns whether a session is stored.
    #[must_use]
    pub fn is_stored(&self, session: &str) -> bool {
        self.stored(session).is_some_and(|path| path.is_file())
    }

    /// Copies a stored session into a fresh home; returns false if none is stored.
    ///
    /// # Errors
    /// Returns an error if it cannot be copied, or if the home has such a directory already.
    pub fn restore(
        &self,
        session: &str,
        home: &Home,
        directory: &Path,
        guest: &Guest,
    ) -> Result<bool, ReadError> {
        let Some(source) = self.stored(session) else { return Ok(false) };
        let content = match std::fs::read(&source) {
            Ok(content) => content,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(error.into()),
        };
        let mut target = config_directory(home);
        for name in [None, Some("projects".to_owned()), Some(project_folder(directory))] {
            target.extend(name);
            guest.create_folders(&[guest.relative(&target).unwrap_or_default()])??;
        }
        guest.write_one(&target.join(format!("{session}.jsonl")), WriteKind::File, &content)??;
        Ok(true)
    }
}

/// Returns the CLI's configuration directory in a home.
#[must_use]
pub fn config_directory(home: &Home) -> PathBuf {
    home.home().join(".claude")
}

/// Copies the file of a session in a home; returns its size.
fn copy_session(
    home: &Home,
    session: &str,
    guest: &Guest,
    target: &mut File,
) -> Result<Option<u64>, ReadError> {
    let projects = config_directory(home).join("projects");
    let Some(projects) = guest.relative(&projects) else { return Ok(None) };
    for (folder, stat) in guest.list_one(projects, FOLDERS_MAX)?.entries {
        if stat.kind() != NodeKind::Folder {
            continue;
        }
        let path = [projects, &folder, format!("{session}.jsonl").as_bytes()].join(&b'/');
        match copy_file(guest, &path, SESSION_MAX_BYTES, target) {
            Ok(None) => {}
            other => return other,
        }
    }
    Ok(None)
}

/// Returns the name of the CLI's folder for a working directory: letters and digits, the rest as `-`.
fn project_folder(directory: &Path) -> String {
    let plain = |character: char| if character.is_ascii_alphanumeric() { character } else { '-' };
    directory.to_string_lossy().chars().map(plain).take(FOLDER_NAME_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn project_folder_is_named_as_in_cli() {
        let name = project_folder(Path::new("/tmp/env-A1/work space/caf\u{e9}.x_y"));
        assert_eq!(name, "-tmp-env-A1-work-space-caf--x-y");
    }
}
