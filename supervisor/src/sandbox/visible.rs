//! Decides what a new root directory contains: links, and directories and files of the machine.

use std::collections::{BTreeMap, VecDeque};
use std::ffi::{OsStr, OsString};
use std::path::{Component, Path, PathBuf};

/// Links to follow before a path counts as a loop, as in the kernel (`MAXSYMLINKS`).
const MAX_LINKS: usize = 40;

/// Directories that the sandbox makes itself.
const OWN: &[&str] = &["/dev", "/proc", "/tmp"];

/// What a new root directory contains, without links in any path.
#[derive(Debug, Default, Eq, PartialEq)]
pub(super) struct Visible {
    /// Links with their targets.
    pub(super) links: BTreeMap<PathBuf, PathBuf>,
    /// Paths of the machine, and whether they are writable. Parents come first.
    pub(super) trees: BTreeMap<PathBuf, bool>,
}

impl Visible {
    /// Finds the existing ones of the paths, with the links that lead to them.
    pub(super) fn find(readable: &[PathBuf], writable: &[PathBuf]) -> Self {
        let mut visible = Self::default();
        for (paths, is_writable) in [(readable, false), (writable, true)] {
            for path in paths {
                visible.add(path, is_writable);
            }
        }
        visible.simplify();
        visible
    }

    fn add(&mut self, path: &Path, is_writable: bool) {
        let Some(found) = self.resolve(path) else { return };
        if found.parent().is_none() {
            // The root directory itself is new.
            let entries = std::fs::read_dir("/").into_iter().flatten().flatten();
            for entry in entries.map(|entry| entry.path()) {
                if !OWN.iter().any(|own| Path::new(own) == entry) {
                    self.add(&entry, is_writable);
                }
            }
            return;
        }
        // Ours are made, not mounted.
        if ["/proc", "/dev"].iter().any(|own| found.starts_with(own)) || found == Path::new("/tmp") {
            return;
        }
        *self.trees.entry(found).or_default() |= is_writable;
    }

    /// Returns the path without links, and records the links on the way.
    fn resolve(&mut self, path: &Path) -> Option<PathBuf> {
        let mut rest: VecDeque<OsString> = names(path)?;
        let (mut found, mut links) = (PathBuf::from("/"), 0);
        while let Some(name) = rest.pop_front() {
            if name == OsStr::new("..") {
                found.pop();
                continue;
            }
            let next = found.join(&name);
            let data = std::fs::symlink_metadata(&next).ok()?;
            if !data.is_symlink() {
                found = next;
                continue;
            }
            links += 1;
            if links > MAX_LINKS {
                return None;
            }
            let target = std::fs::read_link(&next).ok()?;
            if target.is_absolute() {
                found = PathBuf::from("/");
            }
            self.links.insert(next, target.clone());
            let target = names(&target)?;
            rest = target.into_iter().chain(rest).collect();
        }
        Some(found)
    }

    /// Removes what is visible anyway: trees with the access of a parent, and links in trees.
    fn simplify(&mut self) {
        let trees = self.trees.clone();
        let parent = |path: &Path| path.ancestors().skip(1).find_map(|parent| trees.get(parent).copied());
        self.trees.retain(|path, is_writable| match parent(path) {
            // Readable in a writable directory is writable, as with Landlock.
            Some(true) => false,
            Some(false) => *is_writable,
            None => true,
        });
        self.links.retain(|path, _| parent(path).is_none());
    }
}

/// Returns the names of a path without `.` and the root; `None` for other kinds of paths.
fn names(path: &Path) -> Option<VecDeque<OsString>> {
    let mut names = VecDeque::new();
    for component in path.components() {
        match component {
            Component::RootDir | Component::CurDir => {}
            Component::ParentDir => names.push_back("..".into()),
            Component::Normal(name) => names.push_back(name.into()),
            Component::Prefix(_) => return None,
        }
    }
    Some(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_on_the_way_become_visible() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path().canonicalize().unwrap();
        let at = |name: &str| root.join(name);
        std::fs::create_dir_all(at("store/bin")).unwrap();
        std::fs::write(at("store/bin/tool"), "").unwrap();
        std::os::unix::fs::symlink("store/bin", at("bin")).unwrap();
        std::os::unix::fs::symlink(at("bin"), at("path")).unwrap();
        std::os::unix::fs::symlink(at("loop"), at("loop")).unwrap();
        let visible =
            Visible::find(&[at("path/tool"), at("missing"), at("loop"), at("store/../bin/tool")], &[]);
        assert_eq!(visible.trees, BTreeMap::from([(at("store/bin/tool"), false)]));
        let links =
            [(at("bin"), PathBuf::from("store/bin")), (at("loop"), at("loop")), (at("path"), at("bin"))];
        assert_eq!(visible.links, links.into());
    }

    #[test]
    fn paths_below_visible_ones_are_not_repeated() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path().canonicalize().unwrap();
        let at = |name: &str| root.join(name);
        for name in ["read/inner/write/read", "write/read"] {
            std::fs::create_dir_all(at(name)).unwrap();
        }
        let readable = ["read", "read/inner", "read/inner/write/read", "write/read"].map(at);
        let visible = Visible::find(&readable, &["write", "read/inner/write"].map(at));
        let expected = [(at("read"), false), (at("read/inner/write"), true), (at("write"), true)];
        assert_eq!(visible.trees, expected.into());
    }
}
