//! Describes the sandboxes of this machine, as text and JSON.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::roles::{Places, build, example};
use super::select::SelectedSandbox;
use super::spec::{Kind, Role, SandboxSpec};

/// The sandbox that runs on this machine get.
#[derive(Debug, Serialize)]
pub struct Explanation {
    pub kind: Kind,
    /// What the kind does not separate, or does not allow, on this machine.
    pub remarks: Vec<String>,
    /// Why runs end before they start; absent if they do not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refused: Option<String>,
    /// The sandbox of each role, if asked for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub sandboxes: Vec<SandboxSpec>,
}

impl Explanation {
    /// Describes the selected kind; with `workspace` also the sandbox of each role in it.
    #[must_use]
    pub fn new(selected: SelectedSandbox, places: &Places, workspace: Option<&Path>) -> Self {
        let SelectedSandbox { kind, remarks, refused } = selected;
        let sandboxes = workspace.map(|workspace| {
            let run = example(workspace);
            Role::ALL.map(|role| build(role, kind, places, &run)).into()
        });
        Self { kind, remarks, refused, sandboxes: sandboxes.unwrap_or_default() }
    }

    /// Renders the description for people.
    #[must_use]
    pub fn render(&self) -> String {
        let mut text = format!("Sandbox: {}\n", self.kind.name());
        // Writing to a String cannot fail.
        for remark in &self.remarks {
            let _ = writeln!(text, "Note: {remark}");
        }
        if let Some(refused) = &self.refused {
            let _ = writeln!(text, "Runs do not start: {refused}");
        }
        for spec in &self.sandboxes {
            text.push_str(&render_spec(spec));
        }
        text
    }
}

fn render_spec(spec: &SandboxSpec) -> String {
    let paths = |paths: &[PathBuf]| {
        let paths: Vec<_> = paths.iter().map(|path| path.display().to_string()).collect();
        if paths.is_empty() { "nothing".to_owned() } else { paths.join(" ") }
    };
    let (own, processes) = match spec.kind {
        Kind::Namespaces => (
            if spec.private_tmp { "/proc /dev /tmp /run, empty at the start" } else { "/proc /dev" },
            "only its own processes",
        ),
        Kind::Landlock => ("/dev/null and similar devices", "the process list of this machine"),
        Kind::Off => ("everything", "everything"),
    };
    format!(
        "\n{}\n  reads    {}\n  writes   {}\n  hides    {}\n  own      {own}\n  sees     {processes}\n  network  {}\n  \
         limits   core files of {} bytes, out-of-memory score {}\n",
        spec.role.name(),
        paths(&spec.readable),
        paths(&spec.writable),
        paths(&spec.hidden),
        spec.network.name(),
        spec.limits.core_bytes,
        spec.limits.oom_score_adj,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn explanation_text_matches_snapshot() {
        let selected =
            SelectedSandbox { kind: Kind::Landlock, remarks: vec!["a note".into()], refused: None };
        let places = Places { supervisor: "/opt/supervisor".into(), ..Places::default() };
        insta::assert_snapshot!(Explanation::new(selected, &places, Some(Path::new("/w"))).render());
    }
}
