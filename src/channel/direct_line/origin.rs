//! Trusted origins: which web pages may talk to a channel (reference, section 1).

/// The longest origin that is taken from a token's parameters.
const ORIGIN_BYTES: usize = 512;

/// A list of origins; an empty one trusts all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Origins(Vec<Trusted>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Trusted {
    /// Scheme, host and port as a browser writes them; without the port if any is trusted.
    origin: String,
    any_port: bool,
}

impl Origins {
    /// A list of origins; what is none is left out.
    #[must_use]
    pub(super) fn of(texts: &[String]) -> Self {
        let mut origins = Self::default();
        for text in texts {
            let _ = origins.trust(text);
        }
        origins
    }

    /// Adds one: an exact origin, or one with `*` for its port. Returns whether it is one.
    #[must_use]
    pub fn trust(&mut self, text: &str) -> bool {
        let (origin, any_port) = match text.strip_suffix(":*") {
            Some(origin) => (origin, true),
            None => (text, false),
        };
        let is_origin = origin.split_once("://").is_some_and(|(scheme, host)| {
            !scheme.is_empty()
                && !host.is_empty()
                && scheme.bytes().all(|b| b.is_ascii_alphanumeric())
                && !host.contains(['/', '*', '?', '#', '@', ' ', ','])
        });
        if is_origin && text.len() <= ORIGIN_BYTES {
            self.0.push(Trusted {
                // Browsers write both in lower case.
                origin: origin.to_ascii_lowercase(),
                any_port,
            });
        }
        is_origin && text.len() <= ORIGIN_BYTES
    }

    /// Whether every page is trusted, because none is named.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether a page of `origin` is trusted.
    #[must_use]
    pub fn allows(&self, origin: &str) -> bool {
        self.is_empty() || self.0.iter().any(|trusted| trusted.matches(origin))
    }
}

impl Trusted {
    fn matches(&self, origin: &str) -> bool {
        if !self.any_port {
            return origin.eq_ignore_ascii_case(&self.origin);
        }
        let Some(rest) = origin
            .get(..self.origin.len())
            .filter(|start| start.eq_ignore_ascii_case(&self.origin))
            .map(|start| &origin[start.len()..])
        else {
            return false;
        };
        let port = rest.strip_prefix(':');
        rest.is_empty()
            || port.is_some_and(|p| !p.is_empty() && p.bytes().all(|b| b.is_ascii_digit()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origins(texts: &[&str]) -> Origins {
        let mut origins = Origins::default();
        for text in texts {
            assert!(origins.trust(text), "{text}");
        }
        origins
    }

    #[test]
    fn an_empty_list_trusts_all() {
        assert!(Origins::default().allows("https://anywhere.example"));
    }

    #[test]
    fn an_origin_is_trusted_as_a_whole() {
        let origins = origins(&["https://www.example.org", "http://localhost:8080"]);
        for origin in ["https://www.example.org", "HTTPS://WWW.EXAMPLE.ORG"] {
            assert!(origins.allows(origin), "{origin}");
        }
        assert!(origins.allows("http://localhost:8080"));
        for origin in [
            "http://www.example.org",
            "https://example.org",
            "https://www.example.org.evil.example",
            "https://www.example.org:444",
            "http://localhost",
            "http://localhost:80801",
            "null",
            "",
        ] {
            assert!(!origins.allows(origin), "{origin}");
        }
    }

    #[test]
    fn a_star_stands_for_any_port_and_nothing_else() {
        let origins = origins(&["http://localhost:*", "http://[::1]:*"]);
        for origin in [
            "http://localhost",
            "http://localhost:3000",
            "http://[::1]:80",
        ] {
            assert!(origins.allows(origin), "{origin}");
        }
        for origin in [
            "http://localhost.evil.example",
            "http://localhost:",
            "http://localhost:80.evil.example",
            "http://localhost@evil.example",
            "https://localhost",
            "http://[::1]x",
        ] {
            assert!(!origins.allows(origin), "{origin}");
        }
    }

    #[test]
    fn what_is_no_origin_is_refused() {
        for text in [
            "",
            "*",
            "www.example.org",
            "https://",
            "https://*.example.org",
            "https://www.example.org/",
            "https://www.example.org/page",
            "null",
        ] {
            assert!(!Origins::default().trust(text), "{text}");
        }
    }
}
