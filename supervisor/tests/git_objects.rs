//! Walk and scan over what a push would publish, with objects that an enemy wrote.

#![expect(clippy::unwrap_used, reason = "a failed precondition fails the test")]

use std::cell::Cell;
use std::ops::ControlFlow;
use std::path::Path;

use git2::{ObjectType, Oid, Repository, Signature};
use orchestrator_contract::{Reason, RepositoryUrl};
use supervisor::git::{ControlRepository, GitError, NewObject};
use supervisor::publish::policy::Policy;
use supervisor::publish::scan::scan_objects;
use supervisor::redact::{Redactor, Secrets};
use tokio_util::sync::CancellationToken;

fn control(folder: &Path) -> (ControlRepository, Repository) {
    let url = RepositoryUrl::new("https://example.org/a/b").unwrap();
    let path = folder.join("target.git");
    let control = ControlRepository::open(&path, &url).unwrap().into_repository();
    (control, Repository::open_bare(path).unwrap())
}

/// Returns a tree, written as bytes.
fn tree(repository: &Repository, entries: &[(&str, &str, Oid)]) -> Oid {
    let entry = |(mode, name, oid): &(&str, &str, Oid)| {
        [format!("{mode} {name}\0").as_bytes(), oid.as_bytes()].concat()
    };
    let content: Vec<u8> = entries.iter().flat_map(entry).collect();
    repository.odb().unwrap().write(ObjectType::Tree, &content).unwrap()
}

fn commit(repository: &Repository, tree: Oid, parents: &[Oid]) -> Oid {
    let who = Signature::now("agent", "agent@example.org").unwrap();
    let parents: Vec<_> = parents.iter().map(|oid| repository.find_commit(*oid).unwrap()).collect();
    let parents: Vec<_> = parents.iter().collect();
    let tree = repository.find_tree(tree).unwrap();
    repository.commit(None, &who, &who, "work", &tree, &parents).unwrap()
}

/// Returns a commit with this many folders, each in the one before, and a file in the last.
fn nested(repository: &Repository, folders: usize, base: Oid) -> Oid {
    let blob = repository.blob(b"deep").unwrap();
    let mut oid = tree(repository, &[("100644", "file", blob)]);
    for _ in 0..folders {
        oid = tree(repository, &[("40000", "d", oid)]);
    }
    commit(repository, oid, &[base])
}

/// Returns the contents of the new blobs.
fn walk(control: &ControlRepository, base: Oid, tip: Oid) -> Result<Vec<Vec<u8>>, GitError> {
    let mut blobs = Vec::new();
    control.walk_new(Some(base), tip, &|| true, &mut |object| {
        if let NewObject::Blob { data, .. } = object {
            blobs.push(data.to_vec());
        }
        ControlFlow::Continue(())
    })?;
    Ok(blobs)
}

#[test]
fn deeply_nested_trees_are_refused_by_scan() {
    let folder = tempfile::tempdir().unwrap();
    let (control, repository) = control(folder.path());
    let base = commit(&repository, tree(&repository, &[]), &[]);
    // The root is one of the 1000 trees.
    let allowed = nested(&repository, 999, base);
    assert_eq!(walk(&control, base, allowed).unwrap(), [b"deep"]);
    for folders in [1000, 20_000] {
        let tip = nested(&repository, folders, base);
        let child = commit(&repository, tree(&repository, &[]), &[tip]);
        for (what, base, tip) in [("tip", base, tip), ("history", base, child), ("base", tip, child)] {
            let error = walk(&control, base, tip).unwrap_err();
            assert_eq!(error.reason(), Reason::UnsupportedRepository, "{folders} {what}: {error}");
            assert!(error.to_string().contains("nested folders"), "{folders} {what}: {error}");
        }
    }
}

