//! `vmmc_bistro`: the subcommands of `vmmc_local` for a host elsewhere. Each is signed with a key that is held here, when it is sent.

use std::sync::Arc;
use std::time::Instant;

use clap::{Parser, Subcommand};

use super::address::{self, Address};
use super::revoke::Revoke;
use super::signing::{Signer, SigningDoor};
use super::{EXIT_CODES, Identity, compare_clocks};
use crate::commands::{Context, Single, deploy, top};
use crate::error::Failure;
use crate::pki::files;
use crate::pki::issue::Issuer;
use crate::program::{Program, Surroundings};

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
pub struct CommandLine {
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

impl Program for CommandLine {
    fn examples(text: &str) -> String {
        text.replace("vmmc_local", "vmmc_bistro --ca cacert.pem --cert shop.pem --key shop.key example")
    }

    fn run(&self, surroundings: &mut Surroundings<'_>) -> Result<(), Failure> {
        if matches!(&self.subcommand, Subcommands::Single(single) if single.follows()) {
            surroundings.expect_reader();
        }
        let Surroundings { time_out, now_unix_ms, out, errors, .. } = surroundings;
        let door = SigningDoor(Arc::new(signer(self, *time_out, *now_unix_ms)?));
        let mut context =
            Context { door: &door, json: self.json, now_unix_ms: *now_unix_ms, out: *out, notes: *errors };
        let result = match &self.subcommand {
            Subcommands::Single(command) => command.run(&mut context),
            Subcommands::Top(command) => command.run(&mut context),
            Subcommands::Deploy(command) => command.run(&mut context),
            Subcommands::Revoke(command) => command.run(&mut context, door.0.issuer.key.public()),
        };
        compare_clocks(&result, &mut context);
        result
    }
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
