//! Who calls, and for which conversation (reference, section 1).

use std::sync::Arc;
use std::time::Duration;

use super::inbound::User;
use super::origin::Origins;
use super::serving::Serving;
use super::token::{self, Claims, Subject, Use, fresh_id};
use super::{DirectLine, Error, Grant, Parameters, Served, Site};
use crate::auth::bearer_token;
use crate::auth::secret::{self, Digest};
use crate::engine::Conversation as Stored;
use crate::id::ChannelId;

/// What the id of a user must begin with that a token speaks for, under enhanced authentication.
const USER_PREFIX: &str = "dl_";

/// Someone who calls, with a credential that is good.
///
/// What its channel is configured with stays as it was when it was let in, for as long as one request
/// takes.
#[derive(Clone, Debug)]
pub struct Caller {
    serving: Arc<Serving>,
    site: usize,
    credential: Credential,
}

#[derive(Clone, Debug)]
enum Credential {
    /// A secret of the channel, by its name in tokens.
    Secret(String),
    Token(Box<Claims>),
}

impl Caller {
    /// Whether it has a secret.
    #[must_use]
    pub fn has_secret(&self) -> bool {
        matches!(self.credential, Credential::Secret(_))
    }

    fn served(&self) -> &Served {
        &self.serving.sites[self.site]
    }

    /// The token's claims.
    pub(super) fn claims(&self) -> Option<&Claims> {
        match &self.credential {
            Credential::Secret(_) => None,
            Credential::Token(claims) => Some(claims),
        }
    }

    /// The user that the token speaks for.
    pub(super) fn user(&self) -> Option<User> {
        let claims = self.claims()?;
        Some(User {
            id: claims.user.clone()?,
            name: claims.name.clone(),
        })
    }
}

impl DirectLine {
    /// Finds who calls, from the value of `Authorization`.
    ///
    /// # Errors
    ///
    /// [`Error::CredentialMissing`], [`Error::CredentialUnknown`], [`Error::TokenExpired`].
    pub fn authorize(&self, authorization: Option<&str>) -> Result<Caller, Error> {
        let credential = authorization
            .and_then(bearer_token)
            .ok_or(Error::CredentialMissing)?;
        if !token::is_token(credential) {
            return self.secret(credential);
        }
        match self.token(credential, Use::Call) {
            // A secret may look like a token.
            Err(Error::CredentialUnknown) => self.secret(credential),
            other => other,
        }
    }

    /// Finds who opens a stream, from the token in its URL.
    ///
    /// # Errors
    ///
    /// [`Error::CredentialUnknown`], [`Error::StreamUrlExpired`].
    pub(super) fn authorize_stream(&self, token: &str) -> Result<Caller, Error> {
        self.token(token, Use::Stream).map_err(|error| match error {
            Error::TokenExpired => Error::StreamUrlExpired,
            other => other,
        })
    }

    fn token(&self, token: &str, purpose: Use) -> Result<Caller, Error> {
        let now = self.engine().clock().now();
        let serving = self.inner.serving.load_full();
        let claims = serving.key.verify(token, now);
        let claims = claims.map_err(|error| match error {
            token::Error::Forged => Error::CredentialUnknown,
            token::Error::Expired => Error::TokenExpired,
        })?;
        let site = serving.site_of(&claims.site, &claims.kid);
        let site = site.filter(|_| claims.purpose == purpose);
        Ok(Caller {
            site: site.ok_or(Error::CredentialUnknown)?,
            serving,
            credential: Credential::Token(Box::new(claims)),
        })
    }

    /// Takes the same time whichever of the secrets it is.
    fn secret(&self, shown: &str) -> Result<Caller, Error> {
        let shown = Digest::of(shown);
        let serving = self.inner.serving.load_full();
        let all = serving.sites.iter().enumerate();
        let all = all.flat_map(|(index, served)| {
            let secrets = served.site.secrets.iter();
            secrets.map(move |secret| (index, secret))
        });
        Ok(Caller {
            site: secret::find(&shown, all).ok_or(Error::CredentialUnknown)?,
            credential: Credential::Secret(serving.key.name(&shown)),
            serving,
        })
    }

    /// Refuses a page that is not trusted, by its `Origin`. Programs that are no pages have none.
    ///
    /// Under enhanced authentication a token needs an origin that is trusted, and a user.
    ///
    /// # Errors
    ///
    /// [`Error::OriginUntrusted`]; under enhanced authentication [`Error::PropertyMissing`] when no
    /// origin is trusted at all, and [`Error::CredentialUnknown`] for a token without a user.
    pub fn check_origin(&self, caller: &Caller, origin: Option<&str>) -> Result<(), Error> {
        let site = self.site(caller);
        // The channel's list, or else the token's own.
        let own = caller.claims().map_or(&[][..], |claims| &claims.origins);
        let names_any = !site.origins.is_empty() || !own.is_empty();
        let is_enhanced = site.enhanced_authentication && !caller.has_secret();
        if is_enhanced && !names_any {
            return Err(Error::PropertyMissing("trustedOrigins"));
        }
        if is_enhanced && caller.user().is_none() {
            return Err(Error::CredentialUnknown);
        }
        let is_trusted = match origin {
            None => !is_enhanced,
            Some(origin) if site.origins.is_empty() => Origins::of(own).allows(origin),
            Some(origin) => site.origins.allows(origin),
        };
        is_trusted.then_some(()).ok_or(Error::OriginUntrusted)
    }

