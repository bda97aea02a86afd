//! Who may do what: a caller's token names a principal, and its roles answer every question.
//!
//! Roles are compared, never interpreted: what a role allows is written here once, as methods of
//! [`Principal`], and handlers only ask.

mod authenticator;
mod principal;
mod role;
pub mod secret;
mod standing;

pub(crate) use authenticator::bearer_token;
pub use authenticator::{Authenticator, Caller, Credentials, Error};
pub use principal::Principal;
pub use role::{ParseRoleError, Role};
pub use standing::{Lost, Needs, Standing};
