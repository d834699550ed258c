//! Imports the agent's commits as objects.
//!
//! The agent's git directory is never opened as a repository. Refs are parsed here; loose objects
//! and packs are copied into a quarantine repository, which hashes them again; complete histories
//! are copied from there into the control repository. Configuration, hooks, grafts, alternates
//! and index of the agent's git directory are ignored.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fs;
use std::io::{self, Write as _};
use std::path::Path;

use git2::{ObjectType, Oid, Repository};
use orchestrator_contract::task::CommitIdentity;

use super::control::{ControlRepository, init_bare, open_bare};
use super::copy_objects::copy_objects;
use super::error::GitError;
use super::measure::Measures;
use super::names::shown;
use super::tree::EntryKind;
use crate::guest::{Guest, NodeKind};

/// Maximum size of a loose ref, which is one line.
const MAX_REF_BYTES: u64 = 4096;
/// Maximum size of `packed-refs`; large repositories have a few megabytes.
const MAX_PACKED_REFS_BYTES: u64 = 64 << 20;
/// Maximum refs to import; an agent creates far fewer.
const MAX_REFS: usize = 10_000;
/// Maximum size of an object to import.
const MAX_OBJECT_BYTES: usize = 512 << 20;
/// Maximum objects to import.
const MAX_OBJECTS: usize = 2_000_000;
/// Maximum names in a folder of refs.
const MAX_NAMES: usize = 20_000;

/// Result of an import.
#[derive(Debug)]
pub struct ImportedHistory {
    /// History of `HEAD`.
    pub head: History,
    /// Branch that `HEAD` points to, unless it is detached.
    pub branch: Option<String>,
    /// Other branch tips and stashes that were imported.
    pub others: Vec<(String, Oid)>,
    /// Messages about skipped refs and objects.
    pub notes: Vec<String>,
}

/// History of the agent's `HEAD`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum History {
    /// The control repository has all of it.
    Usable {
        /// Commit of `HEAD`.
        head: Oid,
        /// Whether the base is one of its ancestors.
        descends_from_base: bool,
        /// Authors and committers of the new commits other than the agent, as `Name <address>`.
        other_authors: Vec<String>,
    },
    /// It is missing or incomplete; only the worktree can be used.
    Unusable { why: String },
}

/// Imports what the agent committed.
///
/// Invalid content of the agent's git directory is not an error: it makes the history unusable.
///
/// # Errors
/// Returns an error if the scratch directory or the control repository cannot be written.
pub fn import_commits(
    control: &ControlRepository,
    guest: &Guest,
    base: Oid,
    own: &CommitIdentity,
    scratch: &Path,
) -> Result<ImportedHistory, GitError> {
    let unusable = |why: String| ImportedHistory {
        head: History::Unusable { why },
        branch: None,
        others: Vec::new(),
        notes: Vec::new(),
    };
    let git = guest.stat(&[b".git"])?.into_iter().find_map(Result::ok);
    if git.is_none_or(|git| git.kind() != NodeKind::Folder) {
        return Ok(unusable("the worktree has no git directory".to_owned()));
    }
    let mut notes = Vec::new();
    let (branch, head) = read_head(guest)?;
    let tips = read_refs(guest, &mut notes)?;
    let head = head.or_else(|| branch.as_ref().and_then(|name| tips.get(name).copied()));

    let folder = tempfile::Builder::new()
        .prefix("import-")
        .tempdir_in(scratch)
        .map_err(GitError::file("write in", scratch))?;
    let quarantine = create_quarantine(control, folder.path())?;
    copy_objects(guest, &quarantine, &mut notes)?;
    // Open again: the first handle does not know the packs.
    let quarantine = open_bare(quarantine.path())?;
    let mut measures = Measures::new(&quarantine);

    let history = match head {
        None => History::Unusable { why: "`HEAD` does not point to a commit".to_owned() },
        Some(head) => match copy_objects_into(control, &quarantine, &mut measures, head) {
            Ok(commits) => History::Usable {
                head,
                descends_from_base: control.is_ancestor(base, head).unwrap_or(false),
                other_authors: other_authors(control, &commits, own),
            },
            Err(error) if is_local_error(&error) => return Err(error),
            Err(error) => History::Unusable { why: chain(&error) },
        },
    };
    let mut others = Vec::new();
    for (name, oid) in tips {
        if Some(oid) == head || control.contains(oid) {
            continue;
        }
        match copy_objects_into(control, &quarantine, &mut measures, oid) {
            Ok(_) => others.push((name, oid)),
            Err(error) if is_local_error(&error) => return Err(error),
            Err(error) => notes.push(format!("skipped `{}`: {}", shown(name.as_bytes()), chain(&error))),
        }
    }
    Ok(ImportedHistory { head: history, branch, others, notes })
}

