//! Deadlines of steps that cannot be interrupted: after one the step is left to itself.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

/// Why a step was left.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Expired {
    /// It took longer than its limit.
    TimedOut,
    /// It was cancelled and did not end in the time that it had left.
    Cancelled,
}

/// Awaits `step` for at most `limit`, and after a cancellation for at most `grace`.
///
/// # Errors
/// Returns why the step was left. Blocking work of it continues until the process exits.
pub(super) async fn await_step<T>(
    step: impl Future<Output = T>,
    limit: Duration,
    cancel: &CancellationToken,
    grace: Duration,
) -> Result<T, Expired> {
    let cancelled = async {
        cancel.cancelled().await;
        tokio::time::sleep(grace).await;
    };
    tokio::select! {
        biased;
        output = step => Ok(output),
        () = tokio::time::sleep(limit) => Err(Expired::TimedOut),
        () = cancelled => Err(Expired::Cancelled),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(600);
    const GRACE: Duration = Duration::from_secs(8);

    #[tokio::test(start_paused = true)]
    async fn step_has_its_limit_without_cancellation() {
        let cancel = CancellationToken::new();
        let started = tokio::time::Instant::now();
        let quick = async {
            tokio::time::sleep(LIMIT - GRACE).await;
            7
        };
        assert_eq!(await_step(quick, LIMIT, &cancel, GRACE).await, Ok(7));
        let left = await_step(std::future::pending::<()>(), LIMIT, &cancel, GRACE).await;
        assert_eq!(left, Err(Expired::TimedOut));
        assert_eq!(started.elapsed(), LIMIT - GRACE + LIMIT);
    }

    #[tokio::test(start_paused = true)]
    async fn cancelled_step_has_grace_only() {
        let cancel = CancellationToken::new();
        let started = tokio::time::Instant::now();
        let canceler = async {
            tokio::time::sleep(Duration::from_secs(60)).await;
            cancel.cancel();
        };
        let (left, ()) =
            tokio::join!(await_step(std::future::pending::<()>(), LIMIT, &cancel, GRACE), canceler);
        assert_eq!(left, Err(Expired::Cancelled));
        assert_eq!(started.elapsed(), Duration::from_secs(60) + GRACE);
        let quick = async {
            tokio::time::sleep(GRACE / 2).await;
            7
        };
        assert_eq!(await_step(quick, LIMIT, &cancel, GRACE).await, Ok(7), "cancelled before it started");
    }
}
