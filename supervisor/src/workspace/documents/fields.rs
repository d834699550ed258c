//! Typed access to the fields of a JSON object that a person or a model wrote.

use std::cell::Cell;
use std::collections::BTreeMap;

use serde_json::{Map, Value};

/// Maximum faults of an entry to keep.
const MAX_FAULTS: usize = 10;

/// Faults of an entry: the first ones, and how many there are.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct Faults {
    pub(super) first: Vec<String>,
    pub(super) count: usize,
}

impl Faults {
    pub(super) fn push(&mut self, describe: impl FnOnce() -> String) {
        if self.first.len() < MAX_FAULTS {
            self.first.push(describe());
        }
        self.count += 1;
    }

    fn append(&mut self, others: Self) {
        let room = MAX_FAULTS.saturating_sub(self.first.len());
        self.first.extend(others.first.into_iter().take(room));
        self.count += others.count;
    }
}

/// Fields of an object. A field of the wrong type is a fault, and is read as if it were absent.
#[derive(Debug)]
pub(super) struct Fields {
    /// Fields that were not taken yet.
    rest: Map<String, Value>,
    /// Path of the object within the task, such as `subtasks[1].`; empty for the task.
    at: String,
    faults: Faults,
}

impl Fields {
    pub(super) fn new(object: Map<String, Value>, at: &str) -> Self {
        Self { rest: object, at: at.to_owned(), faults: Faults::default() }
    }

    /// Returns the fields that were not taken, and the faults of the others.
    pub(super) fn finish(self) -> (BTreeMap<String, Value>, Faults) {
        (self.rest.into_iter().collect(), self.faults)
    }

    /// Takes the id of the object: a number or a text.
    pub(super) fn id(&mut self) -> Option<String> {
        let value = self.rest.remove("id");
        let id = value.as_ref().and_then(id_of);
        if id.is_none() {
            self.fault("id", value.as_ref(), "a number or a text");
        }
        id
    }

    /// Takes a text: a string, a number, or a list of lines. An empty one is `None`.
    pub(super) fn text(&mut self, name: &str) -> Option<String> {
        let value = self.rest.remove(name).filter(|value| !value.is_null())?;
        let text = match &value {
            Value::Array(lines) => {
                lines.iter().map(text_of).collect::<Option<Vec<_>>>().map(|lines| lines.join("\n"))
            }
            single @ (Value::Null
            | Value::Bool(_)
            | Value::Number(_)
            | Value::String(_)
            | Value::Object(_)) => text_of(single),
        };
        if text.is_none() {
            self.fault(name, Some(&value), "a text");
        }
        text.filter(|text| !text.trim().is_empty())
    }

    /// Takes a list of texts; one text is a list of one.
    pub(super) fn texts(&mut self, name: &str) -> Vec<String> {
        if let Some(Value::String(text)) = self.rest.get(name) {
            let text = text.trim().to_owned();
            self.rest.remove(name);
            return if text.is_empty() { Vec::new() } else { vec![text] };
        }
        self.list(name, "a text", text_of).into_iter().filter(|text| !text.trim().is_empty()).collect()
    }

    /// Takes a list of task ids.
    pub(super) fn ids(&mut self, name: &str) -> Vec<String> {
        self.list(name, "a task id", id_of)
    }

    /// Takes a list of objects, and reads each with its fields.
    ///
    /// With `field`, a text stands for an object with that field alone.
    pub(super) fn objects<T>(
        &mut self,
        name: &str,
        field: Option<&str>,
        read: impl Fn(&mut Self) -> Option<T>,
    ) -> Vec<T> {
        let object_of = |value: &Value| match (value, field) {
            (Value::Object(object), _) => Some(object.clone()),
            (Value::String(_), Some(field)) => Some(Map::from_iter([(field.to_owned(), value.clone())])),
            _ => None,
        };
        let positions = Cell::new(0);
        let objects = self.list(name, "an object", |value| {
            // Positions count the entries that are not objects too.
            let position = positions.replace(positions.get() + 1);
            object_of(value).map(|object| (position, object))
        });
        let mut read_ones = Vec::new();
        for (position, object) in objects {
            let mut fields = Self::new(object, &format!("{}{name}[{position}].", self.at));
            read_ones.extend(read(&mut fields));
            self.faults.append(fields.faults);
        }
        read_ones
    }

    /// Takes an object and reads its fields; anything else is left.
    pub(super) fn object<T>(&mut self, name: &str, read: impl Fn(&mut Self) -> T) -> Option<T> {
        let object = self.rest.get(name).and_then(Value::as_object).cloned()?;
        self.rest.remove(name);
        let mut fields = Self::new(object, &format!("{}{name}.", self.at));
        let value = read(&mut fields);
        self.faults.append(fields.faults);
        Some(value)
    }

    /// Returns the fields that are left, for those that pass them on.
    pub(super) fn take_rest(&mut self) -> BTreeMap<String, Value> {
        std::mem::take(&mut self.rest).into_iter().collect()
    }

    fn list<T>(&mut self, name: &str, expected: &str, read: impl Fn(&Value) -> Option<T>) -> Vec<T> {
        let values = match self.rest.remove(name) {
            None | Some(Value::Null) => return Vec::new(),
            Some(Value::Array(values)) => values,
            Some(other) => {
                self.fault(name, Some(&other), "a list");
                return Vec::new();
            }
        };
        let mut entries = Vec::with_capacity(values.len());
        for (index, value) in values.iter().enumerate() {
            match read(value) {
                Some(entry) => entries.push(entry),
                None => self.entry_fault(name, index, value, expected),
            }
        }
        entries
    }

    fn entry_fault(&mut self, name: &str, index: usize, value: &Value, expected: &str) {
        let at = &self.at;
        self.faults.push(|| format!("`{at}{name}[{index}]` is {}, expected {expected}", describe(value)));
    }

    fn fault(&mut self, name: &str, value: Option<&Value>, expected: &str) {
        let at = &self.at;
        self.faults.push(|| match value {
            None => format!("`{at}{name}` is missing"),
            Some(value) => format!("`{at}{name}` is {}, expected {expected}", describe(value)),
        });
    }
}

/// Returns what kind of value it is, in words.
pub(super) fn describe(value: &Value) -> String {
    match value {
        Value::Null => "null".to_owned(),
        Value::Bool(_) | Value::Number(_) => value.to_string(),
        Value::String(text) if text.trim().is_empty() => "empty".to_owned(),
        Value::String(_) => "a text".to_owned(),
        Value::Array(_) => "a list".to_owned(),
        Value::Object(_) => "an object".to_owned(),
    }
}

fn id_of(value: &Value) -> Option<String> {
    text_of(value).map(|text| text.trim().to_owned()).filter(|text| !text.is_empty())
}

fn text_of(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
    }
}
