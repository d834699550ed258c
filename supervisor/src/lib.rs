//! The agent container's entrypoint: prepares, runs and publishes one attempt at one task.
//!
//! | module | what it knows |
//! |---|---|
//! | [`config`] | the only reader of environment and arguments |
//! | [`run`] | the life of one run: event in, effects out (pure) |
//! | [`event_loop`] | waits on all sources, feeds `run`, performs effects |
//! | [`process`] | the only place that starts, signals, awaits and reaps |
//! | [`git`] | the only place that knows libgit2 |
//! | [`workspace`] | lock and queue, preparation, checkout, documents |
//! | [`mcp`] | composes the agent's MCP configuration, probes each server, relays those with secrets |
//! | [`docs`] | documents of tasks: what is missing, what is told, whether it counts |
//! | [`agent`] | prompt, command line, stream, verdict, watchdogs |
//! | [`publish`] | what may be pushed, the rescue ladder, commit, push, pull request |
//! | [`checks`] | setup and verify commands |
//! | [`context`] | what every step needs and what steps have found out |
//! | [`forge`] | pull requests on GitHub |
//! | [`tls`] | certificate authorities that git, the forge and the model gateway trust |
//! | [`redact`] | masks secrets, across chunk borders too (pure) |
//! | [`record`] | log lines, outcome file, termination message |

pub mod agent;
pub mod app;
pub mod commands;
pub mod config;
pub mod context;
pub mod docs;
pub mod event_loop;
pub mod forge;
pub mod git;
pub mod mcp;
pub mod process;
pub mod publish;
pub mod record;
pub mod redact;
pub mod run;
pub mod tls;
pub mod workspace;
