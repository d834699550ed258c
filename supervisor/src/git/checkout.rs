//! Checks out a commit into a directory that the agent may change freely.
//!
//! The directory gets an ordinary, disposable git directory: no remote, no credential, and the
//! control repository's objects borrowed through `objects/info/alternates`.

use std::collections::{BTreeSet, HashSet};
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use git2::build::CheckoutBuilder;
use git2::{AttrCheckFlags, Oid};
use orchestrator_contract::BranchName;
use orchestrator_contract::task::{CleanMode, CommitIdentity};
use rustix::fs::{AtFlags, Stat, unlinkat};

use super::agent_git_dir::create_git_dir;
use super::control::ControlRepository;
use super::error::GitError;
use super::index::GitIndex;
use super::stat_cache::{FileStat, StatCache};
use super::tree::{Entry, EntryKind};
use super::walk::{Tracked, WalkResult, open_below, open_root, open_view, split, walk};
use super::write_files::{make_folders, make_root, remove_all, stat_beneath, write_all, write_batch};

/// What to check out, and how.
#[derive(Clone, Copy, Debug)]
pub struct Checkout<'a> {
    /// Commit to check out.
    pub commit: Oid,
    /// Branch that `HEAD` points to.
    pub branch: &'a BranchName,
    /// Base branch and its commit, written as `origin/{name}`.
    pub base: Option<(&'a BranchName, Oid)>,
    /// Author and committer of the agent's commits.
    pub identity: &'a CommitIdentity,
    /// Which files that the commit does not have are removed.
    pub clean: CleanMode,
    /// File stats recorded by the previous checkout or snapshot.
    pub cache: &'a StatCache,
}

/// Result of a checkout.
#[derive(Debug)]
pub struct CheckoutStats {
    /// Number of files written.
    pub written: usize,
    /// Number of files that were already up to date.
    pub kept: usize,
    /// Number of files removed.
    pub removed: usize,
    /// File stats after the checkout.
    pub cache: StatCache,
}

/// Checks out a commit, writing only the files that differ.
///
/// The agent's git directory is replaced: import its commits first.
///
/// # Errors
/// Returns an error if the commit cannot be read or the directory cannot be written.
pub fn checkout(
    control: &ControlRepository,
    worktree: &Path,
    checkout: &Checkout<'_>,
) -> Result<CheckoutStats, GitError> {
    let Checkout { commit, branch, base, identity, clean, cache } = *checkout;
    make_root(worktree)?;
    remove_all(&worktree.join(".git"))?;
    let tree = control.commit_tree(commit)?;
    let entries = control.list_tree_recursive(tree)?;
    let root = open_root(worktree)?;
    let failed = GitError::file;

    // The commit's rules decide what git ignores and converts, not those left in the directory.
    let rules: Vec<&Entry> = entries.iter().filter(|entry| is_rule_file(&entry.name)).collect();
    let is_empty = fs::read_dir(worktree).map_err(failed("list", worktree))?.next().is_none();
    if !is_empty {
        make_folders(root.as_fd(), &rules).map_err(failed("write in", worktree))?;
        write_batch(control.path(), root.as_fd(), &rules)?;
    }
    let view = open_view(control, worktree)?;
    let mut tracked = Tracked::default();
    tracked.add(entries.clone());
    let walked = if is_empty { WalkResult::default() } else { walk(worktree, &tracked, &view)? };
    let removed = remove_untracked(worktree, root.as_fd(), &walked, &tracked, clean)?;

    let kept = unchanged_files(&walked, &tracked, cache);
    let missing: Vec<&Entry> = entries.iter().filter(|entry| !kept.contains(entry.name.as_slice())).collect();
    make_folders(root.as_fd(), &missing).map_err(failed("write in", worktree))?;
    let stats = write_all(control, worktree, &missing)?;
    let converted = write_converted(control, worktree, tree, &rules, &missing, &view)?;

    let mut fresh = StatCache::start_scan(control.path(), entries.len())?;
    let mut index = GitIndex::with_capacity(entries.len());
    let mut written = stats.into_iter();
    for entry in &entries {
        // A file that libgit2 wrote again after `write_all` has another stat.
        let known = if kept.contains(entry.name.as_slice()) { None } else { written.next().flatten() };
        let known = known.filter(|_| !converted.contains(entry.name.as_slice()));
        let stat = known.map_or_else(|| stat_beneath(root.as_fd(), &entry.name), Ok::<Stat, io::Error>);
        let stat = stat.map_err(failed("stat", &worktree.join(OsStr::from_bytes(&entry.name))))?;
        index.add(entry, &stat);
        if entry.kind != EntryKind::Submodule {
            fresh.record(entry.name.clone(), entry.kind, FileStat::of(&stat), entry.oid);
        }
    }
    fresh.finish_scan(control.path())?;
    let git = worktree.join(".git");
    create_git_dir(control, &git, branch, commit, base, identity).map_err(failed("write", &git))?;
    index.write(&git.join("index"))?;
    Ok(CheckoutStats { written: missing.len(), kept: kept.len(), removed, cache: fresh })
}

fn is_rule_file(path: &[u8]) -> bool {
    let name = split(path).1;
    name == b".gitignore" || name == b".gitattributes"
}

