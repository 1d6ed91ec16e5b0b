//! Certificates, requests and lists: as the peer's tools make them, readable for others, and nothing is lost or overwritten.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::fs;
use std::os::unix::fs::PermissionsExt;

use common::authority::{Authority, ca, peers, request, run_at};
use common::{Folder, NOW_UNIX_MS};
use der::{Decode, Encode};
use fulmar_client::pki::key::Key;
use fulmar_client::pki::passphrase::PassphraseOption;
use fulmar_client::pki::read::{Cert, Request, RevokedList};
use fulmar_core::limits::CHAIN_CERTIFICATES_MAX;
use x509_cert::Certificate;
use x509_cert::der::oid::AssociatedOid;
use x509_cert::ext::Extension;
use x509_cert::ext::pkix::KeyUsage;
use x509_cert::time::Time;

const NOW: i64 = NOW_UNIX_MS / 1000;
const DAY: i64 = 86_400;

/// When the peer's leaves have expired.
const PEERS_LEAVES: i64 = NOW + 10 * DAY;

fn whole(cert: &Cert) -> Certificate {
    Certificate::from_der(&cert.der).unwrap()
}

/// The extensions in their order. The peer pads its key usage with zeros, which DER does not.
fn extensions(cert: &Cert) -> Vec<Vec<u8>> {
    let whole = whole(cert);
    let shape = |extension: &Extension| match KeyUsage::from_der(extension.extn_value.as_bytes()) {
        Ok(usage) if extension.extn_id == KeyUsage::OID => format!("{usage:?} {}", extension.critical).into_bytes(),
        _ => extension.to_der().unwrap(),
    };
    whole.tbs_certificate().extensions().unwrap().iter().map(shape).collect()
}

#[test]
fn keys_of_the_peer_are_read() {
    for (key, certificate) in [
        ("ca.key", "cacert.pem"),
        ("user.key", "user.pem"),
        ("server.key", "server.pem"),
        ("keytypes/p256/ca.key", "keytypes/p256/cacert.pem"),
        ("keytypes/p384/user.key", "keytypes/p384/user.pem"),
        ("keytypes/rsa2048/ca.key", "keytypes/rsa2048/cacert.pem"),
    ] {
        let certs = Cert::read_all(&peers(certificate)).unwrap();
        let read = Key::read(&peers(key), &PassphraseOption::default(), Some(&certs[0].key)).unwrap();
        assert_eq!(read.public(), certs[0].key, "{key}");
        if key.contains("/p") {
            // Those of curves come without their public half; with another one they are refused.
            let other = &Cert::read_all(&peers("keytypes/p256/foo.pem")).unwrap()[0].key;
            let with = |public| Key::read(&peers(key), &PassphraseOption::default(), public);
            assert!(with(None).unwrap_err().to_string().contains("without its public half"));
            assert!(with(Some(other)).is_err());
            continue;
        }
        // And written again it is the same file.
        let folder = Folder::new();
        read.write(&folder.0.join("key"), None).unwrap();
        assert_eq!(fs::read(folder.0.join("key")).unwrap(), fs::read(peers(key)).unwrap(), "{key}");
    }
    let unknown = Key::read(&peers("keytypes/p521/ca.key"), &PassphraseOption::default(), None).unwrap_err();
    assert!(unknown.to_string().contains("of a kind that is not known (Ed25519, P-256"), "{unknown}");
}

