//! Parses what is rendered with another implementation of Markdown.

use proptest::prelude::*;
use pulldown_cmark::{Event, Options, Parser, Tag, TagEnd};

use super::*;

/// Returns the text outside of code; fails on links, images and HTML.
#[track_caller]
#[expect(clippy::wildcard_enum_match_arm, reason = "other events carry no text")]
fn text_outside_code(markdown: &str) -> String {
    let mut text = String::new();
    let mut in_code = false;
    for event in Parser::new_ext(markdown, Options::all()) {
        match event {
            Event::Start(Tag::CodeBlock(_)) => in_code = true,
            Event::End(TagEnd::CodeBlock) => in_code = false,
            Event::Text(part) if !in_code => text.push_str(&part),
            Event::SoftBreak | Event::HardBreak => text.push('\n'),
            // Code is no text, but separates it.
            Event::Code(_) => text.push('\u{1}'),
            Event::Start(
                Tag::Link { .. } | Tag::Image { .. } | Tag::HtmlBlock | Tag::FootnoteDefinition(_),
            )
            | Event::Html(_)
            | Event::InlineHtml(_)
            | Event::FootnoteReference(_) => panic!("{event:?} in {markdown}"),
            Event::End(TagEnd::Paragraph | TagEnd::Item | TagEnd::Heading(_)) => text.push('\n'),
            _ => {}
        }
    }
    text
}

/// Asserts that GitHub finds nothing to link, notify or close in a text.
#[track_caller]
fn assert_inert(markdown: &str) {
    let text = text_outside_code(markdown);
    let bytes: Vec<char> = text.chars().collect();
    for pair in bytes.windows(2) {
        let [first, next] = pair else { continue };
        assert!(!(*first == '@' && next.is_alphanumeric()), "a mention: {markdown}");
        assert!(!(*first == '#' && next.is_ascii_digit()), "a reference: {markdown}");
    }
    let lower = text.to_lowercase();
    for word in ["://", "www.", "<!--", "gh-1"] {
        assert!(!lower.contains(word), "{word}: {markdown}");
    }
    assert!(!markdown.contains("<!--"), "{markdown}");
}

/// What must not have an effect, and what may come before and after it.
const PAYLOADS: [&str; 24] = [
    "@team",
    "cc @org/team!",
    "mail a@b.example",
    "fixes #1",
    "closes org/repo#12",
    "fixes GH-12",
    "https://evil.example/x",
    "HTTP://evil.example",
    "www.evil.example",
    "<https://evil.example>",
    "[text](https://evil.example)",
    "[text][ref]\n\n[ref]: https://evil.example",
    "[@team](javascript:alert)",
    "![image](https://evil.example/x.png)",
    "[![image](https://evil.example/x.png)](https://evil.example)",
    "<img src=https://evil.example/x.png>",
    "<details><summary>@team</summary>",
    "<!-- @team -->",
    "<script>@team</script>",
    "&#64;team &commat;team",
    "\\@team \\\\@team",
    "text[^1]\n\n[^1]: @team",
    "@\u{200b}team @\u{2060}team",
    "**@team** _@team_ ~~@team~~ $@team$",
];

const BEFORE: [&str; 30] = [
    "",
    "```\n",
    "````\n```\n",
    "```\n````\n",
    "```\ncode\n```\n",
    "```\ncode\n``\n```\n",
    "```rust ` x\n",
    "``` ``` x\n",
    "~~~\n",
    "~~~\n```\n~~~\n",
    "```\n~~~\n```\n",
    "   ```\ncode\n   ```\n",
    "    ```\n",
    "\t```\n",
    "- ```\n",
    "- item\n  ```\n  code\n  ```\n",
    "- item\n\n      code\n",
    "> ```\n",
    "> ```\n> code\n",
    "1. ```\n   code\n",
    "\\```\n",
    "`",
    "``",
    "`open ``two` ",
    "a ` b `` c ` d `` ",
    "| a | b |\n|---|---|\n| ",
    "# heading\n\n## ",
    "text\n===\n",
    "```\r\ncode\r\n```\r\n",
    "```\ncode\n```\u{2028}",
];

const AFTER: [&str; 8] = ["", "\n```", "\n~~~", "`", "``", "\n-->", "\n    code", "\\"];

#[test]
fn no_payload_has_effect_after_any_fence() {
    for payload in PAYLOADS {
        for before in BEFORE {
            for after in AFTER {
                let text = format!("{before}{payload}{after}");
                assert_inert(&block(&text, 10_000));
                assert_inert(&inline(&line(&text, 1_000)));
                assert_inert(&list(&[text.clone(), text.clone()], 5));
                // What follows is not swallowed.
                let page = format!("{}\n\n### Heading\n\nlast", block(&text, 10_000));
                assert!(text_outside_code(&page).ends_with("Heading\nlast\n"), "{page}");
            }
        }
    }
}

#[test]
fn no_cut_brings_payload_to_life() {
    for payload in PAYLOADS {
        for before in BEFORE {
            let text = format!("{before}`{payload}` {payload}\n\n{payload}");
            for max in 0..text.len() + 60 {
                let short = block(&text, max);
                assert_inert(&short);
                assert!(short.chars().count() <= max.max(TRUNCATION_MARK.chars().count()), "{max}: {short}");
            }
        }
    }
}

#[test]
fn ordinary_markdown_keeps_its_form() {
    for (text, expected) in [
        ("Added `a@b` and ``c ` d``.", "Added `a@b` and ``c ` d``."),
        ("# Title\ntext", "**Title**\n\ntext"),
        ("- one\n  - two\n1. three", "- one\n  - two\n1. three"),
        ("```rust\nlet x = `@a`;\n```\nend", "```rust\nlet x = `@a`;\n```\n\nend"),
        ("~~~\nopen", "```\nopen\n```"),
        ("1 < 2 & 3 > 2", "1 &lt; 2 &amp; 3 > 2"),
        ("a_b * c", "a_b * c"),
        ("`open", "\\`open"),
        ("use @scope, see #7", "use @\u{200b}scope, see #\u{200b}7"),
        ("a\u{202e}b\u{1b}[1m", "a\u{fffd}b\u{fffd}\\[1m"),
    ] {
        assert_eq!(block(text, 1_000), expected);
    }
    assert_eq!(plain("Fix #1 for @team: https://x"), "Fix #\u{200b}1 for @\u{200b}team: https:\u{200b}//x");
}

#[test]
fn parts_without_room_are_left_out_whole() {
    let parts = ["one".to_owned(), String::new(), "`two`".to_owned(), "x".repeat(100)];
    assert_eq!(join_within(&parts, "\n\n", 1_000), format!("one\n\n`two`\n\n{}", parts[3]));
    assert_eq!(join_within(&parts, "\n\n", 60), "one\n\n`two`\n\n… (truncated)");
}

proptest! {
    #[test]
    fn arbitrary_text_is_inert(
        pieces in prop::collection::vec(
            prop_oneof![
                Just("```"), Just("`"), Just("~~~"), Just("\n"), Just("\n\n"), Just("    "), Just("- "), Just("> "),
                Just("@team"), Just("#1"), Just("<b>"), Just("<!--"), Just("-->"), Just("[a](b)"), Just("\\"),
                Just("https://x.example"), Just("&#64;"), Just("text"), Just("|"), Just("*"), Just("\t"),
            ],
            0..30,
        ),
        max in 20usize..400,
    ) {
        let text = pieces.concat();
        assert_inert(&block(&text, max));
        assert_inert(&inline(&line(&text, max)));
    }
}
