//! Work on many files, spread over the processors.

use super::error::GitError;

/// Maximum threads; more do not make a local disk faster.
const MAX_THREADS: usize = 8;

/// Files per thread below which starting a thread costs more than it saves.
const MIN_FILES_PER_THREAD: usize = 64;

/// Applies `work` to chunks of `items` in parallel; returns the results in the order of the items.
///
/// # Errors
/// Returns the first error of `work`.
pub(super) fn map_chunks<T: Sync, R: Send>(
    items: &[T],
    work: impl Fn(&[T]) -> Result<Vec<R>, GitError> + Sync,
) -> Result<Vec<R>, GitError> {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    let threads = processors.min(MAX_THREADS).min(items.len() / MIN_FILES_PER_THREAD + 1);
    if threads == 1 {
        return work(items);
    }
    let work = &work;
    std::thread::scope(|scope| {
        let running: Vec<_> = items
            .chunks(items.len().div_ceil(threads).max(1))
            .map(|chunk| scope.spawn(move || work(chunk)))
            .collect();
        let mut results = Vec::with_capacity(items.len());
        for thread in running {
            results.extend(thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?);
        }
        Ok(results)
    })
}
