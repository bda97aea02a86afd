//! What a member can be: text, flags, numbers and open content.

use prost_types::value::Kind;
use prost_types::{ListValue, Struct, Value};
use serde_json::{Map, Value as JsonValue};

use super::{Json, Misfit, Problem};

/// Up to here every integer is a double; beyond, printing digits would pretend precision.
const LARGEST_EXACT: f64 = 9_007_199_254_740_992.0;

/// Says that `value` is not what was expected.
pub(super) fn mismatch(expected: &'static str, value: &JsonValue) -> Problem {
    let found = match value {
        JsonValue::Null => "null",
        JsonValue::Bool(_) => "a boolean",
        JsonValue::Number(_) => "a number",
        JsonValue::String(_) => "a string",
        JsonValue::Array(_) => "an array",
        JsonValue::Object(_) => "an object",
    };
    Problem::Type { expected, found }
}

/// Carries any JSON value as it is.
pub(super) fn open(value: &JsonValue) -> Value {
    let kind = match value {
        JsonValue::Null => Kind::NullValue(0),
        JsonValue::Bool(flag) => Kind::BoolValue(*flag),
        // Adding zero makes zero of `-0`, which JavaScript prints as `0` too. Every number of
        // `serde_json` is a double, unless another crate turns on its arbitrary precision.
        JsonValue::Number(number) => Kind::NumberValue(number.as_f64().unwrap_or(f64::NAN) + 0.0),
        JsonValue::String(text) => Kind::StringValue(text.clone()),
        JsonValue::Array(items) => {
            let values = items.iter().map(open).collect();
            Kind::ListValue(ListValue { values })
        }
        JsonValue::Object(members) => Kind::StructValue(open_object(members)),
    };
    Value { kind: Some(kind) }
}

fn open_object(members: &Map<String, JsonValue>) -> Struct {
    let fields = members.iter();
    let fields = fields.map(|(name, value)| (name.clone(), open(value)));
    Struct {
        fields: fields.collect(),
    }
}

/// What is left of `room` after `levels` of messages.
pub(super) fn descend(room: usize, levels: usize) -> Result<usize, Misfit> {
    room.checked_sub(levels)
        .ok_or_else(|| Problem::TooDeep.into())
}

impl Json for String {
    fn from_json(value: &JsonValue) -> Result<Self, Problem> {
        let text = value.as_str().ok_or_else(|| mismatch("a string", value))?;
        Ok(text.to_owned())
    }

    fn to_json(&self) -> JsonValue {
        self.as_str().into()
    }

    fn check(&self, _: usize) -> Result<(), Misfit> {
        Ok(())
    }
}

impl Json for bool {
    fn from_json(value: &JsonValue) -> Result<Self, Problem> {
        value.as_bool().ok_or_else(|| mismatch("a boolean", value))
    }

    fn to_json(&self) -> JsonValue {
        (*self).into()
    }

    fn check(&self, _: usize) -> Result<(), Misfit> {
        Ok(())
    }
}

impl Json for i32 {
    fn from_json(value: &JsonValue) -> Result<Self, Problem> {
        // Through the double, because `1.0` is an integer in JavaScript.
        value
            .as_f64()
            .filter(|number| number.fract() == 0.0)
            .filter(|number| (f64::from(Self::MIN)..=f64::from(Self::MAX)).contains(number))
            .map(|number| number as Self)
            .ok_or_else(|| mismatch("a 32-bit integer", value))
    }

    fn to_json(&self) -> JsonValue {
        (*self).into()
    }

    fn check(&self, _: usize) -> Result<(), Misfit> {
        Ok(())
    }
}

impl Json for Struct {
    fn from_json(value: &JsonValue) -> Result<Self, Problem> {
        let members = value.as_object();
        let members = members.ok_or_else(|| mismatch("an object", value))?;
        Ok(open_object(members))
    }

    fn to_json(&self) -> JsonValue {
        let members = self.fields.iter();
        JsonValue::Object(
            members
                .map(|(name, value)| (name.clone(), value.to_json()))
                .collect(),
        )
    }

    fn check(&self, room: usize) -> Result<(), Misfit> {
        // One for itself, one for the map entry that protobuf puts around each value.
        let room = descend(room, 1)?;
        self.fields
            .values()
            .try_for_each(|value| value.check(descend(room, 1)?))
    }
}

impl Json for Value {
    fn from_json(value: &JsonValue) -> Result<Self, Problem> {
        Ok(open(value))
    }

    fn to_json(&self) -> JsonValue {
        match &self.kind {
            None | Some(Kind::NullValue(_)) => JsonValue::Null,
            Some(Kind::BoolValue(flag)) => (*flag).into(),
            Some(Kind::NumberValue(number)) => number_to_json(*number),
            Some(Kind::StringValue(text)) => text.as_str().into(),
            Some(Kind::ListValue(list)) => list.values.iter().map(Self::to_json).collect(),
            Some(Kind::StructValue(object)) => object.to_json(),
        }
    }

    fn check(&self, room: usize) -> Result<(), Misfit> {
        let room = descend(room, 1)?;
        match &self.kind {
            Some(Kind::NumberValue(number)) if !number.is_finite() => {
                Err(Problem::NotFinite.into())
            }
            Some(Kind::ListValue(list)) => {
                let room = descend(room, 1)?;
                list.values.iter().try_for_each(|value| value.check(room))
            }
            Some(Kind::StructValue(object)) => object.check(room),
            _ => Ok(()),
        }
    }
}

/// Prints an integral number without a fraction, as JavaScript does; `null` when JSON has no such
/// number.
fn number_to_json(number: f64) -> JsonValue {
    if number.fract() == 0.0 && number.abs() <= LARGEST_EXACT {
        (number as i64).into()
    } else {
        number.into()
    }
}
