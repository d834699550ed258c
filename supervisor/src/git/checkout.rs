//! Checks out a commit into a directory that the agent may change freely, through its guest.
//!
//! The directory gets an ordinary, disposable git directory: no remote, no credential, and the
//! control repository's objects borrowed through `objects/info/alternates`.

use std::collections::HashSet;
use std::fs;
use std::path::Path;

use git2::Oid;
use git2::build::CheckoutBuilder;
use orchestrator_contract::BranchName;
use orchestrator_contract::task::{CleanMode, CommitIdentity};

use super::agent_git_dir::create_git_dir;
use super::control::ControlRepository;
use super::error::GitError;
use super::index::GitIndex;
use super::names::{check_name, shown};
use super::remove::remove_tree;
use super::rules::{Rules, is_rule_file};
use super::stat_cache::{FileStat, StatCache};
use super::tree::{Entry, EntryKind};
use super::walk::{Tracked, WalkResult, walk};
use super::write_files::{Converted, export_all, make_folders, write_all};
use crate::guest::beneath::split;
use crate::guest::{Guest, MAX_BATCH, NodeStat};

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
/// Returns an error if the guest is broken, the commit cannot be read, its tree has a name that
/// no worktree may have, or a file cannot be written.
pub fn checkout(
    control: &ControlRepository,
    guest: &Guest,
    checkout: &Checkout<'_>,
) -> Result<CheckoutStats, GitError> {
    let Checkout { commit, branch, base, identity, clean, cache } = *checkout;
    let tree = control.commit_tree(commit)?;
    // Checks all names, before anything is written.
    let entries = control.list_tree_recursive(tree)?;
    Rules::remove_stale(control);
    remove_paths(guest, &[b".git".as_slice()], false)?;

    // The commit's rules decide what git ignores and converts, not those left in the directory.
    let mut rules = Rules::new(control)?;
    let is_rules = |entry: &&Entry| {
        is_rule_file(&entry.name) && matches!(entry.kind, EntryKind::File | EntryKind::Executable)
    };
    rules.fix(entries.iter().filter(is_rules).map(|entry| {
        let blob = control.repository.find_blob(entry.oid);
        let blob = blob.map_err(GitError::library(format!("read blob {}", entry.oid)))?;
        Ok((entry.name.as_slice(), blob.content().to_vec()))
    }))?;
    let mut tracked = Tracked::default();
    tracked.add(entries.clone());
    let walked = walk(guest, &tracked, &mut rules)?;
    let removed = remove_untracked(guest, &walked, &tracked, clean)?;

    let kept = unchanged_files(&walked, &tracked, cache);
    let missing: Vec<&Entry> =
        entries.iter().filter(|entry| !kept.contains_key(entry.name.as_slice())).collect();
    make_folders(guest, &missing)?;
    let converted = convert(tree, &missing, &rules)?;
    let written = write_all(control, guest, &missing, &converted)?;
    let submodules = stat_submodules(guest, &entries)?;

    let mut fresh = StatCache::start_scan(control.path(), entries.len())?;
    let mut index = GitIndex::with_capacity(entries.len());
    let (mut written, mut submodules) = (written.into_iter(), submodules.into_iter());
    for entry in &entries {
        let new = if kept.contains_key(entry.name.as_slice()) { None } else { written.next().flatten() };
        let known = kept.get(entry.name.as_slice()).copied().or(new);
        let stat = if entry.kind == EntryKind::Submodule { submodules.next() } else { known };
        // Never missing: each entry was kept, written or is a submodule.
        let Some(stat) = stat else { continue };
        index.add(entry, &stat);
        if entry.kind != EntryKind::Submodule {
            fresh.record(entry.name.clone(), entry.kind, FileStat::of(&stat), entry.oid);
        }
    }
    fresh.finish_scan(control.path())?;
    let index = index.content(rules.scratch())?;
    create_git_dir(control, guest, branch, commit, base, identity, &index)?;
    Ok(CheckoutStats { written: missing.len(), kept: kept.len(), removed, cache: fresh })
}

/// Returns the tracked files that the cache proves unchanged, with their stats.
fn unchanged_files<'w>(
    walked: &'w WalkResult,
    tracked: &Tracked,
    cache: &StatCache,
) -> std::collections::HashMap<&'w [u8], NodeStat> {
    let unchanged = walked.files.iter().filter(|file| {
        tracked.entries.get(&file.path).is_some_and(|(kind, oid)| {
            *kind == file.kind && cache.content(&file.path, file.kind, &file.signature()) == Some(*oid)
        })
    });
    unchanged.map(|file| (file.path.as_slice(), file.stat)).collect()
}

/// Returns the stat of each submodule's folder.
fn stat_submodules(guest: &Guest, entries: &[Entry]) -> Result<Vec<NodeStat>, GitError> {
    let submodules = entries.iter().filter(|entry| entry.kind == EntryKind::Submodule);
    let paths: Vec<&[u8]> = submodules.map(|entry| entry.name.as_slice()).collect();
    let mut stats = Vec::with_capacity(paths.len());
    for batch in paths.chunks(MAX_BATCH) {
        for stat in guest.stat(batch)? {
            stats.push(stat.map_err(GitError::file("stat a submodule in", guest.root()))?);
        }
    }
    Ok(stats)
}

