//! Renders the changes of a branch as a patch for people.

use git2::{DiffFormat, DiffOptions, ErrorCode, Oid};

use super::control::ControlRepository;
use super::error::GitError;

/// Larger blobs are shown as "binary files differ": such a patch is not readable.
const MAX_BLOB_BYTES: i64 = 512 * 1024;

/// Changes between two commits.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Patch {
    /// Unified diff, truncated at the end of a line.
    pub text: Vec<u8>,
    /// Number of files that differ.
    pub files: usize,
    /// Whether `text` is incomplete.
    pub truncated: bool,
}

impl ControlRepository {
    /// Returns the changes from one commit to another, truncated to `max_bytes`.
    ///
    /// # Errors
    /// Returns an error if a commit or a blob cannot be read.
    pub fn patch(&self, from: Oid, to: Oid, max_bytes: usize) -> Result<Patch, GitError> {
        let fail = || GitError::library(format!("compare {from} with {to}"));
        let old = self.commit_object(from)?.tree().map_err(fail())?;
        let new = self.commit_object(to)?.tree().map_err(fail())?;
        let mut options = DiffOptions::new();
        options.max_size(MAX_BLOB_BYTES);
        let diff =
            self.repository.diff_tree_to_tree(Some(&old), Some(&new), Some(&mut options)).map_err(fail())?;
        let mut text = Vec::new();
        let mut is_cut = false;
        let printed = diff.print(DiffFormat::Patch, |_, _, line| {
            let origin = line.origin();
            // libgit2 passes headers as they are, but content lines without their sign.
            let sign = matches!(origin, '+' | '-' | ' ').then_some(origin as u8);
            is_cut = text.len() + line.content().len() + 1 > max_bytes;
            if !is_cut {
                text.extend(sign);
                text.extend_from_slice(line.content());
            }
            !is_cut
        });
        match printed {
            Ok(()) => {}
            Err(error) if is_cut && error.code() == ErrorCode::User => {}
            Err(error) => return Err(fail()(error)),
        }
        Ok(Patch { text, files: diff.deltas().len(), truncated: is_cut })
    }
}

#[cfg(test)]
mod tests {
    use orchestrator_contract::RepositoryUrl;
    use orchestrator_contract::task::CommitIdentity;

    use super::*;
    use crate::git::control::NewCommit;

    fn control() -> (tempfile::TempDir, ControlRepository) {
        crate::git::init::init().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let url = RepositoryUrl::new("https://github.com/acme/trader.git").unwrap();
        let opened = ControlRepository::open(&folder.path().join("target.git"), &url).unwrap();
        (folder, opened.into_repository())
    }

    fn commit(control: &ControlRepository, parents: &[Oid], files: &[(&str, &str)]) -> Oid {
        let mut tree = control.repository.treebuilder(None).unwrap();
        for (name, text) in files {
            let blob = control.repository.blob(text.as_bytes()).unwrap();
            tree.insert(name, blob, 0o100_644).unwrap();
        }
        let who = CommitIdentity { name: "A".to_owned(), email: "a@example.com".to_owned() };
        let tree = tree.write().unwrap();
        let new = NewCommit { tree, parents, author: &who, committer: &who, message: "m", seconds: 0 };
        control.commit(&new).unwrap()
    }

    #[test]
    fn patch_contains_added_removed_lines() {
        let (_folder, control) = control();
        let old = commit(&control, &[], &[("a.txt", "one\ntwo\n")]);
        let new = commit(&control, &[old], &[("a.txt", "one\n2\n"), ("b.bin", "\0\u{1}")]);
        let patch = control.patch(old, new, 10_000).unwrap();
        let text = String::from_utf8(patch.text).unwrap();
        assert!(text.contains("--- a/a.txt\n+++ b/a.txt\n@@ -1,2 +1,2 @@\n one\n-two\n+2\n"), "{text}");
        assert!(text.contains("Binary files /dev/null and b/b.bin differ"), "{text}");
        assert_eq!((patch.files, patch.truncated), (2, false));
    }

    #[test]
    fn long_patch_is_truncated_at_line_end() {
        let (_folder, control) = control();
        let old = commit(&control, &[], &[("a.txt", "")]);
        let new = commit(&control, &[old], &[("a.txt", &"a line\n".repeat(1000))]);
        let patch = control.patch(old, new, 500).unwrap();
        assert!(patch.truncated && patch.text.len() <= 500, "{} bytes", patch.text.len());
        assert!(patch.text.ends_with(b"+a line\n"));
    }
}
