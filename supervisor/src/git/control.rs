//! The control repository: bare, ours, out of the agent's reach.

use std::fs;
use std::io::Write as _;
use std::os::fd::AsFd as _;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use git2::{
    ErrorCode, ObjectType, Oid, Repository, RepositoryInitOptions, RepositoryOpenFlags, Signature,
    TreeWalkMode,
};
use orchestrator_contract::RepositoryUrl;
use orchestrator_contract::task::CommitIdentity;

use super::GitError;

/// The file in a control repository that says which remote it is for. A folder
/// without it was never finished.
const URL_FILE: &str = "remote-url";

/// A bare repository of ours. The caller holds the workspace's lock.
pub struct ControlRepository {
    path: PathBuf,
    pub(super) repository: Repository,
}

/// How a control repository was found.
pub enum OpenResult {
    /// As an earlier run left it.
    Existing(ControlRepository),
    /// Not at all: it is new.
    Created(ControlRepository),
    /// For another remote, or unfinished: a new one was made and the old one kept.
    Replaced {
        /// The new, empty one.
        repository: ControlRepository,
        /// Where the old one is.
        aside: PathBuf,
    },
}

impl OpenResult {
    /// The repository, however it was found.
    #[must_use]
    pub fn into_repository(self) -> ControlRepository {
        match self {
            Self::Existing(repository) | Self::Created(repository) | Self::Replaced { repository, .. } => {
                repository
            }
        }
    }
}

/// What two commits make together.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum MergeResult {
    /// A tree without conflicts.
    Clean(Oid),
    /// The paths that both changed, differently.
    Conflicts(Vec<Vec<u8>>),
}

/// A commit to be made.
#[derive(Clone, Debug)]
pub struct NewCommit<'a> {
    /// Its tree.
    pub tree: Oid,
    /// Its parents, in order.
    pub parents: &'a [Oid],
    /// Who did the work.
    pub author: &'a CommitIdentity,
    /// Who committed it.
    pub committer: &'a CommitIdentity,
    /// The message.
    pub message: &'a str,
    /// Seconds since 1970, for author and committer.
    pub seconds: i64,
}

/// What a tree has under a name.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Entry {
    /// The name, without the folder.
    pub name: Vec<u8>,
    /// What it is.
    pub kind: EntryKind,
    /// The object.
    pub oid: Oid,
}

/// What an entry of a tree is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum EntryKind {
    /// A file.
    File,
    /// A file that may be executed.
    Executable,
    /// A symbolic link.
    Link,
    /// A folder.
    Folder,
    /// A commit of another repository.
    Submodule,
}

impl EntryKind {
    pub(super) fn from_mode(mode: i32) -> Self {
        match mode & 0o170_000 {
            0o040_000 => Self::Folder,
            0o120_000 => Self::Link,
            0o160_000 => Self::Submodule,
            _ if mode & 0o100 != 0 => Self::Executable,
            _ => Self::File,
        }
    }

    pub(super) fn mode(self) -> u32 {
        match self {
            Self::File => 0o100_644,
            Self::Executable => 0o100_755,
            Self::Link => 0o120_000,
            Self::Folder => 0o040_000,
            Self::Submodule => 0o160_000,
        }
    }
}

