//! A commit as a folder that the agent may use as it likes.
//!
//! The folder gets an ordinary git directory that can be thrown away: no
//! remote, no credential, and the objects borrowed from ours through
//! `objects/info/alternates`.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use git2::build::CheckoutBuilder;
use git2::{AttrCheckFlags, Index, IndexEntry, IndexTime, Oid};
use orchestrator_contract::BranchName;
use orchestrator_contract::task::{CleanMode, CommitIdentity};
use rustix::fs::{
    AtFlags, FileType, Mode, OFlags, Stat, fstat, mkdirat, openat, statat, symlinkat, unlinkat,
};

use super::control::{Entry, EntryKind, open_bare};
use super::stat_cache::FileStat;
use super::walk::{Tracked, WalkResult, open_below, open_folder, open_root, open_view, split, walk};
use super::{ControlRepository, GitError, StatCache};

/// What is to be in a folder.
#[derive(Clone, Copy, Debug)]
pub struct Checkout<'a> {
    /// The commit.
    pub commit: Oid,
    /// The branch that `HEAD` is on.
    pub branch: &'a BranchName,
    /// The branch that the work starts from and where it is: `origin/{name}`.
    pub base: Option<(&'a BranchName, Oid)>,
    /// Whose name the agent's commits carry.
    pub identity: &'a CommitIdentity,
    /// What is removed of what the commit does not have.
    pub clean: CleanMode,
    /// What is known of the folder from the last time.
    pub cache: &'a StatCache,
}

/// What was done.
#[derive(Debug)]
pub struct CheckoutStats {
    /// Files written.
    pub written: usize,
    /// Files kept as they were.
    pub kept: usize,
    /// Files removed.
    pub removed: usize,
    /// What is known of the files now.
    pub cache: StatCache,
}

/// How many threads are worth their start for so many files.
pub(super) fn threads(files: usize) -> usize {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    processors.min(8).min(files / 64 + 1)
}

/// Brings a folder to a commit, touching only what differs. The agent's own git
/// directory in it is replaced: what it holds has to be taken before.
///
/// # Errors
/// The commit cannot be read or the folder cannot be written.
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

    // Which files git ignores and converts is said by the commit, not by what was left here.
    let rules: Vec<&Entry> = entries
        .iter()
        .filter(|entry| {
            let name = split(&entry.name).1;
            name == b".gitignore" || name == b".gitattributes"
        })
        .collect();
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

    let mut kept = std::collections::HashMap::new();
    for found in &walked.files {
        if let Some((kind, oid)) = tracked.entries.get(&found.path)
            && *kind == found.kind
            && cache.content(&found.path, found.kind, &found.signature) == Some(*oid)
        {
            kept.insert(found.path.as_slice(), found.signature);
        }
    }
    let missing: Vec<&Entry> =
        entries.iter().filter(|entry| !kept.contains_key(entry.name.as_slice())).collect();
    make_folders(root.as_fd(), &missing).map_err(failed("write in", worktree))?;
    let stats = write_all(control, worktree, root.as_fd(), &missing)?;
    let converted = write_converted(control, worktree, tree, &rules, &missing, &view)?;

    let mut fresh = StatCache::start_scan(control.path(), entries.len())?;
    let mut index = GitIndex { entries: Vec::with_capacity(entries.len()) };
    let mut written = missing.iter().zip(stats);
    for entry in &entries {
        let stat = if kept.contains_key(entry.name.as_slice()) {
            stat_beneath(root.as_fd(), &entry.name)
        } else {
            match written.next() {
                Some((entry, _)) if converted.contains(entry.name.as_slice()) => {
                    stat_beneath(root.as_fd(), &entry.name)
                }
                Some((_, Some(stat))) => Ok(stat),
                Some((entry, None)) => stat_beneath(root.as_fd(), &entry.name),
                None => Err(io::ErrorKind::NotFound.into()),
            }
        };
        let stat = stat.map_err(failed("look at", &worktree.join(OsStr::from_bytes(&entry.name))))?;
        index.add(entry, &stat);
        if entry.kind != EntryKind::Submodule {
            fresh.remember(entry.name.clone(), entry.kind, FileStat::of(&stat), entry.oid);
        }
    }
    fresh.finish_scan(control.path())?;
    let git = worktree.join(".git");
    create_git_dir(control, &git, branch, commit, base, identity).map_err(failed("write", &git))?;
    index.write(&git.join("index"))?;
    Ok(CheckoutStats { written: missing.len(), kept: kept.len(), removed, cache: fresh })
}

