//! Attacks on the four promises: no work is lost, no secret leaks, every run ends, no outcome lies.
//!
//! A scripted agent that obeys everything attacks from inside of each kind of sandbox that this machine can make; a hostile
//! repository, platform, MCP server and earlier run attack from outside. Each attack is a row of the table in
//! `docs/security.md`.

mod containers;
mod control;
mod control_cluster;
mod earlier_run;
mod escape;
mod gateway;
mod local_services;
mod mcp_servers;
mod names;
mod recovery;
mod secrets;
mod texts;
mod trees;
mod verification;
