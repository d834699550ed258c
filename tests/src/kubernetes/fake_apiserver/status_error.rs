//! Errors of the API server: a `Status` object with code and reason.

use axum::body::Body;
use axum::http::{Response, StatusCode};
use serde_json::{Value, json};

use super::resource::Resource;

/// Why a request was rejected.
#[derive(Clone, Debug)]
pub struct StatusError {
    code: u16,
    reason: &'static str,
    message: String,
    details: Option<Value>,
}

/// An invalid field of an object.
#[derive(Clone, Debug)]
pub struct StatusCause {
    field: String,
    reason: &'static str,
    message: String,
}

impl StatusCause {
    pub fn forbidden(field: &str, why: &str) -> Self {
        Self::new(field, "FieldValueForbidden", format!("Forbidden: {why}"))
    }

    pub fn invalid(field: &str, value: &Value, why: &str) -> Self {
        Self::new(field, "FieldValueInvalid", format!("Invalid value: {value}: {why}"))
    }

    pub fn required(field: &str, why: &str) -> Self {
        let message =
            if why.is_empty() { "Required value".to_owned() } else { format!("Required value: {why}") };
        Self::new(field, "FieldValueRequired", message)
    }

    pub fn duplicate(field: &str, value: &Value) -> Self {
        Self::new(field, "FieldValueDuplicate", format!("Duplicate value: {value}"))
    }

    pub fn too_long(field: &str, limit: usize) -> Self {
        Self::new(field, "FieldValueTooLong", format!("Too long: may not be more than {limit} bytes"))
    }

    fn new(field: &str, reason: &'static str, message: String) -> Self {
        Self { field: field.to_owned(), reason, message }
    }
}

impl StatusError {
    fn new(code: u16, reason: &'static str, message: impl Into<String>) -> Self {
        Self { code, reason, message: message.into(), details: None }
    }

    fn about(mut self, resource: &Resource, name: &str) -> Self {
        let mut details = json!({"name": name, "kind": resource.plural});
        if !resource.group.is_empty() {
            details["group"] = json!(resource.group);
        }
        self.details = Some(details);
        self
    }

