//! Paths of a container, as paths of this machine.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::{items, text};

/// Maps paths of a pod to paths of this machine.
#[derive(Clone, Debug, Default)]
pub struct Mounts(Vec<(String, PathBuf)>);

impl Mounts {
    /// Maps a path to a host directory or file.
    pub fn add(&mut self, path: &str, here: PathBuf) {
        self.0.push((path.trim_end_matches('/').to_owned(), here));
        // A mount below another mount takes precedence.
        self.0.sort_by_key(|(path, _)| std::cmp::Reverse(path.len()));
    }

    /// Returns whether a path is mounted, or has something mounted below.
    fn has(&self, path: &str) -> bool {
        self.0.iter().any(|(mounted, _)| is_below(path, mounted) || is_below(mounted, path))
    }

    /// Replaces the pod's paths in a text by host paths.
    /// / A path that exists on this machine, such as a program below `/tmp`, stays.
    pub fn translate(&self, text: &str) -> String {
        let mut done = String::new();
        let mut rest = text;
        while !rest.is_empty() {
            let starts =
                done.is_empty() || done.ends_with([' ', '=', ':', ',', ';', '"', '\'', '(', '\n', '>', '<']);
            let found = self.0.iter().find(|(path, _)| {
                let after = rest.strip_prefix(path.as_str());
                starts
                    && after.is_some_and(|after| {
                        !after.starts_with(|next: char| next.is_alphanumeric() || "-_.".contains(next))
                    })
            });
            if let Some((path, here)) = found {
                let end = rest.find([' ', '=', ':', ',', ';', '"', '\'', ')', '\n']).unwrap_or(rest.len());
                let (whole, after) = rest.split_at(end);
                let below = &whole[path.len()..];
                if below.trim_matches('/').is_empty() || !Path::new(whole).exists() {
                    done.push_str(here.to_str().expect("a path in UTF-8"));
                    done.push_str(below);
                } else {
                    done.push_str(whole);
                }
                rest = after;
            } else if let Some(next) = rest.chars().next() {
                done.push(next);
                rest = &rest[next.len_utf8()..];
            }
        }
        done
    }

    /// Returns the host path of a path of the pod.
    pub fn path(&self, path: &str) -> PathBuf {
        PathBuf::from(self.translate(path))
    }
}

