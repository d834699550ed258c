//! Arguments and variables of a program, with host directories instead of the pod's paths.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::{items, text};

/// Why a container cannot start yet, as in its status.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Waiting {
    pub reason: &'static str,
    pub message: String,
}

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

    /// Returns the host paths that are mounted below a directory.
    pub fn below(&self, folder: &Path) -> Vec<PathBuf> {
        let folders = self.0.iter().map(|(_, here)| here.clone());
        folders.filter(|here| here.starts_with(folder)).collect()
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

/// Looks up ConfigMaps (`configmaps`) and Secrets (`secrets`).
pub trait Lookup {
    /// Returns the data of an object, if it exists.
    fn data(&self, resource: &str, name: &str) -> Option<BTreeMap<String, Vec<u8>>>;
}

/// Returns the variables of a container, in the order of their definition.
pub fn variables(
    pod: &Value,
    container: &Value,
    objects: &impl Lookup,
) -> Result<BTreeMap<String, String>, Waiting> {
    let mut variables = BTreeMap::new();
    for source in items(container, "/envFrom") {
        let prefix = text(source, "/prefix");
        for (kind, resource) in [("configMapRef", "configmaps"), ("secretRef", "secrets")] {
            let reference = &source[kind];
            if reference.is_null() {
                continue;
            }
            let name = text(reference, "/name");
            match objects.data(resource, name) {
                Some(data) => variables.extend(data.into_iter().map(|(key, value)| {
                    (format!("{prefix}{key}"), String::from_utf8_lossy(&value).into_owned())
                })),
                None if reference["optional"] == true => {}
                None => return Err(missing(resource, name, None)),
            }
        }
    }
    for variable in items(container, "/env") {
        let name = text(variable, "/name").to_owned();
        let value = if variable["valueFrom"].is_null() {
            Some(expand(text(variable, "/value"), &variables))
        } else {
            from_source(pod, &variable["valueFrom"], objects)?
        };
        if let Some(value) = value {
            variables.insert(name, value);
        }
    }
    Ok(variables)
}

fn from_source(pod: &Value, source: &Value, objects: &impl Lookup) -> Result<Option<String>, Waiting> {
    if let Some(field) = source.pointer("/fieldRef/fieldPath").and_then(Value::as_str) {
        return Ok(Some(field_of(pod, field)));
    }
    for (kind, resource) in [("configMapKeyRef", "configmaps"), ("secretKeyRef", "secrets")] {
        let reference = &source[kind];
        if reference.is_null() {
            continue;
        }
        let (name, key) = (text(reference, "/name"), text(reference, "/key"));
        let value = objects.data(resource, name).map(|data| data.get(key).cloned());
        return match value {
            Some(Some(value)) => Ok(Some(String::from_utf8_lossy(&value).into_owned())),
            _ if reference["optional"] == true => Ok(None),
            Some(None) => Err(missing(resource, name, Some(key))),
            None => Err(missing(resource, name, None)),
        };
    }
    // `resourceFieldRef`: no limits are set.
    Ok(Some("0".to_owned()))
}

fn missing(resource: &str, name: &str, key: Option<&str>) -> Waiting {
    let message = match key {
        Some(key) => format!("couldn't find key {key} in {resource} {name}"),
        None => format!("{} \"{name}\" not found", resource.trim_end_matches('s')),
    };
    Waiting { reason: "CreateContainerConfigError", message }
}

/// Returns the value of a `fieldPath`.
pub fn field_of(pod: &Value, field: &str) -> String {
    if let Some((map, key)) = field.strip_suffix("']").and_then(|field| field.split_once("['")) {
        let map = pod.pointer(&format!("/{}", map.replace('.', "/"))).unwrap_or(&Value::Null);
        return map[key].as_str().unwrap_or_default().to_owned();
    }
    match field {
        "status.podIP" | "status.hostIP" | "status.podIPs" | "status.hostIPs" => "127.0.0.1".to_owned(),
        "spec.serviceAccountName" if text(pod, "/spec/serviceAccountName").is_empty() => "default".to_owned(),
        _ => text(pod, &format!("/{}", field.replace('.', "/"))).to_owned(),
    }
}

/// Expands `$(NAME)` of known variables and `$$`.
pub fn expand(text: &str, variables: &BTreeMap<String, String>) -> String {
    let mut done = String::new();
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        done.push_str(&rest[..at]);
        rest = &rest[at..];
        let name = rest.strip_prefix("$(").and_then(|after| after.split_once(')')).map(|(name, _)| name);
        if let Some(after) = rest.strip_prefix("$$") {
            done.push('$');
            rest = after;
        } else if let Some((name, value)) = name.and_then(|name| Some((name, variables.get(name)?))) {
            done.push_str(value);
            rest = &rest[name.len() + 3..];
        } else {
            done.push('$');
            rest = &rest[1..];
        }
    }
    done + rest
}

#[cfg(test)]
mod tests {
    use super::*;

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
    fn known_variables_are_expanded() {
        let variables = BTreeMap::from([("A".to_owned(), "1".to_owned())]);
        assert_eq!(expand("$(A) $(B) $$(A) $A $", &variables), "1 $(B) $(A) $A $");
    }
}
