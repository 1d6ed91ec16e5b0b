//! `vmmc_local`: talks to the daemons of this machine. Everything is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    fulmar_client::local::main()
}
