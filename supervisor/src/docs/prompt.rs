//! What the agent that writes documents is told. Pure.
//!
//! What all conversations of a run share comes first and is the same to the byte, so that
//! the model's cache serves it.

use std::fmt::Write as _;
use std::path::Path;

use orchestrator_contract::ServiceName;

use super::plan::{DocsTask, Document, Plan, RelatedTask};
use super::review::{CRITERIA_MIN, sections};
use crate::agent::prompt::truncate;
use crate::workspace::documents::{Entry, Subtask};

/// How much of each of the project's own documents is shown; the rest is named by its path.
const PROJECT_MAX: usize = 48 * 1024;

/// How much of a neighbour's description is shown.
const NEIGHBOUR_MAX: usize = 600;

/// How many tasks the overview names.
const OVERVIEW_MAX: usize = 300;

/// How much of an old document is shown.
const EXISTING_MAX: usize = 64 * 1024;

/// What is the same for all conversations of a run.
#[derive(Clone, Copy, Debug)]
pub struct DocsPromptInput<'a> {
    /// The service.
    pub service: &'a ServiceName,
    /// What there is to write.
    pub plan: &'a Plan,
    /// Where the working tree is.
    pub tree: &'a Path,
    /// What a person wants.
    pub guidance: Option<&'a str>,
    /// The MCP servers that are there, by name with their descriptions.
    pub servers: &'a [(String, String)],
}

/// The standing instructions, appended to the CLI's own system prompt.
#[must_use]
pub fn render_system_prompt(shared: &DocsPromptInput<'_>) -> String {
    let DocsPromptInput { service, plan, tree, guidance, servers } = *shared;
    let mut text = format!(
        "You write the documents of one task of the service `{service}`, alone and unattended: nobody can answer \
         while you work. Another agent, which has not seen this conversation, will implement the task from what you \
         write, in the service's own repository.\n\n\
         The documentation repository is in `{}`. Read it as you need; you can only write in the folder that you are \
         given. Do not use git: what you leave in that folder is looked at, committed and proposed for you.\n\n\
         A task has three documents, in Markdown:\n",
        tree.display()
    );
    for document in Document::ALL {
        let what = match document {
            Document::Task => "what is to be done and why",
            Document::Prompt => "what the implementing agent is told, addressed to it",
            Document::Criteria => "how it is seen that the task is done",
        };
        let _ = writeln!(text, "\n- `{}`: {what}.", document.file());
        let parts = sections(document);
        if parts.is_empty() {
            let _ = writeln!(
                text,
                "  A list with at least {CRITERIA_MIN} entries `- [ ] criterion. Check: how it is checked`, where the \
                 check is a command or something that a reviewer can look at."
            );
        } else {
            text.push_str("  Sections, each with this very heading:\n");
            for section in parts {
                let _ = writeln!(text, "  - `## {}`: {}", section.heading, section.about);
            }
        }
    }
    text.push_str(
        "\nBe specific: name files, interfaces, data, limits and errors as far as they can be known. Where something \
         is open, decide, and say that you did. Leave no placeholders such as TODO or TBD, and invent no facts about \
         code that you have not seen. Keep the identifiers and numbers that you are given. Put no credentials into \
         documents.\n\
         End with your verdict through the StructuredOutput tool: `done` when the documents are written, `blocked` \
         with your question if the task cannot be understood. The summary is one sentence for the reviewer.\n",
    );
    if !servers.is_empty() {
        text.push_str("\nMCP servers that you have (tools named `mcp__SERVER__TOOL`):\n");
        for (name, description) in servers {
            let _ = writeln!(text, "- `{name}`: {description}");
        }
    }
    if let Some(guidance) = guidance {
        let _ = write!(
            text,
            "\nA person tells you this; it goes before everything else:\n\n<guidance>\n{guidance}\n</guidance>\n"
        );
    }
    for (name, document) in [("architecture", &plan.architecture), ("requirements", &plan.requirements)] {
        if let Some((path, content)) = document {
            let _ = write!(
                text,
                "\n<{name} path=\"{}\">\n{}\n</{name}>\n",
                tree.join(path).display(),
                truncate(content, PROJECT_MAX).trim()
            );
        }
    }
    let _ = writeln!(
        text,
        "\nAll tasks of the project, whose documents, where they have any, are in `{}`:",
        tree.join(crate::workspace::documents::path(&plan.folder, "docs/task-ID")).display()
    );
    for task in plan.overview.iter().take(OVERVIEW_MAX) {
        let _ = writeln!(text, "{}", line(task));
    }
    let more = plan.overview.len().saturating_sub(OVERVIEW_MAX);
    if more > 0 {
        let _ = writeln!(text, "- and {more} more, in `{}`", tree.join(&plan.tasks_file).display());
    }
    text
}