/// Creates the folder of a worktree, replacing a file or link of that name.
///
/// # Errors
/// Returns an error if the parent folder cannot be written.
pub fn make_root(folder: &Path) -> Result<(), GitError> {
    match folder.symlink_metadata() {
        Ok(metadata) if metadata.is_dir() => return Ok(()),
        Ok(_) => fs::remove_file(folder).map_err(GitError::file("remove", folder))?,
        Err(_) => {}
    }
    fs::create_dir_all(folder).map_err(GitError::file("create", folder))
}

/// Creates a folder of a worktree with its parents, such as `services/api`; empty is the root.
///
/// # Errors
/// Returns an error if the path has a component that is no name, or a folder cannot be created.
pub fn create_folder(guest: &Guest, path: &str) -> Result<(), GitError> {
    if path.is_empty() {
        return Ok(());
    }
    let path = path.as_bytes();
    for name in path.split(|byte| *byte == b'/') {
        check_name(name).map_err(|problem| {
            GitError::Unsupported(format!("cannot create folder `{}`: a name {problem}", shown(path)))
        })?;
    }
    let ends = path.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(at, _)| at);
    let folders: Vec<&[u8]> = ends.chain([path.len()]).map(|end| &path[..end]).collect();
    guest.make_folders(&folders)?.map_err(GitError::file("create folders in", guest.root()))
}

/// Exports a commit's files, without a git directory, to `folder`, a folder of the supervisor.
///
/// # Errors
/// Returns an error if the commit cannot be read, its tree has a name that no worktree may have,
/// or the directory cannot be written.
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
    let entries = control.list_tree_recursive(control.commit_tree(commit)?)?;
    let remove = |path: &Path| remove_tree(path).map_err(GitError::file("remove", path));
    remove(&marker)?;
    let new = parent.join(format!(".{name}.new"));
    remove(&new)?;
    make_root(&new)?;
    let all: Vec<&Entry> = entries.iter().collect();
    export_all(control, &new, &all)?;
    let old = parent.join(format!(".{name}.old"));
    remove(&old)?;
    if folder.symlink_metadata().is_ok() {
        fs::rename(folder, &old).map_err(GitError::file("rename", folder))?;
    }
    fs::rename(&new, folder).map_err(GitError::file("rename", &new))?;
    remove(&old)?;
    fs::write(&marker, expected).map_err(GitError::file("write", &marker))
}

/// Removes paths of a worktree.
fn remove_paths(guest: &Guest, paths: &[&[u8]], prune: bool) -> Result<(), GitError> {
    for batch in paths.chunks(MAX_BATCH) {
        for removed in guest.remove(batch, prune)? {
            removed.map_err(GitError::file("remove old files in", guest.root()))?;
        }
    }
    Ok(())
}

/// Removes files that the commit does not have, and directories that this empties.
fn remove_untracked(
    guest: &Guest,
    walked: &WalkResult,
    tracked: &Tracked,
    clean: CleanMode,
) -> Result<usize, GitError> {
    let is_untracked = |path: &[u8]| !tracked.entries.contains_key(path) && !tracked.is_folder(path);
    let mut untracked: Vec<Vec<u8>> = walked.odd.iter().map(|odd| odd.path.clone()).collect();
    let files = walked.files.iter().map(|file| &file.path);
    let unread = walked.unread.iter().map(|folder| &folder.path);
    let gone = files.filter(|path| !tracked.entries.contains_key(*path));
    untracked.extend(gone.chain(unread.filter(|path| is_untracked(path))).cloned());
    untracked.extend(walked.nested.iter().map(|path| [path, b"/.git".as_slice()].concat()));
    match clean {
        CleanMode::Untracked => {}
        CleanMode::All => untracked.extend(walked.ignored.iter().cloned()),
    }
    let paths: Vec<&[u8]> = untracked.iter().map(Vec::as_slice).collect();
    remove_paths(guest, &paths, true)?;
    Ok(untracked.len())
}

/// Returns the content of the files that need `eol=crlf` or `ident` conversion.
///
/// libgit2 converts them, in the folder of the supervisor that has the copied rules.
fn convert(tree: Oid, missing: &[&Entry], rules: &Rules) -> Result<Converted, GitError> {
    let mut converted = Converted::new();
    if !rules.has_attributes() {
        return Ok(converted);
    }
    let fail = || GitError::library(format!("check out tree {tree}"));
    let mut builder = CheckoutBuilder::new();
    builder.force().disable_pathspec_match(true).update_index(false).remove_untracked(false);
    let mut paths = HashSet::new();
    for entry in missing.iter().filter(|entry| matches!(entry.kind, EntryKind::File | EntryKind::Executable))
    {
        let converts =
            rules.has(&entry.name, "eol", b"crlf") || rules.has(&entry.name, "ident", b"[internal]__TRUE__");
        // The copy of a rule file is needed as it is.
        if converts && !is_rule_file(split(&entry.name).1) {
            builder.path(entry.name.as_slice());
            paths.insert(entry.name.as_slice());
        }
    }
    if paths.is_empty() {
        return Ok(converted);
    }
    let tree = rules.view().find_object(tree, None).map_err(fail())?;
    rules.view().checkout_tree(&tree, Some(&mut builder)).map_err(fail())?;
    for path in paths {
        let copy = rules.copy_of(path);
        let content = fs::read(&copy).map_err(GitError::file("read", &copy))?;
        fs::remove_file(&copy).map_err(GitError::file("remove", &copy))?;
        converted.insert(path.to_vec(), content);
    }
    Ok(converted)
}
