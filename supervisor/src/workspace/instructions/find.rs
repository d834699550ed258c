//! Finds the files of instructions, in the order in which they are given.

use std::collections::BTreeSet;

use super::comments::without_comments;
use super::imports::imports;
use super::source::{Budget, Node, Source, Stop};
use crate::workspace::documents::decode;

/// Files of a directory for this CLI; the last one is of one person.
const OWN: [&str; 3] = ["CLAUDE.md", ".claude/CLAUDE.md", "CLAUDE.local.md"];

/// Files of a directory for any agent, in projects that have none of [`OWN`].
const AGENTS: [&str; 2] = ["AGENTS.md", ".claude/AGENTS.md"];

/// Maximum length of all instructions together.
const MAX_BYTES: usize = 128 * 1024;

/// Maximum files.
const MAX_FILES: usize = 200;

/// Maximum levels of imports.
const MAX_IMPORT_DEPTH: usize = 4;

/// Maximum nested directories below `.claude/rules`.
const MAX_RULES_DEPTH: usize = 8;

/// Maximum paths to list in a note, and characters of each.
const MAX_LISTED: usize = 10;
const MAX_LISTED_CHARS: usize = 100;

/// Instructions for the agent, and what was left out of them.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Instructions {
    pub files: Vec<InstructionFile>,
    /// One sentence for each kind of omission.
    pub notes: Vec<String>,
}

/// File of instructions.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct InstructionFile {
    /// Path in the repository.
    pub path: String,
    pub text: String,
}

impl Instructions {
    /// Returns all files as one text, or `None` if there are none.
    #[must_use]
    pub fn text(&self) -> Option<String> {
        let texts = self.files.iter().map(|file| format!("Contents of `{}`:\n\n{}", file.path, file.text));
        let texts: Vec<String> = texts.collect();
        (!texts.is_empty()).then(|| texts.join("\n\n"))
    }
}

/// Finds the instructions for a working directory; the empty one is the root.
#[must_use]
pub fn find_instructions(source: &Source<'_>, working_directory: &str) -> Instructions {
    let mut folders = vec![String::new()];
    for part in working_directory.split('/').filter(|part| !part.is_empty()) {
        folders.extend(folders.last().map(|folder| join(folder, part)));
    }
    let mut finder = Finder::new(source);
    let has_own = folders.iter().any(|folder| OWN.iter().any(|name| finder.is_file(&join(folder, name))));
    for folder in &folders {
        finder.add_folder(folder, has_own);
    }
    finder.finish()
}

struct Finder<'a> {
    source: &'a Source<'a>,
    /// Paths without links that were given already.
    seen: BTreeSet<String>,
    files: Vec<InstructionFile>,
    room: usize,
    budget: Budget,
    cut: Listed,
    outside: Listed,
}

/// Paths for a note: the first ones, and how many there are.
#[derive(Debug, Default)]
struct Listed {
    first: Vec<String>,
    count: usize,
}

impl Listed {
    fn push(&mut self, path: &str) {
        if self.first.len() < MAX_LISTED {
            self.first.push(format!("`{}`", path.chars().take(MAX_LISTED_CHARS).collect::<String>()));
        }
        self.count += 1;
    }

    /// Returns the list as text, or `None` if it is empty.
    fn text(mut self) -> Option<String> {
        let more = self.count.saturating_sub(self.first.len());
        self.first.extend((more > 0).then(|| format!("{more} more")));
        (self.count > 0).then(|| self.first.join(", "))
    }
}

impl<'a> Finder<'a> {
    fn new(source: &'a Source<'a>) -> Self {
        Self {
            source,
            seen: BTreeSet::new(),
            files: Vec::new(),
            room: MAX_BYTES,
            budget: Budget::default(),
            cut: Listed::default(),
            outside: Listed::default(),
        }
    }

    fn is_file(&mut self, path: &str) -> bool {
        let found = self.source.resolve(path, &mut self.budget);
        matches!(found, Ok((_, Node::File(_) | Node::TooLarge)))
    }

