//! `vmmc_remote`: sends the command of a certificate to a host elsewhere. Everything is in the library.

use std::process::ExitCode;

use fulmar_client::program;
use fulmar_client::remote::stored::CommandLine;

fn main() -> ExitCode {
    program::main::<CommandLine>()
}
