//! What TaskRuns may ask for: the images, agents and services of the operator's configuration. Pure.
//!
//! A TaskRun comes from a user who may create TaskRuns. Its agent's Secrets serve the run, and the image that it
//! names runs in the cluster, so the operator decides about both. Names of Secrets never come from a TaskRun, and
//! the image never sees one.

use orchestrator_contract::{AgentName, ServiceName};

use crate::config::Config;
use crate::task::image::ImageReference;
use crate::task::image_pattern::ImagePattern;
use crate::taskrun::definition::TaskRun;

/// The images, agents and services that the operator allows.
#[derive(Clone, Debug, Default)]
pub struct AllowLists {
    /// Images that the configuration names.
    images: Vec<ImageReference>,
    patterns: Vec<ImagePattern>,
    agents: Vec<AgentName>,
    /// `None`: every service.
    services: Option<Vec<ServiceName>>,
}

impl AllowLists {
    /// Reads the lists of a configuration: images that it names or that match `allowed_images`, the default
    /// agent and those in `[agents.NAME]`, and `allowed_services`.
    #[must_use]
    pub fn new(config: &Config) -> Self {
        let settings = config.kubernetes();
        let services = config.service_names().filter_map(|service| config.service(service).image);
        Self {
            images: settings.image.clone().into_iter().chain(services).collect(),
            patterns: settings.allowed_images.clone(),
            agents: config.agent_names().cloned().chain(config.default_agent().ok()).collect(),
            services: settings.allowed_services.clone(),
        }
    }

    /// Returns why a TaskRun is refused, with what the operator can change; `None` if it is allowed.
    #[must_use]
    pub fn refusal(&self, run: &TaskRun) -> Option<String> {
        let spec = &run.spec;
        if !self.agents.contains(&spec.agent) {
            let agent = &spec.agent;
            return Some(format!(
                "agent `{agent}` is not allowed: the controller's configuration has no section `[agents.{agent}]`"
            ));
        }
        let service = &spec.service;
        if self.services.as_ref().is_some_and(|allowed| !allowed.contains(service)) {
            return Some(format!(
                "service `{service}` is not allowed: add it to `allowed_services` in [kubernetes] of the \
                 controller's configuration"
            ));
        }
        let image = spec.image.as_ref()?;
        let is_allowed =
            self.images.contains(image) || self.patterns.iter().any(|pattern| pattern.matches(image));
        (!is_allowed).then(|| {
            format!(
                "image `{image}` is not allowed: add it to `allowed_images` in [kubernetes] of the controller's \
                 configuration"
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Environment, Flags};
    use crate::taskrun::definition::TaskRunSpec;
    use orchestrator_contract::TaskSpec;

    fn lists(toml: &str) -> AllowLists {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("controller.toml");
        std::fs::write(&file, toml).unwrap();
        let environment: Environment = [("ORCHESTRATOR_STATE_DIR", "/nowhere")].into_iter().collect();
        let flags = Flags { config: Some(file), ..Flags::default() };
        AllowLists::new(&Config::load(environment, flags, folder.path()).unwrap())
    }

    fn run(service: &str, agent: &str, image: Option<&str>) -> TaskRun {
        let sample = include_str!("../../../supervisor/contract/samples/task-v1.json");
        let mut task = TaskSpec::from_json(sample).unwrap();
        task.service = ServiceName::new(service).unwrap();
        task.agent = AgentName::new(agent).unwrap();
        let image = image.map(|image| ImageReference::new(image).unwrap());
        TaskRun::new("run", TaskRunSpec::from_task(&task, image, None))
    }

    #[track_caller]
    fn check(lists: &AllowLists, cases: &[(&str, &str, Option<&str>, Option<&str>)]) {
        for (service, agent, image, refusal) in cases {
            let found = lists.refusal(&run(service, agent, *image));
            match refusal {
                None => assert_eq!(found, None, "{service} {agent} {image:?}"),
                Some(expected) => {
                    let found = found.unwrap_or_else(|| panic!("{service} {agent} {image:?} is allowed"));
                    assert!(found.contains(expected), "{found}");
                }
            }
        }
    }

    #[test]
    fn only_named_images_and_default_agent_are_allowed_by_default() {
        let none = lists("");
        check(
            &none,
            &[
                ("trader", "claude-agent-1", None, None),
                ("trader", "claude-agent-2", None, Some("`[agents.claude-agent-2]`")),
                ("trader", "claude-agent-1-platform", None, Some("`[agents.claude-agent-1-platform]`")),
                ("trader", "claude-agent-1", Some("evil/agent"), Some("`allowed_images`")),
            ],
        );
        let named = lists(
            "[kubernetes]\nimage = \"ghcr.io/acme/agent:1\"\n[services.auth]\nimage = \"ghcr.io/acme/auth:2\"",
        );
        check(
            &named,
            &[
                ("trader", "claude-agent-1", Some("ghcr.io/acme/agent:1"), None),
                ("trader", "claude-agent-1", Some("ghcr.io/acme/auth:2"), None),
                (
                    "trader",
                    "claude-agent-1",
                    Some("ghcr.io/acme/agent:2"),
                    Some("image `ghcr.io/acme/agent:2`"),
                ),
                ("trader", "claude-agent-1", Some("ghcr.io/acme/agent"), Some("`allowed_images`")),
                ("trader", "claude-agent-1", Some("acme/agent:1"), Some("`allowed_images`")),
                ("any", "claude-agent-1", None, None),
            ],
        );
    }

    #[test]
    fn configured_lists_replace_defaults() {
        let listed = lists(
            "[defaults]\nagent = \"lead\"\n[agents.second]\n[kubernetes]\nallowed_images = [\"ghcr.io/acme/*\"]\n\
             allowed_services = [\"trader\"]",
        );
        check(
            &listed,
            &[
                ("trader", "lead", Some("ghcr.io/acme/any:1"), None),
                ("trader", "second", None, None),
                ("trader", "claude-agent-1", None, Some("agent `claude-agent-1`")),
                ("auth", "lead", None, Some("`allowed_services`")),
                ("trader", "lead", Some("ghcr.io/acme-evil/any:1"), Some("`allowed_images`")),
            ],
        );
        check(
            &lists("[kubernetes]\nallowed_services = []"),
            &[("trader", "claude-agent-1", None, Some("service `trader`"))],
        );
    }
}