#[test]
fn few_trees_with_millions_of_paths_are_refused_by_scan() {
    let folder = tempfile::tempdir().unwrap();
    let (control, repository) = control(folder.path());
    let base = commit(&repository, tree(&repository, &[]), &[]);
    let names = ["a", "b", "c", "d"].map(|letter| letter.repeat(200));
    let blob = repository.blob(b"file").unwrap();
    let mut oid = tree(&repository, &[("100644", "file", blob)]);
    for _ in 0..20 {
        let entries: Vec<_> = names.iter().map(|name| ("40000", name.as_str(), oid)).collect();
        oid = tree(&repository, &entries);
    }
    let error = walk(&control, base, commit(&repository, oid, &[base])).unwrap_err();
    assert_eq!(error.reason(), Reason::UnsupportedRepository, "{error}");
    assert!(error.to_string().contains("too many paths"), "{error}");
}

#[test]
fn one_path_with_new_trees_in_each_commit_is_visited() {
    let folder = tempfile::tempdir().unwrap();
    let (control, repository) = control(folder.path());
    let base = commit(&repository, tree(&repository, &[]), &[]);
    let (mut tip, mut expected) = (base, Vec::new());
    for number in 0..3 {
        let content = format!("content {number}").into_bytes();
        let inner = tree(&repository, &[("100644", "file", repository.blob(&content).unwrap())]);
        let shared = tree(&repository, &[("40000", "a", inner), ("40000", "b", inner)]);
        tip = commit(&repository, shared, &[tip]);
        expected.push(content);
    }
    assert_eq!(walk(&control, base, tip).unwrap(), expected);
}

#[test]
fn stopped_walk_visits_nothing_more() {
    let folder = tempfile::tempdir().unwrap();
    let (control, repository) = control(folder.path());
    let empty = commit(&repository, tree(&repository, &[]), &[]);
    let blobs = [b"one", b"two"].map(|content| repository.blob(content).unwrap());
    let files = tree(&repository, &[("100644", "a", blobs[0]), ("100644", "b", blobs[1])]);
    let tip = commit(&repository, files, &[empty]);
    let child = commit(&repository, tree(&repository, &[("40000", "d", files)]), &[tip]);
    let visited = |base: Oid, limit: usize| {
        let checks = Cell::new(0);
        let proceed = || checks.replace(checks.get() + 1) < limit;
        let mut visited = Vec::new();
        let mut visit = |object: NewObject<'_>| {
            visited.push(match object {
                NewObject::Commit { .. } => "commit".to_owned(),
                NewObject::Path(path) => String::from_utf8_lossy(path).into_owned(),
                NewObject::Blob { data, .. } => String::from_utf8_lossy(data).into_owned(),
            });
            ControlFlow::Continue(())
        };
        control.walk_new(Some(base), child, &proceed, &mut visit).unwrap();
        visited
    };
    let all = ["commit", "a", "one", "b", "two", "commit", "d", "d/a", "d/b"];
    assert_eq!(visited(empty, usize::MAX), all);
    // The first check is that of the empty base.
    assert_eq!(visited(empty, 2), all[..1]);
    assert_eq!(visited(empty, 3), all[..3]);
    assert_eq!(visited(empty, 4), all[..5]);
    assert_eq!(visited(tip, usize::MAX), all[5..]);
    for limit in 0..=3 {
        assert!(visited(tip, limit).is_empty(), "{limit}: base");
    }
}

#[test]
fn cancelled_scan_passes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (control, repository) = control(folder.path());
    let base = commit(&repository, tree(&repository, &[]), &[]);
    let secret = "our-own-canary-3f7a";
    let redactor = Redactor::new(Secrets::new().with("github token", secret.into()));
    let policy = Policy::new(redactor, &[], &[]).unwrap();
    let cancel = CancellationToken::new();
    for (content, count) in [(secret, 1), ("harmless", 0)] {
        let blob = repository.blob(content.as_bytes()).unwrap();
        let tip = commit(&repository, tree(&repository, &[("100644", "file", blob)]), &[base]);
        let (findings, unread) = scan_objects(&control, &policy, (base, tip), &cancel).unwrap();
        assert_eq!((findings.len(), unread.len()), (count, 0), "{content}");
        let cancelled = CancellationToken::new();
        cancelled.cancel();
        let failure = scan_objects(&control, &policy, (base, tip), &cancelled).unwrap_err();
        assert_eq!(failure.reason, Reason::Stopped, "{content}");
    }
}
