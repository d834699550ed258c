//! Exports commits as a patch or as a bundle, and builds changed trees.

use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::Path;

use git2::{DiffFormat, DiffOptions, Index, Oid};

use super::control::ControlRepository;
use super::error::GitError;

impl ControlRepository {
    /// Writes the changes from `base` to `head` as a patch for `git apply`.
    ///
    /// # Errors
    /// Returns an error if a commit cannot be read or the file cannot be written.
    pub fn write_patch(&self, base: Oid, head: Oid, file: &Path) -> Result<(), GitError> {
        let fail = || GitError::library(format!("compare {head} with {base}"));
        let old = self.commit_object(base)?.tree().map_err(fail())?;
        let new = self.commit_object(head)?.tree().map_err(fail())?;
        let mut options = DiffOptions::new();
        options.show_binary(true).id_abbrev(40);
        let diff =
            self.repository.diff_tree_to_tree(Some(&old), Some(&new), Some(&mut options)).map_err(fail())?;
        let mut out = BufWriter::new(File::create(file).map_err(GitError::file("create", file))?);
        let mut written = Ok(());
        let printed = diff.print(DiffFormat::Patch, |_, _, line| {
            let origin = line.origin();
            written = (|| {
                if matches!(origin, '+' | '-' | ' ') {
                    out.write_all(&[origin as u8])?;
                }
                out.write_all(line.content())
            })();
            written.is_ok()
        });
        written.map_err(GitError::file("write", file))?;
        printed.map_err(fail())?;
        finish(out, file)
    }

    /// Returns the tree of `head` with the given paths reverted to `base`.
    ///
    /// # Errors
    /// Returns an error if a commit cannot be read or the tree cannot be written.
    pub fn tree_reverting(&self, head: Oid, base: Oid, paths: &[String]) -> Result<Oid, GitError> {
        let fail = || GitError::library(format!("revert paths of {head}"));
        let old = self.commit_object(base)?.tree().map_err(fail())?;
        let new = self.commit_object(head)?.tree().map_err(fail())?;
        let (mut before, mut index) = (Index::new().map_err(fail())?, Index::new().map_err(fail())?);
        before.read_tree(&old).map_err(fail())?;
        index.read_tree(&new).map_err(fail())?;
        for path in paths {
            let path = Path::new(path);
            index.remove(path, 0).map_err(fail())?;
            if let Some(entry) = before.get_path(path, 0) {
                index.add(&entry).map_err(fail())?;
            }
        }
        index.write_tree_to(&self.repository).map_err(fail())
    }

    /// Returns the tree of a commit with the given files (path and content) added or replaced.
    ///
    /// # Errors
    /// Returns an error if a parent of a path is not a directory or the tree cannot be written.
    pub fn tree_with_files(&self, commit: Oid, files: &[(String, Vec<u8>)]) -> Result<Oid, GitError> {
        let fail = || GitError::library(format!("add files to {commit}"));
        let tree = self.commit_object(commit)?.tree().map_err(fail())?;
        let mut builder = git2::build::TreeUpdateBuilder::new();
        for (path, content) in files {
            let blob = self.repository.blob(content).map_err(fail())?;
            builder.upsert(path.as_str(), blob, git2::FileMode::Blob);
        }
        builder.create_updated(&self.repository, &tree).map_err(fail())
    }

    /// Returns the paths that were added, changed or removed between two commits, sorted.
    ///
    /// # Errors
    /// Returns an error if a commit cannot be read.
    pub fn changed_paths(&self, base: Oid, head: Oid) -> Result<Vec<Vec<u8>>, GitError> {
        let fail = || GitError::library(format!("compare {head} with {base}"));
        let old = self.commit_object(base)?.tree().map_err(fail())?;
        let new = self.commit_object(head)?.tree().map_err(fail())?;
        let diff = self.repository.diff_tree_to_tree(Some(&old), Some(&new), None).map_err(fail())?;
        let both = |delta: git2::DiffDelta<'_>| {
            [delta.old_file().path_bytes(), delta.new_file().path_bytes()]
                .map(|path| path.map(<[u8]>::to_vec))
        };
        let mut paths: Vec<Vec<u8>> = diff.deltas().flat_map(both).flatten().collect();
        paths.sort();
        paths.dedup();
        Ok(paths)
    }

    /// Writes a bundle of `refs` with all objects that `prerequisites` do not reach.
    ///
    /// # Errors
    /// Returns an error if an object cannot be read or the file cannot be written.
    pub fn write_bundle(
        &self,
        prerequisites: &[Oid],
        refs: &[(&str, Oid)],
        file: &Path,
    ) -> Result<(), GitError> {
        let fail = || GitError::library(format!("write bundle `{}`", file.display()));
        let mut walk = self.repository.revwalk().map_err(fail())?;
        for (_, oid) in refs {
            walk.push(*oid).map_err(fail())?;
        }
        for oid in prerequisites {
            walk.hide(*oid).map_err(fail())?;
        }
        let mut pack = self.repository.packbuilder().map_err(fail())?;
        pack.insert_walk(&mut walk).map_err(fail())?;
        let mut out = BufWriter::new(File::create(file).map_err(GitError::file("create", file))?);
        let mut header = b"# v2 git bundle\n".to_vec();
        for oid in prerequisites {
            header.extend_from_slice(format!("-{oid} \n").as_bytes());
        }
        for (name, oid) in refs {
            header.extend_from_slice(format!("{oid} {name}\n").as_bytes());
        }
        header.push(b'\n');
        let mut written = out.write_all(&header);
        let packed = pack.foreach(|bytes| {
            if written.is_ok() {
                written = out.write_all(bytes);
            }
            written.is_ok()
        });
        written.map_err(GitError::file("write", file))?;
        packed.map_err(fail())?;
        finish(out, file)
    }
}

/// Flushes the file and syncs it to disk.
fn finish(out: BufWriter<File>, file: &Path) -> Result<(), GitError> {
    out.into_inner()
        .map_err(std::io::IntoInnerError::into_error)
        .and_then(|written| written.sync_all())
        .map_err(GitError::file("write", file))
}
