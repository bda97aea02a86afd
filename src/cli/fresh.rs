//! Ids that no other run of the program has.
#![expect(
    clippy::disallowed_methods,
    reason = "a command is run by a person, with nobody to hand randomness in"
)]

/// A fresh id: eight hexadecimal digits.
pub(super) fn id() -> String {
    format!("{:08x}", rand::random::<u32>())
}
