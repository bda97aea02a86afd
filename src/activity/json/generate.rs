//! Documents for property tests, from the same table as the codec.

use proptest::collection::{btree_map, vec};
use proptest::option::weighted;
use proptest::prelude::*;
use prost_types::{Struct, Value};
use serde_json::{Map, Value as JsonValue, json};

/// A type whose JSON documents can be made up.
pub(in crate::activity) trait Generate {
    fn documents() -> BoxedStrategy<JsonValue>;
}

/// A field whose JSON values can be made up, those only `unknown_members` holds included.
pub(in crate::activity) trait GenerateMember {
    fn values() -> BoxedStrategy<JsonValue>;
}

/// What the member in this field can be.
pub(in crate::activity) fn member<M, F: GenerateMember>(
    _: fn(&M) -> &F,
) -> BoxedStrategy<JsonValue> {
    F::values()
}

/// Objects with some of these members, and some others.
pub(in crate::activity) fn object(
    members: Vec<(&'static str, BoxedStrategy<JsonValue>)>,
) -> BoxedStrategy<JsonValue> {
    let (names, values): (Vec<_>, Vec<_>) = members.into_iter().unzip();
    let values: Vec<_> = values
        .into_iter()
        .map(|value| weighted(0.2, value))
        .collect();
    (values, weighted(0.2, btree_map(text(), any_json(), 1..3)))
        .prop_map(move |(values, unknown)| {
            let known = names.iter().zip(values);
            let known = known.filter_map(|(name, value)| Some(((*name).to_owned(), value?)));
            let mut members: Map<_, _> = known.collect();
            for (name, value) in unknown.into_iter().flatten() {
                if !names.contains(&name.as_str()) {
                    members.insert(name, value);
                }
            }
            JsonValue::Object(members)
        })
        .boxed()
}

/// Any JSON value, with odd numbers among them.
pub(in crate::activity) fn any_json() -> BoxedStrategy<JsonValue> {
    let leaf = prop_oneof![
        Just(JsonValue::Null),
        any::<bool>().prop_map(JsonValue::from),
        any::<i64>().prop_map(JsonValue::from),
        any::<u64>().prop_map(JsonValue::from),
        any::<f64>().prop_map(JsonValue::from),
        Just(json!(-0.0)),
        Just(json!(9_007_199_254_740_993_u64)),
        text().prop_map(JsonValue::from),
    ];
    leaf.prop_recursive(4, 16, 4, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..4).prop_map(JsonValue::from),
            btree_map(text(), inner, 0..4)
                .prop_map(|members| JsonValue::Object(members.into_iter().collect())),
        ]
    })
    .boxed()
}

fn text() -> BoxedStrategy<String> {
    prop_oneof!["[a-zA-Z]{0,8}", ".{0,8}", Just("👩‍👩‍👧 \u{0}\"\\".to_owned())].boxed()
}

impl<E: Generate> GenerateMember for Option<E> {
    fn values() -> BoxedStrategy<JsonValue> {
        prop_oneof![1 => Just(JsonValue::Null), 4 => E::documents()].boxed()
    }
}

impl<E: Generate> GenerateMember for Vec<E> {
    fn values() -> BoxedStrategy<JsonValue> {
        prop_oneof![
            1 => Just(JsonValue::Null),
            4 => vec(E::documents(), 0..3).prop_map(JsonValue::from),
        ]
        .boxed()
    }
}

impl Generate for String {
    fn documents() -> BoxedStrategy<JsonValue> {
        text().prop_map(JsonValue::from).boxed()
    }
}

impl Generate for bool {
    fn documents() -> BoxedStrategy<JsonValue> {
        any::<Self>().prop_map(JsonValue::from).boxed()
    }
}

impl Generate for i32 {
    fn documents() -> BoxedStrategy<JsonValue> {
        let integer = any::<Self>();
        prop_oneof![
            integer.prop_map(JsonValue::from),
            integer.prop_map(|number| f64::from(number).into()),
        ]
        .boxed()
    }
}

impl Generate for Struct {
    fn documents() -> BoxedStrategy<JsonValue> {
        object(Vec::new())
    }
}

impl Generate for Value {
    fn documents() -> BoxedStrategy<JsonValue> {
        any_json()
    }
}