/// What we sign for the peer's requests with the peer's keys is what the peer has signed, but for the number and the time.
#[test]
fn certificates_are_those_of_the_peer() {
    for (request, signer, signed) in [
        ("user.req", "ca", "user.pem"),
        ("sub.req", "user", "sub.pem"),
        ("leaf/info1/leaf.req", "user", "leaf/info1/x1.pem"),
        ("leaf/blockadd/leaf.req", "user", "leaf/blockadd/b1.pem"),
        ("leaf/console1/leaf.req", "user", "leaf/console1/c1.pem"),
        ("leaf/destroy1/leaf.req", "user", "leaf/destroy1/d1.pem"),
        ("leaf/dump/leaf.req", "user", "leaf/dump/db1.pem"),
        ("leaf/getx/leaf.req", "user", "leaf/getx/g1.pem"),
        ("leaf/policyinfo/leaf.req", "user", "leaf/policyinfo/p1.pem"),
        ("leaf/restart/leaf.req", "user", "leaf/restart/r1.pem"),
        ("leaf/setblock/leaf.req", "user", "leaf/setblock/sb1.pem"),
        ("leaf/stats1/leaf.req", "user", "leaf/stats1/s1.pem"),
        ("keytypes/p256/user.req", "keytypes/p256/ca", "keytypes/p256/user.pem"),
        ("keytypes/p384/user.req", "keytypes/p384/ca", "keytypes/p384/user.pem"),
        ("keytypes/rsa2048/user.req", "keytypes/rsa2048/ca", "keytypes/rsa2048/user.pem"),
    ] {
        let folder = Folder::new();
        let text = |file: &str| peers(file).to_str().unwrap().to_owned();
        let certificate = if signer.ends_with("ca") { format!("{signer}cert.pem") } else { format!("{signer}.pem") };
        let output = folder.0.join("ours.pem");
        let words = [
            "sign",
            &text(request),
            "--yes",
            "--folder",
            folder.0.to_str().unwrap(),
            "--cert",
            &text(&certificate),
            "--key",
            &text(&format!("{signer}.key")),
            "--output",
            output.to_str().unwrap(),
        ];
        let ran = run_at(ca, NOW, &words);
        assert_eq!(ran.code, 0, "{request}: {}", ran.errors);
        let (ours, theirs) = (Cert::read_all(&output).unwrap(), Cert::read_all(&peers(signed)).unwrap());
        assert_eq!(ours[1..], theirs[1..], "{request}: those above");
        let (ours, theirs) = (&ours[0], &theirs[0]);
        assert_eq!(extensions(ours), extensions(theirs), "{request}");
        assert_eq!(
            (&ours.subject, &ours.issuer, &ours.key),
            (&theirs.subject, &theirs.issuer, &theirs.key),
            "{request}"
        );
        assert_eq!(whole(ours).signature_algorithm(), whole(theirs).signature_algorithm(), "{request}");
        let seconds = |cert: &Cert| cert.not_after_unix_s - cert.not_before_unix_s;
        let signers = Cert::read_all(&peers(&certificate)).unwrap()[0].not_after_unix_s;
        let end = (ours.not_before_unix_s + seconds(theirs)).min(signers);
        assert_eq!(ours.not_after_unix_s, end, "{request}");
        assert_eq!(ours.serial.len(), 16);
    }
}

#[test]
fn a_new_ca_is_one_of_the_peer_too() {
    let authority = Authority::new(NOW);
    for (ours, theirs) in [("cacert.pem", "cacert.pem"), ("server.pem", "server.pem")] {
        let (ours, theirs) =
            (&Cert::read_all(&authority.path(ours)).unwrap()[0], &Cert::read_all(&peers(theirs)).unwrap()[0]);
        // Identifiers of keys are of the key; all else is the same.
        let shape = |cert: &Cert| {
            extensions(cert)
                .into_iter()
                .map(|it| if it.len() > 20 && !it.ends_with(&[1]) { it[..8].to_vec() } else { it })
                .collect::<Vec<_>>()
        };
        assert_eq!(shape(ours), shape(theirs));
        assert_eq!((&ours.subject, &ours.issuer), (&theirs.subject, &theirs.issuer));
        assert_eq!(ours.not_after_unix_s - ours.not_before_unix_s, theirs.not_after_unix_s - theirs.not_before_unix_s);
    }
    let mode = |file: &str| authority.path(file).metadata().unwrap().permissions().mode() & 0o777;
    assert_eq!([mode("ca.key"), mode("server.key"), mode("cacert.pem")], [0o600, 0o600, 0o644]);
}

#[test]
fn nothing_is_overwritten() {
    let authority = Authority::new(NOW);
    let before = fs::read(authority.path("ca.key")).unwrap();
    let ran = authority.run(ca, &["generate", "--folder", &authority.text("")]);
    assert_eq!(ran.code, 125, "{}", ran.errors);
    assert!(ran.errors.contains("is there already and is not overwritten"), "{}", ran.errors);
    assert_eq!(fs::read(authority.path("ca.key")).unwrap(), before);
    authority.delegate("shop", None);
    let key = fs::read(authority.path("shop.key")).unwrap();
    let (file, key_file) = (authority.text("shop.req"), authority.text("shop.key"));
    let ran = authority.run(request, &["--request", &file, "--key", &key_file, "info"]);
    assert_eq!(ran.code, 125, "{}", ran.errors);
    // A key that is there is used.
    let other = authority.text("other.req");
    authority.done(request, &["--request", &other, "--key", &key_file, "info"]);
    assert_eq!(fs::read(authority.path("shop.key")).unwrap(), key);
    assert_eq!(
        Request::read(&authority.path("other.req")).unwrap().key,
        Request::read(&authority.path("shop.req")).unwrap().key
    );
    let ran = authority.run(ca, &["sign", &file, "--yes", "--folder", &authority.text("")]);
    assert_eq!(ran.code, 125, "{}", ran.errors);
    assert_eq!(authority.path("shop.key").metadata().unwrap().permissions().mode() & 0o777, 0o600);
}

