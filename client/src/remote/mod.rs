//! The ways to daemons of other hosts, by TLS: what is to be done stands in a certificate.
//!
//! | file | what is in it |
//! |---|---|
//! | `address` | a host on the command line, and connecting to it |
//! | `tls` | the handshake, and the stream behind it |
//! | `stored` | `vmmc_remote`: the command of a certificate that was signed before |
//! | `bistro` | `vmmc_bistro`: the subcommands, each signed when it is sent |
//! | `signing` | the certificates that are made for one command |
//! | `revoke` | the subcommand that sends a list of revoked certificates |

mod address;
pub mod bistro;
mod revoke;
mod signing;
pub mod stored;
mod tls;

use std::path::PathBuf;

use clap::Args;

use crate::commands::Context;
use crate::error::Failure;
use crate::output::text::timestamp;
use crate::pki::chain;
use crate::pki::files;
use crate::pki::passphrase::PassphraseOption;
use crate::pki::read::Cert;

/// The exit codes, for people.
pub(crate) const EXIT_CODES: &str = "Exit codes:
  0    done
  116  our own certificates cannot be used: expired, in disorder, of another CA; nothing was sent
  117  the other side refused it; its reason is on standard error
  119  the server does not take our certificates
  120  the certificate of the server is not to be trusted; nothing was sent
  121  the connection broke, or the reply was none
  122  no connection to the server; nothing was sent
  124  the command line, a file or the image is wrong; nothing was sent
  125  a result could not be written";

/// The certificates that both sides go by.
#[derive(Args, Clone, Debug)]
pub(crate) struct Identity {
    /// The certificate of the CA that the server and we trust
    #[arg(long, value_name = "FILE")]
    ca: PathBuf,
    /// Our certificate, followed by those above it
    #[arg(long, value_name = "FILE")]
    cert: PathBuf,
    /// The key of our certificate
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
    #[command(flatten)]
    passphrase: PassphraseOption,
}

impl Identity {
    /// The CA's certificate.
    fn root(&self) -> Result<Cert, Failure> {
        let mut certs = Cert::read_all(&self.ca)?;
        match (certs.pop(), certs.is_empty()) {
            (Some(root), true) => Ok(root),
            _ => Err(files::wrong(&self.ca, "has more than one certificate, and a server has one CA")),
        }
    }
}

/// Says what the clock here is where the other side goes by its own.
fn compare_clocks(result: &Result<(), Failure>, context: &mut Context<'_>) {
    if let Err(Failure::Refused { text, .. }) = result
        && (text.contains("has expired at") || text.contains("not yet valid before"))
    {
        context.note(&format!("the clock of this machine says {}", timestamp(context.now_unix_ms)));
    }
}

/// Checks our own chain before anybody sees it.
fn check_own(certs: &[Cert], root: &Cert, now_unix_s: i64) -> Result<(), Failure> {
    Ok(chain::check(certs, root, now_unix_s)?)
}
