//! Records the commit that the program is built from, for `dispatcher version`.
//!
//! `ORCHESTRATOR_COMMIT` states it where there is no clone. A debug build does not read it from the clone: it
//! would be built again after each commit.

use std::fs;
use std::path::{Path, PathBuf};

#[expect(clippy::disallowed_methods, reason = "a build script has no config.rs")]
fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=ORCHESTRATOR_COMMIT");
    let variable = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
    let is_release = variable("PROFILE").as_deref() == Some("release");
    let commit = variable("ORCHESTRATOR_COMMIT").or_else(|| is_release.then(checked_out_commit).flatten());
    let commit = commit.filter(|commit| commit.chars().all(|c| c.is_ascii_alphanumeric()));
    let commit = commit.map_or("unknown".to_owned(), |commit| commit.chars().take(12).collect());
    println!("cargo::rustc-env=ORCHESTRATOR_BUILD_COMMIT={commit}");
}

/// Reads the commit that is checked out, without the git program.
fn checked_out_commit() -> Option<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent()?;
    let git = git_dir(&root.join(".git"))?;
    let head = read(&git.join("HEAD"))?;
    let Some(name) = head.strip_prefix("ref: ") else { return Some(head) };
    let common = read(&git.join("commondir")).map_or(git.clone(), |common| git.join(common));
    read(&common.join(name)).or_else(|| {
        let packed = read(&common.join("packed-refs"))?;
        let line = packed.lines().find_map(|line| line.strip_suffix(name))?;
        Some(line.trim().to_owned())
    })
}

/// Returns the git directory; in a linked worktree, `.git` is a file that names it.
fn git_dir(dot_git: &Path) -> Option<PathBuf> {
    if dot_git.is_dir() {
        return Some(dot_git.to_owned());
    }
    Some(PathBuf::from(read(dot_git)?.strip_prefix("gitdir: ")?))
}

/// Returns a file's text; cargo runs this program again when the file changes.
fn read(file: &Path) -> Option<String> {
    let text = fs::read_to_string(file).ok()?;
    println!("cargo::rerun-if-changed={}", file.display());
    Some(text.trim().to_owned())
}
