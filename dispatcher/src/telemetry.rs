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

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::Directive;

use crate::config::Environment;
use crate::problem::Problem;

/// Starts logging, once for a process.
///
/// # Errors
/// `ORCHESTRATOR_LOG` cannot be understood.
pub fn start(environment: &Environment) -> Result<(), Problem> {
    let wanted = environment.text("ORCHESTRATOR_LOG").unwrap_or("info");
    let unusable = |error: &dyn std::fmt::Display| {
        Problem::configuration(format!("the environment variable ORCHESTRATOR_LOG cannot be used: {error}"))
            .next("Give a level, such as debug, or a list, such as info,dispatcher=debug.")
    };
    let mut filter = EnvFilter::try_new(wanted).map_err(|error| unusable(&error))?;
    // Below these levels they log what callers send and what they get, guidance and all.
    for quiet in ["rmcp=warn", "hyper=info"] {
        filter = filter.add_directive(quiet.parse::<Directive>().map_err(|error| unusable(&error))?);
    }
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let terminal = std::io::stderr().is_terminal();
    // A second start changes nothing: tests may share a process.
    drop(if terminal {
        builder.try_init()
    } else {
        builder.with_ansi(false).json().flatten_event(true).with_current_span(false).try_init()
    });
    Ok(())
}
