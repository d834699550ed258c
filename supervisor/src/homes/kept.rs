//! Stores the files that an MCP server keeps across the tasks of a service.

use std::fs::File;
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use super::beneath::read_file;
use super::home::Home;

/// Maximum size of a kept file.
pub const KEPT_MAX_BYTES: u64 = 16 * 1024 * 1024;

/// Name of the home directory in a fresh directory.
const HOME: &str = "home";

/// Record of the home that a server runs in; a kept file has no such name.
const RECORD: &str = ".home";

/// Copies the stored files of a server into its fresh home, and records the home for a later run.
///
/// # Errors
/// Returns an error if a stored file cannot be copied, or if the home has such a file already.
pub fn restore(store: &Path, names: &[String], home: &Home) -> io::Result<()> {
    if names.is_empty() {
        return Ok(());
    }
    let record =
        std::iter::once(&home.name()).chain(names).fold(String::new(), |text, line| text + line + "\n");
    crate::record::file::write_atomically(&store.join(RECORD), record.as_bytes())?;
    let directory = home.home();
    for name in names {
        let mut source = match File::open(store.join(name)) {
            Ok(source) => source,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        let target = File::options().write(true).create_new(true).mode(0o600).open(directory.join(name));
        io::copy(&mut source, &mut target?)?;
    }
    Ok(())
}

/// Stores the files of servers whose run was killed, and forgets their homes.
///
/// `stores` has one directory for each server, `homes` the fresh directories. Returns what was not
/// stored, with the cause.
#[must_use]
pub fn collect_leftovers(stores: &Path, homes: &Path) -> Vec<String> {
    let mut problems = Vec::new();
    for store in std::fs::read_dir(stores).into_iter().flatten().flatten() {
        let record = store.path().join(RECORD);
        let Ok(text) = std::fs::read_to_string(&record) else { continue };
        let mut lines = text.lines().map(str::to_owned);
        if let Some(home) = lines.next().and_then(|name| Home::named(homes, &name)) {
            problems.extend(collect(&store.path(), &lines.collect::<Vec<_>>(), &home));
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
pub fn collect(store: &Path, names: &[String], home: &Home) -> Vec<String> {
    let mut problems = Vec::new();
    for name in names {
        let stored = match read_file(home.folder(), &Path::new(HOME).join(name), KEPT_MAX_BYTES) {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kept_files_are_named_ones_without_links() {
        let folder = tempfile::tempdir().unwrap();
        let store = folder.path().join("kept/memory");
        let create = || Home::create(folder.path()).unwrap();
        let (first, second, third) = (create(), create(), create());
        let names = ["memory.json".to_owned(), "other.json".to_owned()];
        restore(&store, &names, &first).unwrap();
        std::fs::write(first.home().join("memory.json"), "notes").unwrap();
        std::fs::write(first.home().join("unnamed.json"), "lost").unwrap();
        assert_eq!(collect(&store, &names, &first), Vec::<String>::new());
        restore(&store, &names, &second).unwrap();
        let memory = second.home().join("memory.json");
        assert_eq!(std::fs::read_dir(second.home()).unwrap().count(), 1);
        assert_eq!(std::fs::read_to_string(&memory).unwrap(), "notes");
        // A planted link neither reads nor replaces anything.
        std::fs::remove_file(&memory).unwrap();
        std::os::unix::fs::symlink("/etc/passwd", &memory).unwrap();
        let problems = collect(&store, &names, &second);
        assert_eq!(problems, ["`memory.json` is not kept: it is not a regular file in a plain directory"]);
        assert_eq!(std::fs::read_to_string(store.join("memory.json")).unwrap(), "notes");
        assert!(restore(&store, &names, &second).is_err());
        // The home itself is a link to another one.
        std::fs::remove_dir_all(third.home()).unwrap();
        std::os::unix::fs::symlink(first.home(), third.home()).unwrap();
        std::fs::write(first.home().join("memory.json"), "replaced").unwrap();
        assert_eq!(collect(&store, &names, &third).len(), 2);
        assert_eq!(std::fs::read_to_string(store.join("memory.json")).unwrap(), "notes");
    }

    #[test]
    fn files_of_killed_run_are_kept() {
        let folder = tempfile::tempdir().unwrap();
        let stores = folder.path().join("kept");
        let home = Home::create(folder.path()).unwrap();
        restore(&stores.join("memory"), &["memory.json".to_owned()], &home).unwrap();
        std::fs::write(home.home().join("memory.json"), "notes").unwrap();
        assert_eq!(collect_leftovers(&stores, folder.path()), Vec::<String>::new());
        let next = Home::create(folder.path()).unwrap();
        restore(&stores.join("memory"), &["memory.json".to_owned()], &next).unwrap();
        assert_eq!(std::fs::read_to_string(next.home().join("memory.json")).unwrap(), "notes");
    }
}