/// The message that begins the conversation about one task.
#[must_use]
pub fn render_task(shared: &DocsPromptInput<'_>, subject: &DocsTask) -> String {
    let DocsPromptInput { plan, tree, .. } = *shared;
    let DocsTask { task, entry, missing: wanted, existing, dependencies: needs, dependents: needed_by } =
        subject;
    let folder = tree.join(plan.folder_of(*task));
    let names: Vec<String> = wanted.iter().map(|document| format!("`{}`", document.file())).collect();
    let mut text =
        format!("Write {} of task {task} into `{}`.\n\nThe task:\n\n", names.join(", "), folder.display());
    render_entry(entry, &mut text);
    render_neighbours("It depends on", "It depends on no other task.", needs, &mut text);
    render_neighbours("These tasks depend on it", "No task depends on it.", needed_by, &mut text);
    for (document, content) in existing {
        let what = if wanted.contains(document) {
            "There is an older version. Start from it: keep what is right, mend what is not, and write the file again."
        } else {
            "This one is there and stays as it is; what you write has to fit it."
        };
        let _ = write!(
            text,
            "{what}\n\n<document name=\"{}\">\n{}\n</document>\n\n",
            document.file(),
            truncate(content, EXISTING_MAX).trim()
        );
    }
    text
}

/// The message after a review that found something.
#[must_use]
pub fn render_findings(findings: &str) -> String {
    let list: Vec<String> = findings.lines().map(|finding| format!("- {finding}")).collect();
    format!(
        "What you wrote was looked at, and this was found:\n\n{}\n\nMend it in the files, then end with your verdict again.\n",
        list.join("\n")
    )
}

fn render_entry(entry: &Entry, text: &mut String) {
    let Entry {
        id,
        title,
        description,
        details,
        test_strategy,
        status,
        priority,
        dependencies: _,
        subtasks,
        other,
    } = entry;
    let _ = writeln!(text, "<task id=\"{id}\">\nTitle: {title}");
    for (name, content) in [
        ("Status", status),
        ("Priority", priority),
        ("Description", description),
        ("Details", details),
        ("Test strategy", test_strategy),
    ] {
        if let Some(content) = content {
            let _ = writeln!(text, "{name}: {content}");
        }
    }
    render_unknown_fields(other, "", text);
    if !subtasks.is_empty() {
        text.push_str("Subtasks:\n");
    }
    for subtask in subtasks {
        render_subtask(id, subtask, text);
    }
    text.push_str("</task>\n\n");
}

fn render_subtask(parent: &str, subtask: &Subtask, text: &mut String) {
    let Subtask { id, title, description, details, test_strategy, status, dependencies, other } = subtask;
    let _ = writeln!(text, "- {parent}.{id}: {title}");
    let dependencies = (!dependencies.is_empty()).then(|| dependencies.join(", "));
    for (name, content) in [
        ("Status", status),
        ("Description", description),
        ("Details", details),
        ("Test strategy", test_strategy),
        ("Depends on", &dependencies),
    ] {
        if let Some(content) = content {
            let _ = writeln!(text, "  {name}: {}", content.replace('\n', "\n  "));
        }
    }
    render_unknown_fields(other, "  ", text);
}

