//! Network operations, each in a child process that can be killed.
//!
//! libgit2 blocks in system calls, and one process per operation keeps a credential in one
//! short-lived address space. The parent spawns its own program with the subcommand
//! [`SUBCOMMAND`], waits until the child has made itself undumpable, and only then writes request
//! and credential to the child's standard input. Replies are JSON lines on its standard output.

mod child;
mod message;
mod remote;

pub use child::transfer_main;
pub use message::{Fetched, Progress, PushOutcome, RemoteRef, RemoteRefs, SUBCOMMAND};
pub use remote::{Credentials, OnProgress, Remote, RemoteSettings, TransferError};
