//! File operations on one opened folder, relative to it and never through a link.
//!
//! The guest performs them on a worktree. The supervisor uses them on folders of its own.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use rustix::fs::{
    AtFlags, Dir, Mode, OFlags, RenameFlags, fstat, fsync, mkdirat, openat, readlinkat, renameat_with,
    symlinkat, unlinkat,
};
use rustix::io::Errno;

use super::beneath::{make_accessible, open_beneath, open_parent, open_root, split, stat_at};
use super::message::{MAX_RULE_BYTES, Movable, NodeKind, NodeStat, WriteKind};
use crate::git::remove::remove_at;

/// Opened folder.
pub(crate) struct Tree {
    root: OwnedFd,
}

/// Parent folder of the last path, so that siblings do not open it again.
#[derive(Default)]
pub(crate) struct LastParent {
    last: Option<(Vec<u8>, OwnedFd)>,
}

impl LastParent {
    /// Returns the opened parent folder of an entry.
    pub(crate) fn open(&mut self, tree: &Tree, folder: &[u8]) -> io::Result<BorrowedFd<'_>> {
        let opened = match self.last.take() {
            Some((path, opened)) if path == folder => opened,
            Some(_) | None => tree.parent(folder)?,
        };
        Ok(self.last.insert((folder.to_vec(), opened)).1.as_fd())
    }
}

/// Result of opening a file to read.
pub(crate) enum OpenedFile {
    Content(Content, NodeStat),
    NotRegular,
    TooLarge,
}

/// What to read of an entry.
pub(crate) enum Content {
    File(File),
    /// Target of a link.
    Link(Vec<u8>),
}

