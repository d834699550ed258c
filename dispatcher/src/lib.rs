//! Turns a request into a run and follows it.
//!
//! | module | what it knows |
//! |---|---|
//! | [`cli`] | one file per subcommand: parse, call, print |
//! | [`mcp`] | the MCP server: tools over the verbs, and the text that a model reads |
//! | [`operations`] | what each verb does, once: resolve, decide, call the backend |
//! | [`task`] | the domain: requests, decisions, statuses, their text (pure) |
//! | [`backend`] | where runs run: `local`, supervised processes of this machine; `docker`, containers; `kubernetes`, TaskRuns |
//! | [`taskrun`] | the TaskRun resource, which the Kubernetes backend and the controller share (pure) |
//! | [`controller`] | has the Jobs of a cluster perform TaskRuns |
//! | [`config`] | the only reader of environment and `orchestrator.toml` |
//! | [`folder`] | the open folder and its git remote |
//! | [`setup`] | how clients (Claude Code, Cursor, VS Code) get to know this server |
//! | [`output`] | the only place that prints |
//! | [`serve`] | MCP over HTTP: who may call, limits, audit log, health |
//! | [`telemetry`] | log format, level, field names |
//! | [`problem`] | what a person is told when something cannot be done |
//!
//! Only `process` starts programs, and only `files` and the backend touch the
//! disk. Nothing here talks to git or to the network: that is the supervisor's;
//! the docker backend talks to its engine's socket, the Kubernetes backend and the
//! controller to the API server.

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
