//! Whether a document counts. Pure.
//!
//! A finding says what is wrong and what would be right: it is what the agent is told.

use crate::publish::policy::{Policy, ScannedBlob};
use crate::workspace::documents::acceptance_criteria;

use super::plan::Document;

/// Longest document in bytes: as much as fits into the implementing agent's prompt.
pub const DOCUMENT_MAX: usize = 64 * 1024;

/// Fewest acceptance criteria: with fewer, what a task has to do and what it must not break
/// has not been thought through.
pub const CRITERIA_MIN: usize = 3;

/// Fewest characters of a document that is no stub, without its headings.
const TEXT_MIN: usize = 200;

/// Findings of one document that are named.
const FINDINGS_MAX: usize = 12;

/// A section that a document must have.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Section {
    /// Its heading.
    pub heading: &'static str,
    /// What it is about.
    pub about: &'static str,
}

/// The sections of a document.
#[must_use]
pub fn sections(document: Document) -> &'static [Section] {
    match document {
        Document::Task => &[
            Section { heading: "What and why", about: "what is to be built, and what it is good for" },
            Section {
                heading: "Context",
                about: "what is there already, and which decisions of the architecture and the requirements matter here",
            },
            Section {
                heading: "Constraints",
                about: "what must hold, what must not change, and what is not part of this task",
            },
            Section {
                heading: "Dependencies",
                about: "each task that this one needs and what it delivers, by id; `None.` if there is none",
            },
        ],
        Document::Prompt => &[
            Section { heading: "Goal", about: "what the implementing agent has to achieve" },
            Section {
                heading: "Steps",
                about: "how, step by step, subtask by subtask, with files and names as far as they are known",
            },
            Section { heading: "Done when", about: "when the agent may end, and how it makes sure" },
        ],
        Document::Criteria => &[],
    }
}

/// What is wrong with a document; empty if it counts. `content` is none if there is no file.
#[must_use]
pub fn review(document: Document, content: Option<&[u8]>, policy: &Policy) -> Vec<String> {
    let file = document.file();
    let Some(content) = content else { return vec![format!("`{file}` is missing")] };
    let Ok(text) = std::str::from_utf8(content) else {
        return vec![format!("`{file}` is no text in UTF-8")];
    };
    if text.trim().is_empty() {
        return vec![format!("`{file}` is empty")];
    }
    let mut findings = Vec::new();
    if text.len() > DOCUMENT_MAX {
        findings.push(format!("`{file}` is longer than {} KiB: say less", DOCUMENT_MAX / 1024));
    }
    let secrets = policy.check_blob(&ScannedBlob { path: file.as_bytes(), data: content });
    findings.extend(secrets.iter().map(|finding| format!("there is a secret: {finding}; leave it out")));
    let prose = lines_outside_code(text);
    findings.extend(missing_sections(document, &prose));
    findings.extend(placeholders(file, &prose));
    match document {
        Document::Task | Document::Prompt => {
            let said: usize =
                prose.iter().filter(|line| heading(line).is_none()).map(|line| line.trim().len()).sum();
            if said < TEXT_MIN {
                findings.push(format!("`{file}` is a stub: it has {said} characters beside its headings"));
            }
        }
        Document::Criteria => findings.extend(untestable_criteria(file, text)),
    }
    findings.truncate(FINDINGS_MAX);
    findings
}

/// The lines of a text; those of code blocks are blanked, since they are quoted, not said.
fn lines_outside_code(text: &str) -> Vec<&str> {
    let mut in_code = false;
    text.lines()
        .map(|line| {
            let fence = line.trim_start().starts_with("```") || line.trim_start().starts_with("~~~");
            let quoted = in_code || fence;
            in_code ^= fence;
            // Something is said there, but it is no heading and no placeholder.
            if quoted { "(code)" } else { line }
        })
        .collect()
}

/// Level and text of a Markdown heading.
fn heading(line: &str) -> Option<(usize, &str)> {
    let level = line.len() - line.trim_start_matches('#').len();
    let text = line.get(level..)?.strip_prefix(' ')?;
    (1..=6).contains(&level).then(|| (level, text.trim().trim_end_matches(['#', ':']).trim()))
}

