//! The `turnwire` program: everything it does is in [`turnwire::cli`].

use std::process::ExitCode;

/// A turn makes some fifty small allocations on three threads: an allocator made for that serves a
/// sixth more turns than the C library's.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    turnwire::cli::main()
}
