//! What benchmarks and fault tests share: scripts of the scripted agent, a world to run in.

pub mod cluster;
pub mod mcp;
pub mod script;
pub mod world;
