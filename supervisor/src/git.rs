//! Git operations; the only module that uses libgit2.
//!
//! Every network operation runs in a child process, on a private repository that the agent
//! cannot write ([`ControlRepository`], [`Remote`]). From the agent's worktree only trees and
//! commits are copied, as objects ([`snapshot`], [`import`]); its git directory is never opened
//! as a repository. Files of a worktree are read and written by its guest ([`crate::guest`]).
//!
//! | module | purpose |
//! |---|---|
//! | `init` | process-wide settings of libgit2 |
//! | `control` | the control repository: refs and commits |
//! | `history`, `tree` | merges and ancestry; files and directories of a commit |
//! | `new_objects` | commits, paths and blobs that a push would publish |
//! | `setup_changes` | the agent's work without what setup commands changed |
//! | `export` | patches, bundles and changed trees |
//! | `patch` | the changes of a branch, for people |
//! | [`transfer`] | list, fetch and push in a killable child process |
//! | `transport` | HTTP and SSH for libgit2, and which host gets the credential |
//! | [`checkout`] | a commit as a worktree (`write_files`, `agent_git_dir`, `index`) |
//! | [`import`] | copies the agent's commits |
//! | [`snapshot`] | captures the agent's worktree as a tree (`walk`, `stat_cache`, `lfs`) |
//! | `rules` | what git ignores and converts in a worktree |
//! | `names` | the one validator of names in trees |
//! | [`remove_tree`] | removes trees that something untrusted wrote |

mod agent_git_dir;
pub mod checkout;
mod control;
mod copy_objects;
mod error;
mod export;
mod history;
pub mod import;
mod index;
mod init;
mod lfs;
mod measure;
pub(crate) mod names;
mod new_objects;
mod parallel;
mod patch;
pub(crate) mod remove;
mod rules;
mod save_files;
mod setup_changes;
pub mod snapshot;
mod stat_cache;
pub mod transfer;
mod transport;
mod tree;
mod walk;
mod write_files;

pub use control::{ControlRepository, NewCommit, OpenResult};
pub use error::GitError;
pub use git2::Oid;
pub use history::MergeResult;
pub use init::init;
pub use new_objects::{NewObject, Signature};
pub use patch::Patch;
pub use remove::remove_tree;
pub use stat_cache::StatCache;
pub use transfer::{
    Credentials, Fetched, Progress, PushOutcome, Remote, RemoteRef, RemoteRefs, RemoteSettings,
    TransferError, transfer_main,
};
pub use tree::{Entry, EntryKind, PathNode};
pub use walk::Unsaved;