#[test]
fn nothing_is_left_of_what_fails() {
    let authority = Authority::new(NOW);
    let (key, nowhere) = (authority.text("new.key"), authority.text("nodir/x"));
    let ran = authority.run(request, &["--request", &nowhere, "--key", &key, "info"]);
    assert_eq!(ran.code, 125, "{}", ran.errors);
    assert!(!authority.path("new.key").exists());
    // A key that was there stays.
    authority.request("old", &["info"]);
    let ran = authority.run(request, &["--request", &nowhere, "--key", &authority.text("old.key"), "info"]);
    assert_eq!(ran.code, 125, "{}", ran.errors);
    assert!(authority.path("old.key").exists());
    // Of those that sign to one file one does, and what the others have signed is nowhere.
    let before = fs::read_to_string(authority.path("db")).unwrap().lines().count();
    let (file, folder) = (authority.text("old.req"), authority.text(""));
    let signed = std::thread::scope(|scope| {
        let sign = || scope.spawn(|| authority.run(ca, &["sign", &file, "--yes", "--folder", &folder]).code == 0);
        let signers: Vec<_> = (0..8).map(|_| sign()).collect();
        signers.into_iter().map(|it| it.join().unwrap()).filter(|done| *done).count()
    });
    assert_eq!(signed, 1);
    assert_eq!(fs::read_to_string(authority.path("db")).unwrap().lines().count(), before + 1);
    assert_eq!(Cert::read_all(&authority.path("old.pem")).unwrap().len(), 1);
    let left: Vec<_> = fs::read_dir(&authority.folder.0).unwrap().map(|it| it.unwrap().file_name()).collect();
    assert!(!left.iter().any(|name| name.to_string_lossy().ends_with(".part")), "{left:?}");
}

#[test]
fn renewing_a_server_keeps_its_key() {
    let authority = Authority::new(NOW);
    let before =
        (fs::read(authority.path("server.key")).unwrap(), Cert::read_all(&authority.path("server.pem")).unwrap());
    let later = NOW + 300 * DAY;
    let ran = run_at(ca, later, &["server", "--folder", &authority.text("")]);
    assert_eq!(ran.code, 0, "{}", ran.errors);
    let after =
        (fs::read(authority.path("server.key")).unwrap(), Cert::read_all(&authority.path("server.pem")).unwrap());
    assert_eq!(before.0, after.0);
    assert_eq!(before.1[0].key, after.1[0].key);
    assert_eq!(after.1[0].not_after_unix_s, later + 365 * DAY);
    assert_ne!(before.1[0].serial, after.1[0].serial);
}

#[test]
fn years_after_2049_have_four_digits() {
    // 2045-01-01: the CA lives into 2054.
    let authority = Authority::new(2_366_841_600);
    let root = whole(&Cert::read_all(&authority.path("cacert.pem")).unwrap()[0]);
    let validity = root.tbs_certificate().validity();
    assert!(matches!(validity.not_before, Time::UtcTime(_)), "{validity:?}");
    assert!(matches!(validity.not_after, Time::GeneralTime(_)), "{validity:?}");
    assert_eq!(validity.not_after.to_date_time().year(), 2054);
    // 2053: a command of then, and a list.
    let then = Authority { folder: authority.folder, now_unix_s: 2_624_000_000 };
    then.request("web", &["restart", "web"]);
    then.sign("web", None);
    let leaf = whole(&Cert::read_all(&then.path("web.pem")).unwrap()[0]);
    assert!(matches!(leaf.tbs_certificate().validity().not_before, Time::GeneralTime(_)));
    then.done(ca, &["revoke", "web", "--folder", &then.text("")]);
    assert_eq!(RevokedList::read(&then.path("cacert.crl")).unwrap().revoked[0].1, then.now_unix_s);
}

