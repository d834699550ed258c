//! Copies the tools of this image to a volume that other containers mount.

use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Component, Path, PathBuf};

use super::{VolumesError, failed, make_directory};
use crate::guest::BUILD_ID;

/// File that records which build was copied completely.
const MARKER: &str = ".build";

/// Directories that have a `bin` of their own, but are not the tools.
const SYSTEM: [&str; 3] = ["/", "/usr", "/usr/local"];

/// Copies the tools that `executable` is part of, unless they are there already.
///
/// An executable that is not in a directory `bin` is copied alone.
pub(super) fn copy_tools(executable: &Path, target: &Path) -> Result<(), VolumesError> {
    let marker = target.join(MARKER);
    if fs::read(&marker).is_ok_and(|build| build == BUILD_ID.as_bytes()) {
        return Ok(());
    }
    make_directory(target, 0o755)?;
    match executable.parent().filter(|bin| bin.ends_with("bin")).and_then(Path::parent) {
        Some(source) if SYSTEM.iter().any(|system| source == Path::new(system)) => {
            return Err(VolumesError::NotTools(source.to_owned()));
        }
        Some(source) => {
            if target.canonicalize().is_ok_and(|target| target.starts_with(source)) {
                return Err(VolumesError::NotTools(target.to_owned()));
            }
            copy_directory(source, source, target)?;
        }
        None => {
            let bin = target.join("bin");
            make_directory(&bin, 0o755)?;
            copy_file(executable, &bin.join("supervisor"))?;
        }
    }
    replace(&marker, |fresh| fs::write(fresh, BUILD_ID)).map_err(failed("write", &marker))
}

fn copy_directory(root: &Path, source: &Path, target: &Path) -> Result<(), VolumesError> {
    for entry in fs::read_dir(source).map_err(failed("read", source))? {
        let entry = entry.map_err(failed("read", source))?;
        let (from, to) = (entry.path(), target.join(entry.file_name()));
        let found = from.symlink_metadata().map_err(failed("read", &from))?;
        if found.is_dir() {
            make_directory(&to, 0o755)?;
            copy_directory(root, &from, &to)?;
            // Last, since a directory can be read-only.
            fs::set_permissions(&to, found.permissions()).map_err(failed("write", &to))?;
        } else if found.is_symlink() {
            copy_link(root, &from, &to)?;
        } else if found.is_file() && entry.file_name() != MARKER {
            copy_file(&from, &to)?;
        }
    }
    Ok(())
}

/// Copies a link that stays in the tools; nothing is read through it.
fn copy_link(root: &Path, from: &Path, to: &Path) -> Result<(), VolumesError> {
    let link = fs::read_link(from).map_err(failed("read", from))?;
    let path = from.parent().unwrap_or(root).join(&link);
    let mut normal = PathBuf::new();
    for component in path.components() {
        match component {
            Component::ParentDir => drop(normal.pop()),
            Component::CurDir => {}
            Component::Prefix(_) | Component::RootDir | Component::Normal(_) => normal.push(component),
        }
    }
    if !normal.starts_with(root) {
        return Err(VolumesError::LinkOut(from.to_owned()));
    }
    replace(to, |fresh| symlink(&link, fresh)).map_err(failed("write", to))
}

fn copy_file(from: &Path, to: &Path) -> Result<(), VolumesError> {
    // With its permissions.
    replace(to, |fresh| fs::copy(from, fresh).map(|_| ())).map_err(failed("write", to))
}

/// Makes an entry under another name and moves it to its own, so that it is complete or absent.
fn replace(path: &Path, make: impl FnOnce(&Path) -> io::Result<()>) -> io::Result<()> {
    let mut fresh = path.as_os_str().to_owned();
    fresh.push(".new");
    let fresh = PathBuf::from(fresh);
    match fs::remove_file(&fresh) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    make(&fresh)?;
    fs::rename(&fresh, path)
}
