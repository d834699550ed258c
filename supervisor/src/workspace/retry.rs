//! Asking a remote again when it, or the way to it, is away for a moment.

use std::time::Duration;

use crate::context::{Context, RepositoryRole};
use crate::failure::{Failure, error_chain};
use crate::git::{Credentials, Remote, TransferError};

/// Waits before the second and the third try.
const BACKOFF: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(4)];

/// Asks a remote, up to three times, with the credentials as they are then. Only for
/// operations that change nothing there.
///
/// # Errors
/// The remote refuses, or is still away at the third try.
pub(super) async fn with_retries<T, F: Future<Output = Result<T, TransferError>>>(
    context: &Context,
    side: RepositoryRole,
    operation: impl Fn(Remote, Credentials) -> F,
) -> Result<T, Failure> {
    let mut waits = BACKOFF.into_iter();
    loop {
        let credentials = context.credentials(side)?;
        let error = match operation(context.remote(side), credentials).await {
            Ok(answer) => return Ok(answer),
            Err(error) => error,
        };
        let Some(wait) = waits.next().filter(|_| error.is_transient()) else {
            return Err(Failure::from_error(error.reason(), &error));
        };
        context.journal.warn(format!("{}; trying again in {} s", error_chain(&error), wait.as_secs()));
        tokio::time::sleep(wait).await;
    }
}
