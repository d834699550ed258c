//! Defaults and validation of the built-in kinds.

use serde_json::{Map, Value, json};

use super::names;
use super::status_error::StatusCause;

/// Maximum bytes of a ConfigMap or a Secret.
const CONTENTS: usize = 1 << 20;

/// Sets `object[path] = value` if it is absent.
fn default(object: &mut Value, field: &str, value: Value) {
    if object[field].is_null() {
        object[field] = value;
    }
}

/// Sets the defaults of a new or changed object.
pub fn fill_defaults(kind: &str, object: &mut Value) {
    match kind {
        "Pod" => fill_pod_spec(&mut object["spec"]),
        "Job" => fill_job_spec(&mut object["spec"]),
        _ => {}
    }
}

/// Sets the fields that only a new object gets.
pub fn fill(kind: &str, object: &mut Value) {
    match kind {
        "Pod" => {
            object["status"] = json!({"phase": "Pending", "qosClass": "BestEffort"});
        }
        "Job" => fill_job(object),
        "Namespace" => {
            let name = object["metadata"]["name"].clone();
            object["metadata"]["labels"]["kubernetes.io/metadata.name"] = name;
            object["spec"]["finalizers"] = json!(["kubernetes"]);
            object["status"] = json!({"phase": "Active"});
        }
        "PersistentVolumeClaim" => {
            default(&mut object["spec"], "volumeMode", json!("Filesystem"));
            object["status"] = json!({"phase": "Pending"});
            let finalizers = &mut object["metadata"]["finalizers"];
            let protection = json!("kubernetes.io/pvc-protection");
            match finalizers {
                Value::Array(list) if list.contains(&protection) => {}
                Value::Array(list) => list.push(protection),
                _ => *finalizers = json!([protection]),
            }
        }
        "Secret" => {
            default(object, "type", json!("Opaque"));
            if let Value::Object(plain) = object["stringData"].take() {
                use base64::Engine as _;
                for (key, value) in plain {
                    let encoded =
                        base64::engine::general_purpose::STANDARD.encode(value.as_str().unwrap_or_default());
                    object["data"][key] = json!(encoded);
                }
            }
            if let Some(map) = object.as_object_mut() {
                map.remove("stringData");
            }
        }
        _ => {}
    }
}

fn fill_pod_spec(spec: &mut Value) {
    default(spec, "restartPolicy", json!("Always"));
    default(spec, "terminationGracePeriodSeconds", json!(30));
    default(spec, "dnsPolicy", json!("ClusterFirst"));
    default(spec, "schedulerName", json!("default-scheduler"));
    default(spec, "securityContext", json!({}));
    for list in ["initContainers", "containers"] {
        for container in spec[list].as_array_mut().into_iter().flatten() {
            let image = container["image"].as_str().unwrap_or_default();
            let tagged = image.rsplit('/').next().is_some_and(|it| it.contains([':', '@']));
            let latest = !tagged || image.ends_with(":latest");
            default(container, "imagePullPolicy", json!(if latest { "Always" } else { "IfNotPresent" }));
            default(container, "terminationMessagePath", json!("/dev/termination-log"));
            default(container, "terminationMessagePolicy", json!("File"));
            default(container, "resources", json!({}));
        }
    }
    for volume in spec["volumes"].as_array_mut().into_iter().flatten() {
        for kind in ["configMap", "secret", "projected"] {
            if volume[kind].is_object() {
                default(&mut volume[kind], "defaultMode", json!(0o644));
            }
        }
    }
}

fn fill_job(job: &mut Value) {
    let uid = job["metadata"]["uid"].clone();
    let name = job["metadata"]["name"].clone();
    job["status"] = json!({});
    let spec = &mut job["spec"];
    if spec["manualSelector"] != true {
        spec["selector"] = json!({"matchLabels": {"batch.kubernetes.io/controller-uid": uid}});
        let labels = &mut spec["template"]["metadata"]["labels"];
        for (key, value) in [
            ("batch.kubernetes.io/controller-uid", &uid),
            ("batch.kubernetes.io/job-name", &name),
            ("controller-uid", &uid),
            ("job-name", &name),
        ] {
            labels[key] = value.clone();
        }
    }
}

fn fill_job_spec(spec: &mut Value) {
    default(spec, "completions", json!(1));
    default(spec, "parallelism", json!(1));
    default(spec, "backoffLimit", json!(6));
    default(spec, "completionMode", json!("NonIndexed"));
    default(spec, "suspend", json!(false));
    default(spec, "podReplacementPolicy", json!("TerminatingOrFailed"));
    fill_pod_spec(&mut spec["template"]["spec"]);
}