fn missing_sections(document: Document, lines: &[&str]) -> Vec<String> {
    let file = document.file();
    let judge = |section: &Section| {
        let is_it = |line: &&str| {
            heading(line).is_some_and(|(_, text)| {
                text.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.' || c == ' ')
                    .eq_ignore_ascii_case(section.heading)
            })
        };
        let Some(at) = lines.iter().position(is_it) else {
            return Some(format!("`{file}` has no section `## {}`: {}", section.heading, section.about));
        };
        let level = heading(lines[at]).map_or(2, |(level, _)| level);
        let mut body =
            lines[at + 1..].iter().take_while(|line| heading(line).is_none_or(|(deeper, _)| deeper > level));
        let empty = !body.any(|line| heading(line).is_none() && !line.trim().is_empty());
        empty.then(|| format!("section `## {}` of `{file}` is empty: {}", section.heading, section.about))
    };
    sections(document).iter().filter_map(judge).collect()
}

/// Words that stand for a text that nobody wrote, where they begin a line or an entry.
const PLACEHOLDER_WORDS: &[&str] = &["TODO", "TBD", "FIXME", "XXX", "???"];

/// The same anywhere in a line, in lower case.
const PLACEHOLDER_PHRASES: &[&str] = &[
    "lorem ipsum",
    "to be determined",
    "to be defined",
    "to be written",
    "to be filled in",
    "placeholder text",
    "[insert ",
    "[your ",
    "[describe ",
    "[fill ",
    "<insert ",
    "<fill ",
    "coming soon",
];

fn placeholders(file: &str, lines: &[&str]) -> Vec<String> {
    let is_one = |line: &str| {
        let said = line.trim().trim_start_matches(['-', '*', '+', '>', '#', ' ', '_']);
        let said = ["[ ]", "[x]"].iter().find_map(|mark| said.strip_prefix(mark)).unwrap_or(said).trim();
        let said = said.trim_matches(['*', '_', '(', ')', '[', ']', '<', '>']);
        let mark = PLACEHOLDER_WORDS.iter().any(|mark| {
            said.strip_prefix(mark)
                .is_some_and(|rest| rest.trim().is_empty() || rest.starts_with([':', '.', ']', ')', '*']))
        });
        let lower = line.to_lowercase();
        mark || matches!(said, "..." | "…") || PLACEHOLDER_PHRASES.iter().any(|phrase| lower.contains(phrase))
    };
    let numbered = lines.iter().enumerate();
    numbered
        .filter(|(_, line)| is_one(line))
        .map(|(at, line)| {
            let shown: String = line.trim().chars().take(60).collect();
            format!("line {} of `{file}` is a placeholder (`{shown}`): say what is meant", at + 1)
        })
        .collect()
}

/// Whether there are criteria at all, and each says how it is checked.
fn untestable_criteria(file: &str, text: &str) -> Vec<String> {
    let mut criteria: Vec<String> = Vec::new();
    for item in acceptance_criteria(text) {
        // `- Check: ...` below a criterion belongs to it.
        match criteria.last_mut() {
            Some(last) if starts_with_check(&item) => {
                last.push(' ');
                last.push_str(&item);
            }
            Some(_) | None => criteria.push(item),
        }
    }
    let mut findings = Vec::new();
    if criteria.len() < CRITERIA_MIN {
        findings.push(format!(
            "`{file}` has {} criteria, one a list entry: at least {CRITERIA_MIN} are needed",
            criteria.len()
        ));
    }
    for (at, criterion) in criteria.iter().enumerate() {
        let how = criterion.to_lowercase().split_once("check:").map(|(_, how)| how.trim().len());
        if how.is_none_or(|length| length < 3) {
            let shown: String = criterion.chars().take(60).collect();
            findings.push(format!(
                "criterion {} of `{file}` (`{shown}`) does not say how it is checked: add `Check: ...`",
                at + 1
            ));
        }
    }
    findings
}

