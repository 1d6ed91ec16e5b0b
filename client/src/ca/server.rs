//! `server`: the certificate of a server. It has the key that is there, or a new one, so that renewing changes one file.

use std::path::Path;

use clap::Args;

use super::{Context, Holder};
use crate::error::Failure;
use crate::output::text::timestamp;
use crate::pki::encode::{self, Use};
use crate::pki::files;
use crate::pki::issue::{self, DAY_S, Grant, Issuer, SKEW_S};
use crate::pki::key::{Key, identifier};
use crate::pki::passphrase::PassphraseOption;
use crate::pki::read::Cert;
use crate::pki::register::Register;

/// Days that the certificate of a server is valid.
pub(super) const SERVER_DAYS: u32 = 365;

/// Bytes of a common name that is no label (RFC 5280 appendix A.1, ub-common-name).
const TITLE_BYTES_MAX: usize = 64;

/// The command line of `server`.
#[derive(Args, Debug)]
#[command(after_help = "Example:
  vmmp_ca server --folder ca

Signs server.key of the folder again, and puts the new server.pem in the place of the old one.")]
pub(super) struct Server {
    #[command(flatten)]
    holder: Holder,
    /// What the server is called
    #[arg(long, default_value = "server", value_parser = title)]
    name: String,
    /// Days that the certificate is valid
    #[arg(long, value_name = "N", default_value_t = SERVER_DAYS, value_parser = clap::value_parser!(u32).range(1..=3650))]
    days: u32,
}

impl Server {
    pub(super) fn run(&self, context: &mut Context<'_>) -> Result<(), Failure> {
        let issuer = self.holder.issuer()?;
        if !issuer.is_root() {
            let text =
                "clients trust servers that the CA itself has signed: give the CA's certificate and key".to_owned();
            return Err(Failure::Usage { text });
        }
        make(context, self.holder.folder(), &issuer, &self.name, self.days)
    }
}

/// Makes the certificate, and the key where there is none.
pub(super) fn make(
    context: &mut Context<'_>,
    folder: &Path,
    issuer: &Issuer,
    name: &str,
    days: u32,
) -> Result<(), Failure> {
    let now = context.now_unix_s;
    issuer.check_time(now)?;
    let (certificate, key_file) = (folder.join("server.pem"), folder.join("server.key"));
    let key = match files::check_absent(&key_file) {
        Ok(()) => {
            let key = Key::generate()?;
            key.write(&key_file, None)?;
            key
        }
        Err(_) => {
            let before = Cert::read_all(&certificate).ok().and_then(|certs| certs.into_iter().next());
            Key::read(&key_file, &PassphraseOption::default(), before.as_ref().map(|cert| cert.key.as_slice()))?
        }
    };
    let chain = issuer.sign(&Grant {
        subject: &encode::common_name(name),
        key: key.public(),
        purpose: Use::Server,
        carries: None,
        not_before_unix_s: now.saturating_sub(SKEW_S),
        not_after_unix_s: now.saturating_add(i64::from(days) * DAY_S),
    })?;
    record(folder, issuer, &chain)?;
    files::replace(&certificate, issue::pem(&chain).as_bytes(), 0o644)?;
    let end = chain.first().and_then(|der| Cert::parse(der)).map_or(0, |cert| cert.not_after_unix_s);
    context.say(&format!(
        "{}: the server '{name}', valid until {}",
        certificate.display(),
        timestamp(end.saturating_mul(1000))
    ))
}

/// Notes the first certificate of a chain as issued, before anybody gets it.
pub(super) fn record(folder: &Path, issuer: &Issuer, chain: &[Vec<u8>]) -> Result<Cert, Failure> {
    let cert = chain.first().and_then(|der| Cert::parse(der)).ok_or(Failure::Chance)?;
    let register = Register::read(folder)?;
    let name = cert.common_name.as_deref().map(|name| name.replace(char::is_whitespace, "_"));
    register.add(&cert.serial, name.as_deref(), cert.not_after_unix_s, &identifier(&issuer.own()?.key))?;
    Ok(cert)
}

/// Reads the common name of a CA or a server.
pub(super) fn title(text: &str) -> Result<String, String> {
    let fits = (1..=TITLE_BYTES_MAX).contains(&text.len()) && !text.chars().any(char::is_control);
    if fits && !text.trim().is_empty() {
        return Ok(text.to_owned());
    }
    Err(format!("'{}' is not 1 to {TITLE_BYTES_MAX} bytes of visible text", text.escape_debug()))
}
