//! The CustomResourceDefinition of TaskRuns: the derived schema, plus validation rules.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSONSchemaProps, JSONSchemaPropsOrArray, ValidationRule,
};
use kube::CustomResourceExt as _;

use super::definition::TaskRun;

/// URLs that a pod can reach: `https://` and `ssh://` without credentials, `user@host:path`, and `http://` to the
/// pod itself, which shows the token to no network.
///
/// A host is a name, without percent-encoding and in ASCII, or an IPv6 address in brackets.
const URL: &str = r"^((https://([A-Za-z0-9!$&'()*+,.;=_~-]+|\[[0-9A-Fa-f:.]+\])|http://([Ll][Oo][Cc][Aa][Ll][Hh][Oo][Ss][Tt]|127(\.(25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])){3}|\[(::1|0:0:0:0:0:0:0:1)\]))(:[0-9]{0,5})?(/[^\s]*)?|ssh://([^\s/?#-][^\s/?#]*@)?([^\s/?#@:<>^|\\\[\]-][^\s/?#@:<>^|\\\[\]]*|\[[0-9A-Fa-f:.]+\])(:[0-9]{0,5})?([/?#][^\s]*)?|([^\s@/:-][^\s/:]*@)?[^\s@/:-][^\s@/:]*:([^\s:/]|/[^\s/])[^\s]*)$";

/// Rules of git-check-ref-format(1) on sequences; the schema checks single characters.
const BRANCH: &str = r"!self.startsWith('-') && !self.startsWith('/') && !self.endsWith('/') && !self.endsWith('.') && !self.contains('..') && !self.contains('//') && !self.contains('@{') && !self.startsWith('refs/') && self != '@' && self != 'HEAD' && !self.matches('(^|/)[.]') && !self.matches('[.]lock(/|$)')";

/// Relative paths inside a repository.
const DIRECTORY: &str =
    r"!self.startsWith('/') && !self.contains('//') && !self.matches('(^|/)([.][.]|[.]git)(/|$)')";

/// Returns the CustomResourceDefinition of TaskRuns.
#[must_use]
pub fn definition() -> CustomResourceDefinition {
    let mut definition = TaskRun::crd();
    for version in &mut definition.spec.versions {
        let Some(root) = version.schema.as_mut().and_then(|schema| schema.open_api_v3_schema.as_mut()) else {
            continue;
        };
        fix_integer_formats(root);
        if let Some(spec) = property(root, &["spec"]) {
            add_validation(spec);
        }
        let name = rule(
            "self.metadata.name.size() <= 63",
            "metadata.name exceeds 63 characters, the limit for label values",
        );
        root.x_kubernetes_validations = Some(vec![name]);
    }
    definition
}

fn rule(rule: &str, message: &str) -> ValidationRule {
    ValidationRule { rule: rule.to_owned(), message: Some(message.to_owned()), ..ValidationRule::default() }
}

fn property<'a>(schema: &'a mut JSONSchemaProps, path: &[&str]) -> Option<&'a mut JSONSchemaProps> {
    path.iter().try_fold(schema, |schema, name| schema.properties.as_mut()?.get_mut(*name))
}

/// Replaces unsigned formats: the API server knows int32 and int64 and warns about others.
fn fix_integer_formats(schema: &mut JSONSchemaProps) {
    match schema.format.as_deref() {
        Some("uint32" | "uint8" | "uint16") => schema.format = Some("int32".to_owned()),
        Some("uint64" | "uint") => schema.format = Some("int64".to_owned()),
        Some(_) | None => {}
    }
    for property in schema.properties.iter_mut().flat_map(|properties| properties.values_mut()) {
        fix_integer_formats(property);
    }
    if let Some(item) = item(schema) {
        fix_integer_formats(item);
    }
}

fn item(list: &mut JSONSchemaProps) -> Option<&mut JSONSchemaProps> {
    match list.items.as_mut()? {
        JSONSchemaPropsOrArray::Schema(item) => Some(item),
        // The API server rejects lists of schemas.
        JSONSchemaPropsOrArray::Schemas(_) => None,
    }
}

fn add_validation(spec: &mut JSONSchemaProps) {
    // The API server rejects CEL rules on unbounded strings as too costly.
    for (path, max_length) in [
        (&["service"][..], 40),
        (&["agent"], 40),
        (&["image"], 500),
        (&["target", "url"], 2000),
        (&["platform", "url"], 2000),
        (&["target", "base"], 200),
        (&["platform", "branch"], 200),
        (&["target", "workingDirectory"], 1000),
        (&["platform", "docsDirectory"], 1000),
        (&["commitIdentity", "name"], 200),
        (&["commitIdentity", "email"], 200),
    ] {
        if let Some(text) = property(spec, path) {
            text.max_length = Some(max_length);
        }
    }
    for path in [["target", "url"], ["platform", "url"]] {
        if let Some(url) = property(spec, &path) {
            url.pattern = Some(URL.to_owned());
        }
    }
    for path in [["target", "base"], ["platform", "branch"]] {
        if let Some(branch) = property(spec, &path) {
            let message = "not a valid branch name (see git-check-ref-format)";
            branch.x_kubernetes_validations = Some(vec![rule(BRANCH, message)]);
        }
    }
    for path in [["target", "workingDirectory"], ["platform", "docsDirectory"]] {
        if let Some(directory) = property(spec, &path) {
            let message = "outside the repository; use a relative path such as services/trader";
            directory.x_kubernetes_validations = Some(vec![rule(DIRECTORY, message)]);
        }
    }
    for list in ["setup", "verify", "verifyKeep", "mcpServers", "protectedPaths", "protectedPathsAllow"] {
        if let Some(list) = property(spec, &[list]) {
            list.max_items = Some(100);
            if let Some(item) = item(list) {
                item.max_length = Some(10_000);
            }
        }
    }
    let mut rules = vec![
        rule("self.kind == 'docs' || has(self.taskId)", "taskId is required for implementation runs"),
        rule("self.kind == 'docs' || !has(self.docs)", "docs is allowed for docs runs only"),
        rule("self.mode == 'first' || self.attempt > 1", "mode must be first for attempt 1"),
        rule(
            "self.kind != 'docs' || self.target.url == self.platform.url",
            "target.url must equal platform.url for docs runs",
        ),
        rule("!has(oldSelf.stop) || has(self.stop)", "stop cannot be taken back"),
    ];
    rules.extend(immutability_rules(spec));
    spec.x_kubernetes_validations = Some(rules);
}

/// Returns an immutability rule for each field except `stop`, including fields added later.
fn immutability_rules(spec: &JSONSchemaProps) -> Vec<ValidationRule> {
    let Some(properties) = &spec.properties else { return Vec::new() };
    // CEL cannot compare `request` at bounded cost, since it is an arbitrary object.
    let fields = properties.keys().filter(|name| !["stop", "request"].contains(&name.as_str()));
    let fields = fields.map(|name| {
        let is_required = spec.required.iter().flatten().any(|required| required == name);
        let text = if is_required {
            format!("self.{name} == oldSelf.{name}")
        } else {
            format!("has(self.{name}) == has(oldSelf.{name}) && (!has(self.{name}) || self.{name} == oldSelf.{name})")
        };
        rule(&text, &format!("{name} cannot be changed; submit a new attempt"))
    });
    fields.collect()
}

#[cfg(test)]
mod tests;
