//! From a call's `authorization` to a principal.

use std::fmt;
use std::sync::Arc;

use crate::auth::secret::{self, Digest};
use crate::auth::{Principal, Role};

/// What the configuration says of one principal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credentials {
    /// What logs call it.
    pub name: String,
    /// Digests of the tokens it may show: two while a token is being replaced.
    pub token_digests: Vec<Digest>,
    /// What it is allowed to be.
    pub roles: Vec<Role>,
}

/// Why a caller was not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// It showed no token.
    #[error("no token: send the metadata `authorization: Bearer <token>`")]
    TokenMissing,
    /// It showed a token of nobody.
    #[error("the token is not one this gateway knows: check it, or register its SHA-256")]
    TokenUnknown,
}

/// Knows every principal by the digests of its tokens.
#[derive(Clone)]
pub struct Authenticator {
    known: Vec<(Digest, Arc<Principal>)>,
    /// Set when there are no principals: whoever calls is this one.
    open: Option<Arc<Principal>>,
}

impl Authenticator {
    /// Lets in these principals, or everyone when there are none.
    #[must_use]
    pub fn new<'a>(credentials: impl IntoIterator<Item = &'a Credentials>) -> Self {
        let mut known = Vec::new();
        let mut principals = 0;
        for one in credentials {
            principals += 1;
            let principal = Arc::new(Principal::new(one.name.clone(), one.roles.clone()));
            let digests = one.token_digests.iter();
            known.extend(digests.map(|digest| (*digest, Arc::clone(&principal))));
        }
        // Counted by principals, not by tokens: one without tokens must not open the gateway.
        let open = (principals == 0).then(|| Arc::new(Principal::open()));
        Self { known, open }
    }

    /// Whether everyone is let in and may do everything.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.open.is_some()
    }

    /// Finds who calls, from the value of `authorization`.
    ///
    /// Takes the same time whichever principal it is, and whether it is one at all.
    ///
    /// # Errors
    ///
    /// [`Error::TokenMissing`] when there is no bearer token, [`Error::TokenUnknown`] when it is
    /// nobody's. Never when [`is_open`](Self::is_open).
    pub fn authenticate(&self, authorization: Option<&str>) -> Result<Arc<Principal>, Error> {
        if let Some(open) = &self.open {
            return Ok(Arc::clone(open));
        }
        let token = authorization
            .and_then(bearer_token)
            .ok_or(Error::TokenMissing)?;
        let shown = Digest::of(token);

        let known = self.known.iter().enumerate();
        secret::find(&shown, known.map(|(index, (digest, _))| (index, digest)))
            .and_then(|index| self.known.get(index))
            .map(|(_, principal)| Arc::clone(principal))
            .ok_or(Error::TokenUnknown)
    }
}

impl fmt::Debug for Authenticator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authenticator")
            .field("tokens", &self.known.len())
            .field("open", &self.is_open())
            .finish()
    }
}

/// The token of `Bearer <token>` (RFC 6750, section 2.1; the scheme's case does not matter, RFC
/// 9110, section 11.1).
pub(crate) fn bearer_token(authorization: &str) -> Option<&str> {
    let (scheme, token) = authorization.trim().split_once(' ')?;
    let token = token.trim_start();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn authenticator() -> Authenticator {
        let credentials = |name: &str, tokens: &[&str]| Credentials {
            name: name.to_owned(),
            token_digests: tokens.iter().map(|token| Digest::of(token)).collect(),
            roles: vec![Role::Reader],
        };
        Authenticator::new(&[
            credentials("first", &["tw_one"]),
            credentials("second", &["tw_two", "tw_three"]),
        ])
    }

    fn name_of(authorization: Option<&str>) -> Result<String, Error> {
        let principal = authenticator().authenticate(authorization)?;
        Ok(principal.name().to_owned())
    }

    #[test]
    fn a_known_token_names_its_principal() {
        for (authorization, name) in [
            ("Bearer tw_one", "first"),
            ("bearer tw_two", "second"),
            ("BEARER  tw_three ", "second"),
        ] {
            assert_eq!(name_of(Some(authorization)).as_deref(), Ok(name));
        }
    }

    #[test]
    fn an_unknown_token_is_refused() {
        for authorization in ["Bearer tw_four", "Bearer TW_ONE", "Bearer tw_one tw_two"] {
            assert_eq!(name_of(Some(authorization)), Err(Error::TokenUnknown));
        }
    }

    #[test]
    fn a_call_without_a_bearer_token_is_refused_for_that() {
        for authorization in [
            None,
            Some(""),
            Some("Bearer"),
            Some("Bearer "),
            Some("tw_one"),
        ] {
            assert_eq!(name_of(authorization), Err(Error::TokenMissing));
        }
        assert_eq!(name_of(Some("Basic tw_one")), Err(Error::TokenMissing));
    }

    #[test]
    fn without_principals_everyone_is_let_in_and_with_one_nobody_else() {
        let open = Authenticator::new(&[]);
        assert!(open.is_open());
        for authorization in [None, Some("Bearer anything")] {
            let principal = open.authenticate(authorization).expect("open");
            assert!(principal.is_open());
        }
        assert!(!authenticator().is_open());
        let tokenless = Credentials {
            name: "tokenless".to_owned(),
            token_digests: Vec::new(),
            roles: Vec::new(),
        };
        assert!(!Authenticator::new([&tokenless]).is_open());
    }

    #[test]
    fn debug_output_shows_no_digest() {
        let text = format!("{:?}", authenticator());
        assert_eq!(text, "Authenticator { tokens: 3, open: false }");
    }
}
