//! Attempt numbers of a task key: 1, 2, 3, ...; never reused, not even after a deletion.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use orchestrator_contract::layout::Layout;
use orchestrator_contract::names::fresh_branch;
use orchestrator_contract::{Kind, RunName, TaskKey, TaskSpec};
use rustix::fs::{FlockOperation, Mode, OFlags, flock};

use crate::git::ControlRepository;
use crate::record::file::{read_json, write_atomically};

/// Maximum length of a counter file that is read; a longer one is damaged.
const COUNTER_MAX_BYTES: u64 = 32;

/// The last attempt number cannot be read or written.
#[derive(Debug, thiserror::Error)]
#[error("cannot update attempt number in `{}`", path.display())]
pub struct AttemptError {
    /// File with the number.
    pub path: PathBuf,
    #[source]
    pub source: io::Error,
}

/// Returns the number of the last attempt, or 0 if there was none.
///
/// It is the highest of the counter file and the directories of the runs. If the file is missing,
/// unreadable or damaged, refs count too.
///
/// # Errors
/// Returns an error if the directory of the runs exists but cannot be read.
pub fn last_attempt(layout: &Layout, key: &TaskKey) -> Result<u32, AttemptError> {
    let counted = read_counter(&layout.attempts(key)).ok().and_then(|text| TaskKey::parse_attempt(&text));
    let runs = recorded_runs(layout, key).map_err(|source| AttemptError { path: layout.runs(), source })?;
    let highest_run = runs.last_key_value().map_or(0, |(attempt, _)| *attempt);
    let counted = counted.unwrap_or_else(|| highest_in_refs(layout, key));
    Ok(counted.max(highest_run))
}

/// Reads a counter file. Whatever else is in its place is an error.
fn read_counter(path: &Path) -> io::Result<String> {
    // Opening a pipe would wait for its writer.
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = File::from(rustix::fs::open(path, flags, Mode::empty())?);
    if !file.metadata()?.is_file() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let mut text = String::new();
    file.take(COUNTER_MAX_BYTES).read_to_string(&mut text)?;
    Ok(text)
}

/// Returns the runs of a task key that have a directory in the workspace, by attempt.
///
/// # Errors
/// Returns an error if the directory of the runs exists but cannot be read.
pub(crate) fn recorded_runs(layout: &Layout, key: &TaskKey) -> io::Result<BTreeMap<u32, RunName>> {
    let entries = match std::fs::read_dir(layout.runs()) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(BTreeMap::new()),
        Err(error) => return Err(error),
    };
    let mut runs = BTreeMap::new();
    for entry in entries {
        let name = entry?.file_name();
        let Some((attempt, run)) = name.to_str().and_then(|name| key.attempt_of(name)) else { continue };
        // Names of different keys can collide; an unreadable task counts.
        let task: Option<TaskSpec> = read_json(&layout.run_dir(&run).task()).ok().flatten();
        if task.is_none_or(|task| task.identity() == *key) {
            runs.insert(attempt, run);
        }
    }
    Ok(runs)
}

/// Returns the highest attempt that a ref of a control repository names; 0 without one.
fn highest_in_refs(layout: &Layout, key: &TaskKey) -> u32 {
    let (control, task) = match key.kind {
        Kind::Implementation => (layout.target_control(), key.task),
        Kind::Docs => (layout.docs_control(), None),
    };
    let Ok(control) = ControlRepository::open_existing(&control) else { return 0 };
    let references = control.references("refs/*").unwrap_or_default();
    let attempts = references.iter().filter_map(|(name, _)| {
        if let Some(rest) = name.strip_prefix("refs/orchestrator/") {
            return key.attempt_of(rest.split('/').next()?).map(|(attempt, _)| attempt);
        }
        let attempt = name.rsplit_once('-')?.1.parse().ok()?;
        name.ends_with(fresh_branch(task?, attempt).as_str()).then_some(attempt)
    });
    attempts.max().unwrap_or_default()
}

