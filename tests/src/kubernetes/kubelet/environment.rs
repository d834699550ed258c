//! Variables of a program.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{items, text};

/// Why a container cannot start yet, as in its status.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Waiting {
    pub reason: &'static str,
    pub message: String,
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
    fn known_variables_are_expanded() {
        let variables = BTreeMap::from([("A".to_owned(), "1".to_owned())]);
        assert_eq!(expand("$(A) $(B) $$(A) $A $", &variables), "1 $(B) $(A) $A $");
    }
}
