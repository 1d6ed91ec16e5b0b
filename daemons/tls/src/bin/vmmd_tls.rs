//! `vmmd_tls`: listens for clients from afar.

use std::process::ExitCode;

fn main() -> ExitCode {
    fulmar_tls::start::listening()
}
