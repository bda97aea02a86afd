//! Tokens: what a page is given in place of a secret. Good for one conversation and for a time.
//!
//! A token is a JWT, because Web Chat reads `user` from its middle part (reference, section 1). It is
//! signed with HMAC-SHA256 and a key of the gateway's own; the header is compared as a whole, so
//! that there is no other algorithm to be talked into.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64URL;
use hmac::{Hmac, KeyInit, Mac};
use serde::{Deserialize, Serialize};
use sha2::Sha256;

use crate::auth::secret::Digest;
use crate::clock::Timestamp;
use crate::random;
use crate::store::{self, Batch, Durability, Key, Store};

const HEADER: &str = r#"{"alg":"HS256","typ":"JWT"}"#;
/// Who issues tokens, and for whom: nobody else reads more than `user`.
const ISSUER: &str = "turnwire";
const KEY_BYTES: usize = 32;
/// The longest token that is looked at. They are short, but for the origins that one may carry.
const TOKEN_BYTES: usize = 16 << 10;

/// What a token may be used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Use {
    /// As `Authorization` of every operation but generating.
    Call,
    /// As `t` in the URL of a stream.
    Stream,
}

/// What a token says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Claims {
    iss: String,
    aud: String,
    /// What it may be used for.
    #[serde(rename = "use")]
    pub purpose: Use,
    /// The channel.
    pub site: String,
    /// The conversation.
    pub conv: String,
    /// The user that it speaks for; whatever an activity says, it is from this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// That user's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Which secret it was made with.
    pub kid: String,
    /// The same for a token and all that are made of it: a refreshed token keeps its streams open.
    pub sid: String,
    /// Of its own: tells apart the URLs of streams.
    pub jti: String,
    /// The pages that may use it, when the channel names none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub origins: Vec<String>,
    /// From when on it is good, in seconds since 1970.
    pub nbf: u64,
    /// Until when, in seconds since 1970; this second is not in it.
    pub exp: u64,
    /// Of a stream's: until when the stream may be open, in seconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<u64>,
}

/// What a token is made of.
#[derive(Clone, Debug)]
pub(super) struct Subject {
    /// The channel.
    pub site: String,
    /// The conversation.
    pub conversation: String,
    /// The user that it speaks for.
    pub user: Option<String>,
    /// That user's name.
    pub name: Option<String>,
    /// Which secret it is made with.
    pub kid: String,
    /// See [`Claims::sid`].
    pub sid: String,
    /// See [`Claims::origins`].
    pub origins: Vec<String>,
}

impl Claims {
    /// What a token for `subject` says.
    #[must_use]
    pub(super) fn new(
        purpose: Use,
        subject: Subject,
        jti: String,
        now: Timestamp,
        expiry: Timestamp,
    ) -> Self {
        Self {
            iss: ISSUER.to_owned(),
            aud: ISSUER.to_owned(),
            purpose,
            site: subject.site,
            conv: subject.conversation,
            user: subject.user,
            name: subject.name,
            kid: subject.kid,
            sid: subject.sid,
            jti,
            origins: subject.origins,
            nbf: seconds(now),
            exp: seconds(expiry),
            until: None,
        }
    }

    /// What it was made of.
    #[must_use]
    pub(super) fn subject(&self) -> Subject {
        Subject {
            site: self.site.clone(),
            conversation: self.conv.clone(),
            user: self.user.clone(),
            name: self.name.clone(),
            kid: self.kid.clone(),
            sid: self.sid.clone(),
            origins: self.origins.clone(),
        }
    }
}

/// A time as tokens write it.
#[must_use]
pub(super) fn seconds(time: Timestamp) -> u64 {
    time.0 / 1_000
}

/// Why a text is no token that is good now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Error {
    /// It was not made here, or was changed.
    #[error("it is not a token of this gateway")]
    Forged,
    /// It was good once.
    #[error("it has expired")]
    Expired,
}

/// The key that tokens are signed with.
#[derive(Clone)]
pub(super) struct SigningKey([u8; KEY_BYTES]);

impl SigningKey {
    /// Reads the key of a store, which is made when there is none: tokens outlive a restart.
    ///
    /// # Errors
    ///
    /// The store cannot be read or written, or the key is damaged.
    pub(super) fn load(store: &dyn Store) -> Result<Self, store::Error> {
        if let Some(kept) = store.get(&Key::SigningKey)? {
            let kept = <[u8; KEY_BYTES]>::try_from(&kept[..]);
            let corrupt = |_| store::Error::Corrupt {
                what: "the signing key".to_owned(),
            };
            return kept.map(Self).map_err(corrupt);
        }
        let fresh = Self(random::bytes());
        let mut batch = Batch::new();
        batch.put(&Key::SigningKey, &fresh.0[..]);
        store.commit(batch, Durability::Synced)?;
        Ok(fresh)
    }

    /// A key that nothing was signed with and nothing will be, for a gateway without such channels.
    #[must_use]
    pub(super) fn unused() -> Self {
        Self(random::bytes())
    }

    /// Signs claims.
    #[must_use]
    pub(super) fn sign(&self, claims: &Claims) -> String {
        let claims = serde_json::to_vec(claims).expect("claims are texts and numbers");
        let signed = format!("{}.{}", BASE64URL.encode(HEADER), BASE64URL.encode(claims));
        let signature = BASE64URL.encode(self.mac(signed.as_bytes()).finalize().into_bytes());
        format!("{signed}.{signature}")
    }