/// Allocates the next attempt number and syncs it to disk.
///
/// # Errors
/// Returns an error if the number cannot be read or written.
pub fn allocate_attempt(layout: &Layout, key: &TaskKey) -> Result<u32, AttemptError> {
    let path = layout.supervisor_dir().join("attempts.lock");
    let error = |source| AttemptError { path: path.clone(), source };
    std::fs::create_dir_all(layout.supervisor_dir()).map_err(error)?;
    let lock = File::options().create(true).truncate(false).write(true).open(&path).map_err(error)?;
    flock(&lock, FlockOperation::LockExclusive).map_err(|errno| error(errno.into()))?;
    let next = last_attempt(layout, key)?.saturating_add(1);
    write_number(layout, key, next)?;
    Ok(next)
}

/// Raises the last attempt number to `attempt`, which a dispatcher may have allocated elsewhere.
///
/// # Errors
/// Returns an error if the number cannot be read or written.
pub fn record_attempt(layout: &Layout, key: &TaskKey, attempt: u32) -> Result<(), AttemptError> {
    if last_attempt(layout, key)? >= attempt {
        return Ok(());
    }
    write_number(layout, key, attempt)
}

fn write_number(layout: &Layout, key: &TaskKey, attempt: u32) -> Result<(), AttemptError> {
    let path = layout.attempts(key);
    let written = make_way(&layout.supervisor_dir(), &path)
        .and_then(|()| write_atomically(&path, attempt.to_string().as_bytes()));
    written.map_err(|source| AttemptError { path, source })
}

/// Moves aside a directory in place of the file, and files in place of its folders below `root`.
fn make_way(root: &Path, path: &Path) -> io::Result<()> {
    let mut folders: Vec<&Path> =
        path.ancestors().skip(1).take_while(|folder| *folder != root && folder.starts_with(root)).collect();
    folders.reverse();
    for folder in folders {
        if folder.symlink_metadata().is_ok() && !folder.is_dir() {
            move_aside(folder)?;
        }
    }
    if path.symlink_metadata().is_ok_and(|found| found.is_dir()) {
        move_aside(path)?;
    }
    Ok(())
}

