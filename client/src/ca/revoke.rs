//! `revoke`: makes the list of revoked certificates anew. What was revoked before stays in it, and its number always rises.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use clap::Args;
use fulmar_core::limits::REVOCATION_LIST_BYTES_MAX;

use super::{Context, Holder};
use crate::error::Failure;
use crate::output::text::{hex, plain};
use crate::pki::files;
use crate::pki::issue::Issuer;
use crate::pki::key::identifier;
use crate::pki::read::{Cert, RevokedList, is_signed_by};
use crate::pki::register::{Issued, Register, unhex};

/// The command line of `revoke`.
#[derive(Args, Debug)]
#[command(after_help = "Example:
  vmmp_ca revoke shop --folder ca
  vmmp_ca revoke 4f2a9c0e --folder ca
  vmmp_ca revoke web.pem --cert shop.pem --key shop.key

The list is in cacert.crl (DER) and cacert.crl.pem, called as the certificate of the signer. Send it to the server:
  vmmc_bistro --ca cacert.pem --cert cacert.pem --key ca.key HOST revoke cacert.crl")]
pub(super) struct Revoke {
    /// What is revoked: a common name (all of that name), a serial number or its beginning, or the file of a certificate;
    /// without any the list is made again
    #[arg(value_name = "NAME|SERIAL|FILE")]
    what: Vec<String>,
    #[command(flatten)]
    holder: Holder,
}

impl Revoke {
    pub(super) fn run(&self, context: &mut Context<'_>) -> Result<(), Failure> {
        let issuer = self.holder.issuer()?;
        let own_key = identifier(&issuer.own()?.key);
        let register = Register::read(self.holder.folder())?;
        let file = self.holder.certificate().with_extension("crl");
        let before = match files::check_absent(&file) {
            Ok(()) => None,
            Err(_) => Some(RevokedList::read(&file)?),
        };
        let mut revoked: BTreeMap<Vec<u8>, i64> = BTreeMap::new();
        let ours = |issued: &Issued| issued.issuer_key.as_ref().is_none_or(|key| *key == hex(&own_key));
        let noted = register.issued.iter().filter(|issued| ours(issued));
        revoked.extend(noted.filter_map(|issued| Some((issued.serial.clone(), issued.revoked_unix_s?))));
        if let Some(before) = &before {
            if !is_signed_by(&before.der, &issuer.own()?.key) {
                return Err(files::wrong(&file, "is the list of another signer"));
            }
            revoked.extend(before.revoked.iter().cloned());
        }
        for what in &self.what {
            for (serial, name) in self.find(what, &register, &issuer, &ours)? {
                if revoked.contains_key(&serial) {
                    context.say(&format!("{}: {} was revoked before", plain(name.as_bytes()), hex(&serial)))?;
                    continue;
                }
                register.revoke(&serial, &name, context.now_unix_s, &own_key)?;
                context.say(&format!("{}: revoked {}", plain(name.as_bytes()), hex(&serial)))?;
                revoked.insert(serial, context.now_unix_s);
            }
        }
        // By the clock, so that the number rises even where the list before is lost.
        let number = before.map_or(0, |before| before.number.saturating_add(1)).max(context.now_unix_s);
        let revoked: Vec<_> = revoked.into_iter().collect();
        let der = issuer.sign_list(number, &revoked, context.now_unix_s)?;
        if der.len() > REVOCATION_LIST_BYTES_MAX {
            let text = format!(
                "{}: the list has become larger than servers take ({REVOCATION_LIST_BYTES_MAX} bytes)",
                file.display()
            );
            return Err(Failure::Usage { text });
        }
        let in_pem = PathBuf::from(format!("{}.pem", file.display()));
        files::replace(&in_pem, files::pem("X509 CRL", &der).as_bytes(), 0o644)?;
        files::replace(&file, &der, 0o644)?;
        context.say(&format!("{}: list {number}, certificates: {}", file.display(), revoked.len()))
    }

    /// The serial numbers and names that are meant.
    fn find(
        &self,
        what: &str,
        register: &Register,
        issuer: &Issuer,
        ours: &dyn Fn(&Issued) -> bool,
    ) -> Result<Vec<(Vec<u8>, String)>, Failure> {
        let path = Path::new(what);
        if path.is_file() {
            let certs = Cert::read_all(path)?;
            let Some(cert) = certs.into_iter().next() else { return Err(files::wrong(path, "has no certificate")) };
            if !is_signed_by(&cert.der, &issuer.own()?.key) || cert.is_root() {
                return Err(files::wrong(path, "was not signed by this signer, who cannot revoke it"));
            }
            let name = cert.common_name.unwrap_or_default().replace(char::is_whitespace, "_");
            return Ok(vec![(cert.serial, if name.is_empty() { ".".to_owned() } else { name })]);
        }
        let signed = || register.issued.iter().filter(|issued| ours(issued));
        let mut found: Vec<_> = signed().filter(|issued| issued.name == what).collect();
        if found.is_empty() && unhex(what).is_some() {
            found = signed().filter(|issued| hex(&issued.serial).starts_with(&what.to_ascii_lowercase())).collect();
            if found.len() > 1 {
                return Err(Failure::Usage {
                    text: format!("{what}: several serial numbers begin so: give more of it"),
                });
            }
        }
        if found.is_empty() {
            let text = format!("{what}: this signer has signed nothing of this name or number: see vmmp_ca list");
            return Err(Failure::Usage { text });
        }
        Ok(found.into_iter().map(|issued| (issued.serial.clone(), issued.name.clone())).collect())
    }
}
