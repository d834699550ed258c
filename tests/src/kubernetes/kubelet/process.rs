//! A program and all that it started: a container ends as a whole, and so do they.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::sync::{Arc, Mutex, PoisonError};

use rustix::process::{Pid, Signal, kill_process};

/// A process that may be somebody else's by now, unless it started at the same time.
type Known = (i32, u64);

/// A program and its descendants, those among them too whose parents are gone.
#[derive(Clone)]
pub struct Group {
    pid: i32,
    seen: Arc<Mutex<BTreeSet<Known>>>,
}

impl Group {
    /// The group of a process that has just started.
    pub fn of(pid: u32) -> Self {
        let group = Self { pid: i32::try_from(pid).expect("a process id"), seen: Arc::default() };
        group.look();
        group
    }

    /// The program itself.
    pub fn pid(&self) -> u32 {
        self.pid.unsigned_abs()
    }

    /// Remembers the descendants of now: they are no descendants once their parent is gone.
    pub fn look(&self) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let processes = processes();
        seen.retain(|(pid, start)| processes.get(pid).is_some_and(|it| it.start == *start));
        let mut family: BTreeSet<i32> = seen.iter().map(|(pid, _)| *pid).collect();
        family.insert(self.pid);
        loop {
            let more: Vec<i32> = processes
                .iter()
                .filter(|(pid, it)| family.contains(&it.parent) && !family.contains(pid))
                .map(|(pid, _)| *pid)
                .collect();
            if more.is_empty() {
                break;
            }
            family.extend(more);
        }
        seen.extend(family.iter().filter_map(|pid| Some((*pid, processes.get(pid)?.start))));
    }

    /// Asks the program to end; its children are its own affair.
    pub fn terminate(&self) {
        signal(self.pid, Signal::TERM);
    }

    /// Kills all of it.
    pub fn kill(&self) {
        // Whoever is stopped starts nothing while we look.
        signal(self.pid, Signal::STOP);
        self.look();
        signal(self.pid, Signal::KILL);
        self.kill_rest();
    }

    /// Kills what the program left behind.
    pub fn kill_rest(&self) {
        // A process may have started another after the look; its parent is dead in the second round.
        for _ in 0..3 {
            self.look();
            let seen: Vec<Known> =
                self.seen.lock().unwrap_or_else(PoisonError::into_inner).iter().copied().collect();
            let rest: Vec<Known> = seen.into_iter().filter(|(pid, _)| *pid != self.pid).collect();
            if rest.is_empty() {
                return;
            }
            rest.iter().for_each(|(pid, _)| signal(*pid, Signal::KILL));
        }
    }
}

fn signal(pid: i32, signal: Signal) {
    if let Some(pid) = Pid::from_raw(pid) {
        // It may be gone already, which is as good.
        kill_process(pid, signal).ok();
    }
}

struct Process {
    parent: i32,
    start: u64,
}

/// The processes of this machine, but for those that ended and wait for their parents.
fn processes() -> BTreeMap<i32, Process> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    pids.filter_map(|pid| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The name, in parentheses, may hold anything.
        let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
        let state = fields.next()?;
        let parent = fields.next()?.parse().ok()?;
        // proc_pid_stat(5): field 22, the third being the state.
        let start = fields.nth(17)?.parse().ok()?;
        (state != "Z").then_some((pid, Process { parent, start }))
    })
    .collect()
}
