//! The git directory that the agent uses.

use std::fs;
use std::os::unix::ffi::OsStrExt as _;

use git2::Oid;
use orchestrator_contract::BranchName;
use orchestrator_contract::task::CommitIdentity;

use super::control::ControlRepository;
use super::error::GitError;
use crate::guest::answers::NewEntry;
use crate::guest::beneath::split;
use crate::guest::{Guest, WriteKind};

/// Creates the git directory `.git` with `branch` checked out at `commit`.
pub(super) fn create_git_dir(
    control: &ControlRepository,
    guest: &Guest,
    branch: &BranchName,
    commit: Oid,
    base: Option<(&BranchName, Oid)>,
    identity: &CommitIdentity,
    index: &[u8],
) -> Result<(), GitError> {
    let mut files: Vec<(String, Vec<u8>)> = Vec::new();
    let objects = control.path().join("objects");
    files.push(("objects/info/alternates".to_owned(), [objects.as_os_str().as_bytes(), b"\n"].concat()));
    if control.is_shallow() {
        let shallow = control.path().join("shallow");
        files.push(("shallow".to_owned(), fs::read(&shallow).map_err(GitError::file("read", &shallow))?));
    }
    files.push((format!("refs/heads/{branch}"), format!("{commit}\n").into_bytes()));
    if let Some((name, oid)) = base {
        files.push((format!("refs/remotes/origin/{name}"), format!("{oid}\n").into_bytes()));
        let head = format!("ref: refs/remotes/origin/{name}\n").into_bytes();
        files.push(("refs/remotes/origin/HEAD".to_owned(), head));
    }
    let quoted = |text: &str| text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', " ");
    let config = format!(
        "[core]\n\trepositoryformatversion = 0\n\tfilemode = true\n\tbare = false\n\tlogallrefupdates = true\n\
         [user]\n\tname = \"{}\"\n\temail = \"{}\"\n[gc]\n\tauto = 0\n",
        quoted(&identity.name),
        quoted(&identity.email)
    );
    files.push(("config".to_owned(), config.into_bytes()));
    files.push(("HEAD".to_owned(), format!("ref: refs/heads/{branch}\n").into_bytes()));
    write(guest, &files, index)
}

fn write(guest: &Guest, files: &[(String, Vec<u8>)], index: &[u8]) -> Result<(), GitError> {
    let failed = || GitError::file("write the git directory in", guest.root());
    let mut paths: Vec<(Vec<u8>, &[u8])> = files
        .iter()
        .map(|(name, content)| (format!(".git/{name}").into_bytes(), content.as_slice()))
        .collect();
    paths.push((b".git/index".to_vec(), index));
    let fixed = ["objects/info", "objects/pack", "refs/heads", "refs/tags", "info"];
    let mut folders = std::collections::BTreeSet::new();
    let fixed = fixed.map(|folder| format!(".git/{folder}").into_bytes());
    for folder in paths.iter().map(|(path, _)| split(path).0).chain(fixed.iter().map(Vec::as_slice)) {
        for (at, _) in folder.iter().enumerate().filter(|(_, byte)| **byte == b'/') {
            folders.insert(&folder[..at]);
        }
        folders.insert(folder);
    }
    let folders: Vec<&[u8]> = folders.into_iter().collect();
    guest.make_folders(&folders)?.map_err(failed())?;
    let entries: Vec<NewEntry<'_>> =
        paths.iter().map(|(path, content)| NewEntry { path, kind: WriteKind::File, content }).collect();
    for written in guest.write(&entries)? {
        written.map_err(failed())?;
    }
    Ok(())
}
