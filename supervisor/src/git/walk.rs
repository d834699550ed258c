//! Walks a worktree that the agent wrote, through its guest.
//!
//! The walk enters no git directory and applies the ignore rules. It keeps a list of folders
//! instead of recursing, and has limits: what is beyond them is reported, not an error.

use std::collections::{HashMap, HashSet};
use std::io;

use git2::Oid;

use super::error::GitError;
use super::names::{MAX_PATH, check_name};
use super::rules::Rules;
use super::stat_cache::FileStat;
use super::tree::{Entry, EntryKind, MAX_TREE_DEPTH};
use crate::guest::answers::Listing;
use crate::guest::{Guest, MAX_BATCH, NodeKind, NodeStat};

/// Maximum entries of a worktree to look at; ignored folders count as one.
const MAX_ENTRIES: usize = 1_000_000;

/// Path of a worktree that could not be saved.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Unsaved {
    /// Path relative to the worktree; a folder stands for what is below it.
    pub path: Vec<u8>,
    /// Why, as the rest of a sentence that begins with the path.
    pub why: String,
}

/// File or symbolic link.
pub(super) struct WorktreeFile {
    pub(super) path: Vec<u8>,
    pub(super) kind: EntryKind,
    pub(super) stat: NodeStat,
}

impl WorktreeFile {
    pub(super) fn signature(&self) -> FileStat {
        FileStat::of(&self.stat)
    }
}

/// Content of a worktree.
#[derive(Default)]
pub(super) struct WalkResult {
    pub(super) files: Vec<WorktreeFile>,
    /// Directories that are git repositories of their own.
    pub(super) nested: Vec<Vec<u8>>,
    /// Tracked submodules that exist, with or without content.
    pub(super) submodules: Vec<Vec<u8>>,
    /// Entries that no tree can have, such as sockets, pipes and devices.
    pub(super) odd: Vec<Unsaved>,
    /// Folders that could not be read, or not completely.
    pub(super) unread: Vec<Unsaved>,
    /// Ignored paths; a directory stands for its content.
    pub(super) ignored: Vec<Vec<u8>>,
}

/// Tracked paths; ignore rules do not apply to them.
#[derive(Default)]
pub(super) struct Tracked {
    pub(super) entries: HashMap<Vec<u8>, (EntryKind, Oid)>,
    folders: HashSet<Vec<u8>>,
}

impl Tracked {
    /// Adds entries; they replace earlier ones of the same path.
    pub(super) fn add(&mut self, entries: Vec<Entry>) {
        for Entry { name, kind, oid } in entries {
            for (at, _) in name.iter().enumerate().rev().filter(|(_, byte)| **byte == b'/') {
                if !self.folders.insert(name[..at].to_vec()) {
                    break;
                }
            }
            self.entries.insert(name, (kind, oid));
        }
    }

    /// Returns whether a path is a folder with tracked files.
    pub(super) fn is_folder(&self, path: &[u8]) -> bool {
        self.folders.contains(path)
    }

    fn is_submodule(&self, path: &[u8]) -> bool {
        self.entries.get(path).is_some_and(|(kind, _)| *kind == EntryKind::Submodule)
    }
}

/// Returns whether git never tracks a name, in any case: file systems may fold it.
fn is_git_folder(name: &[u8]) -> bool {
    name.eq_ignore_ascii_case(b".git")
}

/// Walks a worktree.
///
/// # Errors
/// Returns an error if the guest is broken, the worktree's root cannot be read, or the rules
/// cannot be copied.
pub(super) fn walk(guest: &Guest, tracked: &Tracked, rules: &mut Rules) -> Result<WalkResult, GitError> {
    let mut walker = Walker { tracked, rules, walked: WalkResult::default(), seen: 0, pending: Vec::new() };
    let root = guest.list_one(b"", MAX_ENTRIES)?;
    if let (Some(error), true) = (&root.failed, root.entries.is_empty()) {
        return Err(GitError::file("read", guest.root())(io::Error::from(error.kind())));
    }
    walker.folder(&Folder::default(), root)?;
    while !walker.pending.is_empty() {
        let start = walker.pending.len().saturating_sub(MAX_BATCH);
        let batch: Vec<Folder> = walker.pending.drain(start..).collect();
        let paths: Vec<&[u8]> = batch.iter().map(|folder| folder.path.as_slice()).collect();
        let mut listings = guest.list(&paths, MAX_ENTRIES)?;
        for folder in &batch {
            if walker.seen >= MAX_ENTRIES {
                break;
            }
            let listing = listings.next()?;
            walker.folder(folder, listing)?;
        }
        if walker.seen >= MAX_ENTRIES {
            let why = format!("is one of too many: the worktree has more than {MAX_ENTRIES} entries");
            let rest = walker.pending.drain(..).map(|folder| folder.path);
            let rest = batch.iter().map(|folder| folder.path.clone()).chain(rest);
            walker.walked.unread.extend(rest.map(|path| Unsaved { path, why: why.clone() }));
            break;
        }
        listings.finish()?;
    }
    walker.walked.files.sort_by(|one, other| one.path.cmp(&other.path));
    Ok(walker.walked)
}

