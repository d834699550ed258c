//! Whether runs need a sandbox.

use schemars::JsonSchema;
use serde::Deserialize;

/// Whether runs need a sandbox around the programs of the agent.
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum SandboxMode {
    /// Runs do not start without one.
    Required,
    /// Runs start without one where the machine cannot make any; their outcome says so.
    BestEffort,
    /// Runs have none: the agent's programs can do everything that the user can.
    Off,
}

impl SandboxMode {
    /// Returns the name used in the configuration and in the supervisor's environment.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Required => "required",
            Self::BestEffort => "best-effort",
            Self::Off => "off",
        }
    }
}

impl std::str::FromStr for SandboxMode {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        clap::ValueEnum::from_str(text, false)
            .map_err(|_| format!("unknown sandbox mode `{text}`: use `required`, `best-effort` or `off`"))
    }
}
