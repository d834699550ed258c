//! Submits runs and follows them.
//!
//! | module | responsibility |
//! |---|---|
//! | [`cli`] | one file per subcommand: parses, calls an operation, prints |
//! | [`mcp`] | the MCP server: tools over the operations, and the text that the model reads |
//! | [`operations`] | submit, status, stop and so on, for command line and MCP: resolves, decides, calls the backend |
//! | [`task`] | the domain: requests, decisions, statuses and their text (pure) |
//! | [`backend`] | executes runs: `local` as supervised processes, `docker` as containers, `kubernetes` as TaskRuns |
//! | [`taskrun`] | the TaskRun resource, shared by the kubernetes backend and the controller (pure) |
//! | [`controller`] | reconciles TaskRuns of a cluster with Jobs |
//! | [`config`] | the only reader of the environment and `orchestrator.toml` |
//! | [`folder`] | the project folder and its git remote |
//! | [`setup`] | registers this server with MCP clients (Claude Code, Cursor, VS Code) |
//! | [`output`] | the only module that prints |
//! | [`serve`] | MCP over HTTP: authentication, limits, audit log, health |
//! | [`logging`] | log format, level, field names |
//! | [`error`] | errors with a reason and a hint |
//!
//! Only `process` spawns programs, and only `files` and the backends access the disk. Git and the model
//! are the supervisor's job: the dispatcher only connects to the docker engine and the Kubernetes API
//! server.

pub mod backend;
pub mod cli;
mod cluster;
pub mod config;
pub mod controller;
pub mod error;
mod files;
pub mod folder;
pub mod logging;
pub mod mcp;
pub mod operations;
pub mod output;
mod process;
pub mod serve;
pub mod setup;
pub mod task;
pub mod taskrun;
