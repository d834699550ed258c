//! Logs: on stderr, in words with fields.
//!
//! JSON, one object a line; text on a terminal. `ORCHESTRATOR_LOG` says what is
//! logged, in the words of tracing-subscriber's `EnvFilter` (default `info`).
//!
//! | field | what |
//! |---|---|
//! | `address` | where the server listens |
//! | `client` | the caller's address |
//! | `identity` | `bearer` or `none` |
//! | `method` | the MCP method |
//! | `tool` | the tool's name, or that of the prompt |
//! | `run` | the run's name |
//! | `status` | how it was answered: the HTTP status |
//! | `result` | `ok`, `error` (a tool said so), `refused` (not a call that can be answered), `cut` (the caller went away), `-` (nothing to tell) |
//! | `ms` | how long it took, in milliseconds |
//! | `error` | what went wrong |

use std::io::IsTerminal as _;

use tracing::{Level, Metadata};
use tracing_subscriber::filter::{FilterExt as _, filter_fn};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer as _, fmt};

use crate::config::Environment;
use crate::error::Error;

/// Starts logging, once for a process.
///
/// # Errors
/// `ORCHESTRATOR_LOG` cannot be understood.
pub fn start(environment: &Environment) -> Result<(), Error> {
    let wanted = environment.text("ORCHESTRATOR_LOG").unwrap_or("info");
    let filter = EnvFilter::try_new(wanted).map_err(|error| {
        Error::configuration(format!("the environment variable ORCHESTRATOR_LOG cannot be used: {error}"))
            .with_hint("Give a level, such as debug, or a list, such as info,dispatcher=debug.")
    })?;
    let filter = filter.and(filter_fn(is_level_allowed));
    let lines = fmt::layer().with_writer(std::io::stderr);
    let lines = if std::io::stderr().is_terminal() {
        lines.with_filter(filter).boxed()
    } else {
        lines.with_ansi(false).json().flatten_event(true).with_current_span(false).with_filter(filter).boxed()
    };
    // A second start changes nothing: tests may share a process.
    drop(tracing_subscriber::registry().with(lines).try_init());
    Ok(())
}

/// Whether what is logged there may be: at lower levels, these libraries log what callers send and
/// what they get, guidance and all, and nobody is to turn that on.
fn is_level_allowed(metadata: &Metadata<'_>) -> bool {
    let most = match metadata.target().split("::").next() {
        Some("rmcp") => Level::ERROR,
        Some("hyper" | "hyper_util") => Level::INFO,
        Some(_) | None => Level::TRACE,
    };
    *metadata.level() <= most
}
