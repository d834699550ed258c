//! Reviews a document: accepts it, or rejects it with findings. Pure.
//!
//! A finding names the fault and the fix; the agent receives it as its next prompt.

use crate::publish::policy::{Policy, ScannedBlob};
use crate::workspace::documents::acceptance_criteria;

use super::plan::Document;

/// Maximum bytes of a document: what fits into the implementing agent's prompt.
pub const DOCUMENT_MAX_BYTES: usize = 64 * 1024;

/// Minimum acceptance criteria: enough for a feature, an edge case and a regression.
pub const CRITERIA_MIN: usize = 3;

/// Minimum bytes of a document without its headings; shorter ones are stubs.
const TEXT_MIN_BYTES: usize = 200;

/// Maximum findings to report for one document.
const FINDINGS_MAX: usize = 12;

/// Required section of a document.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Section {
    pub heading: &'static str,
    /// Expected content, for the prompt and the findings.
    pub about: &'static str,
}

/// Returns the required sections of a document.
#[must_use]
pub fn sections(document: Document) -> &'static [Section] {
    match document {
        Document::Task => &[
            Section { heading: "What and why", about: "what is to be built, and why it is useful" },
            Section {
                heading: "Context",
                about: "what already exists, and which decisions of the architecture and the requirements apply",
            },
            Section {
                heading: "Constraints",
                about: "what must hold, what must not change, and what is out of scope",
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
            Section { heading: "Done when", about: "when the agent may finish, and how it verifies that" },
        ],
        Document::Criteria => &[],
    }
}

/// Returns the finding of a document that is too long.
#[must_use]
pub fn too_long(document: Document) -> String {
    format!("`{}` is longer than {} KiB: shorten it", document.file(), DOCUMENT_MAX_BYTES / 1024)
}

/// Returns the findings of a document; empty if it is accepted. `content` is `None` without a file.
#[must_use]
pub fn review(document: Document, content: Option<&[u8]>, policy: &Policy) -> Vec<String> {
    let file = document.file();
    let Some(content) = content else { return vec![format!("`{file}` is missing")] };
    let Ok(text) = std::str::from_utf8(content) else {
        return vec![format!("`{file}` is not valid UTF-8")];
    };
    if text.trim().is_empty() {
        return vec![format!("`{file}` is empty")];
    }
    let mut findings = Vec::new();
    if text.len() > DOCUMENT_MAX_BYTES {
        findings.push(too_long(document));
    }
    let secrets = policy.check_blob(&ScannedBlob { path: file.as_bytes(), data: content });
    findings.extend(
        secrets.iter().map(|finding| format!("the document contains a secret: {finding}; remove it")),
    );
    let prose = lines_outside_code(text);
    findings.extend(missing_sections(document, &prose));
    findings.extend(placeholders(file, &prose));
    match document {
        Document::Task | Document::Prompt => {
            let length: usize =
                prose.iter().filter(|line| heading(line).is_none()).map(|line| line.trim().len()).sum();
            if length < TEXT_MIN_BYTES {
                findings.push(format!("`{file}` is a stub: {length} characters besides its headings"));
            }
        }
        Document::Criteria => findings.extend(untestable_criteria(file, text)),
    }
    findings.truncate(FINDINGS_MAX);
    findings
}

/// Returns the lines of a text, with those of code blocks replaced.
fn lines_outside_code(text: &str) -> Vec<&str> {
    let mut in_code = false;
    text.lines()
        .map(|line| {
            let fence = line.trim_start().starts_with("```") || line.trim_start().starts_with("~~~");
            let is_code = in_code || fence;
            in_code ^= fence;
            // A code line counts as content, never as a heading or a placeholder.
            if is_code { "(code)" } else { line }
        })
        .collect()
}

/// Returns level and text of a Markdown heading.
fn heading(line: &str) -> Option<(usize, &str)> {
    let level = line.len() - line.trim_start_matches('#').len();
    let text = line.get(level..)?.strip_prefix(' ')?;
    (1..=6).contains(&level).then(|| (level, text.trim().trim_end_matches(['#', ':']).trim()))
}

fn missing_sections(document: Document, lines: &[&str]) -> Vec<String> {
    let file = document.file();
    let check = |section: &Section| {
        let is_heading = |line: &&str| {
            heading(line).is_some_and(|(_, text)| {
                text.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.' || c == ' ')
                    .eq_ignore_ascii_case(section.heading)
            })
        };
        let Some(at) = lines.iter().position(is_heading) else {
            return Some(format!("`{file}` has no section `## {}`: {}", section.heading, section.about));
        };
        let level = heading(lines[at]).map_or(2, |(level, _)| level);
        let mut body =
            lines[at + 1..].iter().take_while(|line| heading(line).is_none_or(|(deeper, _)| deeper > level));
        let empty = !body.any(|line| heading(line).is_none() && !line.trim().is_empty());
        empty.then(|| format!("section `## {}` of `{file}` is empty: {}", section.heading, section.about))
    };
    sections(document).iter().filter_map(check).collect()
}

