//! The `turnwire` program: everything it does is in [`turnwire::cli`].

use std::process::ExitCode;

fn main() -> ExitCode {
    turnwire::cli::main()
}
