//! `vmmc_local`: talks to the daemons of this machine. Everything is in the library.

use std::process::ExitCode;

use fulmar_client::local::CommandLine;
use fulmar_client::program;

fn main() -> ExitCode {
    program::main::<CommandLine>()
}
