//! CustomResourceDefinitions: their resources and schemas.

use kube_cel::Validator as CelValidator;
use serde_json::{Map, Value, json};

use super::resource::{Resource, Scope, Shape};
use super::status_error::StatusCause;

/// A compiled schema.
pub struct Schema {
    /// The schema of the definition.
    pub source: Value,
    validator: jsonschema::Validator,
    /// Fields that list requests can filter by.
    pub selectable: Vec<String>,
}

/// Returns a resource for each version of a definition, or its errors.
pub fn resources(definition: &Value) -> Result<Vec<Resource>, Vec<StatusCause>> {
    let spec = &definition["spec"];
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let names = &spec["names"];
    let expected = format!("{}.{}", text(&names["plural"]), text(&spec["group"]));
    if definition["metadata"]["name"] != expected.as_str() {
        let name = &definition["metadata"]["name"];
        return Err(vec![StatusCause::invalid(
            "metadata.name",
            name,
            "must be spec.names.plural+\".\"+spec.group",
        )]);
    }
    let versions = spec["versions"].as_array().cloned().unwrap_or_default();
    if versions.iter().filter(|it| it["storage"] == true).count() != 1 {
        let why = "must have exactly one version marked as storage version";
        return Err(vec![StatusCause::invalid("spec.versions", &json!([]), why)]);
    }
    let mut served = Vec::new();
    for (index, version) in versions.iter().enumerate().filter(|(_, it)| it["served"] == true) {
        let field = format!("spec.versions[{index}].schema.openAPIV3Schema");
        let source = &version["schema"]["openAPIV3Schema"];
        if !source.is_object() {
            return Err(vec![StatusCause::required(&field, "schemas are required")]);
        }
        let selectable = version["selectableFields"].as_array().into_iter().flatten();
        let selectable =
            selectable.map(|it| text(&it["jsonPath"]).trim_start_matches('.').to_owned()).collect();
        let schema = Schema::new(source, selectable)
            .map_err(|why| vec![StatusCause::invalid(&field, &json!(""), &why)])?;
        let strings = |value: &Value| value.as_array().into_iter().flatten().map(text).collect::<Vec<_>>();
        let singular = text(&names["singular"]);
        served.push(Resource {
            group: text(&spec["group"]),
            version: text(&version["name"]),
            plural: text(&names["plural"]),
            singular: if singular.is_empty() { text(&names["kind"]).to_lowercase() } else { singular },
            kind: text(&names["kind"]),
            scope: if spec["scope"] == "Cluster" { Scope::Cluster } else { Scope::Namespace },
            short: strings(&names["shortNames"]),
            subresources: version["subresources"]
                .as_object()
                .into_iter()
                .flat_map(Map::keys)
                .cloned()
                .collect(),
            shape: Shape::Schema(std::sync::Arc::new(schema)),
        });
    }
    Ok(served)
}

/// Returns the definition with the status of a served one.
pub fn established(mut definition: Value, now: &str) -> Value {
    let names = definition["spec"]["names"].clone();
    let stored: Vec<Value> = definition["spec"]["versions"]
        .as_array()
        .into_iter()
        .flatten()
        .filter(|it| it["storage"] == true)
        .map(|it| it["name"].clone())
        .collect();
    let since =
        definition["status"]["conditions"][0]["lastTransitionTime"].as_str().unwrap_or(now).to_owned();
    let condition = |kind: &str, reason: &str, message: &str| json!({"type": kind, "status": "True", "lastTransitionTime": since, "reason": reason, "message": message});
    definition["status"] = json!({
        "acceptedNames": names,
        "storedVersions": stored,
        "conditions": [
            condition("NamesAccepted", "NoConflicts", "no conflicts found"),
            condition("Established", "InitialNamesAccepted", "the initial names have been accepted"),
        ],
    });
    definition
}

impl Schema {
    fn new(source: &Value, selectable: Vec<String>) -> Result<Self, String> {
        for rule in rules(source) {
            let compiled = kube_cel::cel::Program::compile(&rule);
            compiled.map_err(|error| format!("rule {rule:?} does not compile: {error}"))?;
        }
        let validator = jsonschema::options()
            .with_draft(jsonschema::Draft::Draft4)
            .should_validate_formats(true)
            .build(&to_json_schema(source))
            .map_err(|error| error.to_string())?;
        Ok(Self { source: source.clone(), validator, selectable })
    }

    /// Returns the object with defaults and without unknown fields, and the removed fields.
    pub fn prune_and_default(&self, object: &Value) -> (Value, Vec<String>) {
        let mut dropped = Vec::new();
        let pruned = prune(&self.source, object, "", &mut dropped, true);
        (kube_cel::apply_defaults(&self.source, &pruned), dropped)
    }

