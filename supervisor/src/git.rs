//! The only place that knows libgit2.
//!
//! Every network operation runs in a child process on a repository of ours that
//! the agent cannot write ([`ControlRepository`], [`Remote`]). From the agent's
//! folder only trees and commits are taken, as objects ([`snapshot`],
//! [`import`]); its git directory is never opened as a repository.
//!
//! | module | what it knows |
//! |---|---|
//! | `init` | what libgit2 is told once per process |
//! | `control` | the bare repository that is ours: refs, trees, commits, merges |
//! | `new_objects` | every commit, name and blob that a branch adds |
//! | `keep` | work as a patch or a bundle |
//! | `patch` | what a branch changes, for people |
//! | [`transfer`] | list, fetch and push in a killable child |
//! | `transport` | HTTP and SSH for libgit2, and who gets the credential |
//! | [`checkout`] | a commit as a folder that the agent may use |
//! | [`import`] | the agent's commits, taken as objects |
//! | [`snapshot`] | the agent's folder, taken as a tree |

pub mod checkout;
mod control;
mod error;
mod export;
pub mod import;
mod init;
mod new_objects;
mod patch;
pub mod snapshot;
mod stat_cache;
pub mod transfer;
mod transport;
mod walk;

pub use control::{ControlRepository, Entry, EntryKind, MergeResult, NewCommit, OpenResult};
pub use error::GitError;
pub use git2::Oid;
pub use init::init;
pub use new_objects::{NewObject, Signature};
pub use patch::Patch;
pub use stat_cache::StatCache;
pub use transfer::{
    Credentials, Fetched, Progress, PushOutcome, Remote, RemoteRef, RemoteRefs, RemoteSettings,
    TransferError, transfer_main,
};
