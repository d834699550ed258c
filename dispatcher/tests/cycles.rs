//! Checks that files do not import each other in a cycle.
//!
//! An edge is a `use` declaration outside tests. Re-exports are followed to the file that defines the
//! item, so that a parent that only declares and re-exports its modules is not part of a cycle.

#![expect(clippy::unwrap_used, reason = "a broken assumption of a test is its failure")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Path of a module or item below the crate root.
type ItemPath = Vec<String>;

/// The imports and re-exports of one file.
#[derive(Default)]
struct SourceFile {
    imports: Vec<ItemPath>,
    reexports: BTreeMap<String, ItemPath>,
}

#[test]
fn dispatcher_files_have_no_import_cycles() {
    let files = read_files(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"));
    assert!(files.len() > 100, "found only {} files", files.len());
    let cycles = find_cycles(&edges(&files));
    assert!(cycles.is_empty(), "files import each other in a cycle:\n{}", cycles.join("\n"));
}

#[test]
fn import_cycle_is_found_through_reexports() {
    let sources = [
        ("lib", "pub mod a; pub mod b;"),
        ("a", "mod inner;\npub use inner::Item;\nuse crate::b::{Other as Renamed, self};\n"),
        ("a/inner", "use super::super::b::Other;\n#[cfg(test)]\nmod tests { use super::*; }\n"),
        ("b", "use crate::{\n    a::Item, // with a comment\n};\n"),
    ];
    let files = sources.map(|(path, text)| parse_file(Path::new(path), text)).into_iter().collect();
    assert_eq!(find_cycles(&edges(&files)), ["a/inner.rs, b.rs"]);
}

/// Parses all files below `root`, except files of tests.
fn read_files(root: &Path) -> BTreeMap<ItemPath, SourceFile> {
    let mut folders: Vec<PathBuf> = vec![root.to_owned()];
    let mut files = BTreeMap::new();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs")
                && !["tests.rs", "main.rs"].iter().any(|name| path.ends_with(name))
            {
                let relative = path.strip_prefix(root).unwrap().with_extension("");
                files.extend([parse_file(&relative, &std::fs::read_to_string(&path).unwrap())]);
            }
        }
    }
    files
}

/// Parses the `use` declarations of a file, given by its path without extension below the root.
fn parse_file(path: &Path, text: &str) -> (ItemPath, SourceFile) {
    let module: ItemPath = if path == Path::new("lib") {
        Vec::new()
    } else {
        path.iter().map(|part| part.to_str().unwrap().to_owned()).collect()
    };
    let mut file = SourceFile::default();
    let code: Vec<&str> = text
        .lines()
        .take_while(|line| *line != "#[cfg(test)]")
        .map(|line| line.split("//").next().unwrap_or_default().trim())
        .collect();
    let code = code.join(" ");
    for statement in code.split_inclusive(';') {
        let Some((exported, tree)) = use_declaration(statement) else { continue };
        for (path, name) in expand(tree.trim_end_matches(';')) {
            let Some(path) = absolute(&path, &module) else { continue };
            if exported {
                file.reexports.insert(name, path);
            } else {
                file.imports.push(path);
            }
        }
    }
    (module, file)
}

/// Returns whether a `use` declaration is public, and its tree. It may follow a block or an attribute.
fn use_declaration(statement: &str) -> Option<(bool, &str)> {
    statement.rmatch_indices("use ").find_map(|(at, keyword)| {
        let head = statement[..at].trim_end();
        let (head, exported) = match head.rfind("pub") {
            Some(start)
                if head.ends_with("pub") || head[start..].starts_with("pub(") && head.ends_with(')') =>
            {
                (head[..start].trim_end(), true)
            }
            Some(_) | None => (head, false),
        };
        let starts = head.is_empty() || head.ends_with(['}', ']', '{']);
        starts.then(|| (exported, &statement[at + keyword.len()..]))
    })
}