fn starts_with_check(item: &str) -> bool {
    item.trim_start_matches(['*', '_', ' ']).to_lowercase().starts_with("check")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::redact::{Redactor, Secrets};

    pub(super) const TASK: &str = "# Task 1: Find the best bid\n\n## What and why\n\n\
        `best_bid` returns the first bid. Traders need the highest, or they sell too cheaply.\n\n\
        ## Context\n\nThe order book is kept in memory; see `architecture.md`. Bids are integers.\n\n\
        ## Constraints\n\n- The signature stays as it is.\n- No dependency is added.\n\n\
        ## Dependencies\n\nNone.\n";

    const CRITERIA: &str = "# Acceptance criteria\n\n\
        - [ ] The highest bid is returned. Check: `cargo test the_best_bid_is_the_highest`\n\
        - [ ] No bids give `None`.\n  - Check: a test with an empty slice\n\
        - [ ] Nothing else changed.\n      Check: `git diff --stat` names `src/lib.rs` alone\n";

    fn review_of(document: Document, text: &str) -> Vec<String> {
        let policy = Policy::new(Redactor::new(Secrets::new()), &[]).unwrap();
        review(document, Some(text.as_bytes()), &policy)
    }

    #[test]
    fn complete_documents_have_no_findings() {
        assert_eq!(review_of(Document::Task, TASK), Vec::<String>::new());
        assert_eq!(review_of(Document::Criteria, CRITERIA), Vec::<String>::new());
        let prompt = format!(
            "# Prompt\n\n## Goal\n\n{}\n\n## 2. Steps\n\n### Mend\n\n1. Mend it.\n\n```sh\n# TODO\n```\n\n## Done when:\n\nAll pass.\n",
            "Mend `best_bid`. ".repeat(15)
        );
        assert_eq!(review_of(Document::Prompt, &prompt), Vec::<String>::new());
    }

    #[test]
    fn stub_findings_name_missing_sections() {
        insta::assert_snapshot!(
            review_of(Document::Task, "# Task 1\n\n## What and why\n\nTODO\n\n## Context\n\n## Constraints\n\n...\n").join("\n"),
            @r"
        section `## Context` of `task.md` is empty: what is there already, and which decisions of the architecture and the requirements matter here
        `task.md` has no section `## Dependencies`: each task that this one needs and what it delivers, by id; `None.` if there is none
        line 5 of `task.md` is a placeholder (`TODO`): say what is meant
        line 11 of `task.md` is a placeholder (`...`): say what is meant
        `task.md` is a stub: it has 7 characters beside its headings
        "
        );
    }

    #[test]
    fn too_few_or_untestable_criteria_are_reported() {
        let findings = review_of(Document::Criteria, "- It works.\n- It is fast. Check: measure `bench`\n");
        assert_eq!(findings.len(), 2, "{findings:?}");
        assert!(findings[0].contains("has 2 criteria"), "{findings:?}");
        assert!(findings[1].contains("criterion 1") && findings[1].contains("It works."), "{findings:?}");
    }

    #[test]
    fn placeholder_words_in_prose_are_accepted() {
        for line in ["A TODO list is shown.", "- TODOs are sorted by date", "Wait... then go on.", "`[your]`"]
        {
            assert_eq!(placeholders("task.md", &[line]), Vec::<String>::new());
        }
        for line in ["- [ ] TBD", "**TODO:** write", "[Insert the goal here]", "> FIXME", "…", "## TODO"] {
            assert_eq!(placeholders("task.md", &[line]).len(), 1, "{line}");
        }
    }

    #[test]
    fn unreadable_document_is_reported_by_review() {
        let policy = Policy::new(Redactor::new(Secrets::new()), &[]).unwrap();
        let of = |content| review(Document::Prompt, content, &policy);
        assert_eq!(of(None), ["`prompt.md` is missing"]);
        assert_eq!(of(Some(b" \n")), ["`prompt.md` is empty"]);
        assert_eq!(of(Some(b"\xff\xfe")), ["`prompt.md` is no text in UTF-8"]);
    }

    #[test]
    fn secret_in_document_is_reported_without_leak() {
        let findings = review_of(Document::Task, &format!("{TASK}\nUse ghp_{}.\n", "aB3dE5gH7jK9".repeat(3)));
        assert_eq!(findings.len(), 1, "{findings:?}");
        assert!(!findings[0].contains("aB3d"), "{findings:?}");
    }

    proptest::proptest! {
        #[test]
        fn review_of_arbitrary_text_never_panics(text in "(?s)[#\\-`\\[\\] a-zé\n.:]{0,200}") {
            for document in Document::ALL {
                drop(review_of(document, &text));
            }
        }
    }
}