/// Writes a commit's files, and nothing else, as the folder `folder`.
///
/// # Errors
/// The commit cannot be read or the folder cannot be written.
pub fn export_tree(control: &ControlRepository, commit: Oid, folder: &Path) -> Result<(), GitError> {
    let parent = folder.parent().unwrap_or(Path::new("/"));
    let name = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let marker = control.path().join(format!("exported-{name}"));
    let wanted = format!("{commit} {}", folder.display());
    if folder.symlink_metadata().is_ok_and(|known| known.is_dir())
        && fs::read_to_string(&marker).is_ok_and(|known| known == wanted)
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
    drop(write_all(control, &new, root.as_fd(), &all)?);
    let old = parent.join(format!(".{name}.old"));
    remove_all(&old)?;
    if folder.symlink_metadata().is_ok() {
        fs::rename(folder, &old).map_err(GitError::file("rename", folder))?;
    }
    fs::rename(&new, folder).map_err(GitError::file("rename", &new))?;
    remove_all(&old)?;
    fs::write(&marker, wanted).map_err(GitError::file("write", &marker))
}

fn make_root(folder: &Path) -> Result<(), GitError> {
    match folder.symlink_metadata() {
        Ok(known) if known.is_dir() => return Ok(()),
        Ok(_) => fs::remove_file(folder).map_err(GitError::file("remove", folder))?,
        Err(_) => {}
    }
    fs::create_dir_all(folder).map_err(GitError::file("create", folder))
}

/// Removes a file, link or folder; links are not followed.
fn remove_all(path: &Path) -> Result<(), GitError> {
    let removed = match path.symlink_metadata() {
        Ok(known) if known.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(_) => Ok(()),
    };
    removed.map_err(GitError::file("remove", path))
}

fn remove_untracked(
    worktree: &Path,
    root: BorrowedFd<'_>,
    walked: &WalkResult,
    tracked: &Tracked,
    clean: CleanMode,
) -> Result<usize, GitError> {
    let mut unwanted: Vec<Vec<u8>> = walked.unsupported.clone();
    unwanted.extend(
        walked
            .files
            .iter()
            .filter(|found| !tracked.entries.contains_key(&found.path))
            .map(|f| f.path.clone()),
    );
    unwanted.extend(walked.nested.iter().map(|path| [path, b"/.git".as_slice()].concat()));
    match clean {
        CleanMode::Untracked => {}
        CleanMode::All => unwanted.extend(walked.ignored.iter().cloned()),
    }
    for path in &unwanted {
        let (folder, _) = split(path);
        // A folder that is no longer one was removed with what was in it.
        if open_below(root, folder).is_ok() {
            remove_all(&worktree.join(OsStr::from_bytes(path)))?;
        }
        let mut folder = folder;
        while !folder.is_empty() {
            let (above, name) = split(folder);
            let emptied = open_below(root, above)
                .is_ok_and(|above| unlinkat(&above, OsStr::from_bytes(name), AtFlags::REMOVEDIR).is_ok());
            if !emptied {
                break;
            }
            folder = above;
        }
    }
    Ok(unwanted.len())
}