/// Expands a use tree into its paths, each with the name that it gets.
fn expand(tree: &str) -> Vec<(String, String)> {
    let tree = tree.trim();
    if let Some((head, rest)) = tree.split_once('{') {
        let body = rest.rsplit_once('}').map_or(rest, |(body, _)| body);
        let mut depth = 0_i32;
        let parts = body.split(|c| {
            match c {
                '{' => depth += 1,
                '}' => depth -= 1,
                _ => {}
            }
            c == ',' && depth == 0
        });
        return parts
            .filter(|part| !part.trim().is_empty())
            .flat_map(|part| expand(&format!("{}{}", head.trim(), part.trim())))
            .collect();
    }
    let (path, alias) = match tree.split_once(" as ") {
        Some((path, alias)) => (path.trim(), Some(alias.trim())),
        None => (tree, None),
    };
    let path = path.trim_end_matches("::self");
    let name = alias.unwrap_or_else(|| path.rsplit("::").next().unwrap_or(path));
    vec![(path.to_owned(), name.to_owned())]
}

/// Makes a path absolute; `None` for paths of other crates, unless the first segment is a child module.
fn absolute(path: &str, module: &[String]) -> Option<ItemPath> {
    let mut segments: Vec<&str> = path.split("::").map(str::trim).collect();
    let mut base: Vec<String> = module.to_vec();
    match segments.first().copied()? {
        "crate" => {
            base.clear();
            segments.remove(0);
        }
        "self" => drop(segments.remove(0)),
        "super" => {
            while segments.first() == Some(&"super") {
                base.pop();
                segments.remove(0);
            }
        }
        // A child module; [`resolve`] finds no file for another crate.
        _ => {}
    }
    base.extend(segments.into_iter().map(str::to_owned));
    Some(base)
}

/// Returns which file imports which others.
fn edges(files: &BTreeMap<ItemPath, SourceFile>) -> BTreeMap<ItemPath, BTreeSet<ItemPath>> {
    let targets = |module: &ItemPath, file: &SourceFile| {
        let resolved = file.imports.iter().map(|path| resolve(files, path, 0));
        // Items of other crates resolve to the file itself.
        resolved.filter(|target| target != module).collect()
    };
    files.iter().map(|(module, file)| (module.clone(), targets(module, file))).collect()
}

/// Returns the file that defines an item, following re-exports.
fn resolve(files: &BTreeMap<ItemPath, SourceFile>, path: &[String], depth: usize) -> ItemPath {
    let length = (0..=path.len()).rev().find(|length| files.contains_key(&path[..*length])).unwrap_or(0);
    let (module, rest) = path.split_at(length);
    let target = rest.first().and_then(|name| files.get(module)?.reexports.get(name));
    match target {
        Some(target) if depth < 8 && target != path => {
            let path: ItemPath = target.iter().chain(&rest[1..]).cloned().collect();
            resolve(files, &path, depth + 1)
        }
        Some(_) | None => module.to_vec(),
    }
}

/// Returns each set of files that reach each other, as a list of names.
fn find_cycles(edges: &BTreeMap<ItemPath, BTreeSet<ItemPath>>) -> Vec<String> {
    let reachable: BTreeMap<&ItemPath, BTreeSet<&ItemPath>> =
        edges.keys().map(|file| (file, reach(edges, file))).collect();
    let mut cycles = BTreeSet::new();
    for (file, targets) in &reachable {
        if targets.contains(file) {
            let members = targets.iter().filter(|target| reachable[*target].contains(file));
            cycles.insert(members.map(|member| format!("{}.rs", member.join("/"))).collect::<Vec<_>>());
        }
    }
    cycles.into_iter().map(|members| members.join(", ")).collect()
}

/// Returns all files that a file imports, directly or indirectly.
fn reach<'a>(
    edges: &'a BTreeMap<ItemPath, BTreeSet<ItemPath>>,
    file: &'a ItemPath,
) -> BTreeSet<&'a ItemPath> {
    let mut found = BTreeSet::new();
    let mut open = vec![file];
    while let Some(file) = open.pop() {
        open.extend(edges[file].iter().filter(|target| found.insert(*target)));
    }
    found
}
