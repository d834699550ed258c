//! Files of a commit, with links that stay inside of it.

/// Maximum size of a file of instructions, and of what it imports.
pub(super) const MAX_FILE_BYTES: usize = 1024 * 1024;

/// Maximum links to follow for one path.
const MAX_LINKS: usize = 20;

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

/// A path that leads out of the commit.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Outside;

impl Source<'_> {
    /// Follows links and `..`; returns the path without them and what it is.
    ///
    /// # Errors
    /// Returns an error if the path leads out of the commit, or through too many links.
    pub(super) fn resolve(&self, path: &str) -> Result<(String, Node), Outside> {
        if path.starts_with('/') {
            return Err(Outside);
        }
        let mut pending: Vec<String> = path.split('/').rev().map(str::to_owned).collect();
        let mut resolved: Vec<String> = Vec::new();
        let mut node = Node::Folder;
        let mut links = 0;
        while let Some(part) = pending.pop() {
            match part.as_str() {
                "" | "." => continue,
                ".." => {
                    resolved.pop().ok_or(Outside)?;
                    node = Node::Folder;
                    continue;
                }
                _ => resolved.push(part),
            }
            node = (self.node)(&resolved.join("/"));
            match &node {
                Node::Link(target) => {
                    links += 1;
                    let target = std::str::from_utf8(target).map_err(|_| Outside)?;
                    if links > MAX_LINKS || target.starts_with('/') {
                        return Err(Outside);
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