#[test]
fn nothing_outlives_its_signer() {
    let authority = Authority::new(NOW);
    let late = Authority { now_unix_s: NOW + 3649 * DAY, folder: authority.folder };
    late.delegate("shop", None);
    let certs =
        [Cert::read_all(&late.path("shop.pem")).unwrap(), Cert::read_all(&late.path("cacert.pem")).unwrap()].concat();
    assert_eq!(certs[0].not_after_unix_s, certs[1].not_after_unix_s);
    let after = Authority { now_unix_s: NOW + 3650 * DAY + 1, folder: late.folder };
    after.request("web", &["restart", "web"]);
    let ran = after.run(ca, &["sign", &after.text("web.req"), "--yes", "--folder", &after.text("")]);
    assert_eq!(ran.code, 116);
    assert!(
        ran.errors.contains(
            "certificate 'ca' has expired: it was valid until 2036-11-18T04:00:00Z, the clock here says 2036-11-18T04:00:01Z"
        ),
        "{}",
        ran.errors
    );
    assert!(!after.path("web.pem").exists());
}

#[test]
fn more_than_the_signer_has_is_signed_on_request_only() {
    let authority = Authority::new(NOW);
    authority.delegate("shop", None);
    authority.request("big", &["add-policy", "big", "4", "--mem", "512", "--cpu", "0"]);
    let (file, cert, folder) = (authority.text("big.req"), authority.text("shop.pem"), authority.text(""));
    let words = ["sign", &file, "--cert", &cert, "--folder", &folder, "--yes"];
    let ran = authority.run(ca, &words);
    assert_eq!(ran.code, 124);
    assert!(
        ran.out.contains("more than shop: has: its policy allows 256 MB memory, which is fewer than 512 MB"),
        "{}",
        ran.out
    );
    assert!(ran.errors.contains("add --exceed if so"), "{}", ran.errors);
    assert!(!authority.path("big.pem").exists());
    // Without a terminal nobody can say yes but by an option.
    let ran = authority.run(ca, &words[..words.len() - 1]);
    assert_eq!(ran.code, 124);
    let out = authority.done(ca, &[&words[..], &["--exceed"]].concat());
    assert!(
        out.contains(
            "shop:big: may hand on to others: 4 unikernels, 512 MB of memory, CPUs 0, no block storage, no bridge"
        ),
        "{out}"
    );
    authority.request("web", &["destroy", "web"]);
    let ran = authority.run(ca, &["sign", &authority.text("web.req"), "--folder", &folder]);
    assert_eq!(ran.code, 124);
    assert!(ran.errors.contains("add --yes if so"), "{}", ran.errors);
}

#[test]
fn delegations_go_down_as_far_as_a_chain_goes() {
    let authority = Authority::new(NOW);
    let mut above = None;
    let deepest = CHAIN_CERTIFICATES_MAX - 1;
    for depth in 1..=deepest {
        let label = format!("d{depth}");
        authority.delegate(&label, above.as_deref());
        above = Some(label);
    }
    authority.request("web", &["destroy", "web"]);
    let out = authority.sign("web", above.as_deref());
    assert!(
        out.contains(&format!("d1:d2:d3:d4:d5:d6:d{deepest}:web destroy the unikernel").replace(":d6:d6:", ":d6:")),
        "{out}"
    );
    let out = authority.done(ca, &["inspect", &authority.text("web.pem"), "--ca", &authority.text("cacert.pem")]);
    assert!(out.contains("well signed by the CA, and valid now"), "{out}");
    authority.delegate("last", above.as_deref());
    authority.request("x", &["destroy", "x"]);
    let ran = authority.run(
        ca,
        &[
            "sign",
            &authority.text("x.req"),
            "--yes",
            "--cert",
            &authority.text("last.pem"),
            "--folder",
            &authority.text(""),
        ],
    );
    assert_eq!(ran.code, 116);
    assert!(ran.errors.contains(&format!("more than {CHAIN_CERTIFICATES_MAX} certificates")), "{}", ran.errors);
}

#[test]
fn passphrases() {
    let authority = Authority::new(NOW);
    let (right, wrong) =
        (authority.folder.file("right", b"open sesame\nrest\n"), authority.folder.file("wrong", b"sesame\n"));
    let (right, wrong) = (right.to_str().unwrap(), wrong.to_str().unwrap());
    authority.request("shop", &["add-policy", "shop", "2", "--cpu", "0", "--passphrase-file", right]);
    authority.sign("shop", None);
    let key = fs::read_to_string(authority.path("shop.key")).unwrap();
    assert!(key.starts_with("-----BEGIN ENCRYPTED PRIVATE KEY-----\n"), "{key}");
    authority.request("web", &["destroy", "web"]);
    let (file, cert, folder) = (authority.text("web.req"), authority.text("shop.pem"), authority.text(""));
    let words = ["sign", &file, "--cert", &cert, "--folder", &folder, "--yes", "--passphrase-file"];
    let ran = authority.run(ca, &[&words[..], &[wrong]].concat());
    assert_eq!(ran.code, 124);
    assert!(ran.errors.contains("shop.key: this is not its passphrase"), "{}", ran.errors);
    authority.done(ca, &[&words[..], &[right]].concat());
    let empty = authority.folder.file("empty", b"\n");
    let ran = authority.run(
        request,
        &[
            "info",
            "--passphrase-file",
            empty.to_str().unwrap(),
            "--key",
            &authority.text("e.key"),
            "--request",
            &authority.text("e.req"),
        ],
    );
    assert_eq!(ran.code, 124);
    assert!(!authority.path("e.key").exists());
}

