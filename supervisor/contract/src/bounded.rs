//! Keeps outcomes within their bounds, whatever an agent returned.

use crate::bounds;
use crate::outcome::{DocsResult, McpServer, Outcome, Revision, Verdict, Work};

impl Outcome {
    /// Cuts every text and list to its maximum, so that the JSON has at most [`bounds::OUTCOME`] bytes.
    pub fn bound(&mut self) {
        self.bound_fields();
        // Further cuts, should everything be as long as it may.
        for (text, entries) in [(4_000, 40), (500, 20), (100, 10), (40, 3)] {
            if self.json_len() <= bounds::OUTCOME {
                return;
            }
            self.shrink(text, entries);
        }
    }

    fn json_len(&self) -> usize {
        // Files have the JSON with indentation.
        serde_json::to_vec_pretty(self).map_or(usize::MAX, |json| json.len())
    }

    fn bound_fields(&mut self) {
        bounds::limit(&mut self.message, bounds::MESSAGE);
        limit_optional(&mut self.task_title, bounds::TITLE);
        bound_work(&mut self.work);
        self.base.iter_mut().chain(&mut self.platform).for_each(bound_revision);
        if let Some(pull) = &mut self.pull_request {
            bounds::limit(&mut pull.url, bounds::NAME);
            bounds::limit(&mut pull.head, bounds::NAME);
        }
        if let Some(verdict) = &mut self.verdict {
            verdict.bound();
        }
        self.verification.commands.truncate(bounds::COMMANDS);
        for command in &mut self.verification.commands {
            bounds::limit(&mut command.command, bounds::NOTE);
            bounds::limit_to_end(&mut command.output, bounds::COMMAND_OUTPUT);
        }
        while self.usage.models.len() > bounds::ENTRIES {
            self.usage.models.pop_last();
        }
        self.usage.models.retain(|name, _| name.len() <= bounds::NAME);
        for list in [&mut self.sessions, &mut self.denied_tools, &mut self.other_authors] {
            bounds::limit_list(list, bounds::ENTRIES, bounds::TITLE);
        }
        self.mcp_servers.truncate(bounds::ENTRIES);
        self.mcp_servers.iter_mut().for_each(bound_server);
        if let Some(sources) = &mut self.document_sources {
            bounds::limit_list(&mut sources.files, bounds::ENTRIES, bounds::PATH);
            limit_optional(&mut sources.tag, bounds::TITLE);
        }
        self.limit_tasks(bounds::TASKS);
        self.docs_results.iter_mut().for_each(bound_result);
        bounds::limit_list(&mut self.notes, bounds::NOTES, bounds::NOTE);
        self.steps.truncate(bounds::ENTRIES);
    }

    fn limit_tasks(&mut self, max: usize) {
        let tasks = self.docs_results.len();
        if tasks > max {
            self.docs_results.truncate(max);
            self.notes.push(format!("{} more tasks are not listed", tasks - max));
        }
    }

    /// Cuts every text and list further.
    fn shrink(&mut self, text: usize, entries: usize) {
        if let Some(verdict) = &mut self.verdict {
            bounds::limit(&mut verdict.summary, text);
            limit_optional(&mut verdict.question, text);
        }
        self.verification.commands.iter_mut().for_each(|command| {
            bounds::limit(&mut command.command, text);
            bounds::limit_to_end(&mut command.output, text);
        });
        for list in [&mut self.sessions, &mut self.denied_tools, &mut self.other_authors, &mut self.notes] {
            bounds::limit_list(list, entries, text);
        }
        if let Some(sources) = &mut self.document_sources {
            bounds::limit_list(&mut sources.files, entries, text);
        }
        self.mcp_servers.truncate(entries);
        self.limit_tasks(entries * 100);
        for result in &mut self.docs_results {
            bounds::limit(&mut result.title, text.min(100));
            bounds::limit_list(&mut result.findings, 1, text.min(100));
            limit_optional(&mut result.session_id, text.min(40));
        }
    }
}

impl Verdict {
    /// Cuts every text to its maximum.
    pub fn bound(&mut self) {
        bounds::limit(&mut self.summary, bounds::VERDICT_SUMMARY);
        limit_optional(&mut self.question, bounds::VERDICT_QUESTION);
    }
}

