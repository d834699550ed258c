//! JSON without ambiguities: an object that has a key twice is an error. Pure.
//!
//! Programs disagree about which of the two counts, so a check could read one and the API the other.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;
use serde_json::{Map, Number, Value};

/// Parses a JSON value in which no object has a key twice.
///
/// # Errors
/// Returns an error for invalid JSON, nesting of more than 128 levels, and repeated keys.
pub fn parse_strict(text: &str) -> serde_json::Result<Value> {
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let value = Strict.deserialize(&mut deserializer)?;
    deserializer.end()?;
    Ok(value)
}

/// Parses the fields of a JSON object, in order, each with its text.
///
/// # Errors
/// Returns an error if the text is not a JSON object or has a key twice.
pub fn parse_fields(text: &[u8]) -> serde_json::Result<Vec<(String, Box<RawValue>)>> {
    let mut deserializer = serde_json::Deserializer::from_slice(text);
    let fields = deserializer.deserialize_map(Fields)?;
    deserializer.end()?;
    Ok(fields)
}

struct Fields;

impl<'de> Visitor<'de> for Fields {
    type Value = Vec<(String, Box<RawValue>)>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut fields: Self::Value = Vec::new();
        while let Some((name, value)) = map.next_entry::<String, Box<RawValue>>()? {
            if fields.iter().any(|(known, _)| *known == name) {
                return Err(A::Error::custom(format!("repeated field `{}`", short(&name))));
            }
            if fields.len() >= 64 {
                return Err(A::Error::custom("too many fields"));
            }
            fields.push((name, value));
        }
        Ok(fields)
    }
}

/// Returns the start of a name, for messages.
pub fn short(name: &str) -> String {
    name.chars().filter(|c| !c.is_control()).take(40).collect()
}

struct Strict;

impl<'de> DeserializeSeed<'de> for Strict {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Number::from_f64(value).map_or(Value::Null, Value::Number))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<Value, A::Error> {
        let mut values = Vec::new();
        while let Some(value) = sequence.next_element_seed(Self)? {
            values.push(value);
        }
        Ok(Value::Array(values))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut values = Map::new();
        while let Some(name) = map.next_key::<String>()? {
            let value = map.next_value_seed(Self)?;
            if values.insert(name.clone(), value).is_some() {
                return Err(A::Error::custom(format!("repeated field `{}`", short(&name))));
            }
        }
        Ok(Value::Object(values))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn repeated_keys_are_errors_at_any_depth() {
        for text in [
            r#"{"a": 1, "a": 2}"#,
            r#"[{"b": [{"a": 1, "\u0061": 2}]}]"#,
            r#"{"a": {"type": "text", "type": "document"}}"#,
        ] {
            assert!(parse_strict(text).unwrap_err().to_string().contains("repeated field"), "{text}");
        }
        assert!(parse_fields(br#"{"model": "a", "mod\u0065l": "b"}"#).is_err());
    }

    #[test]
    fn fields_keep_their_order_and_text() {
        let fields = parse_fields(br#" {"z": [1,  2], "a": "\u0041"} "#).unwrap();
        let pairs: Vec<(&str, &str)> =
            fields.iter().map(|(name, value)| (name.as_str(), value.get())).collect();
        assert_eq!(pairs, [("z", "[1,  2]"), ("a", r#""\u0041""#)]);
    }

    #[test]
    fn value_without_repeated_keys_is_parsed() {
        let value = json!({"a": [1, -2, 0.5, true, null, "x"], "b": {"a": {}}});
        assert_eq!(parse_strict(&value.to_string()).unwrap(), value);
    }

    #[test]
    fn malformed_text_is_an_error() {
        for text in ["", "{", "[1] 2", "{\"a\": NaN}", "\"\\ud800\"", &"[".repeat(200_000)] {
            assert!(parse_strict(text).is_err(), "{}", &text[..text.len().min(20)]);
        }
        for text in [&b"[]"[..], b"{} {}", b"\xff", b"null"] {
            assert!(parse_fields(text).is_err(), "{text:?}");
        }
    }
}
