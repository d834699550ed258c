//! The one validator of names in trees, for everything that enters or leaves.
//!
//! A name is refused if any file system could take it for something else: a parent folder, a
//! path of several components, or a git directory (`.git`) in a spelling that a file system folds.
//! Spellings: git's `is_hfs_dotgit` (utf8.c) and `is_ntfs_dotgit` (path.c).

/// Maximum bytes of a name, as on all Linux file systems (`NAME_MAX`).
const MAX_NAME: usize = 255;

/// Maximum bytes of a path in a tree (`PATH_MAX` without the NUL): git cannot check out a longer one.
pub(crate) const MAX_PATH: usize = 4095;

/// Why a name is refused.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub(crate) enum NameProblem {
    #[error("is empty")]
    Empty,
    #[error("is a reference to a folder, not a name")]
    Dots,
    #[error("contains `/`")]
    Slash,
    #[error("contains a NUL byte")]
    Nul,
    #[error("is a spelling of `.git`")]
    GitFolder,
    #[error("is too long")]
    TooLong,
}

/// Checks the name of one entry of a tree.
///
/// # Errors
/// Returns why the name is refused.
pub(crate) fn check_name(name: &[u8]) -> Result<(), NameProblem> {
    check_plain(name)?;
    if is_git_folder(name) {
        return Err(NameProblem::GitFolder);
    }
    Ok(())
}

/// Checks that a name is one component of a path; it may be `.git`.
///
/// # Errors
/// Returns why the name is refused.
pub(crate) fn check_plain(name: &[u8]) -> Result<(), NameProblem> {
    if name.is_empty() {
        Err(NameProblem::Empty)
    } else if name.contains(&b'/') {
        Err(NameProblem::Slash)
    } else if name.contains(&0) {
        Err(NameProblem::Nul)
    } else if name.split(|byte| *byte == b'\\').any(|part| part == b"..") || name == b"." {
        Err(NameProblem::Dots)
    } else if name.len() > MAX_NAME {
        Err(NameProblem::TooLong)
    } else {
        Ok(())
    }
}

/// Returns whether a file system may take `name` for `.git`.
pub(crate) fn is_git_folder(name: &[u8]) -> bool {
    // NTFS takes a backslash for a separator.
    name.split(|byte| *byte == b'\\').any(|part| is_ntfs_git(part) || is_hfs_git(part))
}

/// NTFS ignores case, trailing dots and spaces, and a stream name after a colon; `git~1` is the short name.
fn is_ntfs_git(name: &[u8]) -> bool {
    [b".git".as_slice(), b"git~1"].iter().any(|git| {
        name.split_at_checked(git.len()).is_some_and(|(start, rest)| {
            let rest = rest.split(|byte| *byte == b':').next().unwrap_or_default();
            start.eq_ignore_ascii_case(git) && rest.iter().all(|byte| matches!(byte, b'.' | b' '))
        })
    })
}

/// HFS+ ignores case and these code points.
fn is_hfs_git(name: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(name) else { return false };
    let is_ignored = |c: &char| matches!(c, '\u{200c}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{206a}'..='\u{206f}' | '\u{feff}');
    let folded: String = text.chars().filter(|c| !is_ignored(c)).take(5).collect();
    folded.eq_ignore_ascii_case(".git")
}

/// Returns a name or path for a message: bounded, without control characters.
pub(crate) fn shown(name: &[u8]) -> String {
    const MAX_SHOWN: usize = 200;
    let text: String = String::from_utf8_lossy(name).chars().take(MAX_SHOWN + 1).collect();
    let cut = text.chars().count() > MAX_SHOWN;
    let escaped = |c: char| {
        let invisible = matches!(c, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{206f}' | '\u{feff}');
        if c.is_control() || invisible { c.escape_default().to_string() } else { c.to_string() }
    };
    let mut safe: String = text.chars().take(MAX_SHOWN).map(escaped).collect();
    if cut {
        safe.push('…');
    }
    safe
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folded_spellings_of_git_folder_are_refused() {
        let refused: &[&[u8]] = &[
            b".git",
            b".GIT",
            b".Git",
            b"git~1",
            b"GIT~1",
            b".git.",
            b".git ",
            b".git . .",
            b".git::$INDEX_ALLOCATION",
            b".git:x",
            b"git~1.",
            b".git\\hooks",
            b"x\\.git",
            ".g\u{200c}it".as_bytes(),
            ".git\u{feff}".as_bytes(),
            "\u{206a}.GiT".as_bytes(),
        ];
        for name in refused {
            assert_eq!(check_name(name), Err(NameProblem::GitFolder), "{}", shown(name));
        }
    }

    #[test]
    fn names_that_are_no_component_are_refused() {
        for (name, problem) in [
            (b"".as_slice(), NameProblem::Empty),
            (b".", NameProblem::Dots),
            (b"..", NameProblem::Dots),
            (b"..\\x", NameProblem::Dots),
            (b"a/b", NameProblem::Slash),
            (b"../../home.bashrc", NameProblem::Slash),
            (b"a\0b", NameProblem::Nul),
            (&[b'x'; 256], NameProblem::TooLong),
        ] {
            assert_eq!(check_name(name), Err(problem), "{}", shown(name));
        }
    }

    #[test]
    fn ordinary_and_odd_names_are_accepted() {
        let accepted: &[&[u8]] = &[
            b"a",
            b"...",
            b"..a",
            b".gitignore",
            b".gitattributes",
            b".github",
            b"git",
            b"git~2",
            b"caf\xe9",
            b"a\nb",
            b"mnt-a\\x2db.mount",
            b".git-x",
            b"x.git",
            b" ",
            b".gitx:y",
            &[b'x'; 255],
        ];
        for name in accepted {
            assert_eq!(check_name(name), Ok(()), "{}", shown(name));
        }
    }

    #[test]
    fn shown_name_is_bounded_and_visible() {
        assert_eq!(shown(b"a\x1b[31m\xe2\x80\xaeb"), "a\\u{1b}[31m\\u{202e}b");
        assert_eq!(shown(&[b'x'; 5000]).chars().count(), 201);
    }
}
