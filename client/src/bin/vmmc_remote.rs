//! `vmmc_remote`: sends the command of a certificate to a host elsewhere. Everything is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    fulmar_client::remote::stored::main()
}
