//! `vmmp_ca`: signs and revokes certificates. Everything is in the library.

use std::process::ExitCode;

use fulmar_client::ca::CommandLine;
use fulmar_client::program;

fn main() -> ExitCode {
    program::main::<CommandLine>()
}