/// Folder to list.
#[derive(Default)]
struct Folder {
    path: Vec<u8>,
    depth: usize,
    /// Only its tracked files count.
    ignored: bool,
}

struct Walker<'w> {
    tracked: &'w Tracked,
    rules: &'w mut Rules,
    walked: WalkResult,
    seen: usize,
    pending: Vec<Folder>,
}

impl Walker<'_> {
    /// Records the content of a folder.
    fn folder(&mut self, folder: &Folder, listing: Listing) -> Result<(), GitError> {
        let Listing { entries, rules, failed } = listing;
        if let Some(error) = failed {
            // Deleted since it was listed.
            if error.kind() != io::ErrorKind::NotFound {
                let why = format!("cannot be read: {}", plain(&error));
                self.walked.unread.push(Unsaved { path: folder.path.clone(), why });
            }
            if entries.is_empty() {
                return Ok(());
            }
        }
        self.seen += entries.len();
        let is_repository = entries.iter().any(|(name, _)| is_git_folder(name));
        if is_repository && !folder.path.is_empty() {
            self.walked.nested.push(folder.path.clone());
        }
        if self.tracked.is_submodule(&folder.path) && (is_repository || entries.is_empty()) {
            self.walked.submodules.push(folder.path.clone());
            return Ok(());
        }
        // The rules of a folder apply to its own entries too.
        for (name, content) in rules {
            self.rules.add(&join(&folder.path, &name), &content)?;
        }
        for (name, stat) in entries.iter().filter(|(name, _)| !is_git_folder(name)) {
            self.entry(folder, name, *stat);
        }
        Ok(())
    }

    fn entry(&mut self, folder: &Folder, name: &[u8], stat: NodeStat) {
        let path = join(&folder.path, name);
        let mut odd = |path: &[u8], why: &str| {
            // An ignored folder is not saved anyway.
            if !folder.ignored {
                self.walked.odd.push(Unsaved { path: path.to_vec(), why: why.to_owned() });
            }
        };
        if let Err(problem) = check_name(name) {
            return odd(&path, &format!("has a name that {problem}"));
        }
        if path.len() > MAX_PATH {
            return odd(&path, "has too long a path");
        }
        match stat.kind() {
            NodeKind::File => {
                let kind = if stat.mode & 0o100 == 0 { EntryKind::File } else { EntryKind::Executable };
                self.file(path, kind, stat, folder.ignored);
            }
            NodeKind::Link => self.file(path, EntryKind::Link, stat, folder.ignored),
            NodeKind::Folder => self.subfolder(folder, path),
            NodeKind::Pipe => odd(&path, "is a named pipe"),
            NodeKind::Socket => odd(&path, "is a socket"),
            NodeKind::Device => odd(&path, "is a device"),
        }
    }

    fn file(&mut self, path: Vec<u8>, kind: EntryKind, stat: NodeStat, ignored: bool) {
        if self.tracked.entries.contains_key(&path) || !(ignored || self.rules.ignores(&path, false)) {
            self.walked.files.push(WorktreeFile { path, kind, stat });
        } else if !ignored {
            self.walked.ignored.push(path);
        }
    }

    fn subfolder(&mut self, parent: &Folder, path: Vec<u8>) {
        let has_tracked = self.tracked.is_folder(&path);
        let ignored = parent.ignored || (!has_tracked && self.rules.ignores(&path, true));
        if ignored && !has_tracked && !self.tracked.entries.contains_key(&path) {
            if !parent.ignored {
                self.walked.ignored.push(path);
            }
            return;
        }
        let depth = parent.depth + 1;
        if depth >= MAX_TREE_DEPTH {
            let why = format!("is nested in more than {MAX_TREE_DEPTH} folders");
            self.walked.unread.push(Unsaved { path, why });
            return;
        }
        self.pending.push(Folder { path, depth, ignored });
    }
}

/// Returns an error's text without its number.
fn plain(error: &io::Error) -> String {
    if error.raw_os_error() == Some(rustix::io::Errno::TOOBIG.raw_os_error()) {
        return format!("it has more than {MAX_ENTRIES} entries");
    }
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or_default().to_lowercase()
}

pub(super) fn join(folder: &[u8], name: &[u8]) -> Vec<u8> {
    if folder.is_empty() { name.to_vec() } else { [folder, b"/", name].concat() }
}