#[test]
fn requests_have_one_label() {
    let authority = Authority::new(NOW);
    for words in [&["destroy", "shop:web"][..], &["info", "shop:"], &["add-policy", "a:b", "1", "--cpu", "0"]] {
        let ran = authority.run(
            request,
            &[&["--request", &authority.text("r.req"), "--key", &authority.text("r.key")], words].concat(),
        );
        assert_eq!(ran.code, 124, "{words:?}");
        assert!(ran.errors.contains("the path comes from whoever signs"), "{}", ran.errors);
        assert!(!authority.path("r.key").exists() && !authority.path("r.req").exists());
    }
    authority.request("all", &["info"]);
    assert_eq!(Request::read(&authority.path("all.req")).unwrap().common_name.as_deref(), Some("."));
}

#[test]
fn what_is_no_request_is_not_signed() {
    let authority = Authority::new(NOW);
    authority.request("web", &["destroy", "web"]);
    let good = fs::read(authority.path("web.req")).unwrap();
    let mut forged = good.clone();
    // A letter within the signature.
    let at = good.len() - 40;
    forged[at] = if good[at] == b'A' { b'B' } else { b'A' };
    for (content, text) in [
        (forged.as_slice(), "is not signed with its own key"),
        (b"", "has nothing in PEM or DER"),
        (&fs::read(peers("user.pem")).unwrap(), "has no request"),
        (
            b"-----BEGIN CERTIFICATE REQUEST-----\nMAA=\n-----END CERTIFICATE REQUEST-----\n",
            "is no request that can be read",
        ),
    ] {
        let file = authority.folder.file("bad.req", content);
        let ran = authority.run(ca, &["sign", file.to_str().unwrap(), "--yes", "--folder", &authority.text("")]);
        assert_eq!(ran.code, 124);
        assert!(ran.errors.contains(text), "{text}: {}", ran.errors);
    }
}

#[test]
fn what_is_wrong_is_said_with_the_thing_and_the_remedy() {
    let authority = Authority::new(NOW);
    let (folder, none, file) = (authority.text(""), authority.text("nofolder"), authority.text("cacert.pem"));
    for (words, said) in [
        (["list", "--folder", &none], "nofolder: is no folder: give that of the CA"),
        (["sign", &file, "--folder=."], "cacert.pem: has no request"),
        (["generate", "--folder", &file], "cacert.pem: cannot be written (not a directory)"),
    ] {
        let ran = authority.run(ca, &words);
        assert!(ran.code != 0 && ran.errors.contains(said), "{words:?}: {}", ran.errors);
    }
    fs::write(authority.path("db"), "xyz\n").unwrap();
    let ran = authority.run(ca, &["list", "--folder", &folder]);
    assert!(ran.errors.contains("db: line 1 cannot be read: bring the file back from a copy"), "{}", ran.errors);
}

#[test]
fn expiry_is_listed() {
    let folder = Folder::new();
    fs::copy(peers("db"), folder.0.join("db")).unwrap();
    let text = folder.0.to_str().unwrap();
    let ran = run_at(ca, PEERS_LEAVES, &["list", "--folder", text]);
    assert!(ran.out.contains("user    unknown  unknown  76099b64cba8e21fe232\n"), "{}", ran.out);
    let authority = Authority::new(NOW);
    authority.request("web", &["destroy", "web"]);
    authority.sign("web", None);
    authority.delegate("shop", None);
    let list = |now| run_at(ca, now, &["list", "--folder", &authority.text("")]).out;
    assert!(list(NOW).contains("web     valid  2026-11-22T04:00:00Z  "), "{}", list(NOW));
    let later = list(NOW + 2 * DAY);
    assert!(later.contains("web     expired") && later.contains("shop    valid"), "{later}");
}
