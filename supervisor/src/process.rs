//! The only module that spawns, signals, awaits and reaps processes.
//!
//! A child's environment is built, never inherited; its standard input is
//! closed unless the caller pipes it. `docs/pid1.md` explains how reaping works
//! beside tokio.

mod blocking_child;
mod child;
mod command;
mod limits;
mod memory;
mod output;
mod reaper;
mod strays;
mod terminate;

pub use blocking_child::{BlockingChild, spawn_blocking};
pub use child::{Child, Exit, SpawnError, spawn};
pub use command::{Environment, ProcessGroup, blocking_command, command};
pub use limits::raise_descriptor_limit;
pub use memory::oom_kill_count;
pub use output::{read_pipe, read_tail};
pub use reaper::{
    become_subreaper, kill_all_descendants, kill_descendants, kill_descendants_once, kill_orphans, kill_tree,
    reap_orphans, set_undumpable,
};
pub use strays::kill_strays;
pub use terminate::{is_terminated, outlive_sigterm};
