//! `vmmp_request`: asks for certificates. Everything is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    fulmar_client::request::main()
}
