//! Another configuration for a gateway that runs: all of it or nothing, for whatever is asked from
//! then on, and for whoever was let in before.

mod access;
mod effects;
mod load;
mod process;
mod refusals;
