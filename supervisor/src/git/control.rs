//! The control repository: a private bare repository that the agent cannot write.

use std::fs;
use std::io::Write as _;
use std::os::fd::AsFd as _;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use git2::{ErrorCode, Oid, Repository, RepositoryInitOptions, RepositoryOpenFlags, Signature};
use orchestrator_contract::RepositoryUrl;
use orchestrator_contract::task::CommitIdentity;

use super::error::GitError;
use super::remove::remove_tree;

/// File in a control repository that records its remote URL.
///
/// It is written last: a directory without it is incomplete.
const URL_FILE: &str = "remote-url";

/// Private bare repository. The caller holds the workspace lock.
pub struct ControlRepository {
    path: PathBuf,
    pub(super) repository: Repository,
}

/// State in which [`ControlRepository::open`] found the repository.
pub enum OpenResult {
    /// An earlier run created it.
    Existing(ControlRepository),
    /// It did not exist.
    Created(ControlRepository),
    /// It was incomplete or for another remote; it was moved aside and a new one created.
    Replaced {
        /// New, empty repository.
        repository: ControlRepository,
        /// Path of the old repository.
        aside: PathBuf,
    },
}

impl OpenResult {
    #[must_use]
    pub fn into_repository(self) -> ControlRepository {
        match self {
            Self::Existing(repository) | Self::Created(repository) | Self::Replaced { repository, .. } => {
                repository
            }
        }
    }
}

/// Commit to create.
#[derive(Clone, Debug)]
pub struct NewCommit<'a> {
    /// Tree object.
    pub tree: Oid,
    /// Parents, in order.
    pub parents: &'a [Oid],
    pub author: &'a CommitIdentity,
    pub committer: &'a CommitIdentity,
    pub message: &'a str,
    /// Unix time in seconds of author and committer.
    pub seconds: i64,
}

impl ControlRepository {
    /// Opens the control repository at `path` for `url`, or creates it.
    ///
    /// Removes lock files that a killed run left.
    ///
    /// # Errors
    /// Returns an error if the directory cannot be read or written.
    pub fn open(path: &Path, url: &RepositoryUrl) -> Result<OpenResult, GitError> {
        super::init::init()?;
        let recorded = fs::read_to_string(path.join(URL_FILE)).ok();
        let recorded = recorded.and_then(|text| RepositoryUrl::new(text.trim_end()).ok());
        if recorded.is_some_and(|recorded| recorded.is_same_repository(url)) {
            remove_stale_locks(path)?;
            return Ok(OpenResult::Existing(Self::open_existing(path)?));
        }
        let aside = if path.symlink_metadata().is_ok() {
            let aside = unused_path(path);
            fs::rename(path, &aside).map_err(GitError::file("move aside", path))?;
            Some(aside)
        } else {
            None
        };
        create(path, url)?;
        let repository = Self::open_existing(path)?;
        Ok(match aside {
            Some(aside) => OpenResult::Replaced { repository, aside },
            None => OpenResult::Created(repository),
        })
    }

    /// Opens a control repository that [`Self::open`] created.
    ///
    /// # Errors
    /// Returns an error if it does not exist or cannot be read.
    pub fn open_existing(path: &Path) -> Result<Self, GitError> {
        super::init::init()?;
        let path = fs::canonicalize(path).map_err(GitError::file("find", path))?;
        Ok(Self { repository: open_bare(&path)?, path })
    }

    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the object that a ref points to, or `None` if the ref does not exist.
    ///
    /// # Errors
    /// Returns an error if the ref cannot be read.
    pub fn resolve_ref(&self, name: &str) -> Result<Option<Oid>, GitError> {
        match self.repository.refname_to_id(name) {
            Ok(oid) => Ok(Some(oid)),
            Err(error) if error.code() == ErrorCode::NotFound => Ok(None),
            Err(error) => Err(GitError::library(format!("read ref `{name}`"))(error)),
        }
    }

