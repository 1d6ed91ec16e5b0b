//! `revoke`: sends a list of revoked certificates, which the server keeps and goes by from then on.

use std::io::Write;
use std::path::PathBuf;

use clap::Args;
use fulmar_core::limits::CONTENT_PIECE_BYTES;
use fulmar_core::name::Name;
use fulmar_core::wire::Command;

use crate::commands::{Context, report};
use crate::connection::Daemon;
use crate::error::Failure;
use crate::options;
use crate::pki::files;
use crate::pki::read::{RevokedList, is_signed_by};

/// The command line of `revoke`.
#[derive(Args, Debug)]
#[command(after_help = "Example:
  vmmc_bistro --ca cacert.pem --cert cacert.pem --key ca.key example revoke cacert.crl
  vmmc_bistro --ca cacert.pem --cert cacert.pem --key ca.key example revoke cacert.crl --remove shop

vmmp_ca revoke makes the list. --remove is for good: unikernels, block devices with what is on them, and policies.")]
pub(super) struct Revoke {
    /// The list, in DER or PEM
    list: PathBuf,
    /// Remove all that is at PATH and below it as well
    #[arg(long, value_name = "PATH", value_parser = options::path)]
    remove: Option<Name>,
}

impl Revoke {
    /// Does it; the list must be that of the key which signs the command.
    pub(super) fn run(&self, context: &mut Context<'_>, key: &[u8]) -> Result<(), Failure> {
        let list = RevokedList::read(&self.list)?;
        if !is_signed_by(&list.der, key) {
            return Err(files::wrong(&self.list, "is not signed by the key given, and nobody may revoke for another"));
        }
        let own = context.door.root();
        let name = self.remove.unwrap_or(own);
        if self.remove.is_some() && name.parent() != Some(own) {
            let text =
                format!("{name} is not directly below {own}: only who has delegated a path removes what is there");
            return Err(Failure::Usage { text });
        }
        let mut connection = context.door.open(Daemon::Vmmd)?;
        connection.send(name, Command::Revoke { remove: self.remove.is_some() })?;
        connection.send_chunks(name, CONTENT_PIECE_BYTES, &mut |out: &mut dyn Write| {
            out.write_all(&list.der).map_err(Failure::print)
        })?;
        report(context, &mut connection, name)
    }
}
