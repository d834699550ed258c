//! Label and field selectors.

use serde_json::Value;

use super::resource::{Resource, Shape};
use super::status_error::StatusError;

/// The selection of a list or a watch.
#[derive(Clone, Debug, Default)]
pub struct Selector {
    labels: Vec<Requirement>,
    fields: Vec<(String, String, bool)>,
}

#[derive(Clone, Debug)]
enum Requirement {
    In(String, Vec<String>),
    NotIn(String, Vec<String>),
    Exists(String),
    Missing(String),
}

impl Selector {
    /// Parses both parameters of a request.
    pub fn parse(
        labels: Option<&str>,
        fields: Option<&str>,
        resource: &Resource,
    ) -> Result<Self, StatusError> {
        let labels =
            split(labels.unwrap_or_default()).iter().map(|it| requirement(it)).collect::<Result<_, _>>()?;
        let mut parsed = Vec::new();
        for term in fields.unwrap_or_default().split(',').filter(|term| !term.is_empty()) {
            let (field, value, equal) = equation(term)
                .ok_or_else(|| StatusError::bad_request(format!("invalid field selector {term:?}")))?;
            if !is_supported(&field, resource) {
                return Err(StatusError::bad_request(format!("field label not supported: {field}")));
            }
            // Events of both groups are stored in the form of the newer one.
            let field = field.replace("involvedObject.", "regarding.");
            parsed.push((field, value, equal));
        }
        Ok(Self { labels, fields: parsed })
    }

    /// Returns whether an object is selected.
    pub fn matches(&self, object: &Value) -> bool {
        let labels = &object["metadata"]["labels"];
        let value = |key: &str| labels.get(key).and_then(Value::as_str);
        let labeled = self.labels.iter().all(|requirement| match requirement {
            Requirement::In(key, values) => {
                value(key).is_some_and(|it| values.iter().any(|value| value == it))
            }
            Requirement::NotIn(key, values) => {
                !value(key).is_some_and(|it| values.iter().any(|value| value == it))
            }
            Requirement::Exists(key) => value(key).is_some(),
            Requirement::Missing(key) => value(key).is_none(),
        });
        labeled
            && self.fields.iter().all(|(field, expected, equal)| {
                let value = field.split('.').fold(object, |value, name| &value[name]);
                let is = value.as_str().map_or_else(
                    || if value.is_null() { String::new() } else { value.to_string() },
                    str::to_owned,
                );
                (is == *expected) == *equal
            })
    }
}

fn is_supported(field: &str, resource: &Resource) -> bool {
    let named: &[&str] = match resource.plural.as_str() {
        "pods" => &["spec.nodeName", "status.phase", "spec.restartPolicy", "status.podIP"],
        "jobs" => &["status.successful"],
        "secrets" => &["type"],
        "namespaces" => &["status.phase"],
        "events" => &[
            "involvedObject.name",
            "involvedObject.namespace",
            "involvedObject.kind",
            "involvedObject.uid",
            "reason",
            "type",
            "regarding.name",
            "regarding.namespace",
            "regarding.kind",
            "regarding.uid",
        ],
        _ => &[],
    };
    let selectable = match &resource.shape {
        Shape::Schema(schema) => schema.selectable.iter().any(|it| it == field),
        Shape::Type(_) => false,
    };
    ["metadata.name", "metadata.namespace"].contains(&field) || named.contains(&field) || selectable
}

/// Splits at commas outside of parentheses.
fn split(text: &str) -> Vec<String> {
    let mut parts = vec![String::new()];
    let mut depth = 0;
    for letter in text.chars() {
        match letter {
            '(' => depth += 1,
            ')' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(String::new());
                continue;
            }
            _ => {}
        }
        if let Some(part) = parts.last_mut() {
            part.push(letter);
        }
    }
    parts.retain(|part| !part.trim().is_empty());
    parts
}

fn equation(term: &str) -> Option<(String, String, bool)> {
    let (key, value, equal) = if let Some((key, value)) = term.split_once("!=") {
        (key, value, false)
    } else {
        let (key, value) = term.split_once("==").or_else(|| term.split_once('='))?;
        (key, value, true)
    };
    Some((key.trim().to_owned(), value.trim().to_owned(), equal))
}

fn requirement(term: &str) -> Result<Requirement, StatusError> {
    let term = term.trim();
    let values =
        |list: &str| list.trim_matches(['(', ')', ' ']).split(',').map(|it| it.trim().to_owned()).collect();
    if let Some((key, list)) = term.split_once(" notin ") {
        return Ok(Requirement::NotIn(key.trim().to_owned(), values(list)));
    }
    if let Some((key, list)) = term.split_once(" in ") {
        return Ok(Requirement::In(key.trim().to_owned(), values(list)));
    }
    if let Some((key, value, equal)) = equation(term) {
        let values = vec![value];
        return Ok(if equal { Requirement::In(key, values) } else { Requirement::NotIn(key, values) });
    }
    let key = term.trim_start_matches('!').trim();
    if key.is_empty() || key.contains(char::is_whitespace) {
        return Err(StatusError::bad_request(format!("unable to parse requirement: {term:?}")));
    }
    let key = key.to_owned();
    Ok(if term.starts_with('!') { Requirement::Missing(key) } else { Requirement::Exists(key) })
}

impl Selector {
    /// Restricts a watch on a single object to its name.
    pub fn only_named(&mut self, name: &str) {
        if !name.is_empty() {
            self.fields.push(("metadata.name".to_owned(), name.to_owned(), true));
        }
    }
}