/// Placeholders at the start of a line or list entry.
const PLACEHOLDER_WORDS: &[&str] = &["TODO", "TBD", "FIXME", "XXX", "???"];

/// Placeholders anywhere in a line, in lowercase.
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
    let is_placeholder = |line: &str| {
        let text = line.trim().trim_start_matches(['-', '*', '+', '>', '#', ' ', '_']);
        let text = ["[ ]", "[x]"].iter().find_map(|mark| text.strip_prefix(mark)).unwrap_or(text).trim();
        let text = text.trim_matches(['*', '_', '(', ')', '[', ']', '<', '>']);
        let starts_with_word = PLACEHOLDER_WORDS.iter().any(|word| {
            text.strip_prefix(word)
                .is_some_and(|rest| rest.trim().is_empty() || rest.starts_with([':', '.', ']', ')', '*']))
        });
        let lower = line.to_lowercase();
        starts_with_word
            || matches!(text, "..." | "…")
            || PLACEHOLDER_PHRASES.iter().any(|phrase| lower.contains(phrase))
    };
    let numbered = lines.iter().enumerate();
    numbered
        .filter(|(_, line)| is_placeholder(line))
        .map(|(at, line)| {
            let shown: String = line.trim().chars().take(60).collect();
            format!("line {} of `{file}` is a placeholder (`{shown}`): replace it", at + 1)
        })
        .collect()
}

/// Returns a finding if criteria are too few, and one for each without a `Check:`.
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
            "`{file}` has {} criteria (list entries): at least {CRITERIA_MIN} are required",
            criteria.len()
        ));
    }
    for (at, criterion) in criteria.iter().enumerate() {
        let how = criterion.to_lowercase().split_once("check:").map(|(_, how)| how.trim().len());
        if how.is_none_or(|length| length < 3) {
            let shown: String = criterion.chars().take(60).collect();
            findings
                .push(format!("criterion {} of `{file}` (`{shown}`) has no check: add `Check: ...`", at + 1));
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
        let policy = Policy::new(Redactor::new(Secrets::new()), &[], &[]).unwrap();
        review(document, Some(text.as_bytes()), &policy)
    }

    #[test]
    fn complete_documents_have_no_findings() {
        assert_eq!(review_of(Document::Task, TASK), Vec::<String>::new());
        assert_eq!(review_of(Document::Criteria, CRITERIA), Vec::<String>::new());
        let prompt = format!(
            "# Prompt\n\n## Goal\n\n{}\n\n## 2. Steps\n\n### Fix\n\n1. Fix it.\n\n```sh\n# TODO\n```\n\n## Done when:\n\nAll pass.\n",
            "Fix `best_bid`. ".repeat(15)
        );
        assert_eq!(review_of(Document::Prompt, &prompt), Vec::<String>::new());
    }

    #[test]
    fn stub_findings_name_missing_sections() {
        insta::assert_snapshot!(
            review_of(Document::Task, "# Task 1\n\n## What and why\n\nTODO\n\n## Context\n\n## Constraints\n\n...\n").join("\n"),
            @r"
        section `## Context` of `task.md` is empty: what already exists, and which decisions of the architecture and the requirements apply
        `task.md` has no section `## Dependencies`: each task that this one needs and what it delivers, by id; `None.` if there is none
        line 5 of `task.md` is a placeholder (`TODO`): replace it
        line 11 of `task.md` is a placeholder (`...`): replace it
        `task.md` is a stub: 7 characters besides its headings
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
        for line in
            ["A TODO list is shown.", "- TODOs are sorted by date", "Wait... then continue.", "`[your]`"]
        {
            assert_eq!(placeholders("task.md", &[line]), Vec::<String>::new());
        }
        for line in ["- [ ] TBD", "**TODO:** write", "[Insert the goal here]", "> FIXME", "…", "## TODO"] {
            assert_eq!(placeholders("task.md", &[line]).len(), 1, "{line}");
        }
    }

    #[test]
    fn unreadable_document_is_reported_by_review() {
        let policy = Policy::new(Redactor::new(Secrets::new()), &[], &[]).unwrap();
        let of = |content| review(Document::Prompt, content, &policy);
        assert_eq!(of(None), ["`prompt.md` is missing"]);
        assert_eq!(of(Some(b" \n")), ["`prompt.md` is empty"]);
        assert_eq!(of(Some(b"\xff\xfe")), ["`prompt.md` is not valid UTF-8"]);
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