fn is_local_error(error: &GitError) -> bool {
    matches!(error.reason(), orchestrator_contract::Reason::DiskFull)
}

fn chain(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(source) => format!("{error}: {}", chain(source)),
        None => error.to_string(),
    }
}

fn oid_of(text: &[u8]) -> Option<Oid> {
    let text = text.trim_ascii();
    (text.len() == 40)
        .then(|| std::str::from_utf8(text).ok())
        .flatten()
        .and_then(|text| Oid::from_str(text).ok())
}

fn is_safe_ref(name: &str) -> bool {
    name.starts_with("refs/")
        && name.split('/').all(|part| !part.is_empty() && part != "." && part != "..")
        && git2::Reference::is_valid_name(name)
}

/// Reads a file of the git directory.
fn read(guest: &Guest, name: &str, limit: u64) -> Result<Option<Vec<u8>>, GitError> {
    Ok(guest.read_small(format!(".git/{name}").as_bytes(), limit)?)
}

fn read_head(guest: &Guest) -> Result<(Option<String>, Option<Oid>), GitError> {
    let Some(text) = read(guest, "HEAD", MAX_REF_BYTES)? else { return Ok((None, None)) };
    Ok(match text.strip_prefix(b"ref:") {
        Some(name) => {
            let name = std::str::from_utf8(name.trim_ascii()).ok().filter(|name| is_safe_ref(name));
            (name.map(str::to_owned), None)
        }
        None => (None, oid_of(&text)),
    })
}

/// Reads branches and the stash; loose refs take precedence over packed ones.
fn read_refs(guest: &Guest, notes: &mut Vec<String>) -> Result<BTreeMap<String, Oid>, GitError> {
    let mut tips = BTreeMap::new();
    let is_imported = |name: &str| name.starts_with("refs/heads/") || name == "refs/stash";
    let packed = read(guest, "packed-refs", MAX_PACKED_REFS_BYTES)?.unwrap_or_default();
    for line in packed.split(|byte| *byte == b'\n').take(1_000_000) {
        let Some((oid, name)) = line.split_at_checked(40) else { continue };
        let name =
            std::str::from_utf8(name.trim_ascii()).ok().filter(|name| is_imported(name) && is_safe_ref(name));
        if let (Some(oid), Some(name)) = (oid_of(oid), name)
            && tips.len() < MAX_REFS
        {
            tips.insert(name.to_owned(), oid);
        }
    }
    let mut folders = vec!["refs/heads".to_owned()];
    let mut seen = 0;
    while let Some(folder) = folders.pop() {
        let listing = guest.list_one(format!(".git/{folder}").as_bytes(), MAX_NAMES)?;
        for (name, stat) in listing.entries {
            let Ok(name) = String::from_utf8(name) else { continue };
            let path = format!("{folder}/{name}");
            seen += 1;
            if seen > MAX_NAMES || tips.len() + folders.len() >= MAX_REFS {
                notes.push(format!("more than {MAX_REFS} branches: skipped the rest"));
                return Ok(tips);
            }
            if !is_safe_ref(&path) {
                continue;
            }
            match stat.kind() {
                NodeKind::File => {
                    let text = read(guest, &path, MAX_REF_BYTES)?;
                    tips.extend(text.and_then(|text| oid_of(&text)).map(|oid| (path, oid)));
                }
                NodeKind::Folder => folders.push(path),
                NodeKind::Link | NodeKind::Pipe | NodeKind::Socket | NodeKind::Device => {}
            }
        }
    }
    let stash = read(guest, "refs/stash", MAX_REF_BYTES)?.and_then(|text| oid_of(&text));
    tips.extend(stash.map(|oid| ("refs/stash".to_owned(), oid)));
    Ok(tips)
}

/// Creates the quarantine repository, which borrows the objects of the control repository.
fn create_quarantine(control: &ControlRepository, folder: &Path) -> Result<Repository, GitError> {
    let path = folder.join("quarantine.git");
    let repository = init_bare(&path)?;
    let write = || -> io::Result<()> {
        let mut alternates = control.path().join("objects").into_os_string().into_encoded_bytes();
        alternates.push(b'\n');
        fs::write(path.join("objects/info/alternates"), alternates)?;
        if control.is_shallow() {
            fs::copy(control.path().join("shallow"), path.join("shallow"))?;
        }
        Ok(())
    };
    fs::create_dir_all(path.join("objects/info")).map_err(GitError::file("write", &path))?;
    write().map_err(GitError::file("write", &path))?;
    Ok(repository)
}

