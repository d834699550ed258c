//! Retries of remote operations after transient errors.

use std::time::Duration;

use crate::context::{Context, RepositoryRole};
use crate::failure::{Failure, error_chain};
use crate::git::{Credentials, Remote, TransferError};

/// Waits before the second and the third attempt.
const BACKOFF: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(4)];

/// Runs a read-only remote operation up to three times, reading the credentials each time.
///
/// # Errors
/// Returns the error of the last attempt, or the first error that is not transient.
pub(super) async fn with_retries<T, F: Future<Output = Result<T, TransferError>>>(
    context: &Context,
    role: RepositoryRole,
    operation: impl Fn(Remote, Credentials) -> F,
) -> Result<T, Failure> {
    let mut waits = BACKOFF.into_iter();
    loop {
        let credentials = context.credentials(role)?;
        let error = match operation(context.remote(role), credentials).await {
            Ok(result) => return Ok(result),
            Err(error) => error,
        };
        let Some(wait) = waits.next().filter(|_| error.is_transient()) else {
            return Err(Failure::from_error(error.reason(), &error));
        };
        context.journal.warn(format!("{}; retrying in {} s", error_chain(&error), wait.as_secs()));
        tokio::time::sleep(wait).await;
    }
}