fn move_aside(path: &Path) -> io::Result<()> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let names = (1_u32..).map(|number| path.with_file_name(format!("{name}.unusable-{number}")));
    let free = names.into_iter().find(|free| free.symlink_metadata().is_err());
    std::fs::rename(path, free.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use orchestrator_contract::{AgentName, ServiceName, TaskId};

    fn key() -> TaskKey {
        TaskKey {
            kind: Kind::Implementation,
            service: ServiceName::new("trader").unwrap(),
            agent: AgentName::new("a").unwrap(),
            task: Some(TaskId::new(1).unwrap()),
        }
    }

    fn make_run(layout: &Layout, name: &str) {
        std::fs::create_dir_all(layout.run_dir(&RunName::new(name).unwrap()).folder()).unwrap();
    }

    #[test]
    fn damaged_counter_never_reuses_number() {
        for damage in ["", "garbage", "-1", "1.5", "99999999999999999999", "4294967295", "\u{0}", "1"] {
            let folder = tempfile::tempdir().unwrap();
            let (layout, key) = (Layout::new(folder.path()), key());
            for number in 1..=3 {
                assert_eq!(allocate_attempt(&layout, &key).unwrap(), number);
                make_run(&layout, &format!("trader-a-task1-attempt{number}"));
            }
            make_run(&layout, "trader-a-task10-attempt9");
            make_run(&layout, "trader-b-task1-attempt9");
            std::fs::write(layout.attempts(&key), damage).unwrap();
            assert_eq!(last_attempt(&layout, &key).unwrap(), 3, "{damage:?}");
            assert_eq!(allocate_attempt(&layout, &key).unwrap(), 4, "{damage:?}");
            assert_eq!(allocate_attempt(&layout, &key).unwrap(), 5, "{damage:?}");
        }
    }

    #[test]
    fn counter_that_is_directory_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let (layout, key) = (Layout::new(folder.path()), key());
        std::fs::create_dir_all(layout.attempts(&key).join("not ours")).unwrap();
        make_run(&layout, "trader-a-task1-attempt7");
        assert_eq!(allocate_attempt(&layout, &key).unwrap(), 8);
        record_attempt(&layout, &key, 20).unwrap();
        assert_eq!(last_attempt(&layout, &key).unwrap(), 20);
        assert!(layout.attempts(&key).with_file_name("task1.unusable-1").join("not ours").is_dir());
    }

    #[test]
    fn counter_that_is_no_readable_file_is_replaced() {
        use std::os::unix::fs::PermissionsExt as _;
        type Damage = (&'static str, &'static dyn Fn(&Path));
        let damages: [Damage; 5] = [
            ("pipe", &|path| {
                rustix::fs::mknodat(rustix::fs::CWD, path, rustix::fs::FileType::Fifo, Mode::RWXU, 0)
                    .unwrap();
            }),
            ("mode 000", &|path| {
                std::fs::write(path, "2").unwrap();
                std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o0)).unwrap();
            }),
            ("link to itself", &|path| std::os::unix::fs::symlink(path, path).unwrap()),
            ("no text", &|path| std::fs::write(path, [0xff, 0xfe]).unwrap()),
            ("file in place of the folder", &|path| {
                std::fs::remove_dir(path.parent().unwrap()).unwrap();
                std::fs::write(path.parent().unwrap(), "garbage").unwrap();
            }),
        ];
        for (what, damage) in damages {
            let folder = tempfile::tempdir().unwrap();
            let (layout, key) = (Layout::new(folder.path()), key());
            let path = layout.attempts(&key);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            damage(&path);
            make_run(&layout, "trader-a-task1-attempt7");
            assert_eq!(allocate_attempt(&layout, &key).unwrap(), 8, "{what}");
            assert_eq!(std::fs::read_to_string(&path).unwrap(), "8", "{what}");
        }
    }

    #[test]
    fn garbage_beside_counters_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let (layout, key) = (Layout::new(folder.path()), key());
        let all = layout.supervisor_dir().join("attempts");
        std::fs::create_dir_all(all.join("a/folder")).unwrap();
        std::fs::write(all.join("a/file"), "garbage").unwrap();
        std::fs::write(all.join("other"), "99").unwrap();
        assert_eq!(allocate_attempt(&layout, &key).unwrap(), 1);
        assert!(all.join("a/folder").is_dir() && all.join("a/file").is_file() && all.join("other").is_file());
    }

    #[test]
    fn refs_count_without_counter_and_runs() {
        let folder = tempfile::tempdir().unwrap();
        let (layout, key) = (Layout::new(folder.path()), key());
        let url = orchestrator_contract::RepositoryUrl::new("https://github.com/acme/trader").unwrap();
        let control = ControlRepository::open(&layout.target_control(), &url).unwrap().into_repository();
        for name in [
            "refs/heads/feature/task-1-implementation-4",
            "refs/heads/feature/task-2-implementation-40",
            "refs/orchestrator/trader-a-task1-attempt6/rewritten",
            "refs/orchestrator/trader-a-task2-attempt60/rewritten",
        ] {
            let file = control.path().join(name);
            std::fs::create_dir_all(file.parent().unwrap()).unwrap();
            std::fs::write(file, "0123456789012345678901234567890123456789\n").unwrap();
        }
        assert_eq!(last_attempt(&layout, &key).unwrap(), 6);
    }

    #[test]
    fn concurrent_attempt_numbers_are_unique_without_gaps() {
        let folder = tempfile::tempdir().unwrap();
        let layout = Layout::new(folder.path());
        let key = key();
        let mut numbers: Vec<u32> = std::thread::scope(|scope| {
            let allocate = || (0..5).map(|_| allocate_attempt(&layout, &key).unwrap()).collect::<Vec<_>>();
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(allocate)).collect();
            threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
        });
        numbers.sort_unstable();
        assert_eq!(numbers, (1..=20).collect::<Vec<_>>());
    }
}
