//! The git directory that the agent uses.

use std::fs;
use std::io;
use std::path::Path;

use git2::Oid;
use orchestrator_contract::BranchName;
use orchestrator_contract::task::CommitIdentity;

use super::control::ControlRepository;

/// Creates the git directory `git`, with `branch` checked out at `commit`.
pub(super) fn create_git_dir(
    control: &ControlRepository,
    git: &Path,
    branch: &BranchName,
    commit: Oid,
    base: Option<(&BranchName, Oid)>,
    identity: &CommitIdentity,
) -> io::Result<()> {
    for folder in ["objects/info", "objects/pack", "refs/heads", "refs/tags", "info"] {
        fs::create_dir_all(git.join(folder))?;
    }
    let mut alternates = control.path().join("objects").into_os_string().into_encoded_bytes();
    alternates.push(b'\n');
    fs::write(git.join("objects/info/alternates"), alternates)?;
    if control.is_shallow() {
        fs::copy(control.path().join("shallow"), git.join("shallow"))?;
    }
    let set = |name: String, oid: Oid| -> io::Result<()> {
        let file = git.join(name);
        if let Some(folder) = file.parent() {
            fs::create_dir_all(folder)?;
        }
        fs::write(file, format!("{oid}\n"))
    };
    set(format!("refs/heads/{branch}"), commit)?;
    if let Some((name, oid)) = base {
        set(format!("refs/remotes/origin/{name}"), oid)?;
        fs::write(git.join("refs/remotes/origin/HEAD"), format!("ref: refs/remotes/origin/{name}\n"))?;
    }
    let quoted = |text: &str| text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', " ");
    fs::write(
        git.join("config"),
        format!(
            "[core]\n\trepositoryformatversion = 0\n\tfilemode = true\n\tbare = false\n\tlogallrefupdates = true\n\
             [user]\n\tname = \"{}\"\n\temail = \"{}\"\n[gc]\n\tauto = 0\n",
            quoted(&identity.name),
            quoted(&identity.email)
        ),
    )?;
    fs::write(git.join("HEAD"), format!("ref: refs/heads/{branch}\n"))
}
