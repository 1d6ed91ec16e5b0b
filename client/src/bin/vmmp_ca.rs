//! `vmmp_ca`: signs and revokes certificates. Everything is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    fulmar_client::ca::main()
}
