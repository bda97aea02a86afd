//! The one border between JSON text and the protobuf activity, both ways.
//!
//! No member is lost: what no typed field can hold goes to `unknown_members` and comes back from
//! there (the head of `activity.proto` has the rule), also a known member of a wrong JSON type.
//! To refuse that is a rule, and [`check`] has it. Names are camelCase and case-sensitive (A2002).
//! Numbers are IEEE doubles, as in JavaScript. The order of members is not kept.
//!
//! Which JSON name is which field stands in `json/table.rs`, once for both directions.

mod element;
#[cfg(test)]
pub(super) mod generate;
mod table;

use crate::proto::v1::Activity;

/// Deepest nesting of arrays and objects that is read. `serde_json` stops there by itself.
const JSON_NESTING: usize = 128;

/// Deepest nesting of protobuf messages in an activity, itself included.
///
/// Most protobuf libraries refuse to read more than 100 levels, and an activity travels two levels
/// down in an envelope. An object inside open content costs three levels, an array two, so that
/// this is 29 objects or 44 arrays inside each other; the deepest card seen in the wild takes
/// 51 levels.
pub const NESTING: usize = 90;

/// A protobuf type that is read from JSON and written as JSON.
pub trait Json: Sized {
    /// Takes what it is from a JSON value.
    ///
    /// Recurses as deep as the value; [`decode`] and [`decode_value`] bound that.
    ///
    /// # Errors
    ///
    /// The value itself has a wrong JSON type. Members of an object never have: they are carried.
    fn from_json(value: &serde_json::Value) -> Result<Self, Problem>;

    /// Writes it as a JSON value.
    fn to_json(&self) -> serde_json::Value;

    /// Checks that it fits into `room` levels of messages, that JSON can say it, and that no known
    /// member is in `unknown_members`, except as `null` or as an empty list.
    ///
    /// # Errors
    ///
    /// It does not.
    fn check(&self, room: usize) -> Result<(), Misfit>;
}

/// Why a text cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The text is not JSON, or nests too deeply.
    #[error("not a JSON document: {0}")]
    Syntax(#[from] serde_json::Error),
    /// It is JSON, but of a wrong type, as an array is where an object must be.
    #[error(transparent)]
    Problem(#[from] Problem),
}

/// Where a document has a wrong shape, and in what way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Misfit {
    /// The member, as in `attachments[2].contentType`; empty for the message itself. Never goes
    /// into open content, whose names are the sender's.
    pub path: String,
    /// What is wrong with it.
    pub problem: Problem,
}

/// What can be wrong with the shape of a document.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// A known member has a wrong JSON type (A2003).
    #[error("expected {expected}, found {found}")]
    Type {
        /// What the protocol says.
        expected: &'static str,
        /// What is there.
        found: &'static str,
    },
    /// There are more levels than [`NESTING`], or than JSON text may have.
    #[error("is nested too deeply")]
    TooDeep,
    /// A number is infinite, or none at all; JSON has no such numbers.
    #[error("holds a number that is not finite")]
    NotFinite,
    /// `unknown_members` has a value that a field of its own could hold. Only protobuf can say so.
    #[error("belongs in its own field, not in `unknown_members`")]
    Misplaced,
}

impl std::error::Error for Misfit {}

impl std::fmt::Display for Misfit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.path.as_str() {
            "" => self.problem.fmt(f),
            path => write!(f, "{path}: {}", self.problem),
        }
    }
}

impl From<Problem> for Misfit {
    fn from(problem: Problem) -> Self {
        let path = String::new();
        Self { path, problem }
    }
}

impl Misfit {
    /// The same, seen from the object that has it as member `name`.
    fn in_member(mut self, name: &str) -> Self {
        if !self.path.is_empty() && !self.path.starts_with('[') {
            self.path.insert(0, '.');
        }
        self.path.insert_str(0, name);
        self
    }

    /// The same, seen from the array that has it at `index`.
    fn in_item(self, index: usize) -> Self {
        self.in_member(&format!("[{index}]"))
    }
}

/// Reads JSON text. Of members with the same name the last wins, as in JavaScript.
///
/// # Errors
///
/// The text is not JSON, nests too deeply, or is of another JSON type than `M`.
pub fn decode<M: Json>(text: impl AsRef<[u8]>) -> Result<M, Error> {
    Ok(M::from_json(&serde_json::from_slice(text.as_ref())?)?)
}

/// Reads a JSON value.
///
/// # Errors
///
/// The value nests too deeply, or is of another JSON type than `M`.
pub fn decode_value<M: Json>(value: &serde_json::Value) -> Result<M, Problem> {
    if !nests_within(value, JSON_NESTING) {
        return Err(Problem::TooDeep);
    }
    M::from_json(value)
}

/// Writes a JSON value, members in the order of `activity.proto`, unknown ones last.
///
/// Recurses as deep as the message: what was decoded, from JSON or from protobuf, is bounded.
/// A number that JSON cannot say becomes `null`, as in JavaScript.
pub fn encode<M: Json>(message: &M) -> serde_json::Value {
    message.to_json()
}

/// Writes JSON text; [`encode`] has the rules.
pub fn to_string<M: Json>(message: &M) -> String {
    message.to_json().to_string()
}

/// Checks the shape of an activity; [`Json::check`] has the rules.
///
/// # Errors
///
/// It nests deeper than [`NESTING`], says something that JSON cannot, or has a known member of a
/// wrong type or in the wrong place.
pub fn check(activity: &Activity) -> Result<(), Misfit> {
    activity.check(NESTING)
}

fn nests_within(value: &serde_json::Value, room: usize) -> bool {
    use serde_json::Value::{Array, Object};
    match (value, room.checked_sub(1)) {
        (Array(items), Some(room)) => items.iter().all(|item| nests_within(item, room)),
        (Object(members), Some(room)) => members.values().all(|value| nests_within(value, room)),
        (Array(_) | Object(_), None) => false,
        _ => true,
    }
}

#[cfg(test)]
mod tests;
