//! Entrypoint of the agent container: prepares, runs and publishes one attempt at a task.
//!
//! | module | contents |
//! |---|---|
//! | [`config`] | the only reader of environment and arguments |
//! | [`app`] | assembles a run and returns its exit code |
//! | [`run`] | state machine of a run: event in, effects out. Pure |
//! | [`event_loop`] | waits on all sources, feeds `run`, performs effects |
//! | [`container`] | both ends of a guest that is process 1 of another container |
//! | [`context`] | immutable inputs of a run, shared by all steps |
//! | [`endpoint`] | where gateway and relays listen, and how the agent reaches them |
//! | [`failure`] | reason and message of a failed step |
//! | [`process`] | the only place that spawns, signals, awaits and reaps processes |
//! | [`git`] | the only place that uses libgit2 |
//! | [`guest`] | does the file operations where untrusted programs live |
//! | [`homes`] | fresh directories of sandboxes, and the data that outlives them |
//! | [`site`] | where the programs of a role run, and who works on their files |
//! | [`program`] | a running program of a sandbox |
//! | [`workspace`] | lock and queue, preparation, checkout, task documents |
//! | [`mcp`] | composes the agent's MCP configuration, probes servers, relays those in their own sandbox |
//! | [`docs`] | docs runs: plan, prompts, review and collection of task documents |
//! | [`agent`] | prompt, command line, output stream, verdict, watchdogs |
//! | [`sandbox`] | what a program that is not trusted can see, write and reach |
//! | [`publish`] | push policy and fallbacks, commit, push, pull request |
//! | [`commands`] | setup and verify commands |
//! | [`forge`] | pull requests on GitHub |
//! | [`tls`] | certificate authorities that git, the forge and the model gateway trust |
//! | [`redact`] | redacts secrets, across chunk borders too. Pure |
//! | [`record`] | log lines, outcome file, termination message |

pub mod agent;
pub mod app;
pub mod commands;
pub mod config;
pub mod container;
pub mod context;
pub mod docs;
pub mod endpoint;
pub mod event_loop;
pub mod failure;
pub mod forge;
pub mod git;
pub mod guest;
pub mod homes;
pub mod mcp;
pub mod process;
pub mod program;
pub mod publish;
pub mod record;
pub mod redact;
pub mod run;
pub mod sandbox;
pub mod site;
pub mod tls;
pub mod workspace;