    fn add_folder(&mut self, folder: &str, has_own: bool) {
        let [project, nested, local] = OWN;
        // Also without one of them: a link out of the repository is noted.
        for name in [project, nested].into_iter().chain(AGENTS.into_iter().filter(|_| !has_own)) {
            self.add(&join(folder, name), 0);
        }
        self.add_rules(&join(folder, ".claude/rules"), 0);
        self.add(&join(folder, local), 0);
    }

    fn add_rules(&mut self, folder: &str, depth: usize) {
        let found = self.source.resolve(folder, &mut self.budget);
        let Ok((resolved, Node::Folder)) = found else { return };
        // A link to a directory above would have no end.
        if depth > MAX_RULES_DEPTH || !self.seen.insert(format!("{resolved}/")) {
            return;
        }
        let mut names = (self.source.list)(&resolved);
        names.sort();
        for name in names {
            if self.budget.is_spent() {
                return;
            }
            if name.to_ascii_lowercase().ends_with(".md") {
                self.add(&join(folder, &name), 0);
            } else {
                self.add_rules(&join(folder, &name), depth + 1);
            }
        }
    }

    /// Adds a file, if there is one, and what it imports.
    fn add(&mut self, path: &str, depth: usize) {
        let (resolved, node) = match self.source.resolve(path, &mut self.budget) {
            Ok(found) => found,
            Err(Stop::Spent) => return,
            Err(Stop::Outside) => {
                self.outside.push(path);
                return;
            }
        };
        let content = match node {
            Node::File(content) => content,
            Node::TooLarge => {
                self.cut.push(path);
                return;
            }
            Node::Link(_) | Node::Folder | Node::Missing => return,
        };
        if !self.seen.insert(resolved.clone()) {
            return;
        }
        let text = without_comments(&decode(&content));
        // A program or an image is not instructions.
        if text.contains('\0') {
            return;
        }
        // An import may have `..` in its path.
        self.push(if depth == 0 { path } else { &resolved }, text.trim());
        if depth < MAX_IMPORT_DEPTH {
            let folder = resolved.rsplit_once('/').map_or("", |(folder, _)| folder);
            for import in imports(&text) {
                self.add_import(folder, &import, depth + 1);
            }
        }
    }

    fn add_import(&mut self, folder: &str, import: &str, depth: usize) {
        if self.budget.take_steps(1).is_err() {
            return;
        }
        if import.starts_with(['~', '/']) {
            self.outside.push(import);
        } else {
            self.add(&join(folder, import), depth);
        }
    }

    fn push(&mut self, path: &str, text: &str) {
        if text.is_empty() {
            return;
        }
        if self.room == 0 || self.files.len() >= MAX_FILES {
            self.cut.push(path);
            return;
        }
        let kept = text.get(..text.floor_char_boundary(self.room)).unwrap_or_default();
        self.room -= kept.len();
        let mut kept = kept.to_owned();
        if kept.len() < text.len() {
            self.room = 0;
            self.cut.push(path);
            kept.push_str("\n[… truncated]");
        }
        self.files.push(InstructionFile { path: path.to_owned(), text: kept });
    }

    fn finish(self) -> Instructions {
        let mut notes = Vec::new();
        if self.budget.is_spent() {
            notes.push(
                "project instructions name too many or too large files; the rest was left out".to_owned(),
            );
        }
        if let Some(listed) = self.cut.text() {
            let limit = MAX_BYTES / 1024;
            notes.push(format!(
                "project instructions of more than {limit} KiB were cut or left out: {listed}"
            ));
        }
        if let Some(listed) = self.outside.text() {
            notes.push(format!("project instructions outside of the repository were left out: {listed}"));
        }
        Instructions { files: self.files, notes }
    }
}

fn join(folder: &str, name: &str) -> String {
    if folder.is_empty() { name.to_owned() } else { format!("{folder}/{name}") }
}

#[cfg(test)]
mod tests;
