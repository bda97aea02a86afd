//! What every operation asks first: who calls, from which page, and where the gateway is for them.

use std::convert::Infallible;

use axum::extract::{FromRequestParts, RawPathParams};
use axum::http::request::Parts;
use axum::http::uri::Authority;
use axum::http::{HeaderMap, header};

use super::problem::Problem;
use crate::channel::direct_line::{Caller, DirectLine, Error};

/// A call with a credential that is good, from a page that is trusted.
pub(crate) struct Call {
    pub(crate) caller: Caller,
    /// Where the caller reaches the gateway: scheme and authority.
    pub(crate) base: String,
}

impl FromRequestParts<DirectLine> for Call {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, line: &DirectLine) -> Result<Self, Problem> {
        let caller = line.authorize(text(&parts.headers, header::AUTHORIZATION))?;
        line.check_origin(&caller, origin(&parts.headers))?;
        let base = line.base(&caller, authority(parts));
        Ok(Self { caller, base })
    }
}

/// The conversation in the path.
pub(crate) struct ConversationId(pub(crate) String);

impl FromRequestParts<DirectLine> for ConversationId {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, line: &DirectLine) -> Result<Self, Problem> {
        let bad = || Error::bad("conversationId", "is no text");
        let params = RawPathParams::from_request_parts(parts, line).await;
        let params = params.map_err(|_| bad())?;
        let mut params = params.iter();
        let id = params.find(|(name, _)| *name == "id");
        Ok(Self(id.ok_or_else(bad)?.1.to_owned()))
    }
}

/// The first value of each name in the query. What cannot be read is not there: clients send strange
/// watermarks, and none of them is a reason to fail.
pub(crate) struct Query(Vec<(String, String)>);

impl Query {
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        let mut pairs = self.0.iter();
        let (_, value) = pairs.find(|(known, _)| known == name)?;
        Some(value)
    }
}

impl<S: Sync> FromRequestParts<S> for Query {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        let query = parts.uri.query().unwrap_or_default();
        let pairs = form_urlencoded::parse(query.as_bytes());
        Ok(Self(pairs.into_owned().collect()))
    }
}

/// The page that calls, if it is one.
pub(crate) fn origin(headers: &HeaderMap) -> Option<&str> {
    headers.get(header::ORIGIN)?;
    // One that is no text is trusted by no list.
    Some(text(headers, header::ORIGIN).unwrap_or_default())
}

pub(crate) fn text(headers: &HeaderMap, name: header::HeaderName) -> Option<&str> {
    headers.get(name)?.to_str().ok()
}

/// Host and port as the caller wrote them.
fn authority(parts: &Parts) -> Option<&str> {
    let written = text(&parts.headers, header::HOST);
    let written = written.or_else(|| parts.uri.authority().map(Authority::as_str))?;
    // It goes into URLs that are handed out.
    let is_authority = written.parse::<Authority>().is_ok() && !written.contains('@');
    is_authority.then_some(written)
}
