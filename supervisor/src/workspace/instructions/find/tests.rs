use std::collections::BTreeMap;

use super::*;

/// Commit as a map of paths to files and links.
#[derive(Default)]
struct Commit(BTreeMap<String, Node>);

impl Commit {
    fn file(mut self, path: &str, text: impl AsRef<[u8]>) -> Self {
        self.0.insert(path.to_owned(), Node::File(text.as_ref().to_vec()));
        self
    }

    fn link(mut self, path: &str, target: &str) -> Self {
        self.0.insert(path.to_owned(), Node::Link(target.into()));
        self
    }

    fn find(&self, working_directory: &str) -> Instructions {
        let below = |path: &str| -> Vec<String> {
            let prefix = if path.is_empty() { String::new() } else { format!("{path}/") };
            let inner = self.0.keys().filter_map(|key| key.strip_prefix(&prefix)).map(str::to_owned);
            let mut names: Vec<String> =
                inner.filter_map(|rest| rest.split('/').next().map(str::to_owned)).collect();
            names.dedup();
            names
        };
        let node = |path: &str| match self.0.get(path) {
            Some(node) => node.clone(),
            None if below(path).is_empty() => Node::Missing,
            None => Node::Folder,
        };
        find_instructions(&Source { node: &node, list: &below }, working_directory)
    }

    fn paths(&self, working_directory: &str) -> Vec<String> {
        self.find(working_directory).files.into_iter().map(|file| file.path).collect()
    }
}

#[test]
fn directories_are_read_from_root_to_working_directory() {
    let commit = Commit::default()
        .file("CLAUDE.md", "1")
        .file(".claude/CLAUDE.md", "2")
        .file("AGENTS.md", "not read beside CLAUDE.md")
        .file(".claude/rules/b/style.md", "4")
        .file(".claude/rules/a.md", "3")
        .file(".claude/rules/script.sh", "no rule")
        .file(".claude/settings.json", "{}")
        .file("CLAUDE.local.md", "5")
        .file("services/AGENTS.md", "not read beside CLAUDE.md")
        .file("services/trader/CLAUDE.md", "6")
        .file("services/billing/CLAUDE.md", "other service");
    let found = commit.find("services/trader");
    let texts: Vec<_> = found.files.iter().map(|file| file.text.as_str()).collect();
    assert_eq!(texts, ["1", "2", "3", "4", "5", "6"]);
    assert_eq!(found.notes, Vec::<String>::new());
    assert_eq!(commit.paths("").len(), 5);
}

#[test]
fn agents_files_are_read_in_projects_without_own_files() {
    let agents = Commit::default()
        .file("AGENTS.md", "1")
        .file(".claude/AGENTS.md", "2")
        .file(".claude/rules/a.md", "3")
        .file("trader/AGENTS.md", "4")
        .file("billing/CLAUDE.md", "other service");
    assert_eq!(
        agents.paths("trader"),
        ["AGENTS.md", ".claude/AGENTS.md", ".claude/rules/a.md", "trader/AGENTS.md"]
    );
    for own in ["CLAUDE.md", "trader/.claude/CLAUDE.md", "trader/CLAUDE.local.md"] {
        let commit = Commit(agents.0.clone()).file(own, "own");
        let mut paths = commit.paths("trader");
        paths.sort();
        let mut expected = [".claude/rules/a.md", own];
        expected.sort_unstable();
        assert_eq!(paths, expected);
    }
}

#[test]
fn imported_files_follow_once_down_to_four_levels() {
    let commit = Commit::default()
        .file("CLAUDE.md", "@AGENTS.md and @docs/a.md, not `@docs/code.md` or @team")
        .file("AGENTS.md", "agents")
        .file("docs/a.md", "@b.md @../CLAUDE.md")
        .file("docs/b.md", "@./c.md")
        .file("docs/c.md", "@/etc/passwd @~/own.md @../../up.md @d.md")
        .file("docs/d.md", "@e.md")
        .file("docs/e.md", "too deep")
        .file("docs/code.md", "code");
    let expected = ["CLAUDE.md", "AGENTS.md", "docs/a.md", "docs/b.md", "docs/c.md", "docs/d.md"];
    assert_eq!(commit.paths(""), expected);
    let note = "project instructions outside of the repository were left out: `/etc/passwd`, `~/own.md`, \
                `docs/../../up.md`";
    assert_eq!(commit.find("").notes, [note]);
}

