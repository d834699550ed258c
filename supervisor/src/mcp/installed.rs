//! Checks which programs and toolchains are installed.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

/// Returns the path of an executable: absolute, or found in a search path.
#[must_use]
pub fn find_command(command: &str, search_path: &OsStr) -> Option<PathBuf> {
    use std::os::unix::fs::PermissionsExt as _;
    let is_executable = |path: &PathBuf| {
        std::fs::metadata(path).is_ok_and(|data| data.is_file() && data.permissions().mode() & 0o111 != 0)
    };
    if command.starts_with('/') {
        return Some(PathBuf::from(command)).filter(is_executable);
    }
    let directories = std::env::split_paths(search_path).filter(|directory| directory.is_absolute());
    directories.map(|directory| directory.join(command)).find(is_executable)
}

/// Returns whether rustup has this toolchain, such as `nightly`, for any host triple.
#[must_use]
pub fn has_toolchain(rustup_home: &Path, toolchain: &str) -> bool {
    let Ok(entries) = std::fs::read_dir(rustup_home.join("toolchains")) else { return false };
    entries
        .flatten()
        .any(|entry| entry.file_name().to_str().is_some_and(|name| is_toolchain(name, toolchain)))
}

/// Returns whether a directory of rustup is that of a toolchain such as `nightly`, for any host triple.
#[must_use]
pub fn is_toolchain(directory: &str, toolchain: &str) -> bool {
    let rest = directory.strip_prefix(toolchain);
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn toolchain_is_found_by_channel() {
        let home = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(home.path().join("toolchains/nightly-x86_64-unknown-linux-gnu")).unwrap();
        assert!(has_toolchain(home.path(), "nightly"));
        assert!(!has_toolchain(home.path(), "stable"));
        assert!(!has_toolchain(Path::new("/nonexistent"), "nightly"));
    }

    #[test]
    fn find_command_returns_executables_only() {
        let path = OsStr::new("relative:/nonexistent:/bin");
        assert_eq!(find_command("sh", path), Some(PathBuf::from("/bin/sh")));
        assert_eq!(find_command("/etc/passwd", path), None);
        assert_eq!(find_command("no-such-program", path), None);
    }
}