/// Returns whether a path is a directory or below it.
fn is_below(path: &str, directory: &str) -> bool {
    path.strip_prefix(directory).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Returns the mount paths of a container with their directories on this machine.
fn mounted(container: &Value, volumes: &BTreeMap<String, PathBuf>) -> Vec<(String, PathBuf)> {
    let mounts = items(container, "/volumeMounts").filter_map(|mount| {
        let path = text(mount, "/mountPath").trim_end_matches('/').to_owned();
        Some((path, volumes.get(text(mount, "/name"))?.join(text(mount, "/subPath"))))
    });
    mounts.collect()
}

/// Returns the directories that a container can write, which its processes may have as working directories.
pub fn writable(container: &Value, volumes: &BTreeMap<String, PathBuf>, root: &Path) -> Vec<PathBuf> {
    let mounts = items(container, "/volumeMounts").filter(|mount| mount["readOnly"] != true);
    let folders =
        mounts.filter_map(|mount| Some(volumes.get(text(mount, "/name"))?.join(text(mount, "/subPath"))));
    folders.filter(|folder| folder.starts_with(root)).collect()
}

/// Maps the paths of a container; `parents` is a directory for links of its own.
///
/// # Panics
///
/// Panics if a directory cannot be created.
pub fn of_container(
    pod: &Value,
    container: &Value,
    volumes: &BTreeMap<String, PathBuf>,
    parents: &Path,
) -> Mounts {
    let own = mounted(container, volumes);
    let mut mounts = Mounts::default();
    for (path, here) in &own {
        // A `subPath` that does not exist is created, as by the kubelet.
        if !here.exists() {
            fs::create_dir_all(here).expect("a folder below a volume");
        }
        mounts.add(path, here.clone());
    }
    let all: BTreeSet<&str> = own.iter().filter_map(|(path, _)| Some(path.rsplit_once('/')?.0)).collect();
    for (number, parent) in all.into_iter().enumerate() {
        if !parent.is_empty() && !Path::new(parent).exists() {
            let children: Vec<(&str, &Path)> = own
                .iter()
                .filter_map(|(path, here)| {
                    Some((path.strip_prefix(parent)?.strip_prefix('/')?, here.as_path()))
                })
                .filter(|(name, _)| !name.contains('/'))
                .collect();
            mounts.add(parent, parent_of(&children, &parents.join(number.to_string())));
        }
    }
    if pod.pointer("/spec/containers/0/name") == container.get("name") {
        for other in items(pod, "/spec/initContainers") {
            for (path, here) in mounted(other, volumes) {
                if !mounts.has(&path) {
                    mounts.add(&path, here);
                }
            }
        }
    }
    mounts
}

/// Returns a directory with these entries: the one that has them all, or `links` with a link to each.
fn parent_of(children: &[(&str, &Path)], links: &Path) -> PathBuf {
    let parents: BTreeSet<&Path> = children
        .iter()
        .map(|(name, here)| if here.ends_with(name) { here.parent().unwrap_or(links) } else { links })
        .collect();
    if let [only] = parents.iter().collect::<Vec<_>>().as_slice()
        && **only != links
    {
        return only.to_path_buf();
    }
    fs::create_dir_all(links).expect("a folder for links");
    for (name, here) in children {
        if !links.join(name).exists() {
            symlink(here, links.join(name)).expect("a link to a volume");
        }
    }
    links.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn only_whole_paths_are_translated() {
        let mut mounts = Mounts::default();
        mounts.add("/work", "/tmp/1".into());
        mounts.add("/work/in", "/tmp/2".into());
        for (text, expected) in [
            ("/work", "/tmp/1"),
            ("/work/", "/tmp/1/"),
            ("/work/a/work", "/tmp/1/a/work"),
            ("/work/in/b", "/tmp/2/b"),
            ("/workshop", "/workshop"),
            ("/home/work", "/home/work"),
            ("--dir=/work/x:/work/in", "--dir=/tmp/1/x:/tmp/2"),
            ("cat /work/x > /work/in/y", "cat /tmp/1/x > /tmp/2/y"),
        ] {
            assert_eq!(mounts.translate(text), expected, "{text}");
        }
    }

    #[test]
    fn existing_host_paths_are_not_translated() {
        let mut mounts = Mounts::default();
        mounts.add("/proc", "/tmp/1".into());
        for (text, expected) in
            [("/proc", "/tmp/1"), ("/proc/self/exe:/proc/none", "/proc/self/exe:/tmp/1/none")]
        {
            assert_eq!(mounts.translate(text), expected, "{text}");
        }
    }

    #[test]
    fn same_path_is_another_volume_in_each_container() {
        let folder = tempfile::tempdir().expect("a folder");
        let disk = folder.path().join("disk");
        let volumes: BTreeMap<String, PathBuf> =
            ["disk", "one", "two"].map(|name| (name.to_owned(), folder.path().join(name))).into();
        let mount = |volume: &str, path: &str, sub_path: &str| json!({"name": volume, "mountPath": path, "subPath": sub_path});
        let main = json!({"name": "main", "volumeMounts": [
            mount("disk", "/state/own", "own"), mount("disk", "/state/all", "all"),
            mount("one", "/sockets/a", ""), mount("two", "/sockets/b", ""),
        ]});
        let side =
            |name: &str, tree: &str| json!({"name": name, "volumeMounts": [mount("disk", "/tree", tree)]});
        let (a, b) = (side("a", "tree"), side("b", "other"));
        let pod = json!({"spec": {"containers": [main], "initContainers": [a, b]}});
        let links = folder.path().join("links");
        let of = |container: &Value| of_container(&pod, container, &volumes, &links);
        assert_eq!(of(&a).path("/tree/x"), disk.join("tree/x"));
        assert_eq!(of(&b).path("/tree/x"), disk.join("other/x"));
        assert_eq!(of(&b).path("/state/own"), PathBuf::from("/state/own"), "it has no such volume");
        let main = of(&main);
        assert_eq!(main.path("/state"), disk, "one directory has both");
        assert_eq!(main.path("/tree/x"), disk.join("tree/x"), "as the first container sees it");
        fs::write(folder.path().join("two/socket"), "").expect("a file");
        assert!(main.path("/sockets").join("b/socket").is_file());
        assert_eq!(main.path("/sockets/b/socket"), folder.path().join("two/socket"));
    }
}
