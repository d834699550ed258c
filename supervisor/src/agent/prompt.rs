//! What the agent is told: standing instructions, the task, a retry's guidance. Pure.

use std::fmt::Write as _;
use std::path::Path;

use orchestrator_contract::names::{ServiceName, TaskId};

use crate::workspace::documents::TaskDocuments;

/// Longest project instructions (`CLAUDE.md`) that are handed over.
const PROJECT_INSTRUCTIONS_MAX: usize = 64 * 1024;

/// Longest document that is put into the prompt; a longer one is named by its path.
const DOCUMENT_MAX: usize = 64 * 1024;

/// Longest text of a failed check that is sent back.
const FAILURE_MAX: usize = 16 * 1024;

/// Everything that a prompt is made of.
#[derive(Clone, Copy, Debug)]
pub struct TaskPromptInput<'a> {
    /// The service.
    pub service: &'a ServiceName,
    /// The task.
    pub task: TaskId,
    /// The task's documents.
    pub documents: &'a TaskDocuments,
    /// Where the documentation is.
    pub platform: &'a Path,
    /// Where the agent works.
    pub working_directory: &'a Path,
    /// The branch that is checked out.
    pub branch: &'a str,
    /// The base branch.
    pub base: &'a str,
    /// What a person wants to be done differently.
    pub guidance: Option<&'a str>,
    /// What the repository tells every agent.
    pub project_instructions: Option<&'a str>,
    /// The MCP servers that are there, by name with their descriptions.
    pub servers: &'a [(String, String)],
    /// The commands that will check the work.
    pub verify: &'a [String],
    /// How this conversation relates to earlier attempts.
    pub history: PriorAttempt<'a>,
}

/// How a conversation relates to earlier attempts.
#[derive(Clone, Copy, Debug)]
pub enum PriorAttempt<'a> {
    /// There is none.
    None,
    /// The earlier conversation goes on; it has all that was said.
    Resumed,
    /// The earlier conversation is gone; this is what is known of it.
    Summary(&'a str),
}

/// The standing instructions, appended to the CLI's own system prompt.
#[must_use]
pub fn render_system_prompt(brief: &TaskPromptInput<'_>) -> String {
    let mut text = format!(
        "You implement one task of the service `{}`, alone and unattended: nobody can answer while you work.\n\n\
         - Work in `{}`; the branch `{}` is checked out. Files outside that repository are not yours to change.\n\
         - Task documents are under `{}`: read them, never change them.\n\
         - Commit if you like. Never push, never change branches or remotes, never open a pull request: \
         when you end, everything you left in the working tree is committed, checked, pushed and proposed for you.\n\
         - Put no credentials, tokens or machine-specific paths into files or commit messages.\n\
         - Start nothing that outlives you: everything still running when you end is killed.\n\
         - End with your verdict through the StructuredOutput tool: `done` if the task is implemented, \
         `already_done` if it already was, `blocked` with your question if you cannot go on. \
         The summary is read by the reviewer of the pull request.\n",
        brief.service,
        brief.working_directory.display(),
        brief.branch,
        brief.platform.display(),
    );
    if !brief.verify.is_empty() {
        text.push_str("\nAfter you end, these commands check your work; run them yourself first:\n");
        for command in brief.verify {
            let _ = writeln!(text, "- `{command}`");
        }
    }
    if !brief.servers.is_empty() {
        text.push_str("\nMCP servers that you have (tools named `mcp__SERVER__TOOL`):\n");
        for (name, description) in brief.servers {
            let _ = writeln!(text, "- `{name}`: {description}");
        }
    }
    if let Some(instructions) = brief.project_instructions {
        let _ = write!(
            text,
            "\nThe repository's own instructions (`CLAUDE.md`):\n\n<project_instructions>\n{}\n</project_instructions>\n",
            truncate(instructions, PROJECT_INSTRUCTIONS_MAX)
        );
    }
    text
}

/// The message that begins the conversation, or goes on with an earlier one.
#[must_use]
pub fn render_task(brief: &TaskPromptInput<'_>) -> String {
    let title = &brief.documents.entry.title;
    let mut text = String::new();
    match brief.history {
        PriorAttempt::None | PriorAttempt::Summary(_) => {
            let _ =
                writeln!(text, "Implement task {} of the service `{}`: {title}\n", brief.task, brief.service);
        }
        PriorAttempt::Resumed => {
            let _ = writeln!(
                text,
                "Go on with task {} of the service `{}`: {title}\n\n\
                 This is a new attempt. The branch `{}` has everything that was made before, committed.\n",
                brief.task, brief.service, brief.branch
            );
        }
    }
    if let Some(guidance) = brief.guidance {
        let _ = writeln!(
            text,
            "A person looked at the earlier work and tells you this; it goes before everything else:\n\n\
             <guidance>\n{guidance}\n</guidance>\n"
        );
    }
    if let PriorAttempt::Summary(summary) = brief.history {
        let _ = writeln!(
            text,
            "An earlier attempt worked on this branch (`git log {}..` shows it). What is known of it:\n\n\
             <earlier_attempt>\n{summary}\n</earlier_attempt>\n",
            brief.base
        );
    }
    if !matches!(brief.history, PriorAttempt::Resumed) {
        render_documents(brief, &mut text);
    }
    // Named in a resumed conversation too: one that was killed may have lost its beginning.
    text.push_str("Files to read as needed:\n");
    for file in &brief.documents.files {
        let _ = writeln!(text, "- {}", brief.platform.join(file).display());
    }
    text
}