    /// Returns the refs that match a pattern such as `refs/heads/*`, sorted, with their objects.
    ///
    /// # Errors
    /// Returns an error if the refs cannot be read.
    pub fn references(&self, pattern: &str) -> Result<Vec<(String, Oid)>, GitError> {
        let fail = || GitError::library(format!("list refs `{pattern}`"));
        let mut found = Vec::new();
        for reference in self.repository.references_glob(pattern).map_err(fail())? {
            let reference = reference.map_err(fail())?;
            if let (Ok(name), Some(oid)) = (reference.name(), reference.target()) {
                found.push((name.to_owned(), oid));
            }
        }
        found.sort();
        Ok(found)
    }

    /// Points a ref at an object and syncs both to disk.
    ///
    /// # Errors
    /// Returns an error if the object does not exist or the ref cannot be written.
    pub fn update_ref(&self, name: &str, oid: Oid, why: &str) -> Result<(), GitError> {
        self.sync()?;
        self.repository
            .reference(name, oid, true, why)
            .map_err(GitError::library(format!("set ref `{name}`")))?;
        self.sync()
    }

    /// Deletes a ref if it exists.
    ///
    /// # Errors
    /// Returns an error if the ref cannot be deleted.
    pub fn delete_ref(&self, name: &str) -> Result<(), GitError> {
        let deleted = self.repository.find_reference(name).and_then(|mut reference| reference.delete());
        match deleted {
            Err(error) if error.code() != ErrorCode::NotFound => {
                Err(GitError::library(format!("delete ref `{name}`"))(error))
            }
            Ok(()) | Err(_) => Ok(()),
        }
    }

    /// Returns whether the repository has an object.
    #[must_use]
    pub fn contains(&self, oid: Oid) -> bool {
        self.repository.odb().is_ok_and(|odb| odb.exists(oid))
    }

    /// Returns whether an object exists and is empty.
    pub(super) fn is_empty_blob(&self, oid: Oid) -> bool {
        self.repository.odb().and_then(|odb| odb.read_header(oid)).is_ok_and(|(size, _)| size == 0)
    }

    /// Returns whether the repository is shallow.
    #[must_use]
    pub fn is_shallow(&self) -> bool {
        fs::metadata(self.path.join("shallow")).is_ok_and(|file| file.len() > 0)
    }

    /// Returns the tree of a commit.
    ///
    /// # Errors
    /// Returns an error if the commit does not exist.
    pub fn commit_tree(&self, commit: Oid) -> Result<Oid, GitError> {
        Ok(self.commit_object(commit)?.tree_id())
    }

    /// Returns the parents recorded in a commit, also where a shallow history hides them.
    ///
    /// # Errors
    /// Returns an error if the commit does not exist.
    pub fn commit_parents(&self, commit: Oid) -> Result<Vec<Oid>, GitError> {
        Ok(self.commit_object(commit)?.parent_ids().collect())
    }

    pub(super) fn commit_object(&self, commit: Oid) -> Result<git2::Commit<'_>, GitError> {
        self.repository.find_commit(commit).map_err(GitError::library(format!("read commit {commit}")))
    }

    /// Creates a commit and syncs it to disk. Updates no ref.
    ///
    /// # Errors
    /// Returns an error if the tree or a parent does not exist, an identity is malformed, or the
    /// disk is full.
    pub fn commit(&self, new: &NewCommit<'_>) -> Result<Oid, GitError> {
        let NewCommit { tree, parents, author, committer, message, seconds } = *new;
        let fail = || GitError::library(format!("commit tree {tree}"));
        let time = git2::Time::new(seconds, 0);
        let author = Signature::new(&author.name, &author.email, &time).map_err(fail())?;
        let committer = Signature::new(&committer.name, &committer.email, &time).map_err(fail())?;
        let tree = self.repository.find_tree(tree).map_err(fail())?;
        let parents = parents.iter().map(|oid| self.commit_object(*oid)).collect::<Result<Vec<_>, _>>()?;
        let parents: Vec<&git2::Commit<'_>> = parents.iter().collect();
        let oid =
            self.repository.commit(None, &author, &committer, message, &tree, &parents).map_err(fail())?;
        self.sync()?;
        Ok(oid)
    }

    /// Syncs everything written so far to disk.
    ///
    /// # Errors
    /// Returns an error if the disk reports one.
    pub fn sync(&self) -> Result<(), GitError> {
        let folder = fs::File::open(&self.path).map_err(GitError::file("open", &self.path))?;
        // One syncfs for all objects: an fsync for each would take minutes for a large tree.
        rustix::fs::syncfs(folder.as_fd()).map_err(|error| GitError::file("sync", &self.path)(error.into()))
    }
}

