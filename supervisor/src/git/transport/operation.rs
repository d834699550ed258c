//! State of the one operation that a transfer process runs.
//!
//! libgit2's errors carry only a text and its callbacks no context, so both are process-wide.

use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

use orchestrator_contract::Reason;
use secrecy::SecretString;

use crate::tls::CertificatePaths;

/// Credentials and settings of the operation.
pub(crate) struct Context {
    pub(crate) url: String,
    pub(crate) token: Option<SecretString>,
    pub(crate) username: Option<String>,
    pub(crate) ssh_key: Option<PathBuf>,
    pub(crate) known_hosts: Option<PathBuf>,
    pub(crate) ssh_program: PathBuf,
    pub(crate) proxy: Option<String>,
    pub(crate) no_proxy: Option<String>,
    pub(crate) certificates: CertificatePaths,
    pub(crate) connect_timeout: Duration,
    pub(crate) read_timeout: Duration,
}

/// Why the operation failed, with the reason for the outcome.
#[derive(Clone, Debug)]
pub(crate) struct TransportFailure {
    pub(crate) reason: Reason,
    pub(crate) message: String,
}

static CONTEXT: OnceLock<Context> = OnceLock::new();
static FAILURE: Mutex<Option<TransportFailure>> = Mutex::new(None);
static BYTES: AtomicU64 = AtomicU64::new(0);

/// Sets the context of the operation; returns `false` if it was already set.
pub(crate) fn set_context(context: Context) -> bool {
    CONTEXT.set(context).is_ok()
}

/// Returns the bytes sent and received so far.
pub(crate) fn bytes_moved() -> u64 {
    BYTES.load(Ordering::Relaxed)
}

/// Takes the first failure that a transport recorded.
pub(crate) fn take_failure() -> Option<TransportFailure> {
    FAILURE.lock().unwrap_or_else(PoisonError::into_inner).take()
}

/// Returns the context of the operation.
pub(super) fn context() -> Result<&'static Context, git2::Error> {
    CONTEXT.get().ok_or_else(|| git2::Error::from_str("network operations run in a child process only"))
}

/// Records a failure, unless one is recorded: the first is the cause of later ones.
pub(super) fn record_failure(reason: Reason, message: impl Into<String>) -> io::Error {
    let message = message.into();
    let mut failure = FAILURE.lock().unwrap_or_else(PoisonError::into_inner);
    failure.get_or_insert_with(|| TransportFailure { reason, message: message.clone() });
    io::Error::other(message)
}

/// Counts bytes sent or received.
pub(super) fn add_bytes(bytes: usize) {
    BYTES.fetch_add(bytes as u64, Ordering::Relaxed);
}
