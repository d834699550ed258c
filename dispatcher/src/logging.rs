//! Logging to stderr, with structured fields.
//!
//! Text on a terminal, otherwise one JSON object per line. `ORCHESTRATOR_LOG` sets the filter in the
//! syntax of tracing-subscriber's `EnvFilter` (default `info`).
//!
//! | field | meaning |
//! |---|---|
//! | `address` | the address the server listens on |
//! | `client` | the caller's address |
//! | `identity` | `bearer` or `none` |
//! | `method` | the MCP method |
//! | `tool` | the name of the tool or prompt |
//! | `run` | the run name |
//! | `status` | the HTTP status |
//! | `result` | `ok`, `error` (the tool failed), `refused` (an invalid or rejected call), `cut` (the caller disconnected), `-` (none) |
//! | `ms` | the duration in milliseconds |
//! | `error` | the error |

use std::io::IsTerminal as _;

use tracing::{Level, Metadata};
use tracing_subscriber::filter::{FilterExt as _, filter_fn};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer as _, fmt};

use crate::config::Environment;
use crate::error::Error;

/// Starts logging, once per process.
///
/// # Errors
/// Returns an error if `ORCHESTRATOR_LOG` is invalid.
pub fn start(environment: &Environment) -> Result<(), Error> {
    let directives = environment.text("ORCHESTRATOR_LOG").unwrap_or("info");
    let filter = EnvFilter::try_new(directives).map_err(|error| {
        Error::configuration(format!("invalid environment variable ORCHESTRATOR_LOG: {error}"))
            .with_hint("Use a level, such as debug, or a list, such as info,dispatcher=debug.")
    })?;
    let filter = filter.and(filter_fn(is_level_allowed));
    let lines = fmt::layer().with_writer(std::io::stderr);
    let lines = if std::io::stderr().is_terminal() {
        lines.with_filter(filter).boxed()
    } else {
        lines.with_ansi(false).json().flatten_event(true).with_current_span(false).with_filter(filter).boxed()
    };
    // A second call is ignored: tests may share a process.
    drop(tracing_subscriber::registry().with(lines).try_init());
    Ok(())
}

/// Returns whether a log event may be written. At lower levels, these libraries log requests and
/// responses, including guidance; no setting may enable that.
fn is_level_allowed(metadata: &Metadata<'_>) -> bool {
    let max_level = match metadata.target().split("::").next() {
        Some("rmcp") => Level::ERROR,
        Some("hyper" | "hyper_util") => Level::INFO,
        Some(_) | None => Level::TRACE,
    };
    *metadata.level() <= max_level
}