#[test]
fn links_are_followed_inside_of_repository_only() {
    let inside = Commit::default()
        .link("CLAUDE.md", "docs/../AGENTS.md")
        .file("docs/x.md", "x")
        .file("AGENTS.md", "agents @docs/x.md");
    assert_eq!(inside.paths(""), ["CLAUDE.md", "docs/x.md"]);
    for target in ["/etc/passwd", "../other/CLAUDE.md", "CLAUDE.md"] {
        let commit = Commit::default().link("CLAUDE.md", target).file("AGENTS.md", "agents");
        assert_eq!(commit.paths(""), ["AGENTS.md"], "{target}");
        assert_eq!(commit.find("").notes.len(), 1, "{target}");
    }
    let folders = Commit::default()
        .link(".claude", "shared")
        .file("shared/rules/a.md", "a")
        .link("shared/rules/again", "../rules");
    assert_eq!(folders.paths(""), [".claude/rules/a.md"]);
}

#[test]
fn other_encodings_are_decoded() {
    let utf16: Vec<u8> = "\u{feff}mark ä".encode_utf16().flat_map(u16::to_le_bytes).collect();
    for content in [utf16.as_slice(), "\u{feff}mark ä".as_bytes()] {
        let found = Commit::default().file("CLAUDE.md", content).find("");
        assert_eq!(found.text().unwrap(), "Contents of `CLAUDE.md`:\n\nmark ä");
    }
    let latin1 = Commit::default().file("CLAUDE.md", b"caf\xe9 mark").find("");
    assert!(latin1.text().unwrap().ends_with("mark"));
    assert_eq!(Commit::default().file("CLAUDE.md", b"ab\0c").find("").text(), None);
}

const SPENT: &str = "project instructions name too many or too large files; the rest was left out";

#[test]
fn number_of_imports_is_bounded() {
    for import in ["@{}.md ", "@/{}.md ", "@~{}.md "] {
        let imports: String = (0..11_000).map(|number| import.replace("{}", &number.to_string())).collect();
        let found = Commit::default().file("CLAUDE.md", imports).file("CLAUDE.local.md", "left out").find("");
        assert_eq!(found.files.len(), 1, "{import}");
        assert_eq!(found.notes[0], SPENT);
        let listed = found.notes.get(1).map_or(10, |note| note.matches('`').count() / 2);
        assert_eq!(listed, 10, "{:?}", found.notes);
    }
}

#[test]
fn chained_links_spend_the_budget() {
    let mut commit = Commit::default().link("CLAUDE.md", "l0");
    for number in 0..19 {
        commit = commit.link(&format!("l{number}"), &format!("{}l{}", "d/../".repeat(800), number + 1));
    }
    let imports: String = (0..1000).map(|number| format!("@./{}l0 ", "./".repeat(number))).collect();
    let commit = commit.file("l19", "end").file("d/x", "").file(".claude/CLAUDE.md", &imports);
    let lookups = std::cell::Cell::new(0);
    let node = |path: &str| {
        lookups.set(lookups.get() + 1);
        match commit.0.get(path) {
            Some(node) => node.clone(),
            None if path == "d" || path == ".claude" => Node::Folder,
            None => Node::Missing,
        }
    };
    let found = find_instructions(&Source { node: &node, list: &|_| Vec::new() }, "");
    assert!(lookups.get() <= 10_000, "{}", lookups.get());
    assert_eq!(found.notes, [SPENT]);
}

#[test]
fn content_to_read_is_bounded() {
    let mut commit = Commit::default();
    for number in 0..100 {
        commit = commit.file(&format!(".claude/rules/{number:03}.md"), vec![0; 1024 * 1024]);
    }
    let reads = std::cell::Cell::new(0);
    let node = |path: &str| match commit.0.get(path) {
        Some(node) => {
            reads.set(reads.get() + 1);
            node.clone()
        }
        None if path.ends_with(".md") => Node::Missing,
        None => Node::Folder,
    };
    let list = |_: &str| (0..100).map(|number| format!("{number:03}.md")).collect();
    let found = find_instructions(&Source { node: &node, list: &list }, "");
    assert_eq!((reads.get(), found.notes), (8, vec![SPENT.to_owned()]));
}

#[test]
fn instructions_beyond_limit_are_cut_with_note() {
    let long = "ä".repeat(MAX_BYTES / 2 - 10);
    let commit = Commit::default()
        .file("CLAUDE.md", long)
        .file(".claude/rules/a.md", "b".repeat(100))
        .file(".claude/rules/b.md", "left out");
    let found = commit.find("");
    assert_eq!(found.files[1].text, format!("{}\n[… truncated]", "b".repeat(20)));
    assert_eq!(
        found.notes,
        [
            "project instructions of more than 128 KiB were cut or left out: `.claude/rules/a.md`, `.claude/rules/b.md`"
        ]
    );
}
