//! One argument, read as the type of its parameter.

use serde::de::{Deserializer, IntoDeserializer as _, Visitor};
use serde::forward_to_deserialize_any;
use serde_json::{Number, Value};

use super::fault::Fault;

/// Maximum length of an argument in an error.
const SHOWN: usize = 60;

/// One argument.
pub(super) struct Argument(pub(super) Value);

/// Returns whether an argument stands for none.
pub(super) fn is_unset(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.trim().is_empty(),
        Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => false,
    }
}

/// Returns an argument as JSON, shortened.
pub(super) fn quoted(value: &Value) -> String {
    let text = value.to_string();
    if text.chars().count() <= SHOWN {
        return text;
    }
    let short: String = text.chars().take(SHOWN).collect();
    format!("{short}...")
}

impl Argument {
    fn fault(&self, expected: impl Into<String>, example: &'static str) -> Fault {
        Fault::unreadable(quoted(&self.0), expected, example)
    }

    fn bool(&self) -> Result<bool, Fault> {
        let parsed = match &self.0 {
            Value::Bool(value) => Some(*value),
            Value::String(text) if text.trim().eq_ignore_ascii_case("true") => Some(true),
            Value::String(text) if text.trim().eq_ignore_ascii_case("false") => Some(false),
            Value::Null | Value::Number(_) | Value::String(_) | Value::Array(_) | Value::Object(_) => None,
        };
        parsed.ok_or_else(|| self.fault("true or false", "true"))
    }

    fn number(&self) -> Option<f64> {
        match &self.0 {
            Value::Number(number) => number.as_f64(),
            Value::String(text) => text.trim().parse().ok(),
            Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
        }
        .filter(|number: &f64| number.is_finite())
    }

    fn float(&self) -> Result<f64, Fault> {
        self.number().ok_or_else(|| self.fault("a number", "1.5"))
    }

    /// Returns a whole number; `5.0` is one.
    fn whole(&self) -> Result<i128, Fault> {
        let exact = match &self.0 {
            Value::Number(number) => number.as_i128(),
            Value::String(text) => text.trim().parse().ok(),
            Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
        };
        exact
            .or_else(|| {
                let number = self.number().filter(|number| number.fract() == 0.0)?;
                format!("{number:.0}").parse().ok()
            })
            .ok_or_else(|| self.fault("a whole number", "1"))
    }

    fn unsigned(&self, max: u64) -> Result<u64, Fault> {
        let number = self.whole()?;
        match u64::try_from(number) {
            Ok(number) if number <= max => Ok(number),
            Ok(_) | Err(_) => Err(self.fault(format!("a whole number from 0 to {max}"), "1")),
        }
    }

    fn signed(&self, min: i64, max: i64) -> Result<i64, Fault> {
        let number = self.whole()?;
        match i64::try_from(number) {
            Ok(number) if (min..=max).contains(&number) => Ok(number),
            Ok(_) | Err(_) => Err(self.fault(format!("a whole number from {min} to {max}"), "1")),
        }
    }

    fn text(self) -> Result<String, Fault> {
        match self.0 {
            Value::String(text) => Ok(text),
            Value::Number(number) => Ok(plain(&number)),
            Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => {
                Err(self.fault("text", "\"trader\""))
            }
        }
    }
}

/// Returns a number as a user would write it: `1.0` as `1`.
fn plain(number: &Number) -> String {
    let text = number.to_string();
    text.strip_suffix(".0").map_or(text.clone(), str::to_owned)
}

macro_rules! whole_numbers {
    ($($method:ident $visit:ident $read:ident($($limit:expr),*);)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
            visitor.$visit(self.$read($($limit),*)?)
        }
    )*};
}

impl<'de> Deserializer<'de> for Argument {
    type Error = Fault;

    whole_numbers! {
        deserialize_u8 visit_u64 unsigned(u8::MAX.into());
        deserialize_u16 visit_u64 unsigned(u16::MAX.into());
        deserialize_u32 visit_u64 unsigned(u32::MAX.into());
        deserialize_u64 visit_u64 unsigned(u64::MAX);
        deserialize_i8 visit_i64 signed(i8::MIN.into(), i8::MAX.into());
        deserialize_i16 visit_i64 signed(i16::MIN.into(), i16::MAX.into());
        deserialize_i32 visit_i64 signed(i32::MIN.into(), i32::MAX.into());
        deserialize_i64 visit_i64 signed(i64::MIN, i64::MAX);
        deserialize_bool visit_bool bool();
        deserialize_f32 visit_f64 float();
        deserialize_f64 visit_f64 float();
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_string(self.text()?)
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_string(self.text()?)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        visitor.visit_enum(self.text()?.into_deserializer())
    }

    /// Reads one value as a list of it.
    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        let entries = match self.0 {
            Value::Array(entries) => entries,
            one @ (Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Object(_)) => {
                vec![one]
            }
        };
        let entries = entries.into_iter().filter(|entry| !is_unset(entry)).map(Self);
        visitor.visit_seq(serde::de::value::SeqDeserializer::new(entries))
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        if is_unset(&self.0) { visitor.visit_none() } else { visitor.visit_some(self) }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Fault> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        self.0.deserialize_any(visitor).map_err(serde::de::Error::custom)
    }

    forward_to_deserialize_any! {
        i128 u128 char bytes byte_buf unit unit_struct tuple tuple_struct map struct identifier ignored_any
    }
}

impl<'de> serde::de::IntoDeserializer<'de, Fault> for Argument {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}
