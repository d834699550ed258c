//! Clean exports of a commit: fresh directories in which setup and verify commands run.
//!
//! After a command ran in it, an export is data of an enemy: a guest moves the kept directories out and
//! removes it.

use std::path::{Path, PathBuf};

use orchestrator_contract::{BranchName, Reason};

use super::fetch::{blocking, open};
use super::worktree::{Access, open_tree};
use crate::agent::prepare_session::{base_environment, create_home};
use crate::context::{Context, RepositoryRole};
use crate::failure::Failure;
use crate::git::checkout::{Checkout, checkout, create_folder};
use crate::git::{ControlRepository, EntryKind, GitError, Oid, StatCache};
use crate::guest::GuestError;
use crate::homes::{Home, remove_all};
use crate::process::Environment;
use crate::sandbox::{Role, SandboxSpec};
use crate::site::Site;

/// A commit's files with a disposable git directory and a home, in a fresh directory.
#[derive(Debug)]
pub struct Export {
    site: Site,
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

    /// Returns a directory for caches that commands fill from nothing.
    #[must_use]
    pub fn new_caches(&self) -> PathBuf {
        self.home.folder().join("new-caches")
    }

    /// Returns the environment of the commands, without credentials.
    #[must_use]
    pub fn environment(&self, context: &Context) -> Environment {
        base_environment(context, &self.site, &self.home)
    }

    /// Returns the sandbox of the commands: they write in this export only, and see no file of the agent.
    #[must_use]
    pub fn sandbox(&self, context: &Context) -> SandboxSpec {
        context.sandbox_spec(Role::Verify, self.home.folder())
    }

    /// Removes the export. Logs what cannot be removed; [`remove_stale`] tries again.
    pub fn remove(&self, context: &Context) {
        let removed = self.site.open(context.layout.root()).and_then(|guest| {
            let path = guest.relative(self.home.folder()).unwrap_or_default();
            let removed = guest.remove(&[path], false).map_err(|error| broken(&error))?;
            let failed = removed.into_iter().find_map(Result::err);
            failed.map_or(Ok(()), |error| Err(Failure::io(self.home.folder(), &error)))
        });
        if let Err(failure) = removed {
            context.journal.warn(format!("cannot remove an export: {}", failure.message));
        }
    }
}

fn broken(error: &GuestError) -> Failure {
    Failure::from_error(error.reason(), error)
}

/// Removes exports that earlier runs left. Logs what cannot be removed.
pub fn remove_stale(context: &Context, site: &Site) {
    let folder = context.layout.verify_dir();
    let removed = site
        .open(context.layout.root())
        .and_then(|guest| remove_all(&guest, &folder).map_err(|error| broken(&error)));
    let problem = match removed {
        Ok(true) => return,
        Ok(false) => "not everything can be removed".to_owned(),
        Err(failure) => failure.message,
    };
    context.journal.warn(format!("cannot remove earlier exports in `{}`: {problem}", folder.display()));
}

/// Exports a commit to a site.
///
/// # Errors
/// Returns an error if the commit cannot be read or written, or `VerificationFailed` if the working
/// directory is not a directory in the commit.
pub async fn create_export(context: &Context, site: &Site, input: ExportInput) -> Result<Export, Failure> {
    // The agent cannot prepare a directory whose name it cannot know.
    let home = create_home(context, site, context.layout.verify_dir()).await?;
    let working_directory = home.folder().join("target-repo").join(&input.working_directory);
    let export = Export { site: site.clone(), home, working_directory };
    let (context, repository, site) = (context.clone(), export.repository(), site.clone());
    blocking(move || write_export(&context, &site, &repository, &input)).await?;
    Ok(export)
}

fn write_export(
    context: &Context,
    site: &Site,
    repository: &Path,
    input: &ExportInput,
) -> Result<(), Failure> {
    let ExportInput { commit, branch, working_directory } = input;
    let git = |error: GitError| Failure::from_error(error.reason(), &error);
    let control = open(context, RepositoryRole::Target)?;
    check_working_directory(&control, *commit, working_directory)?;
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
    let guest = open_tree(context, site, repository, Access::Create)?;
    checkout(&control, &guest, &request).map_err(git)?;
    create_folder(&guest, working_directory).map_err(git)
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
