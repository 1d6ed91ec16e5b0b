//! Certificates, requests, lists and keys of others, damaged in every way: each is read or refused, none ends the program.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::fs;
use std::sync::OnceLock;

use common::authority::{Authority, ca, peers};
use common::{Folder, NOW_UNIX_MS};
use fulmar_client::pki::files;
use fulmar_client::pki::key::Key;
use fulmar_client::pki::passphrase::PassphraseOption;
use fulmar_client::pki::read::{Cert, Request, RevokedList, is_signed_by};
use proptest::prelude::*;
use proptest::sample::Index;

/// Good ones of each kind, in DER.
fn samples() -> &'static [Vec<u8>] {
    static SAMPLES: OnceLock<Vec<Vec<u8>>> = OnceLock::new();
    SAMPLES.get_or_init(|| {
        let authority = Authority::new(NOW_UNIX_MS / 1000);
        authority.delegate("shop", None);
        authority.done(ca, &["revoke", "shop", "--folder", &authority.text("")]);
        let files = [
            authority.path("cacert.pem"),
            authority.path("shop.pem"),
            authority.path("shop.req"),
            authority.path("cacert.crl"),
            peers("sub.pem"),
            peers("keytypes/p256/user.req"),
            peers("keytypes/rsa2048/foo.pem"),
        ];
        files.iter().flat_map(|file| files::blocks(file).unwrap()).map(|block| block.der).collect()
    })
}

/// Reads them as everything; how often they are something.
fn read_all(der: &[u8]) -> usize {
    let cert = Cert::parse(der);
    if let Some(cert) = &cert {
        let _ = (cert.command(), cert.policy(), cert.is_root(), cert.title());
        let _ = is_signed_by(der, &cert.key);
    }
    usize::from(cert.is_some())
        + usize::from(Request::parse(der).is_ok())
        + usize::from(RevokedList::parse(der).is_ok())
}

#[test]
fn good_ones_are_one_thing_each() {
    for der in samples() {
        assert_eq!(read_all(der), 1);
        for len in 0..der.len() {
            assert_eq!(read_all(&der[..len]), 0, "cut to {len} bytes");
        }
        assert_eq!(read_all(&[der.as_slice(), &[0]].concat()), 0, "with a byte after it");
    }
}

proptest! {
    #[test]
    fn damaged_ones_are_read_or_refused(sample: Index, changes in prop::collection::vec((any::<Index>(), any::<u8>()), 1..6)) {
        let mut der = sample.get(samples()).clone();
        for (at, byte) in changes {
            let at = at.index(der.len());
            der[at] = byte;
        }
        prop_assert!(read_all(&der) <= 1);
    }

    #[test]
    fn a_changed_bit_is_never_well_signed(sample: Index, at: Index, bit in 0..8_u8) {
        let mut der = sample.get(samples()).clone();
        let at = at.index(der.len());
        der[at] ^= 1 << bit;
        // A request is only taken with its signature.
        prop_assert!(Request::parse(&der).is_err());
        for public in samples().iter().filter_map(|der| Cert::parse(der)) {
            prop_assert!(!is_signed_by(&der, &public.key));
        }
    }

    #[test]
    fn any_file_is_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200), pem: bool) {
        let folder = Folder::new();
        let content = if pem { files::pem("PRIVATE KEY", &bytes).into_bytes() } else { bytes };
        let file = folder.file("it", &content);
        let _ = (Cert::read_all(&file).is_ok(), Request::read(&file).is_ok(), RevokedList::read(&file).is_ok());
        prop_assert!(Key::read(&file, &PassphraseOption::default(), None).is_err());
        fs::remove_file(file).unwrap();
    }
}
