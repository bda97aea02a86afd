//! From a call's `authorization` to a principal.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use arc_swap::{ArcSwap, Guard};

use crate::auth::secret::{self, Digest};
use crate::auth::standing::Standings;
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

/// Someone who was let in, and by what.
#[derive(Clone)]
pub struct Caller {
    /// Who.
    pub principal: Arc<Principal>,
    /// The digest of the token that was shown, if one was.
    pub(super) shown: Option<Digest>,
}

/// Knows every principal by the digests of its tokens; others may be put in their place at any time.
pub struct Authenticator {
    known: ArcSwap<Known>,
    pub(super) standings: Standings,
}

/// The principals in force.
pub(super) struct Known {
    /// Looked through whole for each caller.
    tokens: Vec<(Digest, Arc<Principal>)>,
    /// The same, to look again at those who were let in before, who may be many. How long that takes
    /// tells nothing: they have shown their token.
    by_digest: HashMap<Digest, Arc<Principal>>,
    /// Set when there are no principals: whoever calls is this one.
    open: Option<Arc<Principal>>,
}

impl Known {
    fn new<'a>(credentials: impl IntoIterator<Item = &'a Credentials>) -> Self {
        let mut tokens = Vec::new();
        let mut principals = 0;
        for one in credentials {
            principals += 1;
            let principal = Arc::new(Principal::new(one.name.clone(), one.roles.clone()));
            let digests = one.token_digests.iter();
            tokens.extend(digests.map(|digest| (*digest, Arc::clone(&principal))));
        }
        // Counted by principals, not by tokens: one without tokens must not open the gateway.
        let open = (principals == 0).then(|| Arc::new(Principal::open()));
        Self {
            by_digest: tokens.iter().cloned().collect(),
            tokens,
            open,
        }
    }

    /// Who someone is now that was let in before.
    pub(super) fn again(&self, shown: Option<&Digest>) -> Result<&Arc<Principal>, Error> {
        if let Some(open) = &self.open {
            return Ok(open);
        }
        let shown = shown.ok_or(Error::TokenMissing)?;
        self.by_digest.get(shown).ok_or(Error::TokenUnknown)
    }
}

impl Authenticator {
    /// Lets in these principals, or everyone when there are none.
    #[must_use]
    pub fn new<'a>(credentials: impl IntoIterator<Item = &'a Credentials>) -> Self {
        Self {
            known: ArcSwap::from_pointee(Known::new(credentials)),
            standings: Standings::default(),
        }
    }

    /// Lets in these principals from now on, or everyone when there are none. Those who were let in
    /// before, and stand by it, are told when they would not be let in any more.
    pub fn replace<'a>(&self, credentials: impl IntoIterator<Item = &'a Credentials>) {
        let known = Arc::new(Known::new(credentials));
        self.standings.look_again(&known, || {
            self.known.store(Arc::clone(&known));
        });
    }

    /// Whether everyone is let in and may do everything.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.known().open.is_some()
    }

    /// Finds who calls, from the value of `authorization`.
    ///
    /// Takes the same time whichever principal it is, and whether it is one at all.
    ///
    /// # Errors
    ///
    /// [`Error::TokenMissing`] when there is no bearer token, [`Error::TokenUnknown`] when it is
    /// nobody's. Never when [`is_open`](Self::is_open).
    pub fn authenticate(&self, authorization: Option<&str>) -> Result<Caller, Error> {
        let known = self.known();
        let shown = authorization.and_then(bearer_token).map(Digest::of);
        if let Some(open) = &known.open {
            let principal = Arc::clone(open);
            return Ok(Caller { principal, shown });
        }
        let digest = shown.ok_or(Error::TokenMissing)?;
        let tokens = known.tokens.iter().enumerate();
        secret::find(&digest, tokens.map(|(index, (digest, _))| (index, digest)))
            .and_then(|index| known.tokens.get(index))
            .map(|(_, principal)| Caller {
                principal: Arc::clone(principal),
                shown,
            })
            .ok_or(Error::TokenUnknown)
    }

    pub(super) fn known(&self) -> Guard<Arc<Known>> {
        self.known.load()
    }
}

impl fmt::Debug for Authenticator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authenticator")
            .field("tokens", &self.known().tokens.len())
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
        let caller = authenticator().authenticate(authorization)?;
        Ok(caller.principal.name().to_owned())
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
            let caller = open.authenticate(authorization).expect("open");
            assert!(caller.principal.is_open());
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