impl Tree {
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        Ok(Self { root: open_root(path)? })
    }

    /// Returns the opened folder itself.
    pub(crate) fn root(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }

    /// Opens a folder as the parent of entries; gives the owner access where it has none.
    fn parent(&self, folder: &[u8]) -> io::Result<OwnedFd> {
        match open_parent(self.root.as_fd(), folder) {
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                self.repair(folder)?;
                open_parent(self.root.as_fd(), folder)
            }
            opened => opened,
        }
    }

    /// Gives the owner access to each folder of a path.
    fn repair(&self, folder: &[u8]) -> io::Result<()> {
        let ends = folder.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(at, _)| at);
        for end in ends.chain([folder.len()]) {
            let (parent, name) = split(&folder[..end]);
            let parent = open_parent(self.root.as_fd(), parent)?;
            let mode = stat_at(parent.as_fd(), name)?.st_mode;
            if mode & 0o700 != 0o700 {
                make_accessible(parent.as_fd(), name)?;
            }
        }
        Ok(())
    }

    /// Calls `each` with the name and stat of every entry of a folder.
    ///
    /// An entry that disappears meanwhile is skipped.
    pub(crate) fn list(
        &self,
        folder: &[u8],
        mut each: impl FnMut(BorrowedFd<'_>, &[u8], &NodeStat) -> io::Result<()>,
    ) -> io::Result<()> {
        let open = || open_beneath(self.root.as_fd(), folder, OFlags::RDONLY | OFlags::DIRECTORY);
        let opened = match open() {
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied && !folder.is_empty() => {
                self.repair(folder)?;
                open()
            }
            opened => opened,
        }?;
        let mut searchable = false;
        for entry in Dir::read_from(&opened)? {
            let entry = entry?;
            let name = entry.file_name().to_bytes();
            if name == b"." || name == b".." {
                continue;
            }
            let stat = match stat_at(opened.as_fd(), name) {
                Err(error)
                    if error.kind() == io::ErrorKind::PermissionDenied
                        && !searchable
                        && !folder.is_empty() =>
                {
                    // Readable but not searchable.
                    searchable = true;
                    self.repair(folder)?;
                    stat_at(opened.as_fd(), name)
                }
                stat => stat,
            };
            match stat {
                Ok(stat) => each(opened.as_fd(), name, &NodeStat::of(&stat))?,
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Opens a regular file, or reads a link.
    pub(crate) fn read(
        &self,
        parents: &mut LastParent,
        path: &[u8],
        link: bool,
        limit: u64,
    ) -> io::Result<OpenedFile> {
        let (folder, name) = split(path);
        let folder = parents.open(self, folder)?;
        if link {
            let stat = NodeStat::of(&stat_at(folder, name)?);
            if stat.kind() != NodeKind::Link {
                return Ok(OpenedFile::NotRegular);
            }
            let target = readlinkat(folder, OsStr::from_bytes(name), Vec::new())?.into_bytes();
            return Ok(OpenedFile::Content(Content::Link(target), stat));
        }
        open_file(folder, name, limit)
    }

    /// Returns the stat of an entry, not of what it links to.
    pub(crate) fn stat(&self, parents: &mut LastParent, path: &[u8]) -> io::Result<NodeStat> {
        let (folder, name) = split(path);
        Ok(NodeStat::of(&stat_at(parents.open(self, folder)?, name)?))
    }

    /// Creates folders, parents first; replaces anything else in their place.
    pub(crate) fn make_folders<'p>(&self, folders: impl Iterator<Item = &'p [u8]>) -> io::Result<()> {
        let mut parents = LastParent::default();
        for folder in folders {
            let (parent, name) = split(folder);
            let parent = parents.open(self, parent)?;
            let make = || mkdirat(parent, OsStr::from_bytes(name), Mode::from_raw_mode(0o777));
            match make() {
                Ok(()) => {}
                Err(Errno::EXIST) => {
                    let stat = stat_at(parent, name)?;
                    if NodeStat::of(&stat).kind() != NodeKind::Folder {
                        unlinkat(parent, OsStr::from_bytes(name), AtFlags::empty())?;
                        make()?;
                    } else if stat.st_mode & 0o700 != 0o700 {
                        make_accessible(parent, name)?;
                    }
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Creates a folder that did not exist, for its owner only.
    pub(crate) fn create_folder(&self, folder: &[u8]) -> io::Result<()> {
        let (parent, name) = split(folder);
        Ok(mkdirat(&self.parent(parent)?, OsStr::from_bytes(name), Mode::RWXU)?)
    }

    /// Moves an entry as a whole to a path that does not exist, and waits for the disk.
    pub(crate) fn move_entry(&self, from: &[u8], to: &[u8], what: Movable) -> io::Result<()> {
        let ((from_folder, name), (to_folder, new_name)) = (split(from), split(to));
        let (from_folder, to_folder) = (self.parent(from_folder)?, self.parent(to_folder)?);
        let kind = NodeStat::of(&stat_at(from_folder.as_fd(), name)?).kind();
        if what == Movable::Folder && kind != NodeKind::Folder {
            return Err(Errno::NOTDIR.into());
        }
        let (name_in_from, name_in_to) = (OsStr::from_bytes(name), OsStr::from_bytes(new_name));
        let rename =
            || renameat_with(&from_folder, name_in_from, &to_folder, name_in_to, RenameFlags::NOREPLACE);
        match rename() {
            // Linux asks for write permission on a folder that gets another parent.
            Err(Errno::ACCESS) if kind == NodeKind::Folder => {
                make_accessible(from_folder.as_fd(), name)?;
                rename()?;
            }
            renamed => renamed?,
        }
        for folder in [&from_folder, &to_folder] {
            // After a crash the entry is in one of both places.
            let opened = openat(folder, c".", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
            let _ = opened.and_then(|opened| fsync(&opened));
        }
        Ok(())
    }

    /// Creates a file or link, replacing anything in its place; returns its stat.
    pub(crate) fn write(
        &self,
        parents: &mut LastParent,
        path: &[u8],
        kind: WriteKind,
        content: &mut dyn FnMut(&mut File) -> io::Result<()>,
        target: &[u8],
    ) -> io::Result<NodeStat> {
        let (folder, name) = split(path);
        let folder = parents.open(self, folder)?;
        let os_name = OsStr::from_bytes(name);
        let mode = match kind {
            WriteKind::Link => {
                replacing(folder, name, || symlinkat(OsStr::from_bytes(target), folder, os_name))?;
                return Ok(NodeStat::of(&stat_at(folder, name)?));
            }
            WriteKind::File => 0o666,
            WriteKind::Executable => 0o777,
        };
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let open = || openat(folder, os_name, flags, Mode::from_raw_mode(mode));
        let mut file = File::from(replacing(folder, name, open)?);
        content(&mut file)?;
        Ok(NodeStat::of(&fstat(&file)?))
    }

    /// Removes an entry with everything below; optionally also folders that this empties.
    pub(crate) fn remove(&self, path: &[u8], prune: bool) -> io::Result<()> {
        let (folder, name) = split(path);
        match self.parent(folder) {
            Ok(parent) => remove_at(parent.as_fd(), name)?,
            // Removed together with its folder.
            Err(error) if is_absent(&error) => {}
            Err(error) => return Err(error),
        }
        let mut folder = folder;
        while prune && !folder.is_empty() {
            let (parent, name) = split(folder);
            let emptied = self
                .parent(parent)
                .is_ok_and(|parent| unlinkat(&parent, OsStr::from_bytes(name), AtFlags::REMOVEDIR).is_ok());
            if !emptied {
                break;
            }
            folder = parent;
        }
        Ok(())
    }
}

fn is_absent(error: &io::Error) -> bool {
    let number = error.raw_os_error();
    [Errno::NOENT, Errno::NOTDIR, Errno::LOOP].iter().any(|errno| number == Some(errno.raw_os_error()))
}

/// Opens a regular file without waiting for anything.
fn open_file(folder: BorrowedFd<'_>, name: &[u8], limit: u64) -> io::Result<OpenedFile> {
    // Non-blocking, for a named pipe or a device in the place of a file.
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let open = || openat(folder, OsStr::from_bytes(name), flags, Mode::empty());
    let opened = match open() {
        Err(Errno::ACCESS) => {
            make_accessible(folder, name)?;
            open()
        }
        // A link or a socket.
        Err(Errno::LOOP | Errno::NXIO) => return Ok(OpenedFile::NotRegular),
        opened => opened,
    }?;
    let stat = NodeStat::of(&fstat(&opened)?);
    if stat.kind() != NodeKind::File {
        return Ok(OpenedFile::NotRegular);
    }
    if stat.size > limit {
        return Ok(OpenedFile::TooLarge);
    }
    Ok(OpenedFile::Content(Content::File(File::from(opened)), stat))
}

/// Reads the rules of a folder that is being listed; `None` if the file is no rule file.
pub(crate) fn read_rules(folder: BorrowedFd<'_>, name: &[u8], stat: &NodeStat) -> Option<Vec<u8>> {
    let is_rules = name == b".gitignore" || name == b".gitattributes";
    if !is_rules || stat.kind() != NodeKind::File {
        return None;
    }
    let Ok(OpenedFile::Content(Content::File(file), _)) = open_file(folder, name, MAX_RULE_BYTES) else {
        return None;
    };
    let mut content = Vec::new();
    file.take(MAX_RULE_BYTES).read_to_end(&mut content).ok()?;
    Some(content)
}

/// Creates an entry; if there is one already, removes it and tries again.
fn replacing<T>(
    folder: BorrowedFd<'_>,
    name: &[u8],
    create: impl Fn() -> rustix::io::Result<T>,
) -> io::Result<T> {
    match create() {
        Err(Errno::EXIST) => {
            remove_at(folder, name)?;
            Ok(create()?)
        }
        created => Ok(created?),
    }
}