/// Validates an object and its change.
pub fn check(kind: &str, object: &Value, before: Option<&Value>) -> Vec<StatusCause> {
    match kind {
        "ConfigMap" => check_contents(object, before, &["data", "binaryData"]),
        "Secret" => check_contents(object, before, &["data"]),
        "Job" => check_job(object, before),
        "Pod" => {
            let mut wrongs = check_pod_spec(&object["spec"], "spec");
            wrongs.extend(before.and_then(|before| check_pod_change(object, before)));
            wrongs
        }
        "PersistentVolumeClaim" => check_claim(object, before),
        "Lease" => check_lease(object),
        "Event" => check_event(object),
        _ => Vec::new(),
    }
}

fn check_contents(object: &Value, before: Option<&Value>, fields: &[&str]) -> Vec<StatusCause> {
    let mut wrongs = Vec::new();
    if let Some(before) = before.filter(|before| before["immutable"] == true) {
        let why = "field is immutable when `immutable` is set";
        if object["immutable"] != true {
            wrongs.push(StatusCause::forbidden("immutable", why));
        }
        let changed = fields.iter().filter(|&&field| object[field] != before[field]);
        wrongs.extend(changed.map(|field| StatusCause::forbidden(field, why)));
    }
    let mut size = 0;
    for field in fields {
        for (key, value) in object[*field].as_object().into_iter().flatten() {
            let allowed = |it: u8| it.is_ascii_alphanumeric() || b"-_.".contains(&it);
            if key.is_empty() || !key.bytes().all(allowed) || key == "." || key.starts_with("..") {
                let why = "a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or 'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')";
                wrongs.push(StatusCause::invalid(&format!("{field}[{key}]"), &json!(key), why));
            }
            let length = value.as_str().unwrap_or_default().len();
            // Base64: four characters encode three bytes.
            size +=
                if *field == "binaryData" || object["type"].is_string() { length / 4 * 3 } else { length };
        }
    }
    if size > CONTENTS {
        wrongs.push(StatusCause::too_long(if fields.len() == 1 { "data" } else { "" }, CONTENTS));
    }
    wrongs
}

fn check_job(job: &Value, before: Option<&Value>) -> Vec<StatusCause> {
    let (spec, template) = (&job["spec"], &job["spec"]["template"]);
    if let Some(before) = before {
        let was = &before["spec"];
        let mut wrongs = Vec::new();
        for field in [
            "completions",
            "selector",
            "template",
            "completionMode",
            "podFailurePolicy",
            "backoffLimitPerIndex",
        ] {
            // The scheduling of a suspended Job that never ran may change.
            let movable =
                field == "template" && was["suspend"] == true && before["status"]["startTime"].is_null();
            if spec[field] != was[field]
                && !(movable && differs_only_in_placement(template, &was["template"]))
            {
                let value = if field == "template" { json!("template") } else { spec[field].clone() };
                wrongs.push(StatusCause::invalid(&format!("spec.{field}"), &value, "field is immutable"));
            }
        }
        return wrongs;
    }
    let mut wrongs = check_pod_spec(&template["spec"], "spec.template.spec");
    wrongs.extend(names::check_labels(&template["metadata"]["labels"], "spec.template.metadata.labels"));
    match template["spec"]["restartPolicy"].as_str() {
        Some("Never" | "OnFailure") => {}
        _ => {
            let why = "valid values: \"OnFailure\", \"Never\"";
            let field = "spec.template.spec.restartPolicy";
            wrongs.push(StatusCause::required(field, why));
        }
    }
    for field in
        ["parallelism", "completions", "backoffLimit", "activeDeadlineSeconds", "ttlSecondsAfterFinished"]
    {
        if spec[field].as_i64().is_some_and(|it| it < 0) {
            let why = "must be greater than or equal to 0";
            wrongs.push(StatusCause::invalid(&format!("spec.{field}"), &spec[field], why));
        }
    }
    wrongs
}

fn differs_only_in_placement(template: &Value, before: &Value) -> bool {
    let without = |template: &Value| {
        let mut template = template.clone();
        if let Some(spec) = template["spec"].as_object_mut() {
            for field in ["nodeSelector", "tolerations", "affinity", "schedulingGates"] {
                spec.remove(field);
            }
        }
        for field in ["labels", "annotations"] {
            template["metadata"][field].take();
        }
        template
    };
    without(template) == without(before)
}

