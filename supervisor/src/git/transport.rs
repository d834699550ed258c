//! HTTP and SSH for libgit2: our own, so that no configuration of anybody
//! decides where a credential goes.
//!
//! libgit2's errors carry only a text, and its callbacks no context. One
//! process performs one operation ([`super::transfer`]), so what the operation
//! may use and why it failed are kept for the process.

#![expect(unsafe_code, reason = "registering a transport with libgit2")]

mod http;
mod known_hosts;
mod passwd;
mod ssh;

use std::io::{self, Read, Write};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

use git2::transport::Transport;
use orchestrator_contract::Reason;
use secrecy::SecretString;

/// What the one operation of this process may use.
pub(super) struct Context {
    pub(super) url: String,
    pub(super) token: Option<SecretString>,
    pub(super) username: Option<String>,
    pub(super) ssh_key: Option<PathBuf>,
    pub(super) known_hosts: Option<PathBuf>,
    pub(super) ssh_program: PathBuf,
    pub(super) proxy: Option<String>,
    pub(super) no_proxy: Option<String>,
    pub(super) ca_file: Option<PathBuf>,
    pub(super) connect_timeout: Duration,
    pub(super) read_timeout: Duration,
}

/// Why the operation failed, in the terms of the contract.
#[derive(Clone, Debug)]
pub(super) struct TransportFailure {
    pub(super) reason: Reason,
    pub(super) message: String,
}

static CONTEXT: OnceLock<Context> = OnceLock::new();
static FAILURE: Mutex<Option<TransportFailure>> = Mutex::new(None);
static BYTES: AtomicU64 = AtomicU64::new(0);

/// Says what the operation may use; once per process.
pub(super) fn set_context(context: Context) -> bool {
    CONTEXT.set(context).is_ok()
}

/// Bytes moved over the network so far, both ways.
pub(super) fn bytes_moved() -> u64 {
    BYTES.load(Ordering::Relaxed)
}

/// Why the operation failed, as far as a transport knows.
pub(super) fn take_failure() -> Option<TransportFailure> {
    FAILURE.lock().unwrap_or_else(PoisonError::into_inner).take()
}

fn context() -> Result<&'static Context, git2::Error> {
    CONTEXT.get().ok_or_else(|| git2::Error::from_str("network operations run in a child process only"))
}

/// Remembers the first failure, the cause of all later ones.
fn record_failure(reason: Reason, message: impl Into<String>) -> io::Error {
    let message = message.into();
    let mut failure = FAILURE.lock().unwrap_or_else(PoisonError::into_inner);
    failure.get_or_insert_with(|| TransportFailure { reason, message: message.clone() });
    io::Error::other(message)
}

fn add_bytes(bytes: usize) {
    BYTES.fetch_add(bytes as u64, Ordering::Relaxed);
}

/// Replaces libgit2's transports for `http`, `https` and `ssh`.
pub(super) fn register() -> Result<(), git2::Error> {
    // SAFETY: called once, from `init`, before any other use of libgit2.
    unsafe {
        for scheme in ["http", "https"] {
            git2::transport::register(scheme, |remote| {
                Transport::smart(remote, true, http::Http::new(context()?)?)
            })?;
        }
        git2::transport::register("ssh", |remote| Transport::smart(remote, false, ssh::Ssh::new(context()?)))
    }
}

/// Looks at the first bytes of an advertisement: a repository with another hash
/// function is named as such instead of "corrupted".
struct Advertisement<S> {
    inner: S,
    head: Vec<u8>,
}

impl<S> Advertisement<S> {
    fn new(inner: S) -> Self {
        Self { inner, head: Vec::new() }
    }
}

impl<S: Read> Read for Advertisement<S> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        if self.head.len() < 4096 {
            self.head.extend_from_slice(&buffer[..count]);
            if self.head.windows(20).any(|window| window == b"object-format=sha256") {
                return Err(record_failure(
                    Reason::UnsupportedRepository,
                    "the repository uses SHA-256 object names, which are not supported",
                ));
            }
        }
        Ok(count)
    }
}

impl<S: Write> Write for Advertisement<S> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.inner.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}