    /// 400.
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(400, "BadRequest", message)
    }

    /// 401.
    pub fn unauthorized() -> Self {
        Self::new(401, "Unauthorized", "Unauthorized")
    }

    /// 403.
    pub fn forbidden(resource: &Resource, name: &str, why: &str) -> Self {
        let of = resource.group_resource();
        let what = if name.is_empty() { of } else { format!("{of} \"{name}\"") };
        Self::new(403, "Forbidden", format!("{what} is forbidden: {why}")).about(resource, name)
    }

    /// 404 for an object.
    pub fn not_found(resource: &Resource, name: &str) -> Self {
        let message = format!("{} \"{name}\" not found", resource.group_resource());
        Self::new(404, "NotFound", message).about(resource, name)
    }

    /// 404 for a path.
    pub fn no_such_path() -> Self {
        Self::new(404, "NotFound", "the server could not find the requested resource")
    }

    /// 405.
    pub fn method_not_allowed() -> Self {
        Self::new(405, "MethodNotAllowed", "the server does not allow this method on the requested resource")
    }

    /// 409 for an existing object.
    pub fn already_exists(resource: &Resource, name: &str) -> Self {
        let message = format!("{} \"{name}\" already exists", resource.group_resource());
        Self::new(409, "AlreadyExists", message).about(resource, name)
    }

    /// 409 for a changed object.
    pub fn conflict(resource: &Resource, name: &str, why: &str) -> Self {
        let of = resource.group_resource();
        let message = format!("Operation cannot be fulfilled on {of} \"{name}\": {why}");
        Self::new(409, "Conflict", message).about(resource, name)
    }

    /// 409 for an object that another client changed first.
    pub fn modified(resource: &Resource, name: &str) -> Self {
        let why =
            "the object has been modified; please apply your changes to the latest version and try again";
        Self::conflict(resource, name, why)
    }

    /// 409 for fields of other managers: manager and field.
    pub fn apply_conflict(conflicts: &[(String, String)]) -> Self {
        let all: Vec<String> =
            conflicts.iter().map(|(who, field)| format!("conflict with \"{who}\": {field}")).collect();
        let plural = if all.len() == 1 { "" } else { "s" };
        let message = format!("Apply failed with {} conflict{plural}: {}", all.len(), all.join("\n- "));
        let cause = |(who, field): &(String, String)| json!({"reason": "FieldManagerConflict", "message": format!("conflict with \"{who}\""), "field": field});
        let causes: Vec<Value> = conflicts.iter().map(cause).collect();
        Self { details: Some(json!({"causes": causes})), ..Self::new(409, "Conflict", message) }
    }

    /// 410.
    pub fn expired() -> Self {
        Self::new(410, "Expired", "too old resource version")
    }

    /// 413.
    pub fn too_large(message: &str) -> Self {
        Self::new(413, "RequestEntityTooLarge", message)
    }

    /// 500 for etcd's size limit, without a reason.
    pub fn etcd_too_large() -> Self {
        Self::new(500, "", "etcdserver: request is too large")
    }

    /// 415.
    pub fn unsupported_media_type(message: &str) -> Self {
        Self::new(415, "UnsupportedMediaType", message)
    }

    /// 422 for an invalid object.
    pub fn invalid(resource: &Resource, name: &str, wrongs: &[StatusCause]) -> Self {
        let group = if resource.group.is_empty() { String::new() } else { format!(".{}", resource.group) };
        let all: Vec<String> = wrongs.iter().map(|it| format!("{}: {}", it.field, it.message)).collect();
        let list = if all.len() == 1 { all[0].clone() } else { format!("[{}]", all.join(", ")) };
        let message = format!("{}{group} \"{name}\" is invalid: {list}", resource.kind);
        let cause = |it: &StatusCause| json!({"reason": it.reason, "message": it.message, "field": it.field});
        let causes: Vec<Value> = wrongs.iter().map(cause).collect();
        let mut refusal = Self::new(422, "Invalid", message).about(resource, name);
        if let Some(details) = &mut refusal.details {
            details["kind"] = json!(resource.kind);
            details["causes"] = json!(causes);
        }
        refusal
    }

    /// 422 for a patch that cannot be applied.
    pub fn unprocessable(message: impl Into<String>) -> Self {
        Self::new(422, "Invalid", message)
    }

    /// 503.
    pub fn unavailable(message: &str) -> Self {
        Self::new(503, "ServiceUnavailable", message)
    }

    /// 504 for a future version.
    pub fn too_new(version: u64, current: u64) -> Self {
        let message = format!("Timeout: Too large resource version: {version}, current: {current}");
        Self::new(504, "Timeout", message)
    }

    /// An injected fault.
    pub fn fault(code: u16) -> Self {
        let reason = match code {
            403 => "Forbidden",
            404 => "NotFound",
            409 => "Conflict",
            429 => "TooManyRequests",
            500 => "InternalError",
            503 => "ServiceUnavailable",
            504 => "Timeout",
            _ => "Unknown",
        };
        Self::new(code, reason, "a fault that the test set")
    }

    /// Returns the machine-readable reason.
    pub fn reason(&self) -> &'static str {
        self.reason
    }

    /// Returns the `Status` object.
    pub fn status(&self) -> Value {
        let mut status = json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": self.message, "code": self.code,
        });
        if !self.reason.is_empty() {
            status["reason"] = json!(self.reason);
        }
        if let Some(details) = &self.details {
            status["details"] = details.clone();
        }
        status
    }
}

impl From<StatusError> for Response<Body> {
    fn from(refusal: StatusError) -> Self {
        let mut response = Self::new(Body::from(refusal.status().to_string()));
        *response.status_mut() = StatusCode::from_u16(refusal.code).expect("a status");
        response.headers_mut().insert("content-type", "application/json".parse().expect("a header"));
        response
    }
}
