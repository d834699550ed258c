//! Deadlines of blocking steps: after one the step is left to itself, or its work is cancelled.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::failure::Failure;
use crate::workspace::fetch::blocking;

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

/// Runs blocking work for at most `limit`; returns nothing if it takes longer.
///
/// The token of the work is cancelled when this future ends or is dropped.
pub(super) async fn blocking_within<T: Send + 'static>(
    limit: Duration,
    work: impl FnOnce(&CancellationToken) -> Result<T, Failure> + Send + 'static,
) -> Option<Result<T, Failure>> {
    let cancel = CancellationToken::new();
    let _guard = cancel.clone().drop_guard();
    tokio::time::timeout(limit, blocking(move || work(&cancel))).await.ok()
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::time::Instant;

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

    /// Returns work that runs until its cancellation, and sends whether that came.
    fn endless() -> (impl FnOnce(&CancellationToken) -> Result<(), Failure>, mpsc::Receiver<bool>) {
        let (cancelled_tx, cancelled) = mpsc::channel();
        let work = move |cancel: &CancellationToken| {
            let started = Instant::now();
            while !cancel.is_cancelled() && started.elapsed() < LIMIT / 20 {
                std::thread::yield_now();
            }
            cancelled_tx.send(cancel.is_cancelled()).unwrap();
            Ok(())
        };
        (work, cancelled)
    }

    #[tokio::test]
    async fn blocking_work_is_cancelled_after_its_limit() {
        let (work, cancelled) = endless();
        assert!(blocking_within(Duration::from_millis(1), work).await.is_none());
        assert_eq!(cancelled.recv_timeout(LIMIT), Ok(true));
    }

    #[tokio::test]
    async fn dropped_step_cancels_its_blocking_work() {
        let (work, cancelled) = endless();
        let (started_tx, started) = tokio::sync::oneshot::channel();
        let step = blocking_within(LIMIT, move |cancel| {
            started_tx.send(()).unwrap();
            work(cancel)
        });
        tokio::select! {
            _ = step => panic!("endless work ended"),
            result = started => result.unwrap(),
        }
        assert_eq!(cancelled.recv_timeout(LIMIT), Ok(true));
    }

    #[tokio::test]
    async fn blocking_work_within_its_limit_is_not_cancelled() {
        let result = blocking_within(LIMIT, |cancel| Ok(cancel.is_cancelled())).await;
        assert!(!result.unwrap().unwrap());
    }
}
