//! What is left when a child has ended: orphans, daemons, zombies.
//!
//! The supervisor is the subreaper of everything it starts (PID 1 is one by
//! nature), so whatever loses its parent becomes its child and can be found.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};

use super::child::awaited;

/// How often the process table is looked at while something is being ended.
const POLL_INTERVAL: Duration = Duration::from_millis(5);

/// How long ending everything may take: a process in the kernel cannot be killed.
const KILL_TIMEOUT: Duration = Duration::from_secs(10);

/// Makes orphans of our descendants our children (`PR_SET_CHILD_SUBREAPER` of prctl(2)).
pub fn become_subreaper() {
    // Cannot fail for the own process on Linux 3.4 and newer; elsewhere orphans go to init.
    let _ = rustix::process::set_child_subreaper(Some(rustix::process::getpid()));
}

/// Keeps others of the same user from reading our memory and environment
/// (`PR_SET_DUMPABLE` of prctl(2)). An exec undoes it.
pub fn set_undumpable() {
    let behavior = rustix::process::DumpableBehavior::NotDumpable;
    let _ = rustix::process::set_dumpable_behavior(behavior);
}

/// Collects ended children that nobody awaits, so that no zombies pile up.
pub fn reap_orphans() {
    let awaited = awaited();
    for entry in read_process_table() {
        if entry.parent == own_pid() && entry.zombie && !awaited.contains(&entry.pid) {
            reap(entry.pid);
        }
    }
}

/// Kills every descendant but those in `spared` (and what these started), until
/// none is left. Says which are left after [`LIMIT`].
pub async fn kill_descendants(spared: &BTreeSet<u32>) -> Vec<u32> {
    let deadline = tokio::time::Instant::now() + KILL_TIMEOUT;
    loop {
        let left = descendants(&read_process_table(), own_pid(), spared);
        if left.is_empty() || tokio::time::Instant::now() >= deadline {
            return left;
        }
        for &pid in &left {
            signal(pid, Signal::KILL);
        }
        reap_orphans();
        tokio::time::sleep(POLL_INTERVAL).await;
    }
}

/// Kills every descendant that is no child somebody awaits, and not started by one: what a
/// conversation left behind while others go on. Says which are left after [`LIMIT`].
pub async fn kill_orphans() -> Vec<u32> {
    let deadline = tokio::time::Instant::now() + KILL_TIMEOUT;
    loop {
        let left = kill_orphans_once();
        if left.is_empty() || tokio::time::Instant::now() >= deadline {
            return left;
        }
        reap_orphans();
        tokio::time::sleep(POLL_INTERVAL).await;
    }
}

fn kill_orphans_once() -> Vec<u32> {
    // Held meanwhile, so that a child which is just being started is never taken for an orphan.
    let awaited = awaited();
    let left = descendants(&read_process_table(), own_pid(), &awaited);
    for &pid in &left {
        signal(pid, Signal::KILL);
    }
    left
}

fn own_pid() -> u32 {
    std::process::id()
}

fn signal(pid: u32, signal: Signal) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        // It may have ended since the table was read.
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

/// The process table, as far as `/proc` shows it.
fn read_process_table() -> Vec<Entry> {
    let Ok(folder) = std::fs::read_dir("/proc") else { return Vec::new() };
    folder
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok())
        .filter_map(|pid| parse_stat(pid, &std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?))
        .collect()
}

/// Reads state and parent from `/proc/PID/stat` (`proc_pid_stat(5)`); the name in
/// parentheses can contain anything, so the last `)` ends it.
fn parse_stat(pid: u32, stat: &str) -> Option<Entry> {
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_ascii_whitespace();
    let state = fields.next()?;
    let parent = fields.next()?.parse().ok()?;
    Some(Entry { pid, parent, zombie: matches!(state, "Z" | "X") })
}

/// All that descends from `root`, without the spared and what descends from them.
/// Zombies that somebody awaits do not count: they are collected by their owner.
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
