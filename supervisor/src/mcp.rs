//! The agent's MCP servers: the catalog, the plan for a run, a probe of each server, and the
//! relay to servers with secrets.
//!
//! ```text
//! catalog ─▶ compose [pure] ─▶ probe ─▶ relay host ─▶ ServerPlan::agent_config [pure]
//! ```

pub mod catalog;
mod child;
pub mod compose;
pub mod installed;
pub mod probe;
pub mod relay;
