//! Keeps circles of files out of the programs and the contract, by the paths in their sources.
//!
//! A `pub use` in a parent file is not an edge: paths through it lead to the child.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// Module path of a file below `src`, such as `["git", "control"]`.
type Module = Vec<String>;

/// Module paths that a file names, and those that it re-exports.
#[derive(Default)]
struct Paths {
    used: Vec<Module>,
    exported: Vec<Module>,
}

#[test]
fn source_files_have_no_circular_imports() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("a parent directory");
    for (sources, fewest_edges) in
        [("supervisor/src", 200), ("supervisor/contract/src", 10), ("dispatcher/src", 300)]
    {
        let mut files = BTreeMap::new();
        read_files(&root.join(sources), &Module::new(), &mut files);
        let edges: BTreeMap<&Module, BTreeSet<Module>> = files
            .iter()
            .map(|(file, paths)| {
                let targets = paths.used.iter().filter_map(|path| resolve(path, &files));
                (file, targets.filter(|target| target != file).collect())
            })
            .collect();
        let count: usize = edges.values().map(BTreeSet::len).sum();
        assert!(count > fewest_edges, "{sources}: only {count} imports found");
        for file in files.keys() {
            if let Some(circle) = find_circle(file, file, &edges, &mut BTreeSet::new()) {
                let names: Vec<String> = circle.iter().map(|module| module.join("/")).collect();
                panic!("circle of files in {sources}: {} -> {}", file.join("/"), names.join(" -> "));
            }
        }
    }
}

fn read_files(folder: &Path, parent: &Module, files: &mut BTreeMap<Module, Paths>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        let module: Module = parent.iter().cloned().chain([name.clone()]).collect();
        if path.is_dir() {
            read_files(&path, &module, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") && name != "tests" {
            let text = std::fs::read_to_string(&path).unwrap();
            files.insert(module.clone(), parse_paths(&module, without_tests(&text)));
        }
    }
}

/// Returns the source up to its inline test module.
fn without_tests(text: &str) -> &str {
    let is_tests = |at: usize| text[at..].lines().take(3).any(|line| line.ends_with("mod tests {"));
    let end = text.match_indices("#[cfg(test)]").map(|(at, _)| at).find(|at| is_tests(*at));
    &text[..end.unwrap_or(text.len())]
}

/// Returns the paths in `use` items and the qualified paths in code.
fn parse_paths(module: &Module, text: &str) -> Paths {
    let mut paths = Paths::default();
    let mut lines = text.lines().map(|line| line.split("//").next().unwrap_or_default().trim());
    while let Some(line) = lines.next() {
        let visibility = line.strip_prefix("pub").map(|rest| rest.trim_start_matches(|c| c != ' ').trim());
        let Some(tree) = visibility.unwrap_or(line).strip_prefix("use ") else {
            for prefix in ["crate::", "super::"] {
                let starts = line.match_indices(prefix).filter(|(at, _)| !line[..*at].ends_with(':'));
                let qualified = starts.map(|(at, _)| first_path(&line[at..]));
                paths.used.extend(qualified.filter_map(|path| absolute(module, path)));
            }
            continue;
        };
        let mut tree = tree.to_owned();
        while !tree.ends_with(';') {
            tree.push_str(lines.next().unwrap_or(";"));
        }
        let names = expand(tree.trim_end_matches(';'));
        let absolute = names.iter().filter_map(|name| absolute(module, name));
        if visibility.is_some() { paths.exported.extend(absolute) } else { paths.used.extend(absolute) }
    }
    paths
}

fn first_path(text: &str) -> &str {
    let end = text.find(|c: char| !c.is_alphanumeric() && c != '_' && c != ':').unwrap_or(text.len());
    text[..end].trim_end_matches(':')
}

/// Expands `a::{b, c::{d, e}}` into one path a name.
fn expand(tree: &str) -> Vec<String> {
    let Some((prefix, rest)) = tree.split_once('{') else {
        let name = tree.split(" as ").next().unwrap_or_default().trim();
        return if name.is_empty() { Vec::new() } else { vec![name.to_owned()] };
    };
    let inner = rest.rsplit_once('}').map_or(rest, |(inner, _)| inner);
    let (mut depth, mut names, mut start) = (0, Vec::new(), 0);
    for (at, c) in inner.char_indices().chain([(inner.len(), ',')]) {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                names.extend(expand(&inner[start..at]).iter().map(|name| format!("{}{name}", prefix.trim())));
                start = at + 1;
            }
            _ => {}
        }
    }
    names
}

/// Returns the path from the crate's root; `None` for other crates and the standard library.
fn absolute(module: &Module, path: &str) -> Option<Module> {
    let mut segments: Vec<&str> = path.split("::").map(str::trim).collect();
    let mut base: Vec<&str> = module.iter().map(String::as_str).collect();
    match segments.first().copied()? {
        "crate" => {
            base.clear();
            segments.remove(0);
        }
        "super" | "self" => {
            while let Some(relative @ ("super" | "self")) = segments.first().copied() {
                if relative == "super" {
                    base.pop();
                }
                segments.remove(0);
            }
        }
        // A child module; paths of other crates resolve to no file.
        _ => {}
    }
    Some(base.into_iter().chain(segments).map(str::to_owned).collect())
}

/// Returns the file that defines a path, through re-exports.
fn resolve(path: &Module, files: &BTreeMap<Module, Paths>) -> Option<Module> {
    let file =
        (1..=path.len()).rev().map(|length| path[..length].to_vec()).find(|f| files.contains_key(f))?;
    let exported = path.get(file.len()).and_then(|name| {
        files[&file].exported.iter().find(|exported| exported.last() == Some(name) && *exported != path)
    });
    exported.and_then(|exported| resolve(exported, files)).or(Some(file))
}

fn find_circle(
    file: &Module,
    start: &Module,
    edges: &BTreeMap<&Module, BTreeSet<Module>>,
    visited: &mut BTreeSet<Module>,
) -> Option<Vec<Module>> {
    for target in &edges[file] {
        if target == start {
            return Some(vec![target.clone()]);
        }
        if visited.insert(target.clone())
            && let Some(rest) = find_circle(target, start, edges, visited)
        {
            return Some([vec![target.clone()], rest].concat());
        }
    }
    None
}
