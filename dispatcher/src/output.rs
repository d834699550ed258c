//! The only place that prints.
//!
//! Results go to stdout, everything said about them to stderr. A reader that
//! went away (`| head`) is no error.

use std::io::{IsTerminal as _, Write as _};

use clap::ValueEnum;
use serde::Serialize;

use crate::config::Environment;
use crate::error::Error;
use crate::task::advice::render_for_cli;
use crate::task::text::{ColorChoice, sanitize};

/// The form of results.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, ValueEnum)]
pub enum OutputFormat {
    /// For people.
    #[default]
    Table,
    /// One JSON document.
    Json,
    /// One YAML document.
    Yaml,
}

/// Prints results and remarks.
#[derive(Clone, Debug)]
pub struct Output {
    format: OutputFormat,
    colour: ColorChoice,
    terminal: bool,
}

impl Output {
    /// Colours where stdout is a terminal, unless the environment wants it otherwise.
    #[must_use]
    pub fn new(format: OutputFormat, environment: &Environment) -> Self {
        let colour = decide_colour(environment, std::io::stdout().is_terminal());
        Self { format, colour, terminal: std::io::stderr().is_terminal() && !is_dumb(environment) }
    }

    /// Whether to use colours.
    #[must_use]
    pub fn colour(&self) -> ColorChoice {
        self.colour
    }

    /// The form of results.
    #[must_use]
    pub fn format(&self) -> OutputFormat {
        self.format
    }

    /// Whether a person watches the remarks on a terminal.
    #[must_use]
    pub fn is_interactive(&self) -> bool {
        self.terminal
    }

    /// Prints a result: `text` for people, else `value`.
    ///
    /// # Errors
    /// Stdout cannot be written to.
    pub fn result<T: Serialize>(&self, value: &T, text: impl FnOnce() -> String) -> Result<(), Error> {
        let internal = |error: String| {
            Error::new(
                orchestrator_contract::Reason::InternalError,
                format!("cannot print the result: {error}"),
            )
        };
        match self.format {
            OutputFormat::Table => self.text(&text()),
            OutputFormat::Json => {
                let json =
                    serde_json::to_string_pretty(value).map_err(|error| internal(error.to_string()))?;
                self.text(&format!("{json}\n"))
            }
            OutputFormat::Yaml => {
                let yaml = serde_saphyr::to_string(value).map_err(|error| internal(error.to_string()))?;
                self.text(&yaml)
            }
        }
    }

    /// Prints text as it is.
    ///
    /// # Errors
    /// Stdout cannot be written to.
    pub fn text(&self, text: &str) -> Result<(), Error> {
        let mut stdout = std::io::stdout().lock();
        match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Err(Error::broken_pipe()),
            Err(error) => Err(Error::new(
                orchestrator_contract::Reason::IoError,
                format!("cannot write to stdout: {error}"),
            )),
        }
    }

    /// Says something about the result, on stderr.
    pub fn note(&self, text: &str) {
        remark(text);
    }

    /// Warns, on stderr.
    pub fn warn(&self, text: &str) {
        remark(&format!("warning: {text}"));
    }
}

/// <https://no-color.org> and <https://bixense.com/clicolors/>: `NO_COLOR` goes before
/// `CLICOLOR_FORCE`, that before everything else.
fn decide_colour(environment: &Environment, terminal: bool) -> ColorChoice {
    let is = |name: &str, wanted: fn(&str) -> bool| environment.text(name).is_some_and(wanted);
    let forced = is("CLICOLOR_FORCE", |value| value != "0");
    let wanted = forced || (terminal && !is_dumb(environment) && !is("CLICOLOR", |value| value == "0"));
    if wanted && environment.os("NO_COLOR").is_none() { ColorChoice::Yes } else { ColorChoice::No }
}

/// A terminal that understands nothing but text.
fn is_dumb(environment: &Environment) -> bool {
    environment.text("TERM").is_some_and(|term| term == "dumb")
}

/// Prints an error, and its hint on a line of its own.
pub fn error(problem: &Error) {
    if problem.exit_code() == 0 {
        return;
    }
    remark(&format!("error: {problem}"));
    remark(&format!("hint: {}", render_for_cli(problem.hint())));
}

/// Says what Ctrl-C did not do.
pub fn interrupted() {
    remark("interrupted; a run that was started goes on: dispatcher status");
}

fn remark(text: &str) {
    // There is nobody to tell that stderr cannot be written to.
    drop(writeln!(std::io::stderr().lock(), "{}", sanitize(text)));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn color_choice_follows_terminal_unless_environment_overrides() {
        let cases = [
            ("", true, ColorChoice::Yes),
            ("", false, ColorChoice::No),
            ("NO_COLOR=1", true, ColorChoice::No),
            ("NO_COLOR=0", true, ColorChoice::No),
            ("NO_COLOR=", true, ColorChoice::Yes),
            ("CLICOLOR_FORCE=1", false, ColorChoice::Yes),
            ("CLICOLOR_FORCE=0", false, ColorChoice::No),
            ("CLICOLOR_FORCE=1 NO_COLOR=1", true, ColorChoice::No),
            ("CLICOLOR=0", true, ColorChoice::No),
            ("TERM=dumb", true, ColorChoice::No),
            ("TERM=dumb CLICOLOR_FORCE=1", true, ColorChoice::Yes),
            ("TERM=xterm", true, ColorChoice::Yes),
        ];
        for (variables, terminal, expected) in cases {
            let environment: Environment =
                variables.split(' ').filter_map(|variable| variable.split_once('=')).collect();
            assert_eq!(decide_colour(&environment, terminal), expected, "{variables}, {terminal}");
        }
    }
}
