//! Why an argument cannot be read.

use std::fmt;

use crate::error::Error;
use crate::task::suggest;

/// Why an argument cannot be read.
#[derive(Debug)]
pub(super) struct Fault {
    /// The parameter, once it is known.
    parameter: Option<String>,
    problem: Problem,
}

#[derive(Debug)]
enum Problem {
    /// No parameter has this name.
    Unknown {
        name: String,
        known: &'static [&'static str],
    },
    /// The value has another type.
    Unreadable {
        given: String,
        expected: String,
        example: &'static str,
    },
    /// The value is given twice, by two names.
    Repeated {
        alias: String,
    },
    Other(String),
}

impl Fault {
    pub(super) fn unreadable(given: String, expected: impl Into<String>, example: &'static str) -> Self {
        let problem = Problem::Unreadable { given, expected: expected.into(), example };
        Self { parameter: None, problem }
    }

    pub(super) fn repeated(parameter: &str, alias: &str) -> Self {
        Self { parameter: Some(parameter.to_owned()), problem: Problem::Repeated { alias: alias.to_owned() } }
    }

    /// Names the parameter.
    pub(super) fn of(self, parameter: &str) -> Self {
        Self { parameter: Some(parameter.to_owned()), ..self }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let subject = self.parameter.as_deref().unwrap_or("arguments");
        match &self.problem {
            Problem::Unknown { name, .. } => write!(f, "unknown parameter `{name}`"),
            Problem::Unreadable { given, expected, .. } => {
                write!(f, "invalid `{subject}`: expected {expected}, not {given}")
            }
            Problem::Repeated { alias } => {
                write!(f, "`{subject}` and `{alias}` are the same parameter, and both are given")
            }
            Problem::Other(problem) => write!(f, "invalid `{subject}`: {problem}"),
        }
    }
}

impl std::error::Error for Fault {}

impl serde::de::Error for Fault {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self { parameter: None, problem: Problem::Other(message.to_string()) }
    }

    fn unknown_field(name: &str, known: &'static [&'static str]) -> Self {
        let name = name.chars().take(60).flat_map(char::escape_debug).collect();
        Self { parameter: None, problem: Problem::Unknown { name, known } }
    }
}

impl From<Fault> for Error {
    fn from(fault: Fault) -> Self {
        let error = Self::invalid_request(fault.to_string());
        match fault.problem {
            Problem::Unknown { name, known } => {
                let suggestion = suggest::sentence(&name, known.iter().copied());
                error.with_hint(format!("{suggestion}The parameters are {}.", known.join(", ")))
            }
            Problem::Unreadable { example, .. } => {
                error.with_hint(format!("Pass a value such as {example}, or omit it."))
            }
            Problem::Repeated { alias } => error.with_hint(format!("Omit `{alias}`.")),
            Problem::Other(_) => error,
        }
    }
}
