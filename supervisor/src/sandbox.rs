//! Sandboxes: what a program that is not trusted can see, write and reach.
//!
//! [`SandboxSpec`] describes a sandbox as data, and [`roles`] has one builder for each role.
//! [`confined_command`] starts a program in one: the supervisor runs itself as `supervisor
//! confined`, which [`enter`] implements. [`select`] chooses the strongest kind of this machine by
//! making one. `docs/decisions/0007-sandbox-and-guest.md` has the threat model.

#![expect(unsafe_code, reason = "system calls that rustix lacks, in processes with one thread")]

mod command;
mod enter;
mod execute;
mod filter;
mod guardian;
mod mounts;
mod namespaces;
mod own;
mod probe;
mod rights;
mod roles;
mod root;
mod rules;
mod select;
mod signals;
mod spec;
mod visible;

pub mod explain;

pub use command::{confined_arguments, confined_command};
pub use enter::confined_main;
pub(crate) use own::{confine_container, confine_guest, confine_transfer};
pub use probe::probe_main;
pub use roles::{Places, RunPlaces, build, guest, machine};
pub use rules::landlock_abi;
pub use select::{Requirement, SelectedSandbox, select};
pub use spec::{Kind, Limits, NetworkView, Role, SandboxSpec};
