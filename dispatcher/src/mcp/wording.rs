//! Advice given in the words of the command line, said in the words of the tools.

/// Which tool does what a command does.
const TOOLS: [(&str, &str); 8] = [
    ("submit", "submit_implementation_task"),
    ("retry", "submit_implementation_task"),
    ("docs", "init_docs"),
    ("status", "get_task_status"),
    ("list", "list_tasks"),
    ("logs", "get_task_logs"),
    ("wait", "wait_for_task"),
    ("stop", "stop_task"),
];

/// Flags whose argument has another name than theirs, and those that are said otherwise.
const ARGUMENTS: [(&str, &str); 5] = [
    ("retry", "`retry: true`"),
    ("fresh", "`fresh: true`"),
    ("task", "`task_id`"),
    ("cost", "`cost_usd`"),
    ("now", "`now: true`"),
];

/// Flags of the dispatcher itself and of its `gc`: no tool has them.
const OWN_FLAGS: [&str; 7] =
    ["config", "state-dir", "supervisor", "claude", "mcp-configs", "keep", "dry-run"];

/// The same advice with tools for commands and arguments for flags.
///
/// Commands that no tool stands for stay as they are, as code.
#[must_use]
pub fn in_tool_words(text: &str) -> String {
    let words: Vec<&str> = text.split(' ').collect();
    let mut said: Vec<String> = Vec::new();
    let mut at = 0;
    while let Some(word) = words.get(at) {
        let (open, core, close) = trimmed(word);
        let verb = words.get(at + 1).map(|verb| trimmed(verb));
        if core == "dispatcher"
            && close.is_empty()
            && let Some((_, verb, after)) = verb
            && is_command(verb)
        {
            let (call, used, tail) = command(verb, after, words.get(at + 2..).unwrap_or_default());
            said.push(format!("{}{call}{tail}", open.replace('`', "")));
            at += 2 + used;
        } else if let Some(flag) = core.strip_prefix("--").filter(|flag| !OWN_FLAGS.contains(flag)) {
            said.push(format!("{open}{}{close}", argument(flag)));
            at += 1;
        } else {
            said.push((*word).to_owned());
            at += 1;
        }
    }
    said.join(" ")
}

fn is_command(word: &str) -> bool {
    TOOLS.iter().any(|(verb, _)| *verb == word) || ["doctor", "gc"].contains(&word)
}

fn argument(flag: &str) -> String {
    ARGUMENTS
        .iter()
        .find(|(name, _)| *name == flag)
        .map_or_else(|| format!("`{}`", flag.replace('-', "_")), |(_, said)| (*said).to_owned())
}

/// A command and what belongs to it: its call, how many words that took, and the
/// punctuation after it.
fn command<'a>(verb: &str, mut tail: &'a str, rest: &[&'a str]) -> (String, usize, String) {
    let mut arguments = Vec::new();
    let mut used = 0;
    let mut flag = None;
    for word in rest {
        if !tail.is_empty() {
            break;
        }
        let (_, core, close) = trimmed(word);
        if let Some(name) = core.strip_prefix("--") {
            flag = Some(name);
            match name {
                "retry" | "fresh" | "now" => arguments.push(format!("{name}: true")),
                "guidance" => arguments.push("guidance".to_owned()),
                name => arguments.push(argument(name).trim_matches('`').to_owned()),
            }
        } else if core.contains("-attempt") {
            arguments.push(format!("run \"{core}\""));
        } else if core != "-f" && flag.take().is_none() {
            break;
        }
        used += 1;
        tail = close;
    }
    let tool = TOOLS.iter().find(|(name, _)| *name == verb);
    let Some((_, tool)) = tool else { return (format!("`dispatcher {verb}`"), 0, tail.replace('`', "")) };
    if verb == "retry" {
        arguments.insert(0, "retry: true".to_owned());
    }
    let arguments =
        if arguments.is_empty() { String::new() } else { format!(" with {}", arguments.join(", ")) };
    (format!("`{tool}`{arguments}"), used, tail.replace('`', ""))
}

/// A word, and the punctuation around it.
fn trimmed(word: &str) -> (&str, &str, &str) {
    let from = word.find(|c: char| !['(', '`'].contains(&c)).unwrap_or(word.len());
    let (open, rest) = word.split_at(from);
    let core = rest.trim_end_matches(['.', ',', ';', ':', ')', '`']);
    // An ellipsis in quotes is a value, not punctuation.
    (open, core, &rest[core.len()..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cli_hints_are_rewritten_as_tool_arguments() {
        let cases = [
            ("Give it with --repository-url.", "Give it with `repository_url`."),
            (
                "Give it with --platform-repository-url, or start from a clone of the platform repository.",
                "Give it with `platform_repository_url`, or start from a clone of the platform repository.",
            ),
            (
                "Go on from it with --retry (same branch), or start over with --fresh (new branch).",
                "Go on from it with `retry: true` (same branch), or start over with `fresh: true` (new branch).",
            ),
            (
                "Wait for it (dispatcher wait a-task1-attempt1) or stop it (dispatcher stop a-task1-attempt1), then retry.",
                "Wait for it (`wait_for_task` with run \"a-task1-attempt1\") or stop it (`stop_task` with run \"a-task1-attempt1\"), then retry.",
            ),
            (
                "Submit a task: dispatcher submit --task ID --service NAME.",
                "Submit a task: `submit_implementation_task` with task_id, service.",
            ),
            ("List the runs there are: dispatcher list.", "List the runs there are: `list_tasks`."),
            (
                "Look. dispatcher retry a-task1-attempt2 --guidance \"...\"",
                "Look. `submit_implementation_task` with retry: true, run \"a-task1-attempt2\", guidance",
            ),
            (
                "Follow it: dispatcher logs -f a-task1-attempt2",
                "Follow it: `get_task_logs` with run \"a-task1-attempt2\"",
            ),
            ("Give a name as `dispatcher list` shows it.", "Give a name as `list_tasks` shows it."),
            (
                "Mend the file; `dispatcher doctor` checks it.",
                "Mend the file; `dispatcher doctor` checks it.",
            ),
            (
                "Free space in the workspace (dispatcher gc), then retry.",
                "Free space in the workspace (`dispatcher gc`), then retry.",
            ),
            ("Name a folder with --state-dir or X.", "Name a folder with --state-dir or X."),
            ("End the dispatcher that hangs there.", "End the dispatcher that hangs there."),
        ];
        for (command_line, tools) in cases {
            assert_eq!(in_tool_words(command_line), tools);
        }
    }
}
