//! The changes of a run's branch: a patch in git's format, by file. Pure.

use std::fmt::Write as _;

use orchestrator_contract::terminal;
use schemars::JsonSchema;
use serde::Serialize;

use super::text::{ColorChoice, colorize};

/// Line with which the supervisor ends a patch that it cut.
const TRUNCATED: &str = "# truncated;";

/// Changes by file. The text cannot control a terminal.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Diff {
    pub files: Vec<FileDiff>,
    /// Whether there are more changes than these.
    pub truncated: bool,
}

/// Changes of one file.
#[derive(Clone, Debug, Eq, JsonSchema, PartialEq, Serialize)]
pub struct FileDiff {
    /// Path from the root of the repository; of a deleted file, its former one.
    pub path: String,
    /// Number of added lines.
    pub added: u32,
    /// Number of removed lines.
    pub removed: u32,
    /// Whether its content is not text.
    pub binary: bool,
    /// Part of the patch.
    #[serde(skip)]
    pub patch: String,
}

/// Lines of a hunk that are still to come.
#[derive(Clone, Copy, Default)]
struct Hunk {
    old: u32,
    new: u32,
}

impl Diff {
    /// Parses a patch; `truncated` says whether it was cut before.
    #[must_use]
    pub fn parse(patch: &str, truncated: bool) -> Self {
        let patch = terminal::neutralize_lines(patch);
        let mut diff = Self { files: Vec::new(), truncated };
        let mut hunk = Hunk::default();
        for line in patch.split_inclusive('\n') {
            // Lines of a hunk are content, whatever they look like.
            let is_content = hunk.old > 0 || hunk.new > 0;
            if !is_content && line.starts_with(TRUNCATED) {
                diff.truncated = true;
                continue;
            }
            if !is_content && let Some(names) = line.strip_prefix("diff --git ") {
                diff.files.push(FileDiff::new(names.trim_end()));
            }
            let Some(file) = diff.files.last_mut() else { continue };
            file.patch.push_str(line);
            if is_content {
                file.count(line, &mut hunk);
            } else {
                hunk = file.read_header(line.trim_end());
            }
        }
        diff
    }

    /// Keeps the files with a path that contains `text`.
    #[must_use]
    pub fn with_paths(self, text: &str) -> Self {
        let files = self.files.into_iter().filter(|file| file.path.contains(text)).collect();
        Self { files, ..self }
    }

    /// Describes the size in one line.
    #[must_use]
    pub fn summary(&self) -> String {
        let sum = |count: fn(&FileDiff) -> u32| self.files.iter().map(count).fold(0, u32::saturating_add);
        let (files, added, removed) = (self.files.len(), sum(|file| file.added), sum(|file| file.removed));
        let plural = if files == 1 { "" } else { "s" };
        let more = if self.truncated { ", and more that the record does not have" } else { "" };
        format!("{files} file{plural} changed (+{added} -{removed}){more}")
    }

    /// Renders a line per file with its added and removed lines, and the summary.
    #[must_use]
    pub fn render_stat(&self) -> String {
        let mut text = String::new();
        for FileDiff { path, added, removed, binary, patch: _ } in &self.files {
            let (added, removed) = if *binary {
                ("binary".to_owned(), String::new())
            } else {
                (format!("+{added}"), format!("-{removed}"))
            };
            // Writing to a String cannot fail.
            let _ = writeln!(text, "{added:>6} {removed:>6}  {path}");
        }
        text + &self.summary() + "\n"
    }

    /// Returns the patch of all files.
    #[must_use]
    pub fn patch(&self) -> String {
        self.files.iter().map(|file| file.patch.as_str()).collect()
    }
}

impl FileDiff {
    /// Creates a file without changes from the names in a header: `a/OLD b/NEW`.
    fn new(names: &str) -> Self {
        let path = names.rsplit_once(" b/").map_or(names, |(_, path)| path).to_owned();
        Self { path, added: 0, removed: 0, binary: false, patch: String::new() }
    }

    /// Counts a line of a hunk.
    fn count(&mut self, line: &str, hunk: &mut Hunk) {
        match line.as_bytes().first() {
            Some(b'+') => {
                self.added = self.added.saturating_add(1);
                hunk.new = hunk.new.saturating_sub(1);
            }
            Some(b'-') => {
                self.removed = self.removed.saturating_add(1);
                hunk.old = hunk.old.saturating_sub(1);
            }
            // No newline at the end of the file.
            Some(b'\\') => {}
            Some(_) | None => {
                hunk.old = hunk.old.saturating_sub(1);
                hunk.new = hunk.new.saturating_sub(1);
            }
        }
    }