fn check_pod_spec(spec: &Value, path: &str) -> Vec<StatusCause> {
    let mut wrongs = Vec::new();
    if spec["containers"].as_array().is_none_or(Vec::is_empty) {
        wrongs.push(StatusCause::required(&format!("{path}.containers"), ""));
    }
    let volumes: Vec<&Value> = spec["volumes"].as_array().into_iter().flatten().collect();
    for (index, volume) in volumes.iter().enumerate() {
        if let Some(why) = names::dns_label_fault(volume["name"].as_str().unwrap_or_default()) {
            wrongs.push(StatusCause::invalid(&format!("{path}.volumes[{index}].name"), &volume["name"], why));
        }
    }
    let mut seen = Vec::new();
    for list in ["initContainers", "containers"] {
        for (index, container) in spec[list].as_array().into_iter().flatten().enumerate() {
            let at = format!("{path}.{list}[{index}]");
            if seen.contains(&&container["name"]) {
                wrongs.push(StatusCause::duplicate(&format!("{at}.name"), &container["name"]));
            }
            seen.push(&container["name"]);
            let policy = &container["restartPolicy"];
            if !policy.is_null() && (list == "containers" || policy != "Always") {
                let why = "may only be set to `Always`, for init containers";
                wrongs.push(StatusCause::invalid(&format!("{at}.restartPolicy"), policy, why));
            }
            wrongs.extend(check_container(container, &at, &volumes));
        }
    }
    if spec["activeDeadlineSeconds"].as_i64().is_some_and(|it| it < 1) {
        let field = format!("{path}.activeDeadlineSeconds");
        wrongs.push(StatusCause::invalid(
            &field,
            &spec["activeDeadlineSeconds"],
            "must be between 1 and 2147483647, inclusive",
        ));
    }
    wrongs
}

fn check_container(container: &Value, at: &str, volumes: &[&Value]) -> Vec<StatusCause> {
    let mut wrongs = Vec::new();
    if let Some(why) = names::dns_label_fault(container["name"].as_str().unwrap_or_default()) {
        wrongs.push(StatusCause::invalid(&format!("{at}.name"), &container["name"], why));
    }
    if container["image"].as_str().is_none_or(str::is_empty) {
        wrongs.push(StatusCause::required(&format!("{at}.image"), ""));
    }
    let mut paths = Vec::new();
    for (number, mount) in container["volumeMounts"].as_array().into_iter().flatten().enumerate() {
        let field = |name: &str| format!("{at}.volumeMounts[{number}].{name}");
        if !volumes.iter().any(|volume| volume["name"] == mount["name"]) {
            wrongs.push(StatusCause::invalid(&field("name"), &mount["name"], "Not found"));
        }
        if paths.contains(&&mount["mountPath"]) {
            wrongs.push(StatusCause::invalid(&field("mountPath"), &mount["mountPath"], "must be unique"));
        }
        paths.push(&mount["mountPath"]);
        let sub_path = mount["subPath"].as_str().unwrap_or_default();
        if sub_path.starts_with('/') {
            wrongs.push(StatusCause::invalid(
                &field("subPath"),
                &mount["subPath"],
                "must be a relative path",
            ));
        }
        if sub_path.split('/').any(|part| part == "..") {
            wrongs.push(StatusCause::invalid(&field("subPath"), &mount["subPath"], "must not contain '..'"));
        }
    }
    for (number, variable) in container["env"].as_array().into_iter().flatten().enumerate() {
        if variable["name"].as_str().is_none_or(str::is_empty) {
            wrongs.push(StatusCause::required(&format!("{at}.env[{number}].name"), ""));
        }
    }
    wrongs
}

fn check_pod_change(pod: &Value, before: &Value) -> Option<StatusCause> {
    let fixed = |pod: &Value| {
        let mut spec = pod["spec"].clone();
        for field in
            ["activeDeadlineSeconds", "tolerations", "terminationGracePeriodSeconds", "schedulingGates"]
        {
            spec[field].take();
        }
        for list in ["initContainers", "containers"] {
            for container in spec[list].as_array_mut().into_iter().flatten() {
                container["image"].take();
            }
        }
        spec
    };
    let why = "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)";
    (fixed(pod) != fixed(before)).then(|| StatusCause::forbidden("spec", why))
}

