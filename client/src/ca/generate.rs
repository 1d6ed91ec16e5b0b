//! `generate`: a new CA, and the key and certificate of its first server.

use std::fs::DirBuilder;
use std::io::ErrorKind;
use std::os::unix::fs::DirBuilderExt;

use clap::Args;

use super::server::{self, SERVER_DAYS};
use super::{CA_CERTIFICATE, CA_KEY, Context, FolderOption};
use crate::error::Failure;
use crate::output::text::timestamp;
use crate::pki::chain::authority;
use crate::pki::issue::{self, DAY_S, Issuer, SKEW_S};
use crate::pki::key::Key;
use crate::pki::passphrase::EncryptOption;
use crate::pki::read::Cert;
use crate::pki::{chain, files};

/// Days that a CA is valid.
const CA_DAYS: u32 = 3650;

/// The command line of `generate`.
#[derive(Args, Debug)]
#[command(after_help = "Example:
  vmmp_ca generate --folder ca
  vmmp_ca generate --folder ca --name 'Example CA' --encrypt

Give server.pem, server.key and cacert.pem to the server. Keep ca.key where nobody else gets it.")]
pub(super) struct Generate {
    #[command(flatten)]
    folder: FolderOption,
    /// What the CA is called
    #[arg(long, default_value = "ca", value_parser = server::title)]
    name: String,
    /// What the server is called
    #[arg(long, default_value = "server", value_parser = server::title)]
    server: String,
    /// Days that the CA is valid
    #[arg(long, value_name = "N", default_value_t = CA_DAYS, value_parser = clap::value_parser!(u32).range(1..=36_500))]
    days: u32,
    #[command(flatten)]
    encrypt: EncryptOption,
}

impl Generate {
    pub(super) fn run(&self, context: &mut Context<'_>) -> Result<(), Failure> {
        let folder = &self.folder.folder;
        let failure = |error| Failure::Output { file: folder.clone(), error };
        if folder.exists() && !folder.is_dir() {
            return Err(failure(ErrorKind::NotADirectory.into()));
        }
        DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(failure)?;
        let (certificate, key_file) = (folder.join(CA_CERTIFICATE), folder.join(CA_KEY));
        for file in [&certificate, &key_file, &folder.join("server.key"), &folder.join("server.pem")] {
            files::check_absent(file)?;
        }
        let passphrase = self.encrypt.of_new(&key_file)?;
        let key = Key::generate()?;
        let now = context.now_unix_s;
        let not_after = now.saturating_add(i64::from(self.days) * DAY_S);
        let der = issue::root(&self.name, &key, now.saturating_sub(SKEW_S), not_after)?;
        key.write(&key_file, passphrase.as_ref().map(|it| it.as_str()))?;
        files::write_public(&certificate, issue::pem(std::slice::from_ref(&der)).as_bytes())?;
        context.say(&format!(
            "{}: the CA '{}', valid until {}",
            certificate.display(),
            self.name,
            timestamp(not_after.saturating_mul(1000))
        ))?;
        let chain = chain::without_root(Cert::parse(&der).into_iter().collect());
        let authority = authority(&chain)?;
        let issuer = Issuer { chain, key, authority };
        server::make(context, folder, &issuer, &self.server, SERVER_DAYS)
    }
}
