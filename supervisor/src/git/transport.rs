//! HTTP and SSH transports for libgit2.
//!
//! They replace libgit2's own, so that no git configuration decides which host gets a credential.

#![expect(unsafe_code, reason = "registering a transport with libgit2")]

mod advertisement;
mod http;
mod known_hosts;
mod operation;
mod passwd;
mod ssh;

use git2::transport::Transport;

pub(super) use operation::{Context, TransportFailure, bytes_moved, set_context, take_failure};

/// Replaces libgit2's transports for `http`, `https` and `ssh`.
pub(super) fn register() -> Result<(), git2::Error> {
    // SAFETY: called once, from `init`, before any other use of libgit2.
    unsafe {
        for scheme in ["http", "https"] {
            git2::transport::register(scheme, |remote| {
                Transport::smart(remote, true, http::Http::new(operation::context()?)?)
            })?;
        }
        git2::transport::register("ssh", |remote| {
            Transport::smart(remote, false, ssh::Ssh::new(operation::context()?))
        })
    }
}
