//! The target repository's own instructions for agents, as text.
//!
//! They are what `claude -p` would load for the working directory, without what is not text: project
//! settings and hooks stay disabled. From the root down to the working directory, each directory gives:
//!
//! 1. `CLAUDE.md` and `.claude/CLAUDE.md`;
//! 2. every `.md` file below `.claude/rules`, by name, also those for some paths only, which say so themselves;
//! 3. `CLAUDE.local.md`.
//!
//! If none of these directories has one of the named files, each gives `AGENTS.md` and `.claude/AGENTS.md`
//! instead, as CLI 2.1.330 does by default.
//!
//! A file comes once, and after it the files that it imports (`@path`), up to four levels deep. The files
//! are input of a stranger: they are read as git objects of one commit, and nothing outside of it is.

mod comments;
mod find;
mod imports;
mod source;

pub use find::{InstructionFile, Instructions, find_instructions};
pub use source::{Node, Source};

use crate::git::{ControlRepository, EntryKind, Oid, PathNode};

/// Returns the instructions for a working directory at a commit.
///
/// What cannot be read is left out: a run does not need it.
#[must_use]
pub fn read_instructions(control: &ControlRepository, commit: Oid, working_directory: &str) -> Instructions {
    let node = |path: &str| {
        let read = control.read_node(commit, path.as_ref(), source::MAX_FILE_BYTES);
        match read.ok().flatten() {
            None => Node::Missing,
            Some(PathNode { kind, content, .. }) => match kind {
                EntryKind::File | EntryKind::Executable => content.map_or(Node::TooLarge, Node::File),
                EntryKind::Link => Node::Link(content.unwrap_or_default()),
                EntryKind::Folder => Node::Folder,
                EntryKind::Submodule => Node::Missing,
            },
        }
    };
    let list = |path: &str| {
        let entries = control.list_tree(commit, path.as_ref()).ok().flatten().unwrap_or_default();
        entries.into_iter().filter_map(|entry| String::from_utf8(entry.name).ok()).collect()
    };
    find_instructions(&Source { node: &node, list: &list }, working_directory)
}