/// Makes the folders of all entries, replacing what is in the way.
fn make_folders(root: BorrowedFd<'_>, entries: &[&Entry]) -> io::Result<()> {
    let mut folders = BTreeSet::new();
    for entry in entries {
        let folder = if entry.kind == EntryKind::Submodule { &entry.name[..] } else { split(&entry.name).0 };
        for (at, _) in folder.iter().enumerate().filter(|(_, byte)| **byte == b'/') {
            folders.insert(&folder[..at]);
        }
        if !folder.is_empty() {
            folders.insert(folder);
        }
    }
    let mut above: (&[u8], OwnedFd) = (&[], root.try_clone_to_owned()?);
    for folder in folders {
        let (parent, name) = split(folder);
        if above.0 != parent {
            above = (parent, open_below(root, parent)?);
        }
        match mkdirat(&above.1, OsStr::from_bytes(name), Mode::from_raw_mode(0o777)) {
            Ok(()) => {}
            Err(rustix::io::Errno::EXIST) => {
                if open_folder(above.1.as_fd(), name).is_err() {
                    unlinkat(&above.1, OsStr::from_bytes(name), AtFlags::empty())?;
                    mkdirat(&above.1, OsStr::from_bytes(name), Mode::from_raw_mode(0o777))?;
                }
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Writes entries on all processors; what the system says of each, in order.
fn write_all(
    control: &ControlRepository,
    worktree: &Path,
    root: BorrowedFd<'_>,
    entries: &[&Entry],
) -> Result<Vec<Option<Stat>>, GitError> {
    let threads = threads(entries.len());
    if threads == 1 {
        return write_batch(control.path(), root, entries);
    }
    let store = control.path();
    std::thread::scope(|scope| {
        let running: Vec<_> = entries
            .chunks(entries.len().div_ceil(threads).max(1))
            .map(|chunk| {
                scope.spawn(move || {
                    let root = open_root(worktree)?;
                    write_batch(store, root.as_fd(), chunk)
                })
            })
            .collect();
        let mut stats = Vec::with_capacity(entries.len());
        for thread in running {
            stats.extend(thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?);
        }
        Ok(stats)
    })
}

fn write_batch(
    control: &Path,
    root: BorrowedFd<'_>,
    entries: &[&Entry],
) -> Result<Vec<Option<Stat>>, GitError> {
    let repository = open_bare(control)?;
    let odb = repository.odb().map_err(GitError::library("open the object store"))?;
    let mut current: Option<(&[u8], OwnedFd)> = None;
    let mut stats = Vec::with_capacity(entries.len());
    for entry in entries {
        if entry.kind == EntryKind::Submodule {
            stats.push(None);
            continue;
        }
        let (folder, name) = split(&entry.name);
        let failed = || GitError::file("write", Path::new(OsStr::from_bytes(&entry.name)));
        let opened = match current.take() {
            Some((known, opened)) if known == folder => opened,
            Some(_) | None => open_below(root, folder).map_err(failed())?,
        };
        let object = odb.read(entry.oid).map_err(GitError::library(format!("read blob {}", entry.oid)))?;
        let stat = write_one(opened.as_fd(), name, entry.kind, object.data()).map_err(failed())?;
        stats.push(Some(stat));
        current = Some((folder, opened));
    }
    Ok(stats)
}

fn write_one(folder: BorrowedFd<'_>, name: &[u8], kind: EntryKind, data: &[u8]) -> io::Result<Stat> {
    let os_name = OsStr::from_bytes(name);
    for attempt in 0..2 {
        let made = if kind == EntryKind::Link {
            symlinkat(OsStr::from_bytes(data), folder, os_name)
                .and_then(|()| statat(folder, os_name, AtFlags::SYMLINK_NOFOLLOW))
                .map_err(io::Error::from)
        } else {
            let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let mode = if kind == EntryKind::Executable { 0o777 } else { 0o666 };
            openat(folder, os_name, flags, Mode::from_raw_mode(mode)).map_err(io::Error::from).and_then(
                |file| {
                    let mut file = File::from(file);
                    file.write_all(data)?;
                    Ok(fstat(&file)?)
                },
            )
        };
        match made {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && attempt == 0 => {
                remove_beneath(folder, name)?;
            }
            made => return made,
        }
    }
    Err(io::ErrorKind::AlreadyExists.into())
}

/// Removes whatever has a name in a folder, with all that is in it.
fn remove_beneath(folder: BorrowedFd<'_>, name: &[u8]) -> io::Result<()> {
    let os_name = OsStr::from_bytes(name);
    let stat = statat(folder, os_name, AtFlags::SYMLINK_NOFOLLOW)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
        return Ok(unlinkat(folder, os_name, AtFlags::empty())?);
    }
    let inner = open_folder(folder, name)?;
    let mut names = Vec::new();
    for entry in rustix::fs::Dir::read_from(&inner)? {
        names.push(entry?.file_name().to_bytes().to_vec());
    }
    for inside in names.iter().filter(|name| *name != b"." && *name != b"..") {
        remove_beneath(inner.as_fd(), inside)?;
    }
    Ok(unlinkat(folder, os_name, AtFlags::REMOVEDIR)?)
}

fn stat_beneath(root: BorrowedFd<'_>, path: &[u8]) -> io::Result<Stat> {
    let (folder, name) = split(path);
    let folder = open_below(root, folder)?;
    Ok(statat(&folder, OsStr::from_bytes(name), AtFlags::SYMLINK_NOFOLLOW)?)
}

/// Lets libgit2 write the files whose line ends or keywords git changes.
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
        let has = |name: &str, wanted: &[u8]| {
            let value = view.get_attr_bytes(path, name, AttrCheckFlags::FILE_THEN_INDEX);
            value.ok().flatten() == Some(wanted)
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

/// The index that git reads.
struct GitIndex {
    entries: Vec<IndexEntry>,
}

impl GitIndex {
    /// Git keeps the low 32 bits of each number.
    fn add(&mut self, entry: &Entry, stat: &Stat) {
        let mut new = super::snapshot::entry(&entry.name, entry.kind, entry.oid);
        new.ctime = IndexTime::new(stat.st_ctime as i32, stat.st_ctime_nsec as u32);
        new.mtime = IndexTime::new(stat.st_mtime as i32, stat.st_mtime_nsec as u32);
        new.dev = stat.st_dev as u32;
        new.ino = stat.st_ino as u32;
        new.uid = stat.st_uid;
        new.gid = stat.st_gid;
        new.file_size = if entry.kind == EntryKind::Submodule { 0 } else { stat.st_size as u32 };
        self.entries.push(new);
    }

    fn write(self, file: &Path) -> Result<(), GitError> {
        let fail = || GitError::library("write the index");
        let mut index = Index::open(file).map_err(fail())?;
        for entry in &self.entries {
            index.add(entry).map_err(fail())?;
        }
        index.write().map_err(fail())
    }
}

/// Makes the git directory that the agent uses.
fn create_git_dir(
    control: &ControlRepository,
    git: &Path,
    branch: &BranchName,
    commit: Oid,
    base: Option<(&BranchName, Oid)>,
    identity: &CommitIdentity,
) -> io::Result<()> {
    for folder in ["objects/info", "objects/pack", "refs/heads", "refs/tags", "info"] {
        fs::create_dir_all(git.join(folder))?;
    }
    let mut alternates = control.path().join("objects").into_os_string().into_encoded_bytes();
    alternates.push(b'\n');
    fs::write(git.join("objects/info/alternates"), alternates)?;
    if control.is_shallow() {
        fs::copy(control.path().join("shallow"), git.join("shallow"))?;
    }
    let set = |name: String, oid: Oid| -> io::Result<()> {
        let file = git.join(name);
        if let Some(folder) = file.parent() {
            fs::create_dir_all(folder)?;
        }
        fs::write(file, format!("{oid}\n"))
    };
    set(format!("refs/heads/{branch}"), commit)?;
    if let Some((name, oid)) = base {
        set(format!("refs/remotes/origin/{name}"), oid)?;
        fs::write(git.join("refs/remotes/origin/HEAD"), format!("ref: refs/remotes/origin/{name}\n"))?;
    }
    let quoted = |text: &str| text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', " ");
    fs::write(
        git.join("config"),
        format!(
            "[core]\n\trepositoryformatversion = 0\n\tfilemode = true\n\tbare = false\n\tlogallrefupdates = true\n\
             [user]\n\tname = \"{}\"\n\temail = \"{}\"\n[gc]\n\tauto = 0\n",
            quoted(&identity.name),
            quoted(&identity.email)
        ),
    )?;
    fs::write(git.join("HEAD"), format!("ref: refs/heads/{branch}\n"))
}
