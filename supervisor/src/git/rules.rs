//! What git ignores and converts in a worktree: its `.gitignore` and `.gitattributes`.
//!
//! libgit2 reads rule files by path, so they are copied into a folder of the supervisor, and
//! libgit2 gets that folder for a worktree. It never opens a path that the agent can write.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use git2::{AttrCheckFlags, Oid, Repository};

use super::control::{ControlRepository, open_bare};
use super::error::GitError;
use super::remove::remove_tree;
use crate::guest::beneath::split;

/// Prefix of the folders with copied rule files.
const PREFIX: &str = "rules-";

/// Maximum depth of a path to which ignore rules apply; asking costs time for each level.
const MAX_DEPTH: usize = 128;

/// Maximum length of a path to which rules apply: libgit2 appends it to the folder's path.
const MAX_LENGTH: usize = 3000;

/// Maximum rule files of a worktree.
const MAX_FILES: usize = 20_000;

/// Rule files of a worktree.
pub(super) struct Rules {
    folder: tempfile::TempDir,
    view: Repository,
    /// Rules of the commit, which those in the worktree do not replace.
    fixed: HashSet<Vec<u8>>,
    /// Whether `.gitattributes` of the worktree count.
    own_attributes: bool,
    files: usize,
    ignores: bool,
    attributes: bool,
}

pub(super) fn is_rule_file(path: &[u8]) -> bool {
    matches!(split(path).1, b".gitignore" | b".gitattributes")
}

impl Rules {
    pub(super) fn new(control: &ControlRepository) -> Result<Self, GitError> {
        let folder = tempfile::Builder::new()
            .prefix(PREFIX)
            .tempdir_in(control.path())
            .map_err(GitError::file("write in", control.path()))?;
        let view = open_bare(control.path())?;
        let root = folder.path().join("tree");
        fs::create_dir(&root).map_err(GitError::file("create", &root))?;
        // Only for its `.gitignore` and `.gitattributes`: neither configuration nor `info/exclude` is read.
        view.set_workdir(&root, false).map_err(GitError::library("open the rules"))?;
        Ok(Self {
            folder,
            view,
            fixed: HashSet::new(),
            own_attributes: true,
            files: 0,
            ignores: false,
            attributes: false,
        })
    }

    /// Removes what killed runs left; the caller excludes running ones.
    pub(super) fn remove_stale(control: &ControlRepository) {
        let Ok(entries) = fs::read_dir(control.path()) else { return };
        for entry in entries.flatten() {
            if entry.file_name().as_bytes().starts_with(PREFIX.as_bytes()) {
                // A leftover only takes space.
                drop(remove_tree(&entry.path()));
            }
        }
    }

    /// Returns a folder of the supervisor for temporary files.
    pub(super) fn scratch(&self) -> &Path {
        self.folder.path()
    }

    /// Returns the place of a worktree's file in the copy.
    pub(super) fn copy_of(&self, path: &[u8]) -> PathBuf {
        self.folder.path().join("tree").join(OsStr::from_bytes(path))
    }

    /// Returns the repository whose worktree is the copy.
    pub(super) fn view(&self) -> &Repository {
        &self.view
    }

    pub(super) fn has_attributes(&self) -> bool {
        self.attributes
    }

    /// Writes a file of the copy. Its path was checked.
    pub(super) fn write_copy(&self, path: &[u8], content: &[u8]) -> io::Result<PathBuf> {
        let file = self.copy_of(path);
        if let Some(parent) = file.parent() {
            fs::create_dir_all(parent)?;
        }
        fs::write(&file, content)?;
        Ok(file)
    }

    /// Takes the rules of a commit, as path and content: those of the worktree in their place, and
    /// all of its `.gitattributes`, do not count.
    pub(super) fn fix<'r>(
        &mut self,
        rules: impl Iterator<Item = Result<(&'r [u8], Vec<u8>), GitError>>,
    ) -> Result<(), GitError> {
        for rule in rules {
            let (path, content) = rule?;
            self.add(path, &content)?;
            self.fixed.insert(path.to_vec());
        }
        self.own_attributes = false;
        Ok(())
    }

    /// Adds a rule file of the worktree; one that is too deep or one too many is not applied.
    pub(super) fn add(&mut self, path: &[u8], content: &[u8]) -> Result<(), GitError> {
        let is_ignores = split(path).1 == b".gitignore";
        let counts = is_ignores || self.own_attributes;
        if !counts || self.fixed.contains(path) || self.files >= MAX_FILES || !applies(path) {
            return Ok(());
        }
        self.files += 1;
        if is_ignores {
            self.ignores = true;
        } else {
            self.attributes = true;
        }
        self.write_copy(path, content).map(drop).map_err(GitError::file("copy", &self.copy_of(path)))
    }

    /// Returns whether git ignores a path.
    pub(super) fn ignores(&self, path: &[u8], is_folder: bool) -> bool {
        if !self.ignores || !applies(path) {
            return false;
        }
        let mut path = path.to_vec();
        if is_folder {
            path.push(b'/');
        }
        self.view.is_path_ignored(Path::new(OsStr::from_bytes(&path))).unwrap_or(false)
    }

    fn attribute(&self, path: &[u8], name: &str) -> Option<Vec<u8>> {
        if !applies(path) {
            return None;
        }
        let path = Path::new(OsStr::from_bytes(path));
        let value = self.view.get_attr_bytes(path, name, AttrCheckFlags::FILE_THEN_INDEX);
        value.ok().flatten().map(<[u8]>::to_vec)
    }

    /// Returns whether an attribute has exactly this value.
    pub(super) fn has(&self, path: &[u8], name: &str, value: &[u8]) -> bool {
        self.attribute(path, name).as_deref() == Some(value)
    }

    /// Returns whether the content of a file is kept in Git LFS.
    pub(super) fn is_lfs(&self, path: &[u8]) -> bool {
        self.has(path, "filter", b"lfs")
    }

    /// Returns whether git may convert a file's content between worktree and tree.
    pub(super) fn converts(&self, path: &[u8]) -> bool {
        ["text", "eol", "crlf", "ident"].iter().any(|name| {
            // How libgit2 represents an unset attribute.
            self.attribute(path, name).is_some_and(|value| value != b"[internal]__FALSE__")
        })
    }

    /// Stores a file's content as git converts it.
    pub(super) fn store_converted(&self, path: &[u8], content: &[u8]) -> Result<Oid, GitError> {
        let file = self.write_copy(path, content).map_err(GitError::file("copy", &self.copy_of(path)))?;
        let oid = self.view.blob_path(&file).map_err(GitError::library("convert a file"));
        if !is_rule_file(path) {
            fs::remove_file(&file).map_err(GitError::file("remove", &file))?;
        }
        oid
    }
}

fn applies(path: &[u8]) -> bool {
    path.len() <= MAX_LENGTH && path.iter().filter(|byte| **byte == b'/').count() <= MAX_DEPTH
}
