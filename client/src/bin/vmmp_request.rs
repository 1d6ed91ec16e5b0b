//! `vmmp_request`: asks for certificates. Everything is in the library.

use std::process::ExitCode;

use fulmar_client::program;
use fulmar_client::request::CommandLine;

fn main() -> ExitCode {
    program::main::<CommandLine>()
}
