//! Reaps and kills what remains after a child exits: orphans, daemons, zombies.
//!
//! The supervisor is the subreaper of its descendants (PID 1 always is), so a
//! process that loses its parent becomes its child.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};
use rustix::thread::{Timespec, nanosleep};

use super::blocking_child::blocking_children;
use super::child::awaited;

/// How often the process table is read while processes are being killed.
const POLL_INTERVAL: Duration = Duration::from_millis(5);

/// How long to wait for killed processes: one that hangs in the kernel does not exit.
const KILL_TIMEOUT: Duration = Duration::from_secs(10);

/// How often a tree is read until no new process appears in it.
const KILL_TREE_ROUNDS: usize = 20;

/// Makes this process the subreaper of its descendants (`PR_SET_CHILD_SUBREAPER` of prctl(2)).
pub fn become_subreaper() {
    // Cannot fail on Linux 3.4 and newer; elsewhere init adopts orphans.
    let _ = rustix::process::set_child_subreaper(Some(rustix::process::getpid()));
}

/// Prevents processes of the same user from reading this process's memory and environment.
///
/// Clears `PR_SET_DUMPABLE` of prctl(2); `execve` resets it.
pub fn set_undumpable() {
    let behavior = rustix::process::DumpableBehavior::NotDumpable;
    let _ = rustix::process::set_dumpable_behavior(behavior);
}

/// Reaps zombies that are children of this process but not awaited by tokio.
pub fn reap_orphans() {
    let awaited = awaited();
    for entry in read_process_table() {
        if entry.parent == own_pid() && entry.zombie && !awaited.contains(&entry.pid) {
            reap(entry.pid);
        }
    }
}

/// Kills all descendants except guests, which a thread of this process uses.
///
/// Returns the process ids that are still running after `KILL_TIMEOUT`.
pub async fn kill_descendants() -> Vec<u32> {
    let deadline = tokio::time::Instant::now() + KILL_TIMEOUT;
    loop {
        let running = running_descendants();
        if running.is_empty() || tokio::time::Instant::now() >= deadline {
            return running;
        }
        for &pid in &running {
            signal(pid, Signal::KILL);
        }
        reap_orphans();
        tokio::time::sleep(POLL_INTERVAL).await;
    }
}

/// Returns the running descendants, except guests.
fn running_descendants() -> Vec<u32> {
    // Locked meanwhile, so that no guest is started that is not spared.
    let _awaited = awaited();
    let spared = blocking_children();
    descendants(&read_process_table(), own_pid(), &spared)
}

/// Kills and reaps all descendants, in a process without an async runtime, within `limit`.
pub fn kill_all_descendants(limit: Duration) {
    let deadline = std::time::Instant::now() + limit;
    let interval = Timespec { tv_sec: 0, tv_nsec: POLL_INTERVAL.subsec_nanos().into() };
    loop {
        let running = descendants(&read_process_table(), own_pid(), &BTreeSet::new());
        if running.is_empty() || std::time::Instant::now() >= deadline {
            return;
        }
        for &pid in &running {
            signal(pid, Signal::KILL);
        }
        while let Ok(Some(_)) = waitpid(None, WaitOptions::NOHANG) {}
        let _ = nanosleep(&interval);
    }
}

/// Signals all descendants except those in `spared` and their descendants to exit; returns them.
///
/// The caller reaps, and calls again until none is left.
pub fn kill_descendants_once(spared: &BTreeSet<u32>) -> Vec<u32> {
    let running = descendants(&read_process_table(), own_pid(), spared);
    running.iter().for_each(|pid| signal(*pid, Signal::KILL));
    running
}

/// Kills orphans: descendants that no awaited child started.
///
/// Returns the process ids that are still running after `KILL_TIMEOUT`.
pub async fn kill_orphans() -> Vec<u32> {
    let deadline = tokio::time::Instant::now() + KILL_TIMEOUT;
    loop {
        let running = kill_orphans_once();
        if running.is_empty() || tokio::time::Instant::now() >= deadline {
            return running;
        }
        reap_orphans();
        tokio::time::sleep(POLL_INTERVAL).await;
    }
}

/// Kills a child with all of its descendants, also those in groups and sessions of their own.
///
/// The caller must not have awaited the child yet: its process id is not reused until then.
pub fn kill_tree(child: u32) {
    for _ in 0..KILL_TREE_ROUNDS {
        // Stopped first, so that none of them can start another one before it is killed.
        let tree = process_tree(child);
        tree.iter().for_each(|pid| signal(*pid, Signal::STOP));
        if process_tree(child).is_subset(&tree) {
            break;
        }
    }
    process_tree(child).into_iter().for_each(|pid| signal(pid, Signal::KILL));
}

/// Returns a running process with its running descendants.
fn process_tree(root: u32) -> BTreeSet<u32> {
    let table = read_process_table();
    let own = table.iter().filter(|entry| entry.pid == root && !entry.zombie).map(|entry| entry.pid);
    own.chain(descendants(&table, root, &BTreeSet::new())).collect()
}

fn kill_orphans_once() -> Vec<u32> {
    // Locked meanwhile, so that a child that is being spawned is never taken for an orphan.
    let awaited = awaited();
    let running = descendants(&read_process_table(), own_pid(), &awaited);
    for &pid in &running {
        signal(pid, Signal::KILL);
    }
    running
}

fn own_pid() -> u32 {
    std::process::id()
}

fn signal(pid: u32, signal: Signal) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        // It may have exited since the table was read.
        let _ = kill_process(pid, signal);
    }
}

fn reap(pid: u32) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        let _ = waitpid(Some(pid), WaitOptions::NOHANG);
    }
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Entry {
    pid: u32,
    parent: u32,
    zombie: bool,
}

/// Reads the process table from `/proc`.
fn read_process_table() -> Vec<Entry> {
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok())
        .filter_map(|pid| parse_stat(pid, &std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?))
        .collect()
}

/// Parses state and parent in `/proc/PID/stat` (`proc_pid_stat(5)`).
///
/// The name in parentheses can contain any character, so the last `)` ends it.
fn parse_stat(pid: u32, stat: &str) -> Option<Entry> {
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_ascii_whitespace();
    let state = fields.next()?;
    let parent = fields.next()?.parse().ok()?;
    Some(Entry { pid, parent, zombie: matches!(state, "Z" | "X") })
}

/// Returns the running descendants of `root`, except `spared` and their descendants.
fn descendants(table: &[Entry], root: u32, spared: &BTreeSet<u32>) -> Vec<u32> {
    let mut children: BTreeMap<u32, Vec<Entry>> = BTreeMap::new();
    for entry in table {
        children.entry(entry.parent).or_default().push(*entry);
    }
    let mut found = Vec::new();
    let mut queue = vec![root];
    while let Some(parent) = queue.pop() {
        for entry in children.get(&parent).into_iter().flatten() {
            if spared.contains(&entry.pid) {
                continue;
            }
            if !entry.zombie {
                found.push(entry.pid);
            }
            queue.push(entry.pid);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stat_with_parentheses_in_name_is_parsed() {
        let entry = parse_stat(7, "7 (a) R 1 (b) Z 3 4 5").unwrap();
        assert_eq!(entry, Entry { pid: 7, parent: 3, zombie: true });
    }

    #[test]
    fn descendants_exclude_spared_process_trees() {
        let alive = |pid, parent| Entry { pid, parent, zombie: false };
        let table = [alive(2, 1), alive(3, 2), alive(4, 1), alive(5, 4), alive(9, 8)];
        assert_eq!(descendants(&table, 1, &BTreeSet::from([4])), [2, 3]);
    }
}
