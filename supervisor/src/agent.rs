//! The Claude Code CLI: its prompts, its arguments, its output and its exit.
//!
//! This module relies on measured behavior of the CLI; the recordings are in
//! `supervisor/tests/fixtures/`.

pub mod command_line;
pub mod exit;
pub mod gateway;
pub mod lines;
pub mod log_lines;
pub mod prepare_session;
pub mod prompt;
pub mod prompt_block;
pub mod reader;
pub mod session;
pub mod session_setup;
pub mod stream;
pub mod watchdog;
