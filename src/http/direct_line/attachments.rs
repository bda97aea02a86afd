//! `GET /attachments/{id}/{name}`: what was uploaded, for whoever has its URL (section 9).
//!
//! Who sends a file chooses its type and its bytes, so nothing of it may run as if it came from here: a
//! page is a download, and what a browser shows, it shows in a sandbox.

use axum::body::Body;
use axum::extract::rejection::RawPathParamsRejection;
use axum::extract::{RawPathParams, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use tower_http::services::ServeFile;

use super::disposition;
use super::problem::Problem;
use crate::channel::direct_line::{DirectLine, Error};
use crate::files::Found;

/// How long a browser may keep one that is kept here for ever: a year.
const LONGEST_AGE_SECONDS: u64 = 365 * 24 * 3600;
/// Nothing runs, nothing is loaded, and it is nobody's page. What remains is what browsers need to show
/// an image, or to play what they are led to.
const POLICY: HeaderValue = HeaderValue::from_static(
    "sandbox; default-src 'none'; img-src 'self'; media-src 'self'; style-src 'unsafe-inline'",
);

/// Answers with the file, or with the part that is asked for.
pub(crate) async fn read(
    State(line): State<DirectLine>,
    params: Result<RawPathParams, RawPathParamsRejection>,
    method: Method,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let params = params.map_err(|_| Error::AttachmentUnknown)?;
    let id = params.iter().find(|(name, _)| *name == "id");
    let (_, id) = id.ok_or(Error::AttachmentUnknown)?;
    let found = line.attachment(id).await?;
    let mut response = serve(&found, &method, &headers, true).await?;
    if let Some(condition) = headers.get(header::IF_RANGE) {
        let served = response.headers();
        let is_same = served.get(header::ETAG) == Some(condition)
            || served.get(header::LAST_MODIFIED) == Some(condition);
        if !is_same {
            // RFC 9110, 13.1.5: then the range is of something else, and all of it is asked for.
            response = serve(&found, &method, &headers, false).await?;
        }
    }
    if response.status() == StatusCode::NOT_FOUND {
        // It was swept between the one look and the other.
        return Err(Error::AttachmentUnknown.into());
    }
    dress(&mut response, &found);
    Ok(response)
}

async fn serve(
    found: &Found,
    method: &Method,
    headers: &HeaderMap,
    in_part: bool,
) -> Result<Response, Error> {
    let mut asked = Request::new(Body::empty());
    if method == Method::HEAD {
        *asked.method_mut() = Method::HEAD;
    }
    for name in [
        header::RANGE,
        header::IF_MATCH,
        header::IF_NONE_MATCH,
        header::IF_MODIFIED_SINCE,
        header::IF_UNMODIFIED_SINCE,
    ] {
        if let Some(value) = headers.get(&name)
            && (in_part || name != header::RANGE)
        {
            asked.headers_mut().insert(name, value.clone());
        }
    }
    let mut file = ServeFile::new(&found.path).ignore_multi_range_requests(true);
    let served = file.try_call(asked).await;
    Ok(served.map_err(Error::AttachmentsFailed)?.into_response())
}

/// Says what it is, and what may be done with it.
fn dress(response: &mut Response, found: &Found) {
    let about = &found.about;
    let has_body = response.status().is_success();
    let headers = response.headers_mut();
    let kept = found
        .kept
        .map_or(LONGEST_AGE_SECONDS, |kept| kept.as_secs());
    let age = kept.min(LONGEST_AGE_SECONDS);
    let caching = format!("private, max-age={age}, immutable");
    if has_body {
        set(headers, header::CONTENT_TYPE, &about.content_type);
        let shown = disposition::written(is_shown(&about.content_type), about.name.as_deref());
        set(headers, header::CONTENT_DISPOSITION, &shown);
    }
    set(headers, header::CACHE_CONTROL, &caching);
    headers.insert(
        header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    );
    headers.insert(header::CONTENT_SECURITY_POLICY, POLICY);
    headers.insert(
        "cross-origin-resource-policy",
        HeaderValue::from_static("cross-origin"),
    );
}

fn set(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    // What was kept was looked at: it is printable ASCII.
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(name, value);
    }
}

/// Whether a browser may show it where it is led to: nothing in which something could run. A document,
/// PDF too, is a download: its reader does not work in a sandbox.
fn is_shown(content_type: &str) -> bool {
    let essence = content_type.split(';').next().unwrap_or_default();
    let essence = essence.trim().to_ascii_lowercase();
    let Some((main, sub)) = essence.split_once('/') else {
        return false;
    };
    match main {
        "image" | "audio" | "video" => !sub.ends_with("xml"),
        "text" => sub == "plain",
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_cannot_run_is_shown() {
        for shown in [
            "image/png",
            "Image/JPEG",
            "audio/mpeg",
            "video/mp4",
            "text/plain; charset=utf-8",
        ] {
            assert!(is_shown(shown), "{shown}");
        }
        for download in [
            "image/svg+xml",
            "IMAGE/SVG+XML; charset=x",
            "text/html",
            "text/xml",
            "application/xhtml+xml",
            "application/pdf",
            "text/javascript",
            "application/octet-stream",
            "image",
            "",
        ] {
            assert!(!is_shown(download), "{download}");
        }
    }
}
