//! The only place that starts, signals, awaits and reaps processes.
//!
//! A child's environment is built, never inherited; its standard input is
//! closed unless the caller says otherwise.

mod command;

pub use command::{Environment, Group, blocking_command, command};
