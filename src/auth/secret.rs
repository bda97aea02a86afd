//! Tokens and their digests. The gateway stores digests only.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest as _, Sha256};
use subtle::{Choice, ConditionallySelectable, ConstantTimeEq};

use crate::random;

/// What every token begins with, so that scanners find one that leaked.
const PREFIX: &str = "tw_";
/// Random bytes in a token. With 256 bits a plain SHA-256 is enough to store: nothing can be
/// guessed, so a slow password hash would cost time on each call and protect nothing.
const RANDOM_BYTES: usize = 32;
const DIGEST_BYTES: usize = 32;

/// A token as its owner holds it. Shown only by [`reveal`](Self::reveal).
#[derive(Clone)]
pub struct Token(String);

impl Token {
    /// Makes a new one: `tw_` and 43 characters of unpadded base64url, from the machine's
    /// randomness. Tests do not choose it: a token must not be guessable, whatever seeds the rest.
    #[must_use]
    pub fn generate() -> Self {
        let random = random::bytes::<RANDOM_BYTES>();
        Self(format!("{PREFIX}{}", base64url(&random)))
    }

    /// The text, to be given to its owner once.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// What the configuration stores of it.
    #[must_use]
    pub fn digest(&self) -> Digest {
        Digest::of(&self.0)
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(..)")
    }
}

/// The SHA-256 of a token. Prints as 64 lower-case hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Digest([u8; DIGEST_BYTES]);

impl Digest {
    /// The digest of a token's text.
    #[must_use]
    pub fn of(token: &str) -> Self {
        Self(Sha256::digest(token.as_bytes()).into())
    }

    /// Reads 64 hexadecimal digits of either case; `None` for anything else.
    #[must_use]
    pub fn from_hex(text: &str) -> Option<Self> {
        let digits = text
            .chars()
            .map(|c| c.to_digit(16).map(|digit| digit as u8))
            .collect::<Option<Vec<u8>>>()?;
        if digits.len() != 2 * DIGEST_BYTES {
            return None;
        }
        let mut bytes = [0; DIGEST_BYTES];
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
            *byte = pair[0] << 4 | pair[1];
        }
        Some(Self(bytes))
    }
}

/// The index that stands with the digest that was shown, if it is one of those that are known.
///
/// Takes the same time whichever it is, and whether it is one at all.
#[must_use]
pub(crate) fn find<'d>(
    shown: &Digest,
    known: impl IntoIterator<Item = (usize, &'d Digest)>,
) -> Option<usize> {
    // 0 is none. No early exit, so that time tells nothing.
    let mut found = 0_u64;
    for (index, digest) in known {
        found.conditional_assign(&(index as u64 + 1), digest.ct_eq(shown));
    }
    usize::try_from(found.checked_sub(1)?).ok()
}

impl ConstantTimeEq for Digest {
    fn ct_eq(&self, other: &Self) -> Choice {
        self.0.ct_eq(&other.0)
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Digest(..)")
    }
}

fn base64url(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    // FIPS 180-2, appendix B.1.
    const ABC: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    #[test]
    fn a_digest_is_the_sha256_and_reads_back_as_it_prints() {
        assert_eq!(Digest::of("abc").to_string(), ABC);
        assert_eq!(Digest::from_hex(ABC), Some(Digest::of("abc")));
        assert_eq!(
            Digest::from_hex(&ABC.to_uppercase()),
            Some(Digest::of("abc"))
        );
    }

    #[test]
    fn anything_but_64_hexadecimal_digits_is_no_digest() {
        for text in [
            "",
            "abc",
            &ABC[1..],
            &format!("{ABC}0"),
            &ABC.replace('b', "g"),
        ] {
            assert_eq!(Digest::from_hex(text), None, "{text}");
        }
    }

    #[test]
    fn tokens_are_long_and_never_the_same() {
        let (one, other) = (Token::generate(), Token::generate());
        assert_eq!(one.reveal().len(), 46);
        assert!(one.reveal().starts_with("tw_"));
        assert_ne!(one.reveal(), other.reveal());
        assert_eq!(one.digest(), Digest::of(one.reveal()));
    }

    #[test]
    fn base64url_is_that_of_rfc_4648() {
        for (bytes, text) in [
            ("", ""),
            ("f", "Zg"),
            ("fo", "Zm8"),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg"),
        ] {
            assert_eq!(base64url(bytes.as_bytes()), text);
        }
        assert_eq!(base64url(&[0xfb, 0xff]), "-_8");
    }

    #[test]
    fn debug_output_shows_neither_token_nor_digest() {
        let token = Token::generate();
        assert_eq!(
            format!("{token:?} {:?}", token.digest()),
            "Token(..) Digest(..)"
        );
    }
}