    pub(super) fn site<'c>(&self, caller: &'c Caller) -> &'c Site {
        &caller.served().site
    }

    pub(super) fn channel<'c>(&self, caller: &'c Caller) -> &'c ChannelId {
        &caller.served().channel
    }

    /// Makes a token for a conversation that does not exist yet, and a user, if one is named.
    ///
    /// # Errors
    ///
    /// [`Error::SecretNeeded`] of a caller with a token; under enhanced authentication
    /// [`Error::PropertyMissing`] and [`Error::ArgumentBad`] when there is no user, or none with such
    /// an id.
    pub fn generate(&self, caller: &Caller, parameters: &Parameters) -> Result<Grant, Error> {
        let Credential::Secret(_) = &caller.credential else {
            return Err(Error::SecretNeeded);
        };
        self.check_user(caller, parameters)?;
        Ok(self.issue(caller, self.fresh(caller, parameters)).0)
    }

    /// Makes a token that is good for longer. The old one stays good until it expires, and the streams
    /// of both stay open.
    ///
    /// # Errors
    ///
    /// [`Error::TokenNeeded`] of a caller with a secret.
    pub fn refresh(&self, caller: &Caller) -> Result<Grant, Error> {
        let claims = caller.claims().ok_or(Error::TokenNeeded)?;
        Ok(self.issue(caller, claims.subject()).0)
    }

    /// Refuses a user that a token cannot speak for.
    pub(super) fn check_user(&self, caller: &Caller, parameters: &Parameters) -> Result<(), Error> {
        let site = self.site(caller);
        if !site.enhanced_authentication {
            return Ok(());
        }
        let user = parameters.user.as_ref().and_then(|user| user.id.as_deref());
        let user = user.ok_or(Error::PropertyMissing("user.id"))?;
        if !user.starts_with(USER_PREFIX) {
            let problem = format!("must begin with `{USER_PREFIX}`");
            return Err(Error::bad("user.id", problem));
        }
        Ok(())
    }

    /// Refuses a start that nobody could go on with, since no page would be trusted.
    pub(super) fn check_start(
        &self,
        caller: &Caller,
        parameters: &Parameters,
    ) -> Result<(), Error> {
        self.check_user(caller, parameters)?;
        let site = self.site(caller);
        let names_any = !site.origins.is_empty() || !parameters.trusted_origins.is_empty();
        if site.enhanced_authentication && !names_any {
            return Err(Error::PropertyMissing("trustedOrigins"));
        }
        Ok(())
    }

    /// What a token of a new conversation is made of.
    pub(super) fn fresh(&self, caller: &Caller, parameters: &Parameters) -> Subject {
        self.subject(caller, fresh_id(), parameters)
    }

    /// What a token that a secret asks for is made of.
    pub(super) fn subject(
        &self,
        caller: &Caller,
        conversation: String,
        parameters: &Parameters,
    ) -> Subject {
        let user = parameters.user.as_ref();
        let kid = match &caller.credential {
            Credential::Secret(name) => name.clone(),
            Credential::Token(claims) => claims.kid.clone(),
        };
        Subject {
            site: self.channel(caller).to_string(),
            conversation,
            user: user.and_then(|user| user.id.clone()),
            name: user.and_then(|user| user.name.clone()),
            kid,
            sid: fresh_id(),
            origins: parameters.trusted_origins.clone(),
        }
    }

    /// What a token is made of that a secret asks for to come back to a conversation. It speaks for
    /// nobody, as in the public service; under enhanced authentication for the user who is in it.
    pub(super) fn subject_for(
        &self,
        caller: &Caller,
        conversation: String,
        stored: &Stored,
    ) -> Subject {
        let is_enhanced = self.site(caller).enhanced_authentication;
        let user = stored.reference.user.clone().filter(|_| is_enhanced);
        let parameters = Parameters {
            user,
            ..Default::default()
        };
        self.subject(caller, conversation, &parameters)
    }

    /// Signs a token. Returns its claims as well.
    pub(super) fn issue(&self, caller: &Caller, subject: Subject) -> (Grant, Claims) {
        let lifetime = self.site(caller).token_lifetime;
        let now = self.engine().clock().now();
        let expiry = now.after(lifetime);
        let claims = Claims::new(Use::Call, subject, fresh_id(), now, expiry);
        self.inner.streams.extend(&claims.sid, expiry);
        let grant = Grant {
            conversation_id: claims.conv.clone(),
            token: caller.serving.key.sign(&claims),
            expires_in: lifetime.as_secs(),
        };
        (grant, claims)
    }

    /// Where a caller reaches the gateway: by its public URL, or by the authority that it wrote, or
    /// where the gateway listens.
    #[must_use]
    pub fn base(&self, caller: &Caller, authority: Option<&str>) -> String {
        match (&self.site(caller).public_url, authority) {
            (Some(url), _) => url.clone(),
            (None, Some(authority)) => format!("http://{authority}"),
            (None, None) => self.inner.base.clone(),
        }
    }

    /// Where bots would call back. Never what a caller says: bots send their credentials there.
    pub(super) fn service_url<'c>(&self, caller: &'c Caller) -> &'c str {
        &caller.served().service_url
    }

    /// The URL of a stream, to be opened within a minute.
    pub(super) fn stream_url(
        &self,
        caller: &Caller,
        base: &str,
        of: &Claims,
        watermark: &str,
    ) -> String {
        const TO_OPEN: Duration = Duration::from_secs(60);
        let now = self.engine().clock().now();
        let mut claims = Claims::new(
            Use::Stream,
            of.subject(),
            fresh_id(),
            now,
            now.after(TO_OPEN),
        );
        claims.until = Some(of.exp);
        let token = caller.serving.key.sign(&claims);
        // `http` becomes `ws`, and `https` `wss`.
        let base = base.strip_prefix("http").unwrap_or(base);
        format!(
            "ws{base}{}/conversations/{}/stream?watermark={watermark}&t={token}",
            super::BASE,
            claims.conv,
        )
    }
}
