//! `vmmp_ca`: the certificates of a CA and of those who hold a delegation.

mod ask;
mod generate;
mod inspect;
mod list;
mod revoke;
mod server;
mod sign;

use std::fmt;
use std::io::Write;
use std::path::{Path, PathBuf};

use clap::{Args, Parser, Subcommand};

use crate::error::Failure;
use crate::pki::issue::Issuer;
use crate::pki::passphrase::PassphraseOption;
use crate::program::{Program, Surroundings};

/// The exit codes, for people.
const EXIT_CODES: &str = "Exit codes:
  0    done
  116  the certificates of the signer cannot be used: expired, in disorder, or not for this
  124  the command line, a file or a passphrase is wrong; nothing was made
  125  a result could not be written

Example:
  vmmp_ca generate --folder ca
  vmmp_ca sign shop.req --folder ca
  vmmp_ca inspect shop.pem
  vmmp_ca list --folder ca
  vmmp_ca revoke shop --folder ca";

/// The command line.
#[derive(Parser, Debug)]
#[command(name = "vmmp_ca", version, about = "Sign and revoke certificates for unikernels", after_help = EXIT_CODES)]
pub struct CommandLine {
    #[command(subcommand)]
    subcommand: Subcommands,
}

#[derive(Subcommand, Debug)]
enum Subcommands {
    /// Make a new CA and a certificate for its server
    Generate(generate::Generate),
    /// Make or renew the certificate of a server
    Server(server::Server),
    /// Sign a request
    Sign(sign::Sign),
    /// Say what a certificate, a request or a list of revoked certificates allows
    Inspect(inspect::Inspect),
    /// List what was signed, and when each ends
    List(list::List),
    /// Revoke certificates: make the list that servers take
    Revoke(revoke::Revoke),
}

/// What a subcommand works with.
struct Context<'a> {
    now_unix_s: i64,
    out: &'a mut dyn Write,
    notes: &'a mut dyn Write,
}

impl fmt::Debug for Context<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Context").field("now_unix_s", &self.now_unix_s).finish_non_exhaustive()
    }
}

impl Context<'_> {
    fn say(&mut self, text: &str) -> Result<(), Failure> {
        writeln!(self.out, "{text}").map_err(Failure::print)
    }
}

/// Where a holder keeps things.
#[derive(Args, Clone, Debug)]
struct FolderOption {
    /// The folder with the certificate, the key and the list of what was signed
    #[arg(long, value_name = "DIR", default_value = ".")]
    folder: PathBuf,
}

/// Who signs.
#[derive(Args, Clone, Debug)]
struct Holder {
    #[command(flatten)]
    folder: FolderOption,
    /// The certificate of the signer, followed by those above it (default: cacert.pem in the folder)
    #[arg(long, value_name = "FILE")]
    cert: Option<PathBuf>,
    /// The key of this certificate (default: ca.key in the folder)
    #[arg(long, value_name = "FILE", requires = "cert")]
    key: Option<PathBuf>,
    #[command(flatten)]
    passphrase: PassphraseOption,
}

impl Holder {
    fn folder(&self) -> &Path {
        &self.folder.folder
    }

    fn certificate(&self) -> PathBuf {
        self.cert.clone().unwrap_or_else(|| self.folder().join(CA_CERTIFICATE))
    }

    /// The signer; its key is that of the same name where another certificate is given and no key.
    fn issuer(&self) -> Result<Issuer, Failure> {
        let key = match (&self.key, &self.cert) {
            (Some(key), _) => key.clone(),
            (None, Some(cert)) => cert.with_extension("key"),
            (None, None) => self.folder().join(CA_KEY),
        };
        Issuer::read(&self.certificate(), &key, &self.passphrase)
    }
}

/// The names of files in the folder of a CA are those of the peer's.
const CA_CERTIFICATE: &str = "cacert.pem";
const CA_KEY: &str = "ca.key";

impl Program for CommandLine {
    fn run(&self, surroundings: &mut Surroundings<'_>) -> Result<(), Failure> {
        let Surroundings { now_unix_ms, out, errors, .. } = surroundings;
        let context = &mut Context { now_unix_s: *now_unix_ms / 1000, out: *out, notes: *errors };
        match &self.subcommand {
            Subcommands::Generate(command) => command.run(context),
            Subcommands::Server(command) => command.run(context),
            Subcommands::Sign(command) => command.run(context),
            Subcommands::Inspect(command) => command.run(context),
            Subcommands::List(command) => command.run(context),
            Subcommands::Revoke(command) => command.run(context),
        }
    }
}
