//! Adopts a volume whose root was the workspace of one container.
//!
//! Everything is renamed, nothing is deleted. The directory of the supervisor is emptied first and removed
//! last: while it exists, whatever is beside it belongs to the former layout.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, RenameFlags, renameat, renameat_with};
use rustix::io::Errno;

use super::{PRIVATE, SHARED, TREE, VolumesError, failed, make_directory};

/// The supervisor's directory of the former layout.
const FORMER: &str = ".orchestrator";

/// What a sandbox wrote, beside the supervisor's directory.
const WRITTEN: [&str; 4] = ["target-repo", "docs-repo", "agent", "verify"];

/// What the supervisor wrote and other containers read.
const READ: [&str; 3] = ["target.git", "docs.git", "caches"];

/// What the supervisor moved into its directory, but a sandbox wrote.
const MOVED: [&str; 2] = ["aside", "keep"];

/// Names that an entry may get if its own is taken.
const MAX_NAMES: u32 = 10_000;

/// Adopts the volume if it has the former layout; returns what is where now.
pub(super) fn adopt(volumes: &Path) -> Result<Vec<String>, VolumesError> {
    let former = volumes.join(FORMER);
    match former.symlink_metadata() {
        Ok(found) if found.is_dir() => {}
        Ok(_) => return Err(VolumesError::NotDirectory(former)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(failed("read", &former)(error)),
    }
    let [private, shared, tree] = [PRIVATE, SHARED, TREE].map(|name| volumes.join(name));
    let aside = tree.join("aside");
    for (directory, mode) in [(&private, 0o770), (&shared, 0o775), (&tree, 0o775), (&aside, 0o775)] {
        make_directory(directory, mode)?;
    }
    let mut notes = Vec::new();
    let mut note = |from: &Path, to: Option<PathBuf>| {
        notes.extend(to.map(|to| format!("moved `{}` to `{}`", from.display(), to.display())));
    };
    for name in WRITTEN {
        let from = volumes.join(name);
        note(&from, move_to(&from, &aside.join(format!("former-{name}")))?);
    }
    for name in MOVED {
        let from = former.join(name);
        note(&from, move_to(&from, &aside.join(format!("former-{name}")))?);
    }
    let platform = volumes.join("platform-repo");
    note(&platform, move_to(&platform, &shared.join("platform-repo"))?);
    for name in READ {
        move_to(&former.join(name), &shared.join(name))?;
    }
    move_content(&former, &private)?;
    for directory in [volumes, &private, &shared, &aside] {
        // What was moved is on disk before the sign of the former layout is gone.
        let synced = File::open(directory).and_then(|directory| directory.sync_all());
        synced.map_err(failed("write", directory))?;
    }
    fs::remove_dir(&former).map_err(failed("remove", &former))?;
    note(&former, Some(private));
    Ok(notes)
}

/// Moves the entries of a directory; directories that are in both are merged, one level deep.
fn move_content(from: &Path, to: &Path) -> Result<(), VolumesError> {
    for entry in read(from)? {
        let (source, target) = (from.join(&entry), to.join(&entry));
        if is_directory(&source) && is_directory(&target) {
            for inner in read(&source)? {
                move_to(&source.join(&inner), &target.join(&inner))?;
            }
            fs::remove_dir(&source).map_err(failed("remove", &source))?;
        } else {
            move_to(&source, &target)?;
        }
    }
    Ok(())
}

fn read(directory: &Path) -> Result<Vec<std::ffi::OsString>, VolumesError> {
    let entries = fs::read_dir(directory).map_err(failed("read", directory))?;
    entries.map(|entry| entry.map(|entry| entry.file_name()).map_err(failed("read", directory))).collect()
}

fn is_directory(path: &Path) -> bool {
    path.symlink_metadata().is_ok_and(|found| found.is_dir())
}

/// Renames an entry to a path that does not exist.
fn rename_to_free(from: &Path, to: &Path) -> Result<(), Errno> {
    match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        // Some network file systems have no such rename. Only this process writes the volume now.
        Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) if to.symlink_metadata().is_ok() => {
            Err(Errno::EXIST)
        }
        Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => renameat(CWD, from, CWD, to),
        renamed => renamed,
    }
}

/// Moves an entry without replacing another one; returns its new path, or `None` if there is no such entry.
fn move_to(from: &Path, to: &Path) -> Result<Option<PathBuf>, VolumesError> {
    let cannot = failed("move", from);
    for number in 1..MAX_NAMES {
        let mut name = to.as_os_str().to_owned();
        if number > 1 {
            name.push(format!(".former-{number}"));
        }
        let target = PathBuf::from(name);
        let rename = || rename_to_free(from, &target);
        let renamed = match rename() {
            // Linux asks for write permission on a directory that gets another parent.
            Err(Errno::ACCESS) if is_directory(from) => {
                fs::set_permissions(from, fs::Permissions::from_mode(0o755)).map_err(&cannot)?;
                rename()
            }
            renamed => renamed,
        };
        match renamed {
            Ok(()) => return Ok(Some(target)),
            Err(Errno::NOENT) => return Ok(None),
            Err(Errno::EXIST) => {}
            Err(error) => return Err(cannot(error.into())),
        }
    }
    Err(cannot(io::ErrorKind::AlreadyExists.into()))
}
