//! Shared by benchmarks and agent fault tests: the scripted agent's script and an environment to run it in.

pub mod cluster;
pub mod env;
pub mod mcp;
pub mod script;
