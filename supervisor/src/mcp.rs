//! The agent's MCP servers: the catalog, the plan for a run, a probe of each server, and the
//! relay to servers in sandboxes of their own.
//!
//! ```text
//! catalog ─▶ compose [pure] ─▶ probe ─▶ relay host ─▶ ServerPlan::agent_config [pure]
//! ```

mod admission;
mod bounded;
pub mod catalog;
mod child;
pub mod compose;
pub mod installed;
pub mod probe;
pub mod relay;
pub mod relay_client;
pub mod sandbox;
mod tokens;
