//! The Claude Code CLI: what it is told, how it is started, what it says, what its end means.
//!
//! Measured behaviour of the CLI, not memory, is what this module rests on;
//! recordings of it are in `supervisor/tests/fixtures/`.

pub mod command_line;
pub mod exit;
pub mod gateway;
pub mod lines;
pub mod log_lines;
pub mod prepare_session;
pub mod prompt;
pub mod reader;
pub mod session;
pub mod stream;
pub mod watchdog;
