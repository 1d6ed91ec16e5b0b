//! Lists of revoked certificates: numbers rise, nothing is forgotten, and others can read them.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::fs;

use common::NOW_UNIX_MS;
use common::authority::{Authority, ca, run_at};
use fulmar_client::pki::read::{Cert, RevokedList, is_signed_by};
use webpki::{CertRevocationList, OwnedCertRevocationList};

const NOW: i64 = NOW_UNIX_MS / 1000;

fn serials(list: &RevokedList) -> Vec<Vec<u8>> {
    list.revoked.iter().map(|(serial, _)| serial.clone()).collect()
}

/// What is in the list of the CA, which others can read as well.
fn list(authority: &Authority, stem: &str) -> RevokedList {
    let list = RevokedList::read(&authority.path(&format!("{stem}.crl"))).unwrap();
    let in_pem = RevokedList::read(&authority.path(&format!("{stem}.crl.pem"))).unwrap();
    assert_eq!(list, in_pem);
    let signer = &Cert::read_all(&authority.path(&format!("{stem}.pem"))).unwrap()[0];
    assert!(is_signed_by(&list.der, &signer.key));
    let others: CertRevocationList<'_> = OwnedCertRevocationList::from_der(&list.der).unwrap().into();
    for (serial, _) in &list.revoked {
        assert!(others.find_serial(serial).unwrap().is_some());
    }
    list
}

fn serial(authority: &Authority, label: &str) -> Vec<u8> {
    Cert::read_all(&authority.path(&format!("{label}.pem"))).unwrap()[0].serial.clone()
}

#[test]
fn numbers_rise_and_nothing_is_forgotten() {
    let authority = Authority::new(NOW);
    let folder = authority.text("");
    for label in ["a", "b", "c"] {
        authority.delegate(label, None);
    }
    authority.done(ca, &["revoke", "--folder", &folder]);
    let empty = list(&authority, "cacert");
    assert!(empty.revoked.is_empty());
    authority.done(ca, &["revoke", "a", "--folder", &folder]);
    let first = list(&authority, "cacert");
    assert!(first.number > empty.number);
    assert_eq!(serials(&first), [serial(&authority, "a")]);
    // By the file of the certificate, and by the beginning of its number; the clock has gone back.
    let back = |words: &[&str]| assert_eq!(run_at(ca, NOW - 86_400, words).code, 0);
    back(&["revoke", &authority.text("b.pem"), "--folder", &folder]);
    let digits: String = serial(&authority, "c").iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    back(&["revoke", &digits, "--folder", &folder]);
    let last = list(&authority, "cacert");
    assert_eq!(last.number, first.number + 2);
    let mut all = ["a", "b", "c"].map(|label| serial(&authority, label));
    all.sort();
    assert_eq!(serials(&last), all);
    assert_eq!(first.revoked[0], *last.revoked.iter().find(|(it, _)| *it == first.revoked[0].0).unwrap());
    // Where the list is lost, it is made again from what was noted.
    fs::remove_file(authority.path("cacert.crl")).unwrap();
    assert_eq!(run_at(ca, NOW + 60, &["revoke", "--folder", &folder]).code, 0);
    let again = list(&authority, "cacert");
    assert_eq!(serials(&again), all);
    assert!(again.number > last.number);
    // And where the notes are, from the list.
    fs::remove_file(authority.path("db")).unwrap();
    authority.done(ca, &["revoke", "--folder", &folder]);
    assert_eq!(serials(&list(&authority, "cacert")), all);
}

#[test]
fn everybody_revokes_what_is_their_own() {
    let authority = Authority::new(NOW);
    let (folder, cert) = (authority.text(""), authority.text("shop.pem"));
    authority.delegate("shop", None);
    authority.delegate("web", Some("shop"));
    authority.request("other", &["destroy", "other"]);
    authority.sign("other", None);
    for (words, text) in [
        (&["revoke", "web", "--folder", &folder][..], "has signed nothing of this name"),
        (&["revoke", "other", "--folder", &folder, "--cert", &cert], "has signed nothing of this name"),
        (&["revoke", &authority.text("web.pem"), "--folder", &folder], "was not signed by this signer"),
        (&["revoke", &authority.text("cacert.pem"), "--folder", &folder], "was not signed by this signer"),
        (&["revoke", "nobody", "--folder", &folder], "has signed nothing of this name"),
    ] {
        let ran = authority.run(ca, words);
        assert_eq!(ran.code, 124, "{words:?}");
        assert!(ran.errors.contains(text), "{words:?}: {}", ran.errors);
    }
    authority.done(ca, &["revoke", "web", "--folder", &folder, "--cert", &cert]);
    assert_eq!(serials(&list(&authority, "shop")), [serial(&authority, "web")]);
    // The other signer's list is not touched, nor taken for one's own.
    assert!(!authority.path("cacert.crl").exists());
    fs::copy(authority.path("shop.crl"), authority.path("cacert.crl")).unwrap();
    let ran = authority.run(ca, &["revoke", "--folder", &folder]);
    assert!(ran.errors.contains("is the list of another signer"), "{}", ran.errors);
    let out = authority.done(ca, &["list", "--folder", &folder]);
    assert!(out.lines().any(|line| line.starts_with("web ") && line.contains("revoked 2026-11-21T04:00:00Z")), "{out}");
}

#[test]
fn all_of_a_name_are_revoked() {
    let authority = Authority::new(NOW);
    let folder = authority.text("");
    authority.delegate("shop", None);
    fs::rename(authority.path("shop.pem"), authority.path("old.pem")).unwrap();
    authority.sign("shop", None);
    authority.done(ca, &["revoke", "shop", "--folder", &folder]);
    let mut both = ["old", "shop"].map(|label| serial(&authority, label));
    both.sort();
    assert_eq!(serials(&list(&authority, "cacert")), both);
    let out = authority.done(ca, &["revoke", "shop", "--folder", &folder]);
    assert_eq!(out.matches("was revoked before").count(), 2, "{out}");
    let out = authority.done(ca, &["inspect", &authority.text("cacert.crl")]);
    assert_eq!(out.matches("revoked  ").count(), 2, "{out}");
}