    /// Reads a line between hunks; returns the hunk that it starts.
    fn read_header(&mut self, line: &str) -> Hunk {
        if let Some(path) = line.strip_prefix("+++ b/") {
            path.clone_into(&mut self.path);
        } else if line.starts_with("Binary files ") || line == "GIT binary patch" {
            self.binary = true;
        } else if let Some(ranges) = line.strip_prefix("@@ -") {
            return parse_ranges(ranges).unwrap_or_default();
        }
        Hunk::default()
    }
}

/// Parses `1,2 +3,4 @@`, the rest of a hunk's header.
fn parse_ranges(text: &str) -> Option<Hunk> {
    let (old, rest) = text.split_once(" +")?;
    let (new, _) = rest.split_once(" @@")?;
    let lines = |range: &str| range.split_once(',').map_or(Some(1), |(_, lines)| lines.parse().ok());
    Some(Hunk { old: lines(old)?, new: lines(new)? })
}

/// Colors a patch as git does.
#[must_use]
pub fn color_patch(patch: &str, color: ColorChoice) -> String {
    let line = |line: &str| {
        let code = match line.as_bytes().first() {
            Some(b'+') => "32",
            Some(b'-') => "31",
            Some(b'@') => "36",
            Some(b'd') => "1",
            Some(_) | None => return format!("{line}\n"),
        };
        colorize(line, code, color) + "\n"
    };
    patch.lines().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const PATCH: &str = "\
diff --git a/src/lib.rs b/src/lib.rs
index 0123456..89abcde 100644
--- a/src/lib.rs
+++ b/src/lib.rs
@@ -1,3 +1,4 @@
 fn a() {}
-fn b() {}
+fn b() { first() }
+diff --git a/fake b/fake
 fn c() {}
\\ No newline at end of file
diff --git a/old name.md b/old name.md
deleted file mode 100644
--- a/old name.md
+++ /dev/null
@@ -1 +0,0 @@
--- a/not a header
diff --git a/logo.png b/logo.png
new file mode 100644
Binary files /dev/null and b/logo.png differ
";

    #[test]
    fn diff_is_counted_by_file() {
        let diff = Diff::parse(PATCH, false);
        insta::assert_snapshot!(diff.render_stat(), @r"
            +2     -1  src/lib.rs
            +0     -1  old name.md
        binary         logo.png
        3 files changed (+2 -2)
        ");
        assert_eq!(diff.patch(), PATCH);
    }

    #[test]
    fn diff_of_agent_cannot_control_terminal() {
        let diff = Diff::parse(&PATCH.replace("first()", "\u{1b}]0;x\u{7}\u{202e}"), false);
        assert!(!diff.patch().contains(['\u{1b}', '\u{7}', '\u{202e}']));
        assert_eq!(diff.files[0].added, 2);
    }

    #[test]
    fn diff_that_was_cut_is_reported_as_such() {
        let patch = format!("{PATCH}# truncated; 7 files differ\n");
        let diff = Diff::parse(&patch, false);
        assert!(diff.truncated && !diff.patch().contains("# truncated"));
        assert!(diff.summary().ends_with("and more that the record does not have"));
    }

    #[test]
    fn diff_is_filtered_by_path() {
        let diff = Diff::parse(PATCH, false).with_paths("src/");
        assert_eq!(diff.summary(), "1 file changed (+2 -1)");
    }

    #[test]
    fn patch_is_colored_by_line() {
        let colored = color_patch("@@ -1 +1 @@\n-a\n+b\n c\n", ColorChoice::Yes);
        assert_eq!(
            colored,
            "\u{1b}[36m@@ -1 +1 @@\u{1b}[0m\n\u{1b}[31m-a\u{1b}[0m\n\u{1b}[32m+b\u{1b}[0m\n c\n"
        );
    }

    proptest! {
        #[test]
        fn arbitrary_patch_keeps_its_text(text in "(diff --git a/x b/x\n|@@ -1,9 \\+1,9 @@\n|@@ -\n|[+-]a\n|\\+\\+\\+ b/\n| |\n){0,40}") {
            let patch = Diff::parse(&text, false).patch();
            // Only what precedes the first file is dropped.
            prop_assert!(text.ends_with(&patch), "{patch:?}");
            let dropped = &text[..text.len() - patch.len()];
            prop_assert!(!dropped.starts_with("diff --git ") && !dropped.contains("\ndiff --git "));
        }
    }
}
