//! `vmmc_bistro`: the subcommands of `vmmc_local` for a host elsewhere. Each is signed with a key that is held here, when it is sent.

use std::ffi::OsString;
use std::process::ExitCode;
use std::sync::Arc;
use std::thread;
use std::time::Instant;

use clap::{Parser, Subcommand};

use super::address::{self, Address};
use super::revoke::Revoke;
use super::signing::{Signer, SigningDoor};
use super::{EXIT_CODES, Identity, compare_clocks};
use crate::commands::{Context, Single, deploy, top};
use crate::error::Failure;
use crate::local::wait_for_reader_to_go;
use crate::pki::files;
use crate::pki::issue::Issuer;
use crate::program::{self, Surroundings};

/// The command line.
#[derive(Parser, Debug)]
#[command(
    name = "vmmc_bistro",
    version,
    about = "Control the unikernels of a host elsewhere, with a CA certificate or a delegation",
    after_help = format!(
        "{EXIT_CODES}\n\nExample:\n  vmmc_bistro --ca cacert.pem --cert shop.pem --key shop.key example info"
    )
)]
struct CommandLine {
    #[command(flatten)]
    identity: Identity,
    /// Print JSON instead of text
    #[arg(long, global = true, display_order = 101)]
    json: bool,
    /// The host: a name or an address, of IPv6 in brackets, and :PORT unless that is 1025
    #[arg(value_parser = address::parse)]
    host: Address,
    #[command(subcommand)]
    subcommand: Subcommands,
}

#[derive(Subcommand, Debug)]
enum Subcommands {
    #[command(flatten)]
    Single(Box<Single>),
    /// Show everything at once, and go on
    Top(top::Top),
    /// Bring the host to what a manifest wants
    Deploy(deploy::Deploy),
    /// Send a list of revoked certificates
    Revoke(Revoke),
}

/// Does what the process was called for.
#[must_use]
pub fn main() -> ExitCode {
    program::main(run)
}

/// Its command line, for who writes its page.
#[must_use]
pub fn command() -> clap::Command {
    program::command::<CommandLine>(examples)
}

/// Does what these arguments say, the first being the program's name; the exit code.
#[must_use]
pub fn run(arguments: impl IntoIterator<Item = OsString>, surroundings: Surroundings<'_>) -> u8 {
    let Surroundings { time_out, now_unix_ms, end_with_reader, out, errors } = surroundings;
    let line: CommandLine = match program::parse(arguments, out, errors, examples) {
        Ok(line) => line,
        Err(code) => return code,
    };
    if end_with_reader && matches!(&line.subcommand, Subcommands::Single(single) if single.follows()) {
        thread::spawn(wait_for_reader_to_go);
    }
    let result = signer(&line, time_out, now_unix_ms).and_then(|signer| {
        let door = SigningDoor(Arc::new(signer));
        let mut context = Context { door: &door, json: line.json, now_unix_ms, out: &mut *out, notes: &mut *errors };
        let result = match &line.subcommand {
            Subcommands::Single(command) => command.run(&mut context),
            Subcommands::Top(command) => command.run(&mut context),
            Subcommands::Deploy(command) => command.run(&mut context),
            Subcommands::Revoke(command) => command.run(&mut context, door.0.issuer.key.public()),
        };
        if let Err(failure) = &result
            && let Some(text) = compare_clocks(failure, now_unix_ms)
        {
            context.note(&text);
        }
        result
    });
    let result = result.and_then(|()| out.flush().map_err(Failure::print));
    program::end("vmmc_bistro", result, errors)
}

/// The examples of `vmmc_local`, for a host elsewhere.
fn examples(text: &str) -> String {
    text.replace("vmmc_local", "vmmc_bistro --ca cacert.pem --cert shop.pem --key shop.key example")
}

fn signer(line: &CommandLine, time_out: std::time::Duration, now_unix_ms: i64) -> Result<Signer, Failure> {
    let Identity { cert, key, passphrase, .. } = &line.identity;
    let root = line.identity.root()?;
    let issuer = Issuer::read(cert, key, passphrase)?;
    if issuer.is_root() && *issuer.own()? != root {
        return Err(files::wrong(cert, "is another CA than the one given"));
    }
    let began_unix_s = now_unix_ms / 1000;
    Ok(Signer { root, issuer, address: line.host.clone(), time_out, began_unix_s, began: Instant::now() })
}
