//! Validation of names, labels and annotations.

use serde_json::Value;

use super::status_error::StatusCause;

const SUBDOMAIN: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
const LABEL: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')";
const VALUE: &str = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')";
const KEY: &str = "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')";

/// Maximum bytes of all annotations.
const ANNOTATIONS: usize = 256 * 1024;

/// Validates the metadata of an object.
pub fn check(metadata: &Value, plural: &str) -> Vec<StatusCause> {
    let mut wrongs = Vec::new();
    let name = metadata["name"].as_str().unwrap_or_default();
    if name.is_empty() {
        wrongs.push(StatusCause::required("metadata.name", "name or generateName is required"));
    } else if let Some(why) = name_fault(name, plural) {
        wrongs.push(StatusCause::invalid("metadata.name", &metadata["name"], &why));
    }
    wrongs.extend(check_labels(&metadata["labels"], "metadata.labels"));
    let annotations = metadata["annotations"].as_object().into_iter().flatten();
    let mut size = 0;
    for (key, value) in annotations {
        size += key.len() + value.as_str().unwrap_or_default().len();
        if let Some(why) = key_fault(&key.to_lowercase()) {
            wrongs.push(StatusCause::invalid("metadata.annotations", &Value::from(key.as_str()), &why));
        }
    }
    if size > ANNOTATIONS {
        wrongs.push(StatusCause::too_long("metadata.annotations", ANNOTATIONS));
    }
    for finalizer in metadata["finalizers"].as_array().into_iter().flatten() {
        let name = finalizer.as_str().unwrap_or_default();
        let known = ["orphan", "foregroundDeletion"].contains(&name);
        if !known && (!name.contains('/') || key_fault(name).is_some()) {
            wrongs.push(StatusCause::invalid(
                "metadata.finalizers",
                finalizer,
                "name is neither a standard finalizer name nor is it fully qualified",
            ));
        }
    }
    for (index, owner) in metadata["ownerReferences"].as_array().into_iter().flatten().enumerate() {
        for field in ["apiVersion", "kind", "name", "uid"] {
            if owner[field].as_str().is_none_or(str::is_empty) {
                let field = format!("metadata.ownerReferences[{index}].{field}");
                wrongs.push(StatusCause::invalid(&field, &Value::from(""), "must not be empty"));
            }
        }
    }
    wrongs
}

/// Validates a set of labels.
pub fn check_labels(labels: &Value, field: &str) -> Vec<StatusCause> {
    let mut wrongs = Vec::new();
    for (key, value) in labels.as_object().into_iter().flatten() {
        if let Some(why) = key_fault(key) {
            wrongs.push(StatusCause::invalid(field, &Value::from(key.as_str()), &why));
        }
        if let Some(why) = value_fault(value.as_str().unwrap_or_default()) {
            wrongs.push(StatusCause::invalid(field, value, &why));
        }
    }
    wrongs
}

fn name_fault(name: &str, plural: &str) -> Option<String> {
    match plural {
        // Any path segment is valid.
        "roles" | "rolebindings" | "clusterroles" | "clusterrolebindings" => (name.contains(['/', '%'])
            || [".", ".."].contains(&name))
        .then(|| "may not contain '/' or '%'".to_owned()),
        "namespaces" | "services" => (!is_dns_label(name) || name.len() > 63).then(|| {
            if name.len() > 63 { "must be no more than 63 characters".to_owned() } else { LABEL.to_owned() }
        }),
        _ if name.len() > 253 => Some("must be no more than 253 characters".to_owned()),
        _ => (!name.split('.').all(is_dns_label)).then(|| SUBDOMAIN.to_owned()),
    }
}

/// Validates the name of a container or a volume.
pub fn dns_label_fault(name: &str) -> Option<&'static str> {
    if name.len() > 63 {
        Some("must be no more than 63 characters")
    } else {
        (!is_dns_label(name)).then_some(LABEL)
    }
}

fn is_dns_label(text: &str) -> bool {
    let inner = |it: u8| it.is_ascii_lowercase() || it.is_ascii_digit() || it == b'-';
    let edge = |it: Option<&u8>| it.is_some_and(|it| *it != b'-');
    text.bytes().all(inner) && edge(text.as_bytes().first()) && edge(text.as_bytes().last())
}

fn is_name_part(text: &str) -> bool {
    let inner = |it: u8| it.is_ascii_alphanumeric() || b"-_.".contains(&it);
    let edge = |it: Option<&u8>| it.is_some_and(u8::is_ascii_alphanumeric);
    text.bytes().all(inner) && edge(text.as_bytes().first()) && edge(text.as_bytes().last())
}

/// Validates the key of a label or an annotation.
fn key_fault(key: &str) -> Option<String> {
    let (prefix, name) = key.split_once('/').map_or((None, key), |(prefix, name)| (Some(prefix), name));
    if prefix.is_some_and(|it| it.len() > 253 || !it.split('.').all(is_dns_label)) {
        return Some(format!("prefix part {SUBDOMAIN}"));
    }
    if name.len() > 63 {
        return Some("name part must be no more than 63 bytes".to_owned());
    }
    (!is_name_part(name)).then(|| KEY.to_owned())
}

fn value_fault(value: &str) -> Option<String> {
    if value.len() > 63 {
        return Some("must be no more than 63 bytes".to_owned());
    }
    (!value.is_empty() && !is_name_part(value)).then(|| VALUE.to_owned())
}