impl ControlRepository {
    /// Opens the control repository at `path` for `url`, creating it where there
    /// is none, and removes locks that a killed run left.
    ///
    /// # Errors
    /// The folder cannot be read or written.
    pub fn open(path: &Path, url: &RepositoryUrl) -> Result<OpenResult, GitError> {
        super::init()?;
        let recorded = fs::read_to_string(path.join(URL_FILE)).ok();
        if recorded.as_deref().map(str::trim_end) == Some(url.as_str()) {
            remove_stale_locks(path)?;
            return Ok(OpenResult::Existing(Self::open_existing(path)?));
        }
        let aside = if path.symlink_metadata().is_ok() {
            let aside = unused_path(path);
            fs::rename(path, &aside).map_err(GitError::file("keep aside", path))?;
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

    /// Opens a control repository that [`Self::open`] made.
    ///
    /// # Errors
    /// There is none, or it cannot be read.
    pub fn open_existing(path: &Path) -> Result<Self, GitError> {
        super::init()?;
        let path = fs::canonicalize(path).map_err(GitError::file("find", path))?;
        Ok(Self { repository: open_bare(&path)?, path })
    }

    /// Its folder.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where a ref points; none where there is no such ref.
    ///
    /// # Errors
    /// The ref cannot be read.
    pub fn resolve_ref(&self, name: &str) -> Result<Option<Oid>, GitError> {
        match self.repository.refname_to_id(name) {
            Ok(oid) => Ok(Some(oid)),
            Err(error) if error.code() == ErrorCode::NotFound => Ok(None),
            Err(error) => Err(GitError::library(format!("read ref `{name}`"))(error)),
        }
    }

    /// All refs that match a pattern such as `refs/heads/*`, with where they point.
    ///
    /// # Errors
    /// The refs cannot be read.
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

    /// Points a ref at an object and sees to it that both are on disk.
    ///
    /// # Errors
    /// The ref cannot be written, or there is no such object.
    pub fn update_ref(&self, name: &str, oid: Oid, why: &str) -> Result<(), GitError> {
        self.sync()?;
        self.repository
            .reference(name, oid, true, why)
            .map_err(GitError::library(format!("set ref `{name}`")))?;
        self.sync()
    }

    /// Deletes a ref; none is fine.
    ///
    /// # Errors
    /// The ref cannot be deleted.
    pub fn delete_ref(&self, name: &str) -> Result<(), GitError> {
        let deleted = self.repository.find_reference(name).and_then(|mut reference| reference.delete());
        match deleted {
            Err(error) if error.code() != ErrorCode::NotFound => {
                Err(GitError::library(format!("delete ref `{name}`"))(error))
            }
            Ok(()) | Err(_) => Ok(()),
        }
    }

    /// Whether an object is here.
    #[must_use]
    pub fn contains(&self, oid: Oid) -> bool {
        self.repository.odb().is_ok_and(|odb| odb.exists(oid))
    }

    /// Whether history is cut off somewhere.
    #[must_use]
    pub fn is_shallow(&self) -> bool {
        fs::metadata(self.path.join("shallow")).is_ok_and(|file| file.len() > 0)
    }

    /// Whether `ancestor` is `commit` or one of its ancestors.
    ///
    /// # Errors
    /// The history cannot be read.
    pub fn is_ancestor(&self, ancestor: Oid, commit: Oid) -> Result<bool, GitError> {
        if ancestor == commit {
            return Ok(true);
        }
        if !self.contains(ancestor) {
            return Ok(false);
        }
        self.repository
            .graph_descendant_of(commit, ancestor)
            .map_err(GitError::library(format!("compare {commit} with {ancestor}")))
    }

    /// The best common ancestor, if history here has one.
    ///
    /// # Errors
    /// The history cannot be read.
    pub fn merge_base(&self, one: Oid, other: Oid) -> Result<Option<Oid>, GitError> {
        match self.repository.merge_base(one, other) {
            Ok(oid) => Ok(Some(oid)),
            Err(error) if error.code() == ErrorCode::NotFound => Ok(None),
            Err(error) => Err(GitError::library(format!("compare {one} with {other}"))(error)),
        }
    }

    /// How many commits `head` has that `base` has not.
    ///
    /// # Errors
    /// The history cannot be read.
    pub fn ahead(&self, base: Oid, head: Oid) -> Result<u32, GitError> {
        let (ahead, _) = self
            .repository
            .graph_ahead_behind(head, base)
            .map_err(GitError::library(format!("compare {head} with {base}")))?;
        Ok(u32::try_from(ahead).unwrap_or(u32::MAX))
    }

    /// The tree of a commit.
    ///
    /// # Errors
    /// There is no such commit.
    pub fn commit_tree(&self, commit: Oid) -> Result<Oid, GitError> {
        Ok(self.commit_object(commit)?.tree_id())
    }

    /// The parents of a commit, as recorded in it.
    ///
    /// # Errors
    /// There is no such commit.
    pub fn commit_parents(&self, commit: Oid) -> Result<Vec<Oid>, GitError> {
        Ok(self.commit_object(commit)?.parent_ids().collect())
    }

    pub(super) fn commit_object(&self, commit: Oid) -> Result<git2::Commit<'_>, GitError> {
        self.repository.find_commit(commit).map_err(GitError::library(format!("read commit {commit}")))
    }

    /// Makes a commit; it is on disk when this returns. No ref changes.
    ///
    /// # Errors
    /// Tree or parents are missing, an identity is malformed, or the disk is full.
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

    /// Merges two commits in memory; only the tree is written.
    ///
    /// # Errors
    /// A commit cannot be read or the tree cannot be written.
    pub fn merge(&self, ours: Oid, theirs: Oid) -> Result<MergeResult, GitError> {
        let fail = || GitError::library(format!("merge {theirs} into {ours}"));
        let mut index = self
            .repository
            .merge_commits(&self.commit_object(ours)?, &self.commit_object(theirs)?, None)
            .map_err(fail())?;
        if index.has_conflicts() {
            let mut paths = Vec::new();
            for conflict in index.conflicts().map_err(fail())? {
                let conflict = conflict.map_err(fail())?;
                let side = conflict.our.or(conflict.their).or(conflict.ancestor);
                paths.extend(side.map(|entry| entry.path));
            }
            paths.sort();
            paths.dedup();
            return Ok(MergeResult::Conflicts(paths));
        }
        Ok(MergeResult::Clean(index.write_tree_to(&self.repository).map_err(fail())?))
    }

    /// The content of a file at a commit; none where the path is no file.
    ///
    /// # Errors
    /// The commit or an object of it cannot be read.
    pub fn read_file(&self, commit: Oid, path: &Path) -> Result<Option<Vec<u8>>, GitError> {
        let fail = || GitError::library(format!("read `{}` at {commit}", path.display()));
        let tree = self.commit_object(commit)?.tree().map_err(fail())?;
        let entry = match tree.get_path(path) {
            Ok(entry) => entry,
            Err(error) if error.code() == ErrorCode::NotFound => return Ok(None),
            Err(error) => return Err(fail()(error)),
        };
        if entry.kind() != Some(ObjectType::Blob) || EntryKind::from_mode(entry.filemode()) == EntryKind::Link
        {
            return Ok(None);
        }
        let blob = self.repository.find_blob(entry.id()).map_err(fail())?;
        Ok(Some(blob.content().to_vec()))
    }

    /// What a folder holds at a commit (the empty path is the root); none where
    /// the path is no folder.
    ///
    /// # Errors
    /// The commit or an object of it cannot be read.
    pub fn list_tree(&self, commit: Oid, path: &Path) -> Result<Option<Vec<Entry>>, GitError> {
        let fail = || GitError::library(format!("list `{}` at {commit}", path.display()));
        let root = self.commit_object(commit)?.tree().map_err(fail())?;
        let tree = if path.as_os_str().is_empty() || path == Path::new(".") {
            root
        } else {
            match root.get_path(path) {
                Ok(entry) if entry.kind() == Some(ObjectType::Tree) => {
                    self.repository.find_tree(entry.id()).map_err(fail())?
                }
                Ok(_) => return Ok(None),
                Err(error) if error.code() == ErrorCode::NotFound => return Ok(None),
                Err(error) => return Err(fail()(error)),
            }
        };
        Ok(Some(
            tree.iter()
                .map(|entry| Entry {
                    name: entry.name_bytes().to_vec(),
                    kind: EntryKind::from_mode(entry.filemode()),
                    oid: entry.id(),
                })
                .collect(),
        ))
    }

    /// Every file, link and submodule of a tree with its full path, in git's order.
    pub(super) fn list_tree_recursive(&self, tree: Oid) -> Result<Vec<Entry>, GitError> {
        let fail = || GitError::library(format!("read tree {tree}"));
        let mut entries = Vec::new();
        let walked = self.repository.find_tree(tree).map_err(fail())?;
        walked
            .walk(TreeWalkMode::PreOrder, |folder, entry| {
                let kind = EntryKind::from_mode(entry.filemode());
                if kind != EntryKind::Folder {
                    let mut name = Vec::with_capacity(folder.len() + entry.name_bytes().len());
                    name.extend_from_slice(folder.as_bytes());
                    name.extend_from_slice(entry.name_bytes());
                    entries.push(Entry { name, kind, oid: entry.id() });
                }
                git2::TreeWalkResult::Ok
            })
            .map_err(fail())?;
        Ok(entries)
    }

    /// Sees to it that everything written so far survives a power cut.
    ///
    /// # Errors
    /// The disk reports an error.
    pub fn sync(&self) -> Result<(), GitError> {
        let folder = fs::File::open(&self.path).map_err(GitError::file("open", &self.path))?;
        // One call for any number of objects; an fsync for each would take minutes for a large tree.
        rustix::fs::syncfs(folder.as_fd())
            .map_err(|error| GitError::file("write to disk", &self.path)(error.into()))
    }
}

/// Opens a bare repository of ours without reading any configuration.
pub(super) fn open_bare(path: &Path) -> Result<Repository, GitError> {
    let fail = || GitError::library(format!("open repository `{}`", path.display()));
    // Not `Repository::open_bare`: it does not look at `shallow`, so that every walk would go on to
    // commits that were never fetched.
    let flags = RepositoryOpenFlags::BARE | RepositoryOpenFlags::NO_SEARCH | RepositoryOpenFlags::NO_DOTGIT;
    let repository = Repository::open_ext(path, flags, &[] as &[&Path]).map_err(fail())?;
    let empty = git2::Config::new().map_err(fail())?;
    repository.set_config(&empty).map_err(fail())?;
    Ok(repository)
}

/// Makes an empty bare repository, complete or not at all.
fn create(path: &Path, url: &RepositoryUrl) -> Result<(), GitError> {
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    let new = PathBuf::from(name);
    if new.symlink_metadata().is_ok() {
        // Only ever an empty one that a killed run did not finish.
        fs::remove_dir_all(&new).map_err(GitError::file("remove", &new))?;
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

/// Makes an empty bare repository without templates.
pub(super) fn init_bare(path: &Path) -> Result<Repository, GitError> {
    let mut options = RepositoryInitOptions::new();
    options.bare(true).external_template(false).mkpath(true).initial_head("main");
    Repository::init_opts(path, &options)
        .map_err(GitError::library(format!("create repository `{}`", path.display())))
}

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

/// Removes what a killed run left; the workspace's lock proves that none is alive.
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
        fs::remove_file(&file).map_err(GitError::file("remove the stale lock", &file))?;
    }
    Ok(())
}
