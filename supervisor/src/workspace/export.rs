//! Clean exports of a commit: fresh directories in which setup and verify commands run.
//!
//! After a command ran in it, an export is data of an enemy: the supervisor opens nothing in it, moves
//! the kept directories out without following a link, and removes it.

use std::io;
use std::path::{Path, PathBuf};

use orchestrator_contract::{BranchName, Reason};

use super::caches;
use super::fetch::open;
use super::worktree::open_tree;
use crate::agent::prepare_session::base_environment;
use crate::context::{Context, RepositoryRole};
use crate::failure::Failure;
use crate::git::checkout::{Checkout, checkout, create_folder, make_root};
use crate::git::remove_tree;
use crate::git::{ControlRepository, EntryKind, GitError, Oid, StatCache};
use crate::homes::Home;
use crate::process::Environment;
use crate::sandbox::{Role, SandboxSpec};

/// A commit's files with a disposable git directory and a home, in a fresh directory.
#[derive(Debug)]
pub struct Export {
    home: Home,
    /// Directory of the commands, below the files.
    working_directory: PathBuf,
}

/// What to export.
#[derive(Clone, Debug)]
pub struct ExportInput {
    pub commit: Oid,
    /// Branch that `HEAD` of the export points to.
    pub branch: String,
    /// Directory of the commands, relative to the repository; empty is the root.
    pub working_directory: String,
}

impl Export {
    /// Returns the directory with the commit's files.
    #[must_use]
    pub fn repository(&self) -> PathBuf {
        self.home.folder().join("target-repo")
    }

    #[must_use]
    pub fn working_directory(&self) -> &Path {
        &self.working_directory
    }

    /// Returns the environment of the commands, without credentials.
    #[must_use]
    pub fn environment(&self, context: &Context) -> Environment {
        base_environment(context, &self.home)
    }

    /// Returns the sandbox of the commands: they write in this export only, and see no file of the agent.
    #[must_use]
    pub fn sandbox(&self, context: &Context) -> SandboxSpec {
        context.sandbox_spec(Role::Verify, self.home.folder())
    }

    /// Removes the export.
    ///
    /// # Errors
    /// Returns an error if an entry cannot be removed; [`remove_stale`] tries again.
    pub fn remove(&self) -> io::Result<()> {
        remove_tree(self.home.folder())
    }
}

/// Removes exports that earlier runs left. Logs what cannot be removed.
pub fn remove_stale(context: &Context) {
    let folder = context.layout.verify_dir();
    let Ok(entries) = std::fs::read_dir(&folder) else { return };
    for entry in entries.flatten() {
        if let Err(error) = remove_tree(&entry.path()) {
            context.journal.warn(format!("cannot remove `{}`: {error}", entry.path().display()));
        }
    }
}

/// Exports a commit.
///
/// # Errors
/// Returns an error if the commit cannot be read or written, or `VerificationFailed` if the working
/// directory is not a directory in the commit.
pub fn create_export(context: &Context, input: &ExportInput) -> Result<Export, Failure> {
    let ExportInput { commit, branch, working_directory } = input;
    let git = |error: GitError| Failure::from_error(error.reason(), &error);
    let control = open(context, RepositoryRole::Target)?;
    check_working_directory(&control, *commit, working_directory)?;
    let parent = context.layout.verify_dir();
    std::fs::create_dir_all(&parent).map_err(|error| Failure::io(&parent, &error))?;
    // The agent cannot prepare a directory whose name it cannot know.
    let home = Home::create(&parent).map_err(|error| Failure::io(&parent, &error))?;
    caches::seed(&context.layout, &home.cache());
    let export =
        Export { working_directory: home.folder().join("target-repo").join(working_directory), home };
    let branch =
        BranchName::new(branch).map_err(|error| Failure::from_error(Reason::InternalError, &error))?;
    let identity = context.task.commit_identity_or_default();
    let request = Checkout {
        commit: *commit,
        branch: &branch,
        base: None,
        identity: &identity,
        clean: context.task.clean,
        cache: &StatCache::default(),
    };
    let root = export.repository();
    make_root(&root).map_err(git)?;
    let guest = open_tree(&root)?;
    checkout(&control, &guest, &request).map_err(git)?;
    create_folder(&guest, working_directory).map_err(git)?;
    Ok(export)
}

/// Checks that the commit has no file, link or submodule in place of the working directory.
fn check_working_directory(control: &ControlRepository, commit: Oid, folder: &str) -> Result<(), Failure> {
    let mut parent = String::new();
    for part in folder.split('/').filter(|part| !part.is_empty()) {
        let entries = control
            .list_tree(commit, Path::new(&parent))
            .map_err(|error| Failure::from_error(error.reason(), &error))?
            .unwrap_or_default();
        match entries.iter().find(|entry| entry.name == part.as_bytes()).map(|entry| entry.kind) {
            Some(EntryKind::Folder) => {}
            Some(EntryKind::File | EntryKind::Executable | EntryKind::Link | EntryKind::Submodule) => {
                let message = format!("cannot verify {commit}: `{folder}` is not a directory in it");
                return Err(Failure::new(Reason::VerificationFailed, message));
            }
            None => return Ok(()),
        }
        if !parent.is_empty() {
            parent.push('/');
        }
        parent.push_str(part);
    }
    Ok(())
}
