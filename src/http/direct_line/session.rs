//! `GET /session/getsessionid`: what Web Chat appends to the URLs of sign-in cards (section 2.8).

use axum::Json;
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;

use super::call::Call;
use crate::channel::direct_line::fresh_id;

const COOKIE: &str = "turnwire_session";
/// What [`fresh_id`] makes.
const ID_BYTES: usize = 22;

/// The id in the caller's cookie, or a new one, which its cookie has from now on.
pub(crate) async fn id(call: Call, headers: HeaderMap) -> Response {
    let id = known(&headers).unwrap_or_else(fresh_id);
    // Only over TLS may a cookie go to pages elsewhere.
    let scope = if call.base.starts_with("https:") {
        "SameSite=None; Secure"
    } else {
        "SameSite=Lax"
    };
    let cookie = format!("{COOKIE}={id}; Path=/; HttpOnly; {scope}");
    let body = Json(json!({ "sessionId": id }));
    ([(header::SET_COOKIE, cookie)], body).into_response()
}

/// An id that was made here, by its shape.
fn known(headers: &HeaderMap) -> Option<String> {
    let cookies = headers.get_all(header::COOKIE).into_iter();
    let mut cookies = cookies
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(';'));
    let id = cookies.find_map(|cookie| cookie.trim().strip_prefix(COOKIE)?.strip_prefix('='))?;
    let is_ours = |b: u8| b.is_ascii_alphanumeric() || b"-_".contains(&b);
    (id.len() == ID_BYTES && id.bytes().all(is_ours)).then(|| id.to_owned())
}