fn check_claim(claim: &Value, before: Option<&Value>) -> Vec<StatusCause> {
    let spec = &claim["spec"];
    let mut wrongs = Vec::new();
    if spec["accessModes"].as_array().is_none_or(Vec::is_empty) {
        wrongs.push(StatusCause::required("spec.accessModes", "at least 1 access mode is required"));
    }
    if spec["resources"]["requests"]["storage"].is_null() {
        wrongs.push(StatusCause::required("spec.resources[storage]", ""));
    }
    if let Some(before) = before {
        let fixed = |spec: &Value| {
            let mut spec = spec.clone();
            spec["resources"].take();
            spec["volumeName"].take();
            spec
        };
        if fixed(spec) != fixed(&before["spec"]) {
            let why = "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims";
            wrongs.push(StatusCause::forbidden("spec", why));
        }
    }
    wrongs
}

fn check_lease(lease: &Value) -> Vec<StatusCause> {
    let spec = &lease["spec"];
    let mut wrongs = Vec::new();
    if spec["leaseDurationSeconds"].as_i64().is_some_and(|it| it <= 0) {
        let why = "must be greater than 0";
        wrongs.push(StatusCause::invalid("spec.leaseDurationSeconds", &spec["leaseDurationSeconds"], why));
    }
    if spec["leaseTransitions"].as_i64().is_some_and(|it| it < 0) {
        let why = "must be greater than or equal to 0";
        wrongs.push(StatusCause::invalid("spec.leaseTransitions", &spec["leaseTransitions"], why));
    }
    wrongs
}

fn check_event(event: &Value) -> Vec<StatusCause> {
    let mut wrongs = Vec::new();
    if event["regarding"]["namespace"].as_str().unwrap_or("default") != event["metadata"]["namespace"] {
        let why = "does not match event.namespace";
        wrongs.push(StatusCause::invalid("involvedObject.namespace", &event["regarding"]["namespace"], why));
    }
    if event["eventTime"].is_null() {
        // The rules of the newer kind do not apply to the older one.
        return wrongs;
    }
    for (field, limit) in
        [("reportingController", 63), ("reportingInstance", 128), ("action", 128), ("reason", 128)]
    {
        let value = event[field].as_str().unwrap_or_default();
        if value.is_empty() {
            wrongs.push(StatusCause::required(field, ""));
        } else if value.len() > limit && field != "reportingController" {
            wrongs.push(StatusCause::invalid(
                field,
                &json!(""),
                &format!("can have at most {limit} characters"),
            ));
        }
    }
    if event["note"].as_str().unwrap_or_default().len() > 1024 {
        wrongs.push(StatusCause::invalid("message", &json!(""), "can have at most 1024 characters"));
    }
    if !["Normal", "Warning"].contains(&event["type"].as_str().unwrap_or_default()) {
        wrongs.push(StatusCause::invalid("type", &event["type"], "has invalid value"));
    }
    wrongs
}

/// Converts a core event to `events.k8s.io`, the stored form.
pub fn event_from_core(mut event: Value) -> Value {
    let Some(fields) = event.as_object_mut() else { return event };
    rename(fields, &CORE_EVENT, false);
    let instance = fields.remove("reportingComponent").filter(|it| it != "");
    if let Some(controller) = instance {
        fields.insert("reportingController".to_owned(), controller);
    }
    event
}

/// Converts an event to the core group.
pub fn event_to_core(mut event: Value) -> Value {
    let Some(fields) = event.as_object_mut() else { return event };
    rename(fields, &CORE_EVENT, true);
    let controller = fields.remove("reportingController").unwrap_or_default();
    fields.insert("reportingComponent".to_owned(), json!(controller.as_str().unwrap_or_default()));
    fields.entry("reportingInstance").or_insert_with(|| json!(""));
    event
}

const CORE_EVENT: [(&str, &str); 6] = [
    ("involvedObject", "regarding"),
    ("message", "note"),
    ("source", "deprecatedSource"),
    ("firstTimestamp", "deprecatedFirstTimestamp"),
    ("lastTimestamp", "deprecatedLastTimestamp"),
    ("count", "deprecatedCount"),
];

fn rename(fields: &mut Map<String, Value>, names: &[(&str, &str)], back: bool) {
    for (core, newer) in names {
        let (from, to) = if back { (newer, core) } else { (core, newer) };
        if let Some(value) = fields.remove(*from) {
            fields.insert((*to).to_owned(), value);
        }
    }
}
