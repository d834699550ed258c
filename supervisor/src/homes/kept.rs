//! Stores the files that an MCP server keeps across the tasks of a service.

use std::fs::File;
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use super::beneath::read_file;

/// Maximum size of a kept file.
pub const KEPT_MAX_BYTES: u64 = 16 * 1024 * 1024;

/// Copies the stored files of a server into its fresh directory.
///
/// # Errors
/// Returns an error if a stored file cannot be copied, or if the directory has such a file already.
pub fn restore(store: &Path, names: &[String], directory: &Path) -> io::Result<()> {
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

/// Stores the files of a server whose processes have exited.
///
/// A file that is missing, a link, not regular or larger than [`KEPT_MAX_BYTES`] is not stored;
/// what was stored before stays. Returns what was not stored, with the cause.
#[must_use]
pub fn collect(store: &Path, names: &[String], directory: &Path) -> Vec<String> {
    let mut problems = Vec::new();
    for name in names {
        let stored = match read_file(directory, Path::new(name), KEPT_MAX_BYTES) {
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
        let path = |name: &str| folder.path().join(name);
        let (store, first, second) = (path("kept/memory"), path("first"), path("second"));
        for folder in [&first, &second] {
            std::fs::create_dir(folder).unwrap();
        }
        let names = ["memory.json".to_owned(), "other.json".to_owned()];
        restore(&store, &names, &first).unwrap();
        std::fs::write(first.join("memory.json"), "notes").unwrap();
        std::fs::write(first.join("unnamed.json"), "lost").unwrap();
        assert_eq!(collect(&store, &names, &first), Vec::<String>::new());
        restore(&store, &names, &second).unwrap();
        assert_eq!(std::fs::read_dir(&second).unwrap().count(), 1);
        assert_eq!(std::fs::read_to_string(second.join("memory.json")).unwrap(), "notes");
        // A planted link neither reads nor replaces anything.
        std::fs::remove_file(second.join("memory.json")).unwrap();
        std::os::unix::fs::symlink("/etc/passwd", second.join("memory.json")).unwrap();
        let problems = collect(&store, &names, &second);
        assert_eq!(problems, ["`memory.json` is not kept: it is not a regular file in a plain directory"]);
        assert_eq!(std::fs::read_to_string(store.join("memory.json")).unwrap(), "notes");
        assert!(restore(&store, &names, &second).is_err());
    }
}
