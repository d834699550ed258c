//! The guest: a process of ours that works where untrusted programs live.
//!
//! The supervisor opens no path that something in a sandbox can write. It asks a guest, the same
//! program with another subcommand, and takes what the guest answers for the data of an enemy:
//! bounded, checked, never believed. A guest that lies, floods, stalls or dies makes the operation
//! fail with one clear error.
//!
//! | module | purpose |
//! |---|---|
//! | `wire` | frames and values on the sockets |
//! | `message` | requests and their results |
//! | [`client`] | the supervisor's side: requests, credit, patience |
//! | `received` | stores what a guest sends, within its credit |
//! | `answers` | decodes and checks what a guest answers |
//! | `server` | the guest's side: sockets, threads, credit |
//! | `files` | the guest's side: what it does for each request |
//! | `tree` | file operations relative to an opened folder |
//! | `beneath` | opens paths that cannot lead out of a folder |

pub(crate) mod answers;
pub(crate) mod beneath;
pub mod client;
mod files;
mod message;
mod received;
mod server;
pub(crate) mod tree;
pub(crate) mod wire;

pub use client::{Guest, GuestError, GuestOptions, LOST_CONTAINER};
pub use message::{BUILD_ID, Movable, NodeKind, NodeStat, ReadRequest, SUBCOMMAND, WriteKind};
pub use server::guest_main;
pub(crate) use server::{WITHOUT_OPENAT2, harden};

pub(crate) use message::MAX_BATCH;
