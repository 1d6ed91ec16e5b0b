//! `vmmc_bistro`: signs a command and sends it to a host elsewhere. Everything is in the library.

use std::process::ExitCode;

use fulmar_client::program;
use fulmar_client::remote::bistro::CommandLine;

fn main() -> ExitCode {
    program::main::<CommandLine>()
}