    /// Reads a token that is good at `now`.
    ///
    /// # Errors
    ///
    /// It is not one. Nothing in it is looked at before its signature was found right.
    pub(super) fn verify(&self, token: &str, now: Timestamp) -> Result<Claims, Error> {
        if token.len() > TOKEN_BYTES {
            return Err(Error::Forged);
        }
        let (signed, signature) = token.rsplit_once('.').ok_or(Error::Forged)?;
        let (header, claims) = signed.split_once('.').ok_or(Error::Forged)?;
        if header != BASE64URL.encode(HEADER) {
            return Err(Error::Forged);
        }
        let signature = BASE64URL.decode(signature).map_err(|_| Error::Forged)?;
        self.mac(signed.as_bytes())
            .verify_slice(&signature)
            .map_err(|_| Error::Forged)?;
        let claims = BASE64URL.decode(claims).map_err(|_| Error::Forged)?;
        let claims: Claims = serde_json::from_slice(&claims).map_err(|_| Error::Forged)?;
        if claims.iss != ISSUER || claims.aud != ISSUER {
            return Err(Error::Forged);
        }
        // A clock that was set back by a moment must not refuse what was just made, so `nbf` is for
        // those who read tokens, and is not looked at.
        if seconds(now) >= claims.exp {
            return Err(Error::Expired);
        }
        Ok(claims)
    }

    /// A name for a secret that says nothing about it.
    #[must_use]
    pub(super) fn name(&self, secret: &Digest) -> String {
        let mac = self.mac(secret.to_string().as_bytes());
        let name = mac.finalize().into_bytes();
        BASE64URL.encode(&name[..9])
    }

    fn mac(&self, text: &[u8]) -> Hmac<Sha256> {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.0).expect("a key of any length will do");
        mac.update(text);
        mac
    }
}

/// Whether a text has a token's shape, and so is not a secret.
#[must_use]
pub(super) fn is_token(text: &str) -> bool {
    text.split('.').count() == 3 && text.starts_with("ey")
}

/// Shows nothing.
impl std::fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SigningKey(..)")
    }
}

/// A fresh id of 128 random bits: letters, digits and a few more, none of which a URL would change.
#[must_use]
pub fn fresh_id() -> String {
    let mut id = BASE64URL.encode(random::bytes::<16>());
    // An id that begins with a dash looks like a flag to programs.
    if id.starts_with('-') {
        id.replace_range(..1, "A");
    }
    id
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Memory;

    const NOW: Timestamp = Timestamp(1_000_000);

    fn claims() -> Claims {
        let subject = Subject {
            site: "web".to_owned(),
            conversation: "c1".to_owned(),
            user: Some("dl_alice".to_owned()),
            name: None,
            kid: "k".to_owned(),
            sid: "s".to_owned(),
            origins: Vec::new(),
        };
        Claims::new(
            Use::Call,
            subject,
            "j".to_owned(),
            NOW,
            Timestamp(NOW.0 + 60_000),
        )
    }

    fn key() -> SigningKey {
        SigningKey([7; KEY_BYTES])
    }

    #[test]
    fn a_token_says_what_was_signed_until_it_expires() {
        let token = key().sign(&claims());
        assert!(is_token(&token));
        assert_eq!(key().verify(&token, NOW), Ok(claims()));
        let last = Timestamp(NOW.0 + 59_999);
        assert_eq!(key().verify(&token, last), Ok(claims()));
        let over = Timestamp(NOW.0 + 60_000);
        assert_eq!(key().verify(&token, over), Err(Error::Expired));
    }

    #[test]
    fn a_page_can_read_the_user_from_the_middle_part() {
        let token = key().sign(&claims());
        let middle = token.split('.').nth(1).expect("three parts");
        let middle = BASE64URL.decode(middle).expect("base64url");
        let middle: serde_json::Value = serde_json::from_slice(&middle).expect("JSON");
        assert_eq!(middle["user"], "dl_alice");
    }

    #[test]
    fn a_token_that_was_changed_or_made_elsewhere_is_forged() {
        let token = key().sign(&claims());
        let parts: Vec<&str> = token.split('.').collect();
        let none = BASE64URL.encode(r#"{"alg":"none","typ":"JWT"}"#);
        let other = SigningKey([8; KEY_BYTES]).sign(&claims());
        let mut longer = claims();
        longer.exp += 1;
        let longer = key().sign(&longer);
        let middle = longer.split('.').nth(1).expect("three parts");
        for forged in [
            String::new(),
            "a.b.c".to_owned(),
            format!("{none}.{}.", parts[1]),
            format!("{none}.{}.{}", parts[1], parts[2]),
            format!("{}.{}.", parts[0], parts[1]),
            format!("{}.{}.{}", parts[0], middle, parts[2]),
            format!("{token}x"),
            format!("{}.{}.{}", parts[0], parts[1], &parts[2][1..]),
            other,
            "x".repeat(TOKEN_BYTES + 1),
        ] {
            assert_eq!(key().verify(&forged, NOW), Err(Error::Forged), "{forged}");
        }
    }

    #[test]
    fn the_key_is_made_once_for_a_store() {
        let store = Memory::default();
        let first = SigningKey::load(&store).expect("it is made");
        let token = first.sign(&claims());
        let second = SigningKey::load(&store).expect("it is read");
        assert_eq!(second.verify(&token, NOW), Ok(claims()));
        let elsewhere = SigningKey::load(&Memory::default()).expect("it is made");
        assert_eq!(elsewhere.verify(&token, NOW), Err(Error::Forged));
    }

    #[test]
    fn debug_output_does_not_show_the_key() {
        assert_eq!(format!("{:?}", key()), "SigningKey(..)");
    }
}
