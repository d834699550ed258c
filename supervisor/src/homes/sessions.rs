//! Stores the sessions of the agent CLI, so that a retry can continue them in another home.
//!
//! The CLI keeps a session in `projects/{folder}/{session}.jsonl` of its configuration directory,
//! and needs nothing else to resume it. The folder's name derives from the working directory.

use std::fs::{DirBuilder, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use orchestrator_contract::layout::Layout;

use super::beneath::{ReadError, copy_file, list};
use super::home::Home;

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
    pub fn collect(&self, session: &str) -> Result<bool, ReadError> {
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
        let Some(size) = copy_session(&home, session, file.as_file_mut())? else {
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
    pub fn collect_leftovers(&self) -> Vec<String> {
        let mut problems = Vec::new();
        let Ok(entries) = std::fs::read_dir(&self.store) else { return problems };
        for entry in entries.flatten() {
            let path = entry.path();
            if path.extension().is_none_or(|extension| extension != "home") {
                continue;
            }
            let session = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            if let Err(error) = self.collect(&session) {
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
    /// Returns an error if it cannot be copied, or if the home has such a file already.
    pub fn restore(&self, session: &str, home: &Home, directory: &Path) -> io::Result<bool> {
        let Some(source) = self.stored(session) else { return Ok(false) };
        let mut source = match File::open(&source) {
            Ok(source) => source,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(error),
        };
        let mut target = config_directory(home);
        for name in [None, Some("projects".to_owned()), Some(project_folder(directory))] {
            target.extend(name);
            DirBuilder::new().mode(0o700).create(&target)?;
        }
        let target = target.join(format!("{session}.jsonl"));
        let mut target = File::options().write(true).create_new(true).mode(0o600).open(target)?;
        io::copy(&mut source, &mut target)?;
        Ok(true)
    }
}

/// Returns the CLI's configuration directory in a home.
#[must_use]
pub fn config_directory(home: &Home) -> PathBuf {
    home.home().join(".claude")
}

/// Copies the file of a session in a home; returns its size.
fn copy_session(home: &Home, session: &str, target: &mut File) -> Result<Option<u64>, ReadError> {
    let projects = Path::new("home/.claude/projects");
    for folder in list(home.folder(), projects, FOLDERS_MAX) {
        let relative = projects.join(folder).join(format!("{session}.jsonl"));
        match copy_file(home.folder(), &relative, SESSION_MAX_BYTES, target) {
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
    use std::os::unix::fs::symlink;

    const SESSION: &str = "6f0d5b7c-0000-4000-8000-000000000000";

    struct Workspace {
        folder: tempfile::TempDir,
        store: SessionStore,
    }

    impl Workspace {
        fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let layout = Layout::new(folder.path());
            std::fs::create_dir_all(layout.agent_dir()).unwrap();
            std::fs::create_dir_all(layout.sessions()).unwrap();
            Self { store: SessionStore::new(&layout), folder }
        }

        fn home(&self) -> Home {
            Home::create(&self.folder.path().join("agent")).unwrap()
        }
    }

    fn file_in(home: &Home) -> PathBuf {
        config_directory(home).join(format!("projects/-w-target-repo/{SESSION}.jsonl"))
    }

    #[test]
    fn session_moves_to_fresh_home_and_nothing_else() {
        let workspace = Workspace::new();
        let first = workspace.home();
        std::fs::create_dir_all(file_in(&first).parent().unwrap()).unwrap();
        std::fs::write(file_in(&first), "{}\n").unwrap();
        std::fs::write(config_directory(&first).join("settings.json"), "{\"hooks\":{}}").unwrap();
        std::fs::write(first.home().join(".bashrc"), "echo planted").unwrap();
        workspace.store.record(SESSION, &first).unwrap();
        assert!(workspace.store.collect(SESSION).unwrap());
        let second = workspace.home();
        assert!(workspace.store.restore(SESSION, &second, Path::new("/w/target-repo")).unwrap());
        assert_eq!(std::fs::read_to_string(file_in(&second)).unwrap(), "{}\n");
        let names = |folder: &Path| std::fs::read_dir(folder).unwrap().count();
        assert_eq!(names(&second.home()), 1);
        assert_eq!(names(&config_directory(&second)), 1);
        // A home that something else wrote is not used.
        assert!(workspace.store.restore(SESSION, &second, Path::new("/w/target-repo")).is_err());
    }

    #[test]
    fn planted_link_or_oversized_session_is_not_stored() {
        let workspace = Workspace::new();
        let key = workspace.folder.path().join("key");
        std::fs::write(&key, "secret").unwrap();
        let home = workspace.home();
        workspace.store.record(SESSION, &home).unwrap();
        let file = file_in(&home);
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        symlink(&key, &file).unwrap();
        assert!(matches!(workspace.store.collect(SESSION), Err(ReadError::NotRegular)));
        std::fs::remove_file(&file).unwrap();
        File::create(&file).unwrap().set_len(SESSION_MAX_BYTES + 1).unwrap();
        assert!(matches!(workspace.store.collect(SESSION), Err(ReadError::TooLarge { .. })));
        // The project folder itself is a link.
        std::fs::remove_dir_all(config_directory(&home).join("projects")).unwrap();
        symlink(workspace.folder.path(), config_directory(&home).join("projects")).unwrap();
        assert!(!workspace.store.collect(SESSION).unwrap());
        let stored = std::fs::read_dir(workspace.folder.path().join(".orchestrator/sessions")).unwrap();
        assert_eq!(stored.count(), 1, "only the record of the home");
    }

    #[test]
    fn leftovers_of_killed_run_are_stored_once() {
        let workspace = Workspace::new();
        let home = workspace.home();
        std::fs::create_dir_all(file_in(&home).parent().unwrap()).unwrap();
        std::fs::write(file_in(&home), "kept\n").unwrap();
        workspace.store.record(SESSION, &home).unwrap();
        assert_eq!(workspace.store.collect_leftovers(), Vec::<String>::new());
        std::fs::remove_dir_all(home.folder()).unwrap();
        let next = workspace.home();
        assert!(workspace.store.restore(SESSION, &next, Path::new("/w/target-repo")).unwrap());
        assert!(!workspace.store.restore("../../x", &next, Path::new("/w")).unwrap());
    }

    #[test]
    fn project_folder_is_named_as_in_cli() {
        let name = project_folder(Path::new("/tmp/env-A1/work space/caf\u{e9}.x_y"));
        assert_eq!(name, "-tmp-env-A1-work-space-caf--x-y");
    }
}