/// Copies a commit with all reachable objects into the control repository; returns the new commits.
///
/// Copies nothing if an object is missing.
fn copy_objects_into(
    control: &ControlRepository,
    quarantine: &Repository,
    measures: &mut Measures<'_>,
    tip: Oid,
) -> Result<Vec<Oid>, GitError> {
    let fail = || GitError::library(format!("import commit {tip}"));
    let control_odb = control.repository.odb().map_err(fail())?;
    let mut reachable = ReachableObjects { objects: Vec::new(), seen: HashSet::new() };
    let mut commits = Vec::new();
    let mut pending = vec![tip];
    while let Some(oid) = pending.pop() {
        if !reachable.seen.insert(oid) {
            continue;
        }
        check_size(quarantine, oid)?;
        let commit = quarantine.find_commit(oid).map_err(fail())?;
        if control_odb.exists(oid) {
            continue;
        }
        measures.check(commit.tree_id())?;
        reachable.objects.push(oid);
        commits.push(oid);
        if reachable.seen.len() > MAX_OBJECTS {
            return Err(GitError::Unsupported(format!("more than {MAX_OBJECTS} new objects")));
        }
        reachable.tree(&control_odb, quarantine, commit.tree_id())?;
        pending.extend(commit.parent_ids());
    }
    if reachable.objects.is_empty() {
        return Ok(commits);
    }
    let mut pack = quarantine.packbuilder().map_err(fail())?;
    for oid in &reachable.objects {
        pack.insert_object(*oid, None).map_err(fail())?;
    }
    let mut writer = control_odb.packwriter().map_err(fail())?;
    let mut written = Ok(());
    let packed = pack.foreach(|bytes| {
        written = writer.write_all(bytes);
        written.is_ok()
    });
    written.map_err(GitError::file("write a pack in", control.path()))?;
    packed.map_err(fail())?;
    writer.commit().map_err(fail())?;
    drop(writer);
    control_odb.refresh().map_err(fail())?;
    Ok(commits)
}

/// Objects to copy.
struct ReachableObjects {
    objects: Vec<Oid>,
    seen: HashSet<Oid>,
}

impl ReachableObjects {
    fn tree(
        &mut self,
        control_odb: &git2::Odb<'_>,
        quarantine: &Repository,
        root: Oid,
    ) -> Result<(), GitError> {
        let mut pending = vec![root];
        while let Some(oid) = pending.pop() {
            if !self.seen.insert(oid) || control_odb.exists(oid) {
                continue;
            }
            let fail = || GitError::library(format!("read object {oid}"));
            let tree = quarantine.find_tree(oid).map_err(fail())?;
            self.objects.push(oid);
            for entry in &tree {
                match EntryKind::from_mode(entry.filemode()) {
                    EntryKind::Folder => pending.push(entry.id()),
                    EntryKind::Submodule => {}
                    EntryKind::File | EntryKind::Executable | EntryKind::Link => {
                        self.blob(control_odb, quarantine, entry.id())?;
                    }
                }
            }
        }
        Ok(())
    }

    fn blob(
        &mut self,
        control_odb: &git2::Odb<'_>,
        quarantine: &Repository,
        oid: Oid,
    ) -> Result<(), GitError> {
        if self.seen.insert(oid) && !control_odb.exists(oid) {
            let fail = || GitError::library(format!("read object {oid}"));
            // Reading verifies the hash.
            check_size(quarantine, oid)?;
            let object = quarantine.odb().and_then(|odb| odb.read(oid).map(|object| object.kind()));
            if object.map_err(fail())? != ObjectType::Blob {
                return Err(fail()(git2::Error::from_str("not a blob")));
            }
            self.objects.push(oid);
        }
        Ok(())
    }
}

/// Checks the size of an object before it is read as a whole.
fn check_size(quarantine: &Repository, oid: Oid) -> Result<(), GitError> {
    let header = quarantine.odb().and_then(|odb| odb.read_header(oid));
    let (size, _) = header.map_err(GitError::library(format!("read object {oid}")))?;
    if size > MAX_OBJECT_BYTES {
        return Err(GitError::Unsupported(format!(
            "object {oid} is larger than {} MiB",
            MAX_OBJECT_BYTES >> 20
        )));
    }
    Ok(())
}

/// Returns authors and committers other than `own`, sorted.
fn other_authors(control: &ControlRepository, commits: &[Oid], own: &CommitIdentity) -> Vec<String> {
    let mut names = BTreeSet::new();
    for commit in commits.iter().filter_map(|oid| control.commit_object(*oid).ok()) {
        for person in [commit.author(), commit.committer()] {
            if person.name_bytes() != own.name.as_bytes() || person.email_bytes() != own.email.as_bytes() {
                let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
                names.insert(format!("{} <{}>", text(person.name_bytes()), text(person.email_bytes())));
            }
        }
    }
    names.into_iter().collect()
}
