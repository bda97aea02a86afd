//! The HTTP paths.
