//! One run at a time in a workspace: a lock, and tickets for those who wait.
//!
//! Locks are flock(2) on open files, so a crash releases them and no process
//! number is ever trusted. A ticket is a locked file with a number for its
//! name: the lowest living ticket is the next. The lock file contains the
//! holder's name, for people.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use orchestrator_contract::RunName;
use orchestrator_contract::layout::Layout;
use rustix::fs::{FlockOperation, flock};

/// How often a waiting run looks whether it is its turn.
const POLL_INTERVAL: Duration = Duration::from_millis(100);

/// The workspace is this run's until the value is dropped.
#[derive(Debug)]
pub struct WorkspaceLock {
    _file: File,
}

/// Why the workspace is not ours.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// The lock's files cannot be used.
    #[error("cannot use `{}`", path.display())]
    Unusable {
        /// The file or folder.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// Another run held the workspace all the time.
    #[error("the workspace is held by `{holder}`")]
    Busy {
        /// The run that holds it.
        holder: String,
    },
}

/// A place in the queue.
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

/// Waits for the workspace, at most `limit`. `waiting` is told whom the run waits for,
/// at each change.
///
/// # Errors
/// The lock's files cannot be used, or the time is over.
pub async fn lock_workspace(
    layout: &Layout,
    run: &RunName,
    limit: Duration,
    mut waiting: impl FnMut(&str),
) -> Result<WorkspaceLock, LockError> {
    let deadline = tokio::time::Instant::now() + limit;
    let ticket = take_ticket(layout, run)?;
    let mut told = String::new();
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
        if holder != told {
            waiting(&holder);
            told = holder;
        }
        tokio::time::sleep(POLL_INTERVAL).await;
    }
}

/// Who holds the workspace, by the name in the lock file.
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
    // Numbers are given out under a lock of their own, held for a moment only.
    let path = folder.join("next");
    let mut counter = open(&path)?;
    flock(&counter, FlockOperation::LockExclusive).map_err(|error| unusable(error.into()))?;
    let mut text = String::new();
    counter.read_to_string(&mut text).map_err(unusable)?;
    let number = text.trim().parse::<u64>().unwrap_or_default() + 1;
    let ticket = folder.join(format!("{number:020}-{run}"));
    let file = open(&ticket)?;
    flock(&file, FlockOperation::LockExclusive).map_err(|error| unusable(error.into()))?;
    counter.set_len(0).and_then(|()| counter.rewind()).map_err(unusable)?;
    counter.write_all(number.to_string().as_bytes()).map_err(unusable)?;
    Ok(Ticket { number, path: ticket, _file: file })
}

/// Whether no living ticket is older. Tickets of the dead are removed.
fn is_next(layout: &Layout, ticket: &Ticket) -> Result<bool, LockError> {
    let folder = layout.queue();
    let unusable = |source| LockError::Unusable { path: folder.clone(), source };
    for entry in std::fs::read_dir(&folder).map_err(unusable)? {
        let entry = entry.map_err(unusable)?;
        let name = entry.file_name();
        let number =
            name.to_str().and_then(|name| name.split('-').next()).and_then(|n| n.parse::<u64>().ok());
        if number.is_none_or(|number| number >= ticket.number) {
            continue;
        }
        let path = entry.path();
        match File::options().read(true).write(true).open(&path) {
            Ok(file) if try_flock(&file, &path)? => drop(std::fs::remove_file(&path)),
            Ok(_) => return Ok(false),
            // It was removed by its owner meanwhile.
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
        let (told, mut waits) = tokio::sync::mpsc::unbounded_channel();
        let second = {
            let layout = layout.clone();
            tokio::spawn(async move {
                lock_workspace(&layout, &run(2), Duration::from_secs(60), |holder| {
                    told.send(holder.to_owned()).unwrap();
                })
                .await
                .map(drop)
            })
        };
        assert_eq!(waits.recv().await.unwrap(), run(1).as_str());
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
        // The ticket of who gave up is gone.
        assert_eq!(std::fs::read_dir(layout.queue()).unwrap().count(), 1);
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
