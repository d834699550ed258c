//! Workspace lock: one active run at a time, with a queue of tickets.
//!
//! Locks are flock(2) on open files, so a crash releases them and no PID is stored. A ticket is a
//! locked file whose name starts with its number: the lowest locked ticket is next. The lock file
//! contains the name of the run that holds it.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use orchestrator_contract::RunName;
use orchestrator_contract::layout::Layout;
use rustix::fs::{FlockOperation, flock};

/// Interval at which a queued run polls the lock.
const POLL_INTERVAL: Duration = Duration::from_millis(100);

/// Lock on the workspace, released when dropped.
#[derive(Debug)]
pub struct WorkspaceLock {
    _file: File,
}

/// Why the workspace cannot be locked.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// A file of the lock cannot be opened or written.
    #[error("cannot lock workspace with `{}`", path.display())]
    Unusable {
        /// File or directory.
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// Another run held the lock until the timeout.
    #[error("the workspace is in use by `{holder}`")]
    Busy {
        /// Run that holds the lock.
        holder: String,
    },
}

/// Position in the queue.
#[derive(Debug)]
pub struct Ticket {
    number: u64,
    path: PathBuf,
    _file: File,
}

impl Drop for Ticket {
    fn drop(&mut self) {
        drop(std::fs::remove_file(&self.path));
    }
}

/// Acquires the workspace lock, waiting at most `limit`.
///
/// Calls `on_wait` with the run that holds the lock, whenever it changes.
///
/// # Errors
/// Returns [`LockError::Busy`] after `limit`, or an error if a file of the lock cannot be used.
pub async fn lock_workspace(
    layout: &Layout,
    run: &RunName,
    limit: Duration,
    mut on_wait: impl FnMut(&str),
) -> Result<WorkspaceLock, LockError> {
    let deadline = tokio::time::Instant::now() + limit;
    let ticket = take_ticket(layout, run)?;
    let mut reported = String::new();
    loop {
        if is_next(layout, &ticket)?
            && let Some(lock) = try_lock(layout, run)?
        {
            return Ok(lock);
        }
        let holder = holder(layout);
        if tokio::time::Instant::now() >= deadline {
            return Err(LockError::Busy { holder });
        }
        if holder != reported {
            on_wait(&holder);
            reported = holder;
        }
        tokio::time::sleep(POLL_INTERVAL).await;
    }
}

/// Reads the run that holds the lock from the lock file.
fn holder(layout: &Layout) -> String {
    let name = std::fs::read_to_string(layout.lock()).unwrap_or_default();
    if name.is_empty() { "another run".to_owned() } else { name }
}

fn try_lock(layout: &Layout, run: &RunName) -> Result<Option<WorkspaceLock>, LockError> {
    let path = layout.lock();
    let mut file = open(&path)?;
    if !try_flock(&file, &path)? {
        return Ok(None);
    }
    let written = file.set_len(0).and_then(|()| file.write_all(run.as_str().as_bytes()));
    written.map_err(|source| LockError::Unusable { path, source })?;
    Ok(Some(WorkspaceLock { _file: file }))
}

fn take_ticket(layout: &Layout, run: &RunName) -> Result<Ticket, LockError> {
    let folder = layout.queue();
    let unusable = |source| LockError::Unusable { path: folder.clone(), source };
    std::fs::create_dir_all(&folder).map_err(unusable)?;
    // A lock of its own, held briefly, guards the number.
    let path = folder.join("next");
    let mut counter = open(&path)?;
    flock(&counter, FlockOperation::LockExclusive).map_err(|error| unusable(error.into()))?;
    let mut text = Vec::new();
    counter.read_to_end(&mut text).map_err(unusable)?;
    let counted = std::str::from_utf8(&text).ok().and_then(|text| text.trim().parse::<u64>().ok());
    // A damaged counter must not let this run pass those that wait.
    let highest = highest_ticket(&folder).map_err(unusable)?;
    let number = counted.unwrap_or_default().max(highest).saturating_add(1);
    let ticket = folder.join(format!("{number:020}-{run}"));
    let file = open(&ticket)?;
    flock(&file, FlockOperation::LockExclusive).map_err(|error| unusable(error.into()))?;
    counter.set_len(0).and_then(|()| counter.rewind()).map_err(unusable)?;
    counter.write_all(number.to_string().as_bytes()).map_err(unusable)?;
    Ok(Ticket { number, path: ticket, _file: file })
}

/// Returns the number of a ticket from the name of its file.
fn ticket_number(name: &std::ffi::OsStr) -> Option<u64> {
    name.to_str()?.split('-').next()?.parse().ok()
}