/// Opens a bare repository without reading any configuration.
pub(super) fn open_bare(path: &Path) -> Result<Repository, GitError> {
    let fail = || GitError::library(format!("open repository `{}`", path.display()));
    // Not `Repository::open_bare`: it ignores `shallow`, so that a walk would continue to commits
    // that were never fetched.
    let flags = RepositoryOpenFlags::BARE | RepositoryOpenFlags::NO_SEARCH | RepositoryOpenFlags::NO_DOTGIT;
    let repository = Repository::open_ext(path, flags, &[] as &[&Path]).map_err(fail())?;
    let empty = git2::Config::new().map_err(fail())?;
    repository.set_config(&empty).map_err(fail())?;
    Ok(repository)
}

/// Creates an empty bare repository atomically.
fn create(path: &Path, url: &RepositoryUrl) -> Result<(), GitError> {
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    let new = PathBuf::from(name);
    if new.symlink_metadata().is_ok() {
        // A killed run did not complete it; it holds no work.
        remove_tree(&new).map_err(GitError::file("remove", &new))?;
    }
    init_bare(&new)?;
    let file = new.join(URL_FILE);
    fs::File::create(&file)
        .and_then(|mut created| {
            writeln!(created, "{url}")?;
            created.sync_all()
        })
        .map_err(GitError::file("write", &file))?;
    fs::rename(&new, path).map_err(GitError::file("rename", &new))
}

/// Creates an empty bare repository without templates.
pub(super) fn init_bare(path: &Path) -> Result<Repository, GitError> {
    let mut options = RepositoryInitOptions::new();
    options.bare(true).external_template(false).mkpath(true).initial_head("main");
    Repository::init_opts(path, &options)
        .map_err(GitError::library(format!("create repository `{}`", path.display())))
}

/// Returns the first unused name `{path}.aside-{number}`.
fn unused_path(path: &Path) -> PathBuf {
    (1_u32..)
        .map(|number| {
            let mut name = path.as_os_str().to_owned();
            name.push(format!(".aside-{number}"));
            PathBuf::from(name)
        })
        .find(|name| name.symlink_metadata().is_err())
        .unwrap_or_else(|| path.with_extension("aside"))
}

/// Removes lock and temporary files of killed runs; the workspace lock excludes running ones.
fn remove_stale_locks(path: &Path) -> Result<(), GitError> {
    let mut folders = vec![path.join("refs"), path.join("objects/pack")];
    let mut stale = Vec::new();
    for entry in fs::read_dir(path).map_err(GitError::file("list", path))?.flatten() {
        if entry.file_name().as_bytes().ends_with(b".lock") {
            stale.push(entry.path());
        }
    }
    while let Some(folder) = folders.pop() {
        let Ok(entries) = fs::read_dir(&folder) else { continue };
        for entry in entries.flatten() {
            let name = entry.file_name();
            let name = name.as_bytes();
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                folders.push(entry.path());
            } else if name.ends_with(b".lock") || name.starts_with(b"tmp_") || name.starts_with(b"pack_git2_")
            {
                stale.push(entry.path());
            }
        }
    }
    for file in stale {
        fs::remove_file(&file).map_err(GitError::file("remove stale lock", &file))?;
    }
    Ok(())
}
