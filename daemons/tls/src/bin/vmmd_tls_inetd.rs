//! `vmmd_tls_inetd`: serves the one client that is connected to its standard input.

use std::process::ExitCode;

fn main() -> ExitCode {
    fulmar_tls::start::one()
}
