//! Documents for property tests, from the same table as the codec: sound ones, and spoilt ones.

use proptest::collection::{btree_map, vec};
use proptest::option::weighted;
use proptest::prelude::*;
use proptest::strategy::Union;
use prost_types::{Struct, Value};
use serde_json::{Map, Value as JsonValue, json};

use crate::proto::v1::Activity;

/// A document in which one value has a wrong JSON type, and the path to that value.
pub(in crate::activity) type Spoilt = (String, JsonValue);

/// A type whose JSON documents can be made up.
pub(in crate::activity) trait Generate {
    fn documents() -> BoxedStrategy<JsonValue>;

    /// Documents spoilt as a whole or in one place; none if every document is sound.
    fn misfits() -> Option<BoxedStrategy<Spoilt>>;
}

/// A field whose JSON values can be made up, those only `unknown_members` holds included.
pub(in crate::activity) trait GenerateMember {
    fn values() -> BoxedStrategy<JsonValue>;

    fn misfits() -> Option<BoxedStrategy<Spoilt>>;
}

/// Activities with a value of a wrong type somewhere in them.
pub(in crate::activity) fn spoilt_activity() -> BoxedStrategy<Spoilt> {
    let misfits = Activity::misfits().expect("messages can be spoilt");
    misfits
        .prop_filter("no activity", |(path, _)| !path.is_empty())
        .boxed()
}

/// What the member in this field can be.
pub(in crate::activity) fn member<M, F: GenerateMember>(
    _: fn(&M) -> &F,
) -> BoxedStrategy<JsonValue> {
    F::values()
}

/// What the member in this field can be when it is spoilt.
pub(in crate::activity) fn spoilt_member<M, F: GenerateMember>(
    _: fn(&M) -> &F,
) -> Option<BoxedStrategy<Spoilt>> {
    F::misfits()
}

/// What is no object, or has one of these members.
pub(in crate::activity) fn spoilt_object(
    objects: BoxedStrategy<JsonValue>,
    members: Vec<(&'static str, Option<BoxedStrategy<Spoilt>>)>,
) -> BoxedStrategy<Spoilt> {
    let members = members.into_iter().filter_map(|(name, misfits)| {
        let named = move |(path, value): Spoilt| {
            let dot = if path.is_empty() || path.starts_with('[') {
                ""
            } else {
                "."
            };
            (name, format!("{name}{dot}{path}"), value)
        };
        Some(misfits?.prop_map(named).boxed())
    });
    let inside = (objects, Union::new(members)).prop_map(|(mut object, (name, path, value))| {
        object[name] = value;
        (path, object)
    });
    prop_oneof![1 => anything_but(JsonValue::is_object), 4 => inside].boxed()
}

/// Whole documents that are not what `sound` says.
fn anything_but(sound: fn(&JsonValue) -> bool) -> BoxedStrategy<Spoilt> {
    any_json()
        .prop_filter("a sound document", move |value| !sound(value))
        .prop_map(|value| (String::new(), value))
        .boxed()
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

    fn misfits() -> Option<BoxedStrategy<Spoilt>> {
        let misfits = E::misfits()?;
        Some(
            misfits
                .prop_filter("absent", |(_, value)| !value.is_null())
                .boxed(),
        )
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

    fn misfits() -> Option<BoxedStrategy<Spoilt>> {
        let no_list = anything_but(|value| value.is_array() || value.is_null());
        let sound = || vec(E::documents(), 0..3);
        let in_list =
            (sound(), E::misfits()?, sound()).prop_map(|(before, (path, item), after)| {
                let dot = if path.is_empty() { "" } else { "." };
                let path = format!("[{}]{dot}{path}", before.len());
                let items = before.into_iter().chain([item]).chain(after);
                (path, items.collect())
            });
        Some(prop_oneof![1 => no_list, 4 => in_list].boxed())
    }
}

impl Generate for String {
    fn documents() -> BoxedStrategy<JsonValue> {
        text().prop_map(JsonValue::from).boxed()
    }

    fn misfits() -> Option<BoxedStrategy<Spoilt>> {
        Some(anything_but(JsonValue::is_string))
    }
}

impl Generate for bool {
    fn documents() -> BoxedStrategy<JsonValue> {
        any::<Self>().prop_map(JsonValue::from).boxed()
    }

    fn misfits() -> Option<BoxedStrategy<Spoilt>> {
        Some(anything_but(JsonValue::is_boolean))
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

    fn misfits() -> Option<BoxedStrategy<Spoilt>> {
        let numbers = prop_oneof![
            Just(json!(0.5)),
            Just(json!(i64::from(Self::MAX) + 1)),
            Just(json!(i64::from(Self::MIN) - 1)),
            Just(json!(1e300)),
        ];
        let numbers = numbers.prop_map(|number| (String::new(), number));
        Some(prop_oneof![anything_but(JsonValue::is_number), numbers].boxed())
    }
}

impl Generate for Struct {
    fn documents() -> BoxedStrategy<JsonValue> {
        object(Vec::new())
    }

    fn misfits() -> Option<BoxedStrategy<Spoilt>> {
        Some(anything_but(JsonValue::is_object))
    }
}

impl Generate for Value {
    fn documents() -> BoxedStrategy<JsonValue> {
        any_json()
    }

    fn misfits() -> Option<BoxedStrategy<Spoilt>> {
        None
    }
}
