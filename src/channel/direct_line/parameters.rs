//! What a client may say as it asks for a token or starts a conversation.

use serde_json::{Map, Value};

use super::Error;
use super::origin::Origins;
use crate::activity::validate;
use crate::proto::v1::ChannelAccount;

/// Most origins that a token carries, and their bytes: it goes along with each request.
const ORIGINS: usize = 32;
const ORIGINS_BYTES: usize = 2 << 10;
/// Longest name or locale, in bytes.
const TEXT_BYTES: usize = 256;

/// `TokenParameters` (reference, section 2). Unknown members are not looked at.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Parameters {
    /// Who the token is for, with an id; `None` also for the empty `{"user":{}}` that DirectLineJS
    /// sends.
    pub user: Option<ChannelAccount>,
    /// The pages that may use the token.
    pub trusted_origins: Vec<String>,
    /// The user's language.
    pub locale: Option<String>,
}

impl Parameters {
    /// Reads a body, which may be empty. Names are matched in any case: samples write `User` and `Id`.
    ///
    /// # Errors
    ///
    /// It is not JSON, not an object, or one of the members is not what it must be.
    pub fn read(body: &[u8]) -> Result<Self, Error> {
        if body.iter().all(u8::is_ascii_whitespace) {
            return Ok(Self::default());
        }
        let body: Value =
            serde_json::from_slice(body).map_err(|error| Error::SyntaxBad(error.to_string()))?;
        let body = match &body {
            Value::Object(members) => members,
            Value::Null => return Ok(Self::default()),
            _ => return Err(Error::bad("body", "must be an object")),
        };
        let user = match member(body, "user") {
            None => None,
            Some(Value::Object(user)) => read_user(user)?,
            Some(_) => return Err(Error::bad("user", "must be an object")),
        };
        Ok(Self {
            user,
            trusted_origins: read_origins(member(body, "trustedOrigins"))?,
            locale: text(member(body, "locale"), "locale", TEXT_BYTES)?,
        })
    }
}

fn read_user(user: &Map<String, Value>) -> Result<Option<ChannelAccount>, Error> {
    let Some(id) = text(member(user, "id"), "user.id", validate::ID_BYTES)? else {
        return Ok(None);
    };
    validate::id("user.id", &id).map_err(|invalid| Error::bad("user.id", invalid.problem))?;
    Ok(Some(ChannelAccount {
        id: Some(id),
        name: text(member(user, "name"), "user.name", TEXT_BYTES)?,
        role: Some("user".to_owned()),
        ..Default::default()
    }))
}

fn read_origins(value: Option<&Value>) -> Result<Vec<String>, Error> {
    const NAME: &str = "trustedOrigins";
    let items = match value {
        None => return Ok(Vec::new()),
        Some(Value::Array(items)) if items.len() <= ORIGINS => items,
        Some(Value::Array(_)) => {
            return Err(Error::bad(NAME, format!("must have at most {ORIGINS}")));
        }
        Some(_) => return Err(Error::bad(NAME, "must be a list of origins")),
    };
    let bytes = items.iter().filter_map(Value::as_str).map(str::len);
    if bytes.sum::<usize>() > ORIGINS_BYTES {
        let problem = format!("has more than {ORIGINS_BYTES} bytes; configure `trusted_origins`");
        return Err(Error::bad(NAME, problem));
    }
    items
        .iter()
        .map(|item| {
            let origin = item.as_str().unwrap_or_default();
            let problem = "must be origins such as `https://www.example.org`";
            let known = Origins::default().trust(origin);
            known
                .then(|| origin.to_owned())
                .ok_or_else(|| Error::bad(NAME, problem))
        })
        .collect()
}

/// A member by its name in any case; `null` says as much as nothing.
fn member<'v>(members: &'v Map<String, Value>, name: &str) -> Option<&'v Value> {
    let named = |(known, _): &(&String, &Value)| known.eq_ignore_ascii_case(name);
    let found = members.iter().find(named).map(|(_, value)| value);
    found.filter(|value| !value.is_null())
}

/// A text; the empty one says as much as nothing.
fn text(value: Option<&Value>, name: &'static str, most: usize) -> Result<Option<String>, Error> {
    match value {
        None => Ok(None),
        Some(Value::String(text)) if text.is_empty() => Ok(None),
        Some(Value::String(text)) if text.len() <= most => Ok(Some(text.clone())),
        Some(Value::String(_)) => Err(Error::bad(name, format!("has more than {most} bytes"))),
        Some(_) => Err(Error::bad(name, "must be a text")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user_of(body: &str) -> Option<String> {
        let parameters = Parameters::read(body.as_bytes()).expect(body);
        parameters.user.and_then(|user| user.id)
    }

    #[test]
    fn nothing_is_said_in_many_ways() {
        for body in [
            "",
            " \n",
            "{}",
            "null",
            r#"{"user":{}}"#,
            r#"{"user":null}"#,
            r#"{"user":{"id":""}}"#,
            r#"{"user":{"id":null,"name":"A"}}"#,
            r#"{"eTag":"x","unknown":[1]}"#,
        ] {
            assert_eq!(
                Parameters::read(body.as_bytes()).expect(body),
                Parameters::default()
            );
        }
    }

    #[test]
    fn names_are_matched_in_any_case() {
        for body in [
            r#"{"user":{"id":"dl_a"}}"#,
            r#"{"User":{"Id":"dl_a","Name":"A"}}"#,
        ] {
            assert_eq!(user_of(body).as_deref(), Some("dl_a"));
        }
    }

    #[test]
    fn what_is_wrong_is_refused() {
        for body in ["{", "{'user':{}}", "[1]x"] {
            let refused = Parameters::read(body.as_bytes());
            assert!(matches!(refused, Err(Error::SyntaxBad(_))), "{body}");
        }
        for body in [
            "[]",
            "7",
            r#"{"user":"a"}"#,
            r#"{"user":{"id":7}}"#,
            r#"{"user":{"id":"a\u0000b"}}"#,
            r#"{"trustedOrigins":"https://a.example"}"#,
            r#"{"trustedOrigins":["a.example"]}"#,
            r#"{"trustedOrigins":[7]}"#,
            r#"{"locale":{}}"#,
        ] {
            let refused = Parameters::read(body.as_bytes());
            assert!(matches!(refused, Err(Error::ArgumentBad { .. })), "{body}");
        }
    }
}