fn render_documents(brief: &TaskPromptInput<'_>, text: &mut String) {
    let documents = brief.documents;
    for (name, content) in [
        ("prompt.md", &documents.prompt),
        ("task.md", &documents.task),
        ("acceptance-criteria.md", &documents.acceptance),
    ] {
        if let Some(content) = content {
            let _ = writeln!(
                text,
                "<document name=\"{name}\">\n{}\n</document>\n",
                truncate(content, DOCUMENT_MAX).trim()
            );
        }
    }
    if documents.prompt.is_none() && documents.task.is_none() {
        render_entry(brief, text);
    }
    if !documents.dependencies.is_empty() {
        text.push_str("It depends on:\n");
        for dependency in &documents.dependencies {
            let title = dependency.title.as_deref().unwrap_or("(no such task)");
            let status = dependency.status.as_deref().unwrap_or("unknown");
            let _ = writeln!(text, "- task {}: {title} ({status})", dependency.id);
        }
        text.push('\n');
    }
}

/// The task's entry in `tasks.json`, where there are no documents of its own.
fn render_entry(brief: &TaskPromptInput<'_>, text: &mut String) {
    let entry = &brief.documents.entry;
    for (name, content) in [
        ("Description", &entry.description),
        ("Details", &entry.details),
        ("Test strategy", &entry.test_strategy),
    ] {
        if let Some(content) = content {
            let _ = writeln!(text, "{name}: {}\n", truncate(content, DOCUMENT_MAX));
        }
    }
    if !entry.subtasks.is_empty() {
        text.push_str("Subtasks:\n");
        for subtask in &entry.subtasks {
            let _ = writeln!(text, "- {}: {}", subtask.id, subtask.title);
            for part in [&subtask.description, &subtask.details].into_iter().flatten() {
                let _ = writeln!(text, "  {}", part.replace('\n', "\n  "));
            }
        }
        text.push('\n');
    }
}

/// The message after checks that failed.
#[must_use]
pub fn render_verification_failure(failure: &str) -> String {
    format!(
        "Your work was checked, and the check failed. Mend the cause (not the check), then end with your verdict \
         again.\n\n<check>\n{}\n</check>\n",
        truncate_head(failure, FAILURE_MAX)
    )
}

/// The beginning of a text, of at most `limit` bytes.
pub(crate) fn truncate(text: &str, limit: usize) -> String {
    if text.len() <= limit {
        return text.to_owned();
    }
    let end = (0..=limit).rev().find(|at| text.is_char_boundary(*at)).unwrap_or_default();
    format!("{}\n[… the rest is left out]", &text[..end])
}

/// The first line and the end of a text: where programs say what went wrong.
fn truncate_head(text: &str, limit: usize) -> String {
    if text.len() <= limit {
        return text.to_owned();
    }
    let first = text.lines().next().unwrap_or_default();
    let start = (text.len() - limit..text.len()).find(|at| text.is_char_boundary(*at)).unwrap_or(text.len());
    format!("{first}\n[…]\n{}", &text[start..])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workspace::documents::{DocumentQuery, Reader, find_documents};

    fn documents() -> TaskDocuments {
        let read = |path: &str| {
            Ok(match path {
                ".taskmaster/tasks/tasks.json" => Some(
                    br#"{"tasks":[{"id":1,"title":"Add the order book","description":"Keep bids and asks.",
                        "dependencies":[],"subtasks":[{"id":1,"title":"Bids","description":"Sorted."}]}]}"#
                        .to_vec(),
                ),
                _ => None,
            })
        };
        let reader = Reader {
            read,
            list: |path: &str| Ok(if path == ".taskmaster" { vec!["tasks".to_owned()] } else { Vec::new() }),
        };
        let service = ServiceName::new("trader").unwrap();
        find_documents(
            &reader,
            &DocumentQuery { service: &service, task: TaskId::new(1).unwrap(), docs_directory: None },
        )
        .unwrap()
    }

    fn with_brief<T>(
        history: PriorAttempt<'_>,
        guidance: Option<&str>,
        act: impl FnOnce(&TaskPromptInput<'_>) -> T,
    ) -> T {
        let documents = documents();
        let brief = TaskPromptInput {
            service: &ServiceName::new("trader").unwrap(),
            task: TaskId::new(1).unwrap(),
            documents: &documents,
            platform: Path::new("/workspace/platform-repo"),
            working_directory: Path::new("/workspace/target-repo/trader"),
            branch: "feature/task-1-implementation",
            base: "main",
            guidance,
            project_instructions: Some("Use tabs."),
            servers: &[("memory".to_owned(), "what earlier tasks learned".to_owned())],
            verify: &["cargo test".to_owned()],
            history,
        };
        act(&brief)
    }

    #[test]
    fn first_attempt_prompt_matches_snapshot() {
        insta::assert_snapshot!(with_brief(PriorAttempt::None, None, render_task));
    }

    #[test]
    fn system_prompt_matches_snapshot() {
        insta::assert_snapshot!(with_brief(PriorAttempt::None, None, render_system_prompt));
    }

    #[test]
    fn retry_prompt_contains_guidance() {
        for history in [PriorAttempt::None, PriorAttempt::Resumed, PriorAttempt::Summary("It chose curl.")] {
            let text = with_brief(history, Some("Use reqwest, not curl."), render_task);
            assert!(text.contains("<guidance>\nUse reqwest, not curl.\n</guidance>"), "{text}");
        }
    }

    #[test]
    fn long_verification_failure_keeps_output_tail() {
        let failure = format!("`cargo test` failed\n{}the end", "x\n".repeat(20_000));
        let text = render_verification_failure(&failure);
        assert!(text.len() < 20_000);
        assert!(text.contains("`cargo test` failed") && text.contains("the end"));
    }
}
