//! The only place that starts, signals, awaits and reaps processes.
//!
//! A child's environment is built, never inherited; its standard input is
//! closed unless the caller says otherwise. `docs/pid1.md` has the reasoning
//! about reaping beside tokio.

mod child;
mod command;
mod confined;
mod memory;
mod output;
mod survivors;

pub use child::{Child, Exit, SpawnError, spawn};
pub use command::{Environment, Group, blocking_command, command};
pub use confined::{Confinement, confined, confined_main, landlock_available};
pub use memory::out_of_memory_kills;
pub use output::read_end;
pub use survivors::{become_subreaper, end_all, end_orphans, hide_from_others, reap_strangers};
