//! Network operations, each in a child of our own that can be killed.
//!
//! libgit2 blocks in system calls, and one operation per process is also what
//! keeps a credential in one short-lived address space. The parent starts its
//! own program with the subcommand [`SUBCOMMAND`], waits until the child has
//! made itself unreadable, and only then hands over request and credential on
//! the child's standard input. Answers are JSON lines on its standard output.

mod child;
mod message;
mod remote;

pub use child::transfer_main;
pub use message::{Fetched, Progress, PushOutcome, RemoteRef, RemoteRefs};
pub use remote::{Credentials, OnProgress, Remote, RemoteSettings, TransferError};

/// The hidden subcommand that makes the supervisor such a child.
pub const SUBCOMMAND: &str = "git-transfer";
