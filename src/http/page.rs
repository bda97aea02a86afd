//! The chat page that a gateway for development serves at `/`: static files, built in.
//!
//! It is a Direct Line client of the same origin, and has no rights of its own.

use axum::Router;
use axum::http::header;
use axum::routing::get;

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const SVG: &str = "image/svg+xml";

/// Each file: its path, its type, its content.
const FILES: [(&str, &str, &str); 13] = [
    ("/", HTML, include_str!("page/index.html")),
    (
        "/page/activity.js",
        SCRIPT,
        include_str!("page/activity.js"),
    ),
    (
        "/page/adaptive.js",
        SCRIPT,
        include_str!("page/adaptive.js"),
    ),
    ("/page/cards.js", SCRIPT, include_str!("page/cards.js")),
    ("/page/chat.css", CSS, include_str!("page/chat.css")),
    ("/page/chat.js", SCRIPT, include_str!("page/chat.js")),
    (
        "/page/directline.js",
        SCRIPT,
        include_str!("page/directline.js"),
    ),
    ("/page/dom.js", SCRIPT, include_str!("page/dom.js")),
    ("/page/follow.js", SCRIPT, include_str!("page/follow.js")),
    ("/page/icon.svg", SVG, include_str!("page/icon.svg")),
    (
        "/page/inspector.js",
        SCRIPT,
        include_str!("page/inspector.js"),
    ),
    (
        "/page/markdown.js",
        SCRIPT,
        include_str!("page/markdown.js"),
    ),
    (
        "/page/transcript.js",
        SCRIPT,
        include_str!("page/transcript.js"),
    ),
];

/// What the page may do: its own scripts and styles, and a connection to its gateway. Pictures and
/// sound may come from anywhere, because bots link to them. `'self'` does not cover WebSockets in
/// every browser, and the stream's address is the gateway's to choose.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; \
    connect-src 'self' ws: wss:; img-src 'self' data: blob: http: https:; \
    media-src 'self' data: blob: http: https:; \
    base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// `GET /` and `GET /page/…`. Open to everyone who reaches the listener: there is nothing in it.
pub(super) fn routes<S>() -> Router<S>
where
    S: Clone + Send + Sync + 'static,
{
    FILES.iter().fold(Router::new(), |router, &file| {
        let (path, content_type, content) = file;
        router.route(path, get(async move || answer(content_type, content)))
    })
}

/// `no-cache` asks each time, so that a page is never older than its gateway.
fn answer(
    content_type: &'static str,
    content: &'static str,
) -> ([(header::HeaderName, &'static str); 6], &'static str) {
    let headers = [
        (header::CONTENT_TYPE, content_type),
        (header::CACHE_CONTROL, "no-cache"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::CONTENT_SECURITY_POLICY, POLICY),
    ];
    (headers, content)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_page_names_is_served() {
        let paths: Vec<&str> = FILES.iter().map(|(path, ..)| *path).collect();
        for (path, _, content) in FILES {
            let imports = content.split("from \"./").skip(1);
            let links = content.split("=\"/page/").skip(1);
            for rest in imports.chain(links) {
                let name = rest.split('"').next().unwrap_or_default();
                let named = format!("/page/{name}");
                assert!(paths.contains(&named.as_str()), "{path} names {named}");
            }
        }
    }

    #[test]
    fn nothing_is_written_into_the_page_that_its_policy_refuses() {
        let (_, _, html) = FILES[0];
        assert!(!html.contains("<style") && !html.contains(" style="));
        assert!(
            !html.contains("<script>") && !html.contains(" on"),
            "inline script"
        );
        for (path, _, content) in FILES {
            for parses in [
                "innerHTML",
                "outerHTML",
                "insertAdjacentHTML",
                "document.write",
            ] {
                assert!(!content.contains(parses), "{path} parses HTML by {parses}");
            }
        }
    }
}