fn highest_ticket(folder: &Path) -> io::Result<u64> {
    let mut highest = 0;
    for entry in std::fs::read_dir(folder)? {
        highest = highest.max(ticket_number(&entry?.file_name()).unwrap_or_default());
    }
    Ok(highest)
}

/// Returns whether the ticket is next; removes tickets of exited runs.
fn is_next(layout: &Layout, ticket: &Ticket) -> Result<bool, LockError> {
    let folder = layout.queue();
    let unusable = |source| LockError::Unusable { path: folder.clone(), source };
    for entry in std::fs::read_dir(&folder).map_err(unusable)? {
        let entry = entry.map_err(unusable)?;
        let number = ticket_number(&entry.file_name());
        if number.is_none_or(|number| number >= ticket.number) {
            continue;
        }
        let path = entry.path();
        match File::options().read(true).write(true).open(&path) {
            Ok(file) if try_flock(&file, &path)? => drop(std::fs::remove_file(&path)),
            Ok(_) => return Ok(false),
            // Its owner removed it in the meantime.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(source) => return Err(LockError::Unusable { path, source }),
        }
    }
    Ok(true)
}

fn open(path: &Path) -> Result<File, LockError> {
    File::options()
        .create(true)
        .truncate(false)
        .read(true)
        .write(true)
        .open(path)
        .map_err(|source| LockError::Unusable { path: path.to_owned(), source })
}

fn try_flock(file: &File, path: &Path) -> Result<bool, LockError> {
    match flock(file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(true),
        Err(error) if error == rustix::io::Errno::WOULDBLOCK => Ok(false),
        Err(error) => Err(LockError::Unusable { path: path.to_owned(), source: error.into() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(number: u32) -> RunName {
        RunName::new(format!("s-a-task1-attempt{number}")).unwrap()
    }

    #[tokio::test]
    async fn queued_run_sees_holder_until_lock_is_acquired() {
        let folder = tempfile::tempdir().unwrap();
        let layout = Layout::new(folder.path());
        let first = lock_workspace(&layout, &run(1), Duration::ZERO, |_| {}).await.unwrap();
        let (holder_tx, mut holder_rx) = tokio::sync::mpsc::unbounded_channel();
        let second = {
            let layout = layout.clone();
            tokio::spawn(async move {
                lock_workspace(&layout, &run(2), Duration::from_secs(60), |holder| {
                    holder_tx.send(holder.to_owned()).unwrap();
                })
                .await
                .map(drop)
            })
        };
        assert_eq!(holder_rx.recv().await.unwrap(), run(1).as_str());
        drop(first);
        second.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn lock_without_waiting_fails_with_holder_name() {
        let folder = tempfile::tempdir().unwrap();
        let layout = Layout::new(folder.path());
        let _first = lock_workspace(&layout, &run(1), Duration::ZERO, |_| {}).await.unwrap();
        let error = lock_workspace(&layout, &run(2), Duration::ZERO, |_| {}).await.unwrap_err();
        assert!(error.to_string().contains("attempt1"), "{error}");
        // Only the counter is left: the ticket was removed.
        assert_eq!(std::fs::read_dir(layout.queue()).unwrap().count(), 1);
    }

    #[tokio::test]
    async fn damaged_counter_keeps_order_of_queue() {
        let folder = tempfile::tempdir().unwrap();
        let layout = Layout::new(folder.path());
        for damage in ["", "garbage", "0", "18446744073709551616"] {
            let first = take_ticket(&layout, &run(1)).unwrap();
            std::fs::write(layout.queue().join("next"), damage).unwrap();
            let second = take_ticket(&layout, &run(2)).unwrap();
            assert!(second.number > first.number, "{damage:?}: {} {}", first.number, second.number);
            assert!(is_next(&layout, &first).unwrap() && !is_next(&layout, &second).unwrap());
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn lock_under_contention_admits_one_run() {
        let folder = tempfile::tempdir().unwrap();
        let layout = Layout::new(folder.path());
        let inside = std::sync::Arc::new(std::sync::atomic::AtomicU32::new(0));
        let mut tasks = tokio::task::JoinSet::new();
        for number in 1..=200 {
            let (layout, inside) = (layout.clone(), std::sync::Arc::clone(&inside));
            tasks.spawn(async move {
                let lock = lock_workspace(&layout, &run(number), Duration::ZERO, |_| {}).await;
                if lock.is_ok() {
                    assert_eq!(inside.fetch_add(1, std::sync::atomic::Ordering::SeqCst), 0);
                    tokio::task::yield_now().await;
                    inside.fetch_sub(1, std::sync::atomic::Ordering::SeqCst);
                }
            });
        }
        while let Some(ended) = tasks.join_next().await {
            ended.unwrap();
        }
    }
}