fn limit_optional(text: &mut Option<String>, max: usize) {
    if let Some(text) = text {
        bounds::limit(text, max);
    }
}

fn bound_work(work: &mut Work) {
    limit_optional(&mut work.branch, bounds::NAME);
    limit_optional(&mut work.oid, bounds::NAME);
    limit_optional(&mut work.path, bounds::PATH);
}

fn bound_revision(revision: &mut Revision) {
    for text in [&mut revision.url, &mut revision.branch, &mut revision.oid] {
        bounds::limit(text, bounds::NAME);
    }
}

fn bound_server(server: &mut McpServer) {
    bounds::limit(&mut server.name, bounds::TITLE);
    limit_optional(&mut server.server, bounds::TITLE);
    limit_optional(&mut server.note, bounds::NOTE);
}

fn bound_result(result: &mut DocsResult) {
    bounds::limit(&mut result.title, bounds::TITLE);
    bounds::limit_list(&mut result.findings, bounds::FINDINGS, bounds::NOTE);
    limit_optional(&mut result.session_id, bounds::TITLE);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outcome::{CommandResult, McpStatus, PullRequest, TERMINATION_MESSAGE_MAX_BYTES};

    const OUTCOME: &str = include_str!("../samples/outcome-v1.json");

    /// Returns an outcome in which every text and list is as long as an agent can make it.
    fn hostile(text: &str, count: usize) -> Outcome {
        let mut outcome: Outcome = serde_json::from_str(OUTCOME).unwrap();
        let text = || text.to_owned();
        outcome.message = text();
        outcome.task_title = Some(text());
        outcome.work = Work { branch: Some(text()), oid: Some(text()), path: Some(text()), ..outcome.work };
        outcome.pull_request = Some(PullRequest { url: text(), number: 1, created: true, head: text() });
        let status = crate::outcome::VerdictStatus::Blocked;
        outcome.verdict = Some(Verdict { status, summary: text(), question: Some(text()) });
        let command = CommandResult { command: text(), exit_code: None, seconds: 1.0, output: text() };
        outcome.verification.commands = vec![command; count];
        outcome.sessions = vec![text(); count];
        outcome.denied_tools = vec![text(); count];
        outcome.other_authors = vec![text(); count];
        outcome.notes = vec![text(); count];
        let server = McpServer {
            name: text(),
            status: McpStatus::Failed,
            server: Some(text()),
            tools: 0,
            note: Some(text()),
        };
        outcome.mcp_servers = vec![server; count];
        outcome.usage.models =
            (0..count).map(|model| (format!("{model}{}", text()), Default::default())).collect();
        let result = DocsResult {
            task_id: crate::TaskId::new(1).unwrap(),
            title: text(),
            status: crate::outcome::DocsStatus::Failed,
            findings: vec![text(); 20],
            minutes: 0.0,
            turns: 0,
            cost_usd: 0.0,
            session_id: Some(text()),
            written_by_run: None,
        };
        outcome.docs_results = vec![result; count];
        outcome
    }

    #[test]
    fn hostile_outcome_fits_its_maximum() {
        // A control character has six bytes in JSON.
        for text in ["x".repeat(60_000), "\u{1}".repeat(20_000), "ä".repeat(30_000), String::new()] {
            for count in [1, 1_200] {
                let mut outcome = hostile(&text, count);
                outcome.bound();
                let length = serde_json::to_vec_pretty(&outcome).unwrap().len();
                assert!(length <= bounds::OUTCOME, "{length} with {count} entries");
                assert!(outcome.termination_message().len() <= TERMINATION_MESSAGE_MAX_BYTES);
            }
        }
    }

    #[test]
    fn ordinary_outcome_is_not_changed() {
        let mut outcome: Outcome = serde_json::from_str(OUTCOME).unwrap();
        let before = outcome.clone();
        outcome.bound();
        assert_eq!(outcome, before);
    }

    #[test]
    fn bounding_twice_changes_nothing() {
        let mut once = hostile(&"x".repeat(60_000), 1_200);
        once.bound();
        let mut twice = once.clone();
        twice.bound();
        assert_eq!(once, twice);
    }
}