    /// Validates an object and its change.
    pub fn check(&self, object: &Value, before: Option<&Value>) -> Vec<StatusCause> {
        let mut wrongs: Vec<StatusCause> = Vec::new();
        for error in self.validator.iter_errors(object) {
            let path = error.instance_path().to_string();
            let field = path.trim_start_matches('/').replace('/', ".");
            wrongs.push(match error.to_string() {
                text if text.ends_with("is a required property") => {
                    let name = text.split('"').nth(1).unwrap_or_default();
                    StatusCause::required(format!("{field}.{name}").trim_start_matches('.'), "")
                }
                text => StatusCause::invalid(&field, error.instance(), &text),
            });
        }
        if !wrongs.is_empty() {
            // Rules may assume a valid object.
            return wrongs;
        }
        let errors = CelValidator::new().validate(&self.source, object, before).err();
        for error in errors.into_iter().flatten() {
            let field = error.field_path.trim_start_matches('.');
            let value = field
                .split('.')
                .fold(object, |value, name| if name.is_empty() { value } else { &value[name] });
            let value = if value.is_object() { json!("object") } else { value.clone() };
            wrongs.push(StatusCause::invalid(field, &value, &error.message));
        }
        wrongs
    }
}

/// Returns all validation rules of a schema.
fn rules(schema: &Value) -> Vec<String> {
    let inner: Vec<&Value> = match schema {
        Value::Object(words) => words.values().collect(),
        Value::Array(list) => list.iter().collect(),
        _ => Vec::new(),
    };
    let here = schema["x-kubernetes-validations"].as_array().into_iter().flatten();
    let here = here.filter_map(|it| it["rule"].as_str().map(str::to_owned));
    here.chain(inner.into_iter().flat_map(rules)).collect()
}

/// Removes unknown fields, and nulls that are not nullable.
fn prune(schema: &Value, value: &Value, path: &str, dropped: &mut Vec<String>, root: bool) -> Value {
    let keeps = schema["x-kubernetes-preserve-unknown-fields"] == true;
    let embedded = root || schema["x-kubernetes-embedded-resource"] == true;
    match value {
        Value::Object(fields) => {
            let mut kept = Map::new();
            for (name, value) in fields {
                let at = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                let known = schema["properties"]
                    .get(name)
                    .or_else(|| Some(&schema["additionalProperties"]).filter(|it| it.is_object()));
                if embedded && ["apiVersion", "kind", "metadata"].contains(&name.as_str()) {
                    kept.insert(name.clone(), value.clone());
                } else if let Some(known) = known {
                    if value.is_null() && known["nullable"] != true {
                        continue;
                    }
                    kept.insert(name.clone(), prune(known, value, &at, dropped, false));
                } else if keeps || schema["additionalProperties"] == true {
                    kept.insert(name.clone(), value.clone());
                } else {
                    dropped.push(at);
                }
            }
            Value::Object(kept)
        }
        Value::Array(items) if schema["items"].is_object() => {
            let item =
                |(index, item)| prune(&schema["items"], item, &format!("{path}[{index}]"), dropped, false);
            items.iter().enumerate().map(item).collect()
        }
        other => other.clone(),
    }
}

/// Converts the schema to JSON Schema.
fn to_json_schema(schema: &Value) -> Value {
    let Value::Object(words) = schema else { return schema.clone() };
    let mut result = Map::new();
    for (word, value) in words {
        let value = match word.as_str() {
            "properties" | "patternProperties" | "definitions" => {
                let inner = value.as_object().into_iter().flatten();
                inner
                    .map(|(name, schema)| (name.clone(), to_json_schema(schema)))
                    .collect::<Map<_, _>>()
                    .into()
            }
            "items" | "additionalProperties" | "not" => to_json_schema(value),
            "allOf" | "anyOf" | "oneOf" => {
                value.as_array().into_iter().flatten().map(to_json_schema).collect()
            }
            // Not needed; `default` may violate `type`, and number formats are not those of JSON Schema.
            "default" | "example" | "nullable" | "description" | "title" | "externalDocs" => continue,
            "format"
                if ["int32", "int64", "float", "double"].contains(&value.as_str().unwrap_or_default()) =>
            {
                continue;
            }
            word if word.starts_with("x-kubernetes-") => continue,
            _ => value.clone(),
        };
        result.insert(word.clone(), value);
    }
    if schema["x-kubernetes-int-or-string"] == true {
        result.insert("type".to_owned(), json!(["integer", "string"]));
    }
    if schema["nullable"] == true
        && let Some(kind) = result.get("type").and_then(Value::as_str)
    {
        let kinds = json!([kind, "null"]);
        result.insert("type".to_owned(), kinds);
        if let Some(Value::Array(values)) = result.get_mut("enum") {
            values.push(Value::Null);
        }
    }
    Value::Object(result)
}