/// Returns the paths of tracked files that the cache proves unchanged.
fn unchanged_files<'w>(walked: &'w WalkResult, tracked: &Tracked, cache: &StatCache) -> HashSet<&'w [u8]> {
    let unchanged = walked.files.iter().filter(|file| {
        tracked.entries.get(&file.path).is_some_and(|(kind, oid)| {
            *kind == file.kind && cache.content(&file.path, file.kind, &file.signature) == Some(*oid)
        })
    });
    unchanged.map(|file| file.path.as_slice()).collect()
}

/// Exports a commit's files, without a git directory, to `folder`.
///
/// # Errors
/// Returns an error if the commit cannot be read or the directory cannot be written.
pub fn export_tree(control: &ControlRepository, commit: Oid, folder: &Path) -> Result<(), GitError> {
    let parent = folder.parent().unwrap_or(Path::new("/"));
    let name = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let marker = control.path().join(format!("exported-{name}"));
    let expected = format!("{commit} {}", folder.display());
    if folder.symlink_metadata().is_ok_and(|metadata| metadata.is_dir())
        && fs::read_to_string(&marker).is_ok_and(|recorded| recorded == expected)
    {
        return Ok(());
    }
    remove_all(&marker)?;
    let new = parent.join(format!(".{name}.new"));
    remove_all(&new)?;
    make_root(&new)?;
    let entries = control.list_tree_recursive(control.commit_tree(commit)?)?;
    let all: Vec<&Entry> = entries.iter().collect();
    let root = open_root(&new)?;
    make_folders(root.as_fd(), &all).map_err(GitError::file("write in", &new))?;
    drop(write_all(control, &new, &all)?);
    let old = parent.join(format!(".{name}.old"));
    remove_all(&old)?;
    if folder.symlink_metadata().is_ok() {
        fs::rename(folder, &old).map_err(GitError::file("rename", folder))?;
    }
    fs::rename(&new, folder).map_err(GitError::file("rename", &new))?;
    remove_all(&old)?;
    fs::write(&marker, expected).map_err(GitError::file("write", &marker))
}

/// Removes files that the commit does not have, and directories that this empties.
fn remove_untracked(
    worktree: &Path,
    root: BorrowedFd<'_>,
    walked: &WalkResult,
    tracked: &Tracked,
    clean: CleanMode,
) -> Result<usize, GitError> {
    let mut untracked: Vec<Vec<u8>> = walked.unsupported.clone();
    untracked.extend(
        walked
            .files
            .iter()
            .filter(|file| !tracked.entries.contains_key(&file.path))
            .map(|file| file.path.clone()),
    );
    untracked.extend(walked.nested.iter().map(|path| [path, b"/.git".as_slice()].concat()));
    match clean {
        CleanMode::Untracked => {}
        CleanMode::All => untracked.extend(walked.ignored.iter().cloned()),
    }
    for path in &untracked {
        let (folder, _) = split(path);
        // If the directory is gone, an earlier iteration removed the path with it.
        if open_below(root, folder).is_ok() {
            remove_all(&worktree.join(OsStr::from_bytes(path)))?;
        }
        let mut folder = folder;
        while !folder.is_empty() {
            let (parent, name) = split(folder);
            let emptied = open_below(root, parent)
                .is_ok_and(|parent| unlinkat(&parent, OsStr::from_bytes(name), AtFlags::REMOVEDIR).is_ok());
            if !emptied {
                break;
            }
            folder = parent;
        }
    }
    Ok(untracked.len())
}

/// Writes the files that need `eol=crlf` or `ident` conversion, using libgit2; returns their paths.
fn write_converted<'e>(
    control: &ControlRepository,
    worktree: &Path,
    tree: Oid,
    rules: &[&Entry],
    missing: &[&'e Entry],
    view: &git2::Repository,
) -> Result<BTreeSet<&'e [u8]>, GitError> {
    let fail = || GitError::library(format!("check out tree {tree}"));
    let mut any = false;
    for rule in rules.iter().filter(|entry| split(&entry.name).1 == b".gitattributes") {
        let blob = control.repository.find_blob(rule.oid).map_err(fail())?;
        let content = blob.content();
        any |= [b"crlf".as_slice(), b"ident"]
            .iter()
            .any(|word| content.windows(word.len()).any(|window| window == *word));
    }
    let mut converted = BTreeSet::new();
    if !any {
        return Ok(converted);
    }
    let mut builder = CheckoutBuilder::new();
    builder.force().disable_pathspec_match(true).update_index(false).remove_untracked(false);
    for entry in missing.iter().filter(|entry| matches!(entry.kind, EntryKind::File | EntryKind::Executable))
    {
        let path = Path::new(OsStr::from_bytes(&entry.name));
        let has = |name: &str, expected: &[u8]| {
            let value = view.get_attr_bytes(path, name, AttrCheckFlags::FILE_THEN_INDEX);
            value.ok().flatten() == Some(expected)
        };
        if has("eol", b"crlf") || has("ident", b"[internal]__TRUE__") {
            builder.path(entry.name.as_slice());
            converted.insert(entry.name.as_slice());
        }
    }
    if converted.is_empty() {
        return Ok(converted);
    }
    for path in &converted {
        remove_all(&worktree.join(OsStr::from_bytes(path)))?;
    }
    let tree = view.find_object(tree, None).map_err(fail())?;
    view.checkout_tree(&tree, Some(&mut builder)).map_err(fail())?;
    Ok(converted)
}
