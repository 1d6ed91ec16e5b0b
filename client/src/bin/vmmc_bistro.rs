//! `vmmc_bistro`: signs a command and sends it to a host elsewhere. Everything is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    fulmar_client::remote::bistro::main()
}
