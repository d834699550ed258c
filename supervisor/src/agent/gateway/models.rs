//! Which models a run may use. Pure.

use std::collections::BTreeSet;

use super::json::short;
use super::refusal::Refusal;

/// Families of models whose name is an alias of the CLI too.
const FAMILIES: &[&str] = &["fable", "mythos", "opus", "sonnet", "haiku"];

/// Families that other aliases of the CLI stand for.
const ALIASES: &[(&str, &[&str])] =
    &[("default", &["opus", "sonnet"]), ("best", &["fable", "opus"]), ("opusplan", &["opus", "sonnet"])];

/// The family that the CLI uses for small requests beside the conversation.
const HELPER_FAMILY: &str = "haiku";

/// The models that a run may use: that of its task, and the small one of the CLI.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Models {
    families: BTreeSet<&'static str>,
    names: BTreeSet<String>,
}

impl Models {
    /// Returns the models of a task; `configured` are names that the operator set for the CLI.
    #[must_use]
    pub fn of_task(model: &str, configured: &[&str]) -> Self {
        let name = undecorated(model);
        let mut families = BTreeSet::from([HELPER_FAMILY]);
        let lower = name.to_ascii_lowercase();
        families.extend(FAMILIES.iter().filter(|family| **family == lower));
        let stands_for = ALIASES.iter().filter(|(alias, _)| *alias == lower);
        families.extend(stands_for.flat_map(|(_, families)| families.iter()));
        let names = configured.iter().map(|name| undecorated(name)).chain([name]);
        Self { families, names: names.map(str::to_owned).collect() }
    }

    /// Checks the model of a request.
    ///
    /// # Errors
    /// Refuses other models.
    pub fn check(&self, model: &str) -> Result<(), Refusal> {
        let name = undecorated(model);
        let family = name.strip_prefix("claude-").and_then(|rest| rest.split('-').next());
        if self.names.contains(name) || family.is_some_and(|family| self.families.contains(family)) {
            return Ok(());
        }
        Err(Refusal::forbidden(format!("the model `{}` is not that of this task", short(model))))
    }
}

/// Returns a model name without the CLI's mark for a long context.
fn undecorated(model: &str) -> &str {
    model.trim_end_matches("[1m]")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alias_admits_its_family_and_the_helper_only() {
        let models = Models::of_task("sonnet[1m]", &[]);
        for name in ["claude-sonnet-5-5", "claude-sonnet-4-6-20260101", "claude-haiku-5-5", "sonnet"] {
            assert_eq!(models.check(name), Ok(()), "{name}");
        }
        for name in [
            "claude-opus-5-5",
            "claude-fable-5-2",
            "opus",
            "",
            "claude-",
            "sonnet-claude",
            "claude-opus-sonnet",
        ] {
            assert!(models.check(name).is_err(), "{name}");
        }
    }

    #[test]
    fn full_name_admits_that_version_only() {
        let models = Models::of_task("claude-opus-4-8", &["my-small-model"]);
        for name in ["claude-opus-4-8", "claude-opus-4-8[1m]", "my-small-model", "claude-haiku-4-5"] {
            assert_eq!(models.check(name), Ok(()), "{name}");
        }
        for name in ["claude-opus-5-5", "claude-sonnet-5-5"] {
            assert!(models.check(name).is_err(), "{name}");
        }
    }

    #[test]
    fn unknown_name_of_task_passes_to_api() {
        assert_eq!(Models::of_task("mistake-9", &[]).check("mistake-9"), Ok(()));
        assert_eq!(Models::of_task("opusplan", &[]).check("claude-opus-5-5"), Ok(()));
    }
}
