//! `inspect`: what is in a file of certificates, requests or lists, in words.

use std::path::PathBuf;

use clap::Args;
use fulmar_core::certificate::chain::judge;
use fulmar_core::wire::Command;
use rustls::pki_types::pem::SectionKind;

use super::Context;
use crate::error::Failure;
use crate::output::table::write_pairs;
use crate::output::text::{hex, plain, timestamp};
use crate::pki::chain::{self, ChainFault};
use crate::pki::files::{self, Block};
use crate::pki::read::{Cert, Request, RevokedList};
use crate::pki::words;

/// The command line of `inspect`.
#[derive(Args, Debug)]
#[command(after_help = "Example:
  vmmp_ca inspect shop.req
  vmmp_ca inspect web.pem --ca cacert.pem")]
pub(super) struct Inspect {
    /// A file of certificates, a request or a list of revoked certificates, in PEM or DER
    file: PathBuf,
    /// Check the certificates against this CA certificate and the clock
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
}

impl Inspect {
    pub(super) fn run(&self, context: &mut Context<'_>) -> Result<(), Failure> {
        let blocks = files::blocks(&self.file)?;
        let mut certs = Vec::new();
        for (index, block) in blocks.iter().enumerate() {
            if index > 0 {
                context.say("")?;
            }
            if let Some(cert) = self.show(context, block)? {
                certs.push(cert);
            }
        }
        let Some(ca) = &self.ca else { return Ok(()) };
        let roots = Cert::read_all(ca)?;
        let [root] = roots.as_slice() else { return Err(files::wrong(ca, "has more than one certificate")) };
        let certs = chain::without_root(certs);
        let checked: Result<(), ChainFault> = match certs.as_slice() {
            [] => return Err(files::wrong(&self.file, "has no certificate to check")),
            [own] if own == root => chain::check_time(own, context.now_unix_s),
            certs => chain::check(certs, root, context.now_unix_s),
        };
        checked?;
        context.say("\nwell signed by the CA, and valid now")?;
        let [leaf, above @ ..] = certs.as_slice() else { return Ok(()) };
        if leaf.is_authority {
            let path = chain::authority(&certs)?.path;
            return context.say(&format!("its holder may sign for {path} and all below it"));
        }
        let above: Vec<&[u8]> = above.iter().map(|cert| cert.der.as_slice()).collect();
        match judge(&leaf.der, &above) {
            Ok(said) => context.say(&format!("its holder may, as {}: {}", said.name, words::command(&said.command))),
            Err(_) if leaf.carries.is_none() => context.say("it is the certificate of a server"),
            Err(refused) => Err(ChainFault::Says { text: format!("no server would take it: {refused}") }.into()),
        }
    }

    /// Shows one block; its certificate where it is one.
    fn show(&self, context: &mut Context<'_>, block: &Block) -> Result<Option<Cert>, Failure> {
        let is_key =
            |kind| matches!(kind, SectionKind::PrivateKey | SectionKind::RsaPrivateKey | SectionKind::EcPrivateKey);
        if block.kind.is_some_and(is_key) {
            return Err(files::wrong(&self.file, "is a private key, which is shown to nobody"));
        }
        let wanted = |kind| block.kind.is_none_or(|it| it == kind);
        if wanted(SectionKind::Certificate)
            && let Some(cert) = Cert::parse(&block.der)
        {
            show_certificate(context, &cert)?;
            return Ok(Some(cert));
        }
        if wanted(SectionKind::Csr) {
            match Request::parse(&block.der) {
                Ok(request) => return show_request(context, &request).map(|()| None),
                Err(what) if block.kind.is_some() => return Err(files::wrong(&self.file, what)),
                Err(_) => {}
            }
        }
        if wanted(SectionKind::Crl) {
            match RevokedList::parse(&block.der) {
                Ok(list) => return show_list(context, &list).map(|()| None),
                Err(what) if block.kind.is_some() => return Err(files::wrong(&self.file, &what)),
                Err(_) => {}
            }
        }
        Err(files::wrong(&self.file, "is no certificate, request or list that can be read"))
    }
}

fn show_certificate(context: &mut Context<'_>, cert: &Cert) -> Result<(), Failure> {
    let time = |unix_s: i64| timestamp(unix_s.saturating_mul(1000));
    let (from, to) = (time(cert.not_before_unix_s), time(cert.not_after_unix_s));
    let state = match chain::check_time(cert, context.now_unix_s) {
        Ok(()) => "",
        Err(ChainFault::Expired { .. }) => " (has expired)",
        Err(_) => " (not valid yet)",
    };
    let allows = match (cert.command(), &cert.carries, cert.is_authority) {
        (Some(command), _, _) => words::command(&command),
        (None, Some(_), _) => "carries something that cannot be read, so no server takes it".to_owned(),
        (None, None, true) => "may sign others, and adds no path".to_owned(),
        (None, None, false) => "carries no command".to_owned(),
    };
    let pairs = [
        ("certificate", cert.common_name.as_ref().map_or("no common name".to_owned(), |name| plain(name.as_bytes()))),
        ("allows", allows),
        ("valid", format!("{from} to {to}{state}")),
        ("serial", hex(&cert.serial)),
    ];
    write_pairs(context.out, &pairs).map_err(Failure::print)
}

fn show_request(context: &mut Context<'_>, request: &Request) -> Result<(), Failure> {
    let command: Option<Command<'_>> = request.command();
    let pairs = [
        ("request", request.common_name.as_ref().map_or("no common name".to_owned(), |name| plain(name.as_bytes()))),
        ("asks for", command.map(|command| words::command(&command)).unwrap_or_default()),
    ];
    write_pairs(context.out, &pairs).map_err(Failure::print)
}

fn show_list(context: &mut Context<'_>, list: &RevokedList) -> Result<(), Failure> {
    let number = list.number.to_string();
    let mut pairs = vec![("list of revoked certificates", format!("number {number}"))];
    let revoked = list.revoked.iter();
    pairs.extend(
        revoked.map(|(serial, unix_s)| {
            ("revoked", format!("{} at {}", hex(serial), timestamp(unix_s.saturating_mul(1000))))
        }),
    );
    write_pairs(context.out, &pairs).map_err(Failure::print)
}
