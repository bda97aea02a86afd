//! The machine's randomness, for what nobody may guess: keys, and ids that are credentials. All else
//! takes chance from what was handed in, so that a seed decides it.

/// Bytes that nobody can guess. Tests do not choose them.
#[expect(
    clippy::disallowed_methods,
    reason = "what nobody may guess comes from the machine's randomness"
)]
#[must_use]
pub fn bytes<const BYTES: usize>() -> [u8; BYTES] {
    use rand::Rng as _;
    let mut bytes = [0; BYTES];
    rand::rng().fill_bytes(&mut bytes);
    bytes
}
