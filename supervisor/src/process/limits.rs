//! Limits of this process.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Maximum descriptors to ask for. Children inherit the limit, and some close each number up to it.
const MAX_DESCRIPTORS: u64 = 65_536;

/// Raises the soft limit of open files toward the hard limit.
///
/// Connections from a sandbox use descriptors of this process; what it needs to end must be left.
pub fn raise_descriptor_limit() {
    let limit = getrlimit(Resource::Nofile);
    let wanted = limit.maximum.unwrap_or(MAX_DESCRIPTORS).min(MAX_DESCRIPTORS);
    if limit.current.is_some_and(|current| current < wanted) {
        // A process may always raise its soft limit up to the hard one.
        let _ = setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum: limit.maximum });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn raised_descriptor_limit_reaches_hard_limit_or_cap() {
        raise_descriptor_limit();
        let limit = getrlimit(Resource::Nofile);
        let hard = limit.maximum.unwrap_or(u64::MAX);
        assert!(limit.current.is_none_or(|current| current >= hard.min(MAX_DESCRIPTORS)), "{limit:?}");
    }
}
