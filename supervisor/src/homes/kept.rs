//! Stores the files that an MCP server keeps across the tasks of a service.

use std::io;
use std::path::Path;

use super::home::Home;
use super::read::{ReadError, read_file};
use crate::guest::{Guest, WriteKind};

/// Maximum size of a kept file.
pub const KEPT_MAX_BYTES: u64 = 16 * 1024 * 1024;

/// Record of the home that a server runs in; a kept file has no such name.
const RECORD: &str = ".home";

/// Copies the stored files of a server into its fresh home, and records the home for a later run.
///
/// # Errors
/// Returns an error if a stored file cannot be copied.
pub fn restore(store: &Path, names: &[String], home: &Home, guest: &Guest) -> Result<(), ReadError> {
    if names.is_empty() {
        return Ok(());
    }
    let record =
        std::iter::once(&home.name()).chain(names).fold(String::new(), |text, line| text + line + "\n");
    crate::record::file::write_atomically(&store.join(RECORD), record.as_bytes())?;
    for name in names {
        let content = match std::fs::read(store.join(name)) {
            Ok(content) => content,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error.into()),
        };
        guest.write_one(&home.home().join(name), WriteKind::File, &content)??;
    }
    Ok(())
}

/// Stores the files of servers whose run was killed, and forgets their homes.
///
/// `stores` has one directory for each server, `homes` the fresh directories. Returns what was not
/// stored, with the cause.
#[must_use]
pub fn collect_leftovers(stores: &Path, homes: &Path, guest: &Guest) -> Vec<String> {
    let mut problems = Vec::new();
    for store in std::fs::read_dir(stores).into_iter().flatten().flatten() {
        let record = store.path().join(RECORD);
        let Ok(text) = std::fs::read_to_string(&record) else { continue };
        let mut lines = text.lines().map(str::to_owned);
        if let Some(home) = lines.next().and_then(|name| Home::named(homes, &name)) {
            problems.extend(collect(&store.path(), &lines.collect::<Vec<_>>(), &home, guest));
        }
        drop(std::fs::remove_file(&record));
    }
    problems
}

/// Stores the files of a server whose processes have exited.
///
/// A file that is missing, a link, not regular or larger than [`KEPT_MAX_BYTES`] is not stored;
/// what was stored before stays. Returns what was not stored, with the cause.
#[must_use]
pub fn collect(store: &Path, names: &[String], home: &Home, guest: &Guest) -> Vec<String> {
    let mut problems = Vec::new();
    for name in names {
        let path = home.home().join(name);
        let path = guest.relative(&path).unwrap_or_default();
        let stored = match read_file(guest, path, KEPT_MAX_BYTES) {
            Ok(None) => continue,
            Ok(Some(content)) => {
                let target = store.join(name);
                // An unchanged file is not written again: each write waits for the disk.
                match std::fs::read(&target).is_ok_and(|before| before == content) {
                    true => continue,
                    false => crate::record::file::write_atomically(&target, &content)
                        .map_err(|error| error.to_string()),
                }
            }
            Err(error) => Err(error.to_string()),
        };
        if let Err(why) = stored {
            problems.push(format!("`{name}` is not kept: {why}"));
        }
    }
    problems
}