/// Fields that Task Master has and we do not understand.
fn render_unknown_fields(
    other: &std::collections::BTreeMap<String, serde_json::Value>,
    indent: &str,
    text: &mut String,
) {
    for (name, value) in other.iter().filter(|(_, value)| !value.is_null()) {
        let _ = writeln!(text, "{indent}{name}: {value}");
    }
}

fn render_neighbours(what: &str, none: &str, neighbours: &[RelatedTask], text: &mut String) {
    if neighbours.is_empty() {
        let _ = writeln!(text, "{none}\n");
        return;
    }
    let _ = writeln!(text, "{what}:");
    for neighbour in neighbours {
        let _ = writeln!(text, "{}", line(neighbour));
        if let Some(description) = &neighbour.description {
            let _ = writeln!(text, "  {}", truncate(description, NEIGHBOUR_MAX).replace('\n', "\n  "));
        }
    }
    text.push('\n');
}

fn line(neighbour: &RelatedTask) -> String {
    let title = neighbour.title.as_deref().unwrap_or("(no such task)");
    let status = neighbour.status.as_deref().map(|status| format!(" ({status})")).unwrap_or_default();
    format!("- task {}: {title}{status}", neighbour.id)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workspace::documents::TasksFile;

    fn plan() -> Plan {
        let text = include_str!("../workspace/documents/fixtures/tagged.json");
        let entries = TasksFile::parse("tasks.json", text, "trader", Some("master")).unwrap().list.tasks;
        let neighbour = |id: &str, title: &str| RelatedTask {
            id: id.to_owned(),
            title: Some(title.to_owned()),
            status: Some("done".to_owned()),
            description: Some("Create the crate.".to_owned()),
        };
        let subject = DocsTask {
            task: orchestrator_contract::TaskId::new(2).unwrap(),
            entry: entries[1].clone(),
            missing: vec![Document::Prompt, Document::Criteria],
            existing: vec![
                (Document::Task, "# Task 2\n".to_owned()),
                (Document::Prompt, "Do it.\n".to_owned()),
            ],
            dependencies: vec![neighbour("1", "Set up the workspace")],
            dependents: Vec::new(),
        };
        Plan {
            folder: "projects/trader".to_owned(),
            tasks_file: "projects/trader/.taskmaster/tasks/tasks.json".to_owned(),
            tag: Some("master".to_owned()),
            architecture: Some((
                "projects/trader/.taskmaster/docs/architecture.md".to_owned(),
                "One process.\n".to_owned(),
            )),
            requirements: None,
            overview: vec![neighbour("1", "Set up the workspace")],
            subjects: vec![subject],
            notes: Vec::new(),
        }
    }

    fn rendered<T>(act: impl FnOnce(&DocsPromptInput<'_>, &DocsTask) -> T) -> T {
        let plan = plan();
        let service = ServiceName::new("trader").unwrap();
        let servers = [("memory".to_owned(), "what earlier tasks learned".to_owned())];
        let shared = DocsPromptInput {
            service: &service,
            plan: &plan,
            tree: Path::new("/workspace/docs-repo"),
            guidance: Some("Write for beginners."),
            servers: &servers,
        };
        act(&shared, &plan.subjects[0])
    }

    #[test]
    fn docs_system_prompt_matches_snapshot() {
        insta::assert_snapshot!(rendered(|shared, _| render_system_prompt(shared)));
    }

    #[test]
    fn docs_task_prompt_matches_snapshot() {
        insta::assert_snapshot!(rendered(render_task));
    }

    #[test]
    fn review_findings_render_as_list() {
        let text = render_findings("`task.md` is missing\n`prompt.md` is empty");
        assert!(text.contains("- `task.md` is missing\n- `prompt.md` is empty\n"), "{text}");
    }
}
