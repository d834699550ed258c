//! Finds the imports of a file of instructions: `@path` in its prose.

/// Returns the paths that a text imports, in order, without those in code spans and code blocks.
pub(super) fn imports(text: &str) -> Vec<String> {
    let mut paths = Vec::new();
    let mut fence: Option<&str> = None;
    for line in text.lines() {
        let trimmed = line.trim_start();
        let mark = ["```", "~~~"].into_iter().find(|mark| trimmed.starts_with(mark));
        match (fence, mark) {
            (None, Some(mark)) => fence = Some(mark),
            (Some(open), Some(mark)) if open == mark => fence = None,
            (Some(_), _) => {}
            (None, None) => imports_of_line(line, &mut paths),
        }
    }
    paths
}

fn imports_of_line(line: &str, paths: &mut Vec<String>) {
    // Every second part of a line is a code span; a backtick without a partner starts none.
    let parts: Vec<&str> = line.split('`').collect();
    let last = parts.len().saturating_sub(1);
    for (index, part) in parts.iter().enumerate() {
        let is_code = index % 2 == 1 && index < last;
        if is_code {
            continue;
        }
        let follows_backtick = index > 0 && !part.starts_with(char::is_whitespace);
        for word in part.split_whitespace().skip(usize::from(follows_backtick)) {
            paths.extend(word.strip_prefix('@').and_then(path_of));
        }
    }
}

/// Returns the path of an import; a mention such as `@team` is one too, of a file that does not exist.
fn path_of(word: &str) -> Option<String> {
    let path =
        word.split('#').next().unwrap_or_default().trim_end_matches(['.', ',', ';', ':', ')', '!', '?']);
    let is_path = path.starts_with(|c: char| c.is_alphanumeric() || "./~_-".contains(c));
    is_path.then(|| path.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn imports_are_found_in_prose_only() {
        let text = "@AGENTS.md\nSee @docs/style.md, and @./a.md#part.\n`@code.md` @b.md `@open.md @c.md\n\
                    ```\n@block.md\n~~~\n```\n- @~/own.md user@example.com @@x @(y)\n";
        assert_eq!(imports(text), ["AGENTS.md", "docs/style.md", "./a.md", "b.md", "c.md", "~/own.md"]);
    }
}
