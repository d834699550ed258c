//! The agent's MCP servers: what may be had, one configuration, a probe of each, and the
//! relay to those with secrets.
//!
//! ```text
//! catalogue ─▶ compose [pure] ─▶ probe ─▶ relay host ─▶ Composed::agent_config [pure]
//! ```

pub mod catalog;
mod child;
pub mod compose;
pub mod installed;
pub mod probe;
pub mod relay;
