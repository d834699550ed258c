//! Files of a commit, with links that stay inside of it.

/// Maximum size of a file of instructions, and of what it imports.
pub(super) const MAX_FILE_BYTES: usize = 1024 * 1024;

/// Maximum links to follow for one path.
const MAX_LINKS: usize = 20;

/// Maximum steps: components of looked-up paths, and imports. A stranger may name as many as fit into files.
const MAX_STEPS: usize = 10_000;

/// Maximum content to read.
const MAX_READ_BYTES: usize = 8 * 1024 * 1024;

/// What may still be done to find the instructions.
#[derive(Clone, Copy, Debug)]
pub(super) struct Budget {
    steps: usize,
    bytes: usize,
}

impl Default for Budget {
    fn default() -> Self {
        Self { steps: MAX_STEPS, bytes: MAX_READ_BYTES }
    }
}

impl Budget {
    /// Takes steps; the last of the budget may be fewer.
    pub(super) fn take_steps(&mut self, steps: usize) -> Result<(), Stop> {
        self.steps = self.steps.saturating_sub(steps);
        if self.is_spent() { Err(Stop::Spent) } else { Ok(()) }
    }

    fn take_bytes(&mut self, bytes: usize) {
        self.bytes = self.bytes.saturating_sub(bytes);
    }

    pub(super) fn is_spent(&self) -> bool {
        self.steps == 0 || self.bytes == 0
    }
}

/// What a path of the commit is.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Node {
    /// Regular file, with its content.
    File(Vec<u8>),
    /// Regular file that is too large to be instructions.
    TooLarge,
    /// Symbolic link, with its target.
    Link(Vec<u8>),
    Folder,
    Missing,
}

/// Access to a commit; paths are relative to its root.
pub struct Source<'a> {
    /// Returns what a path is, without following a link in its last component.
    pub node: &'a dyn Fn(&str) -> Node,
    /// Returns the names in a directory; empty if it does not exist.
    pub list: &'a dyn Fn(&str) -> Vec<String>,
}

/// Why a path is not followed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Stop {
    /// It leads out of the commit.
    Outside,
    /// The budget is spent.
    Spent,
}

impl Source<'_> {
    /// Follows links and `..`; returns the path without them and what it is.
    ///
    /// # Errors
    /// Returns an error if the path leads out of the commit or through too many links, or the budget is spent.
    pub(super) fn resolve(&self, path: &str, budget: &mut Budget) -> Result<(String, Node), Stop> {
        if path.starts_with('/') {
            return Err(Stop::Outside);
        }
        let mut pending: Vec<String> = path.split('/').rev().map(str::to_owned).collect();
        let mut resolved: Vec<String> = Vec::new();
        let mut node = Node::Folder;
        let mut links = 0;
        while let Some(part) = pending.pop() {
            budget.take_steps(1)?;
            match part.as_str() {
                "" | "." => continue,
                ".." => {
                    resolved.pop().ok_or(Stop::Outside)?;
                    node = Node::Folder;
                    continue;
                }
                _ => resolved.push(part),
            }
            // Git reads every directory of the path.
            budget.take_steps(resolved.len())?;
            node = (self.node)(&resolved.join("/"));
            if let Node::File(content) | Node::Link(content) = &node {
                budget.take_bytes(content.len());
            }
            match &node {
                Node::Link(target) => {
                    links += 1;
                    let target = std::str::from_utf8(target).map_err(|_| Stop::Outside)?;
                    if links > MAX_LINKS || target.starts_with('/') {
                        return Err(Stop::Outside);
                    }
                    resolved.pop();
                    pending.extend(target.split('/').rev().map(str::to_owned));
                }
                Node::Folder => {}
                // A file is the end, or a component of the path is not a directory.
                Node::File(_) | Node::TooLarge | Node::Missing if pending.is_empty() => {}
                Node::File(_) | Node::TooLarge | Node::Missing => {
                    return Ok((resolved.join("/"), Node::Missing));
                }
            }
        }
        Ok((resolved.join("/"), node))
    }
}
