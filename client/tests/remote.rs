//! Conversations by TLS with a server that says what a test wants: what `vmmc_remote` and `vmmc_bistro` bring, and what they make of it.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;

use common::authority::{Authority, Program, bistro, ca, peers, present, remote, run_at};
use common::server::{Conversation, Heard, TlsServer, read_chunks};
use common::{Ran, frame, image};
use flate2::read::ZlibDecoder;
use fulmar_client::pki::encode;
use fulmar_client::pki::issue::{self, Grant, Issuer};
use fulmar_client::pki::key::Key;
use fulmar_client::pki::passphrase::PassphraseOption;
use fulmar_client::pki::read::{Cert, RevokedList};
use fulmar_core::certificate::chain::{Chain, judge};
use fulmar_core::wire::{
    BlockCommand, Command, Data, Image, List, NamedPolicy, Note, Payload, Policy, PolicyCommand, Success, Text,
    UnikernelCommand,
};

const DONE: Success<'static> = Success::Text(Text(b"done that"));

fn success(name: &str, success: Success<'_>) -> Vec<u8> {
    frame(name, Payload::Success(success))
}

/// A client with the certificate and key of `holder`; the CA's own where it is `cacert`.
fn client(program: Program, authority: &Authority, holder: &str, place: &str, words: &[&str]) -> Ran {
    let key = if holder == "cacert" { "ca.key".to_owned() } else { format!("{holder}.key") };
    let (ca, cert, key) =
        (authority.text("cacert.pem"), authority.text(&format!("{holder}.pem")), authority.text(&key));
    authority.run(program, &[&["--ca", &ca, "--cert", &cert, "--key", &key, place], words].concat())
}

/// What a server makes of the certificates.
fn judged<R>(heard: &Heard, look: impl FnOnce(Chain<'_>) -> R) -> R {
    let above: Vec<&[u8]> = heard.0.iter().skip(1).map(|cert| cert.der.as_slice()).collect();
    look(judge(&heard.0[0].der, &above).unwrap())
}

fn said(heard: &Heard) -> (String, String) {
    judged(heard, |chain| (chain.name.to_string(), format!("{:?}", chain.command)))
}

/// A CA, and the delegation `shop` below it.
fn shop() -> Authority {
    let authority = Authority::new(present());
    authority.delegate("shop", None);
    authority
}

#[test]
fn a_command_is_in_a_certificate_of_minutes() {
    let authority = shop();
    for (holder, name) in [("cacert", ":web"), ("shop", "shop:web")] {
        let server = TlsServer::answering(&authority, vec![success(name, DONE)]);
        let ran = client(bistro, &authority, holder, &server.place(), &["destroy", name]);
        assert_eq!((ran.code, ran.out), (0, format!("{name}: done that\n")), "{}", ran.errors);
        let heard = server.heard();
        assert_eq!(said(&heard[0]), (name.to_owned(), "Unikernel(Destroy)".to_owned()));
        let leaf = &heard[0].0[0];
        assert_eq!(leaf.not_before_unix_s, authority.now_unix_s - 10);
        assert_eq!(leaf.not_after_unix_s, authority.now_unix_s + 300);
        // The CA's own certificate is not sent.
        assert_eq!(heard[0].0.len(), if holder == "cacert" { 1 } else { 2 });
    }
}

#[test]
fn paths_below_are_reached_by_the_policies_that_they_have() {
    let authority = shop();
    let (one, cpus) = (["br0"], [0]);
    let policy = |unikernels| Policy {
        cpuids: List::Items(&cpus),
        unikernels,
        memory: 64,
        block: None,
        bridges: List::Items(&one),
    };
    let name = |text: &str| fulmar_core::name::Name::parse(text).unwrap();
    let listed = [
        NamedPolicy { name: name("shop:"), policy: policy(9) },
        NamedPolicy { name: name("a:b:"), policy: policy(2) },
        NamedPolicy { name: name("a:"), policy: policy(3) },
        NamedPolicy { name: name("other:"), policy: policy(1) },
    ];
    let policies = success("shop:", Success::Policies(List::Items(&listed)));
    let server = TlsServer::answering(&authority, vec![policies.clone(), success("shop:a:b:web", DONE)]);
    let ran = client(bistro, &authority, "shop", &server.place(), &["destroy", "shop:a:b:web"]);
    assert_eq!(ran.code, 0, "{}", ran.errors);
    let heard = server.heard();
    assert_eq!(said(&heard[0]), ("shop:".to_owned(), "Policy(Info)".to_owned()));
    judged(&heard[1], |chain| {
        assert_eq!(chain.name.as_str(), "shop:a:b:web");
        let got: Vec<_> = chain.policies.iter().map(|it| (it.name.to_string(), it.policy.unikernels)).collect();
        assert_eq!(got, [("shop:".to_owned(), 4), ("shop:a:".to_owned(), 3), ("shop:a:b:".to_owned(), 2)]);
    });
    // Where there is no policy there is no way.
    let server = TlsServer::answering(&authority, vec![policies]);
    let ran = client(bistro, &authority, "shop", &server.place(), &["info", "shop:c:"]);
    assert_eq!(ran.code, 117);
    assert!(ran.errors.contains("shop:c: has no policy, so no certificate leads there"), "{}", ran.errors);
}

#[test]
fn a_policy_is_set_by_its_certificate() {
    let authority = shop();
    let server = TlsServer::answering(&authority, vec![success("shop:a:", Success::Policies(List::EMPTY))]);
    let ran = client(
        bistro,
        &authority,
        "shop",
        &server.place(),
        &["add-policy", "shop:a", "2", "--mem", "32", "--cpu", "0"],
    );
    assert_eq!((ran.code, ran.out.as_str()), (0, "shop:a: added policy\n"), "{}", ran.errors);
    judged(&server.heard()[0], |chain| {
        assert_eq!(chain.name.as_str(), "shop:a:");
        assert!(matches!(chain.command, Command::Policy(PolicyCommand::Info)));
        assert_eq!(
            chain.policies.last().map(|it| (it.name.to_string(), it.policy.memory)),
            Some(("shop:a:".to_owned(), 32))
        );
    });
    for (words, text) in [
        (&["add-policy", "shop:", "2", "--cpu", "0"][..], "its policy is given by who has signed its certificate"),
        (&["destroy", "web"], ":web is not in shop:"),
        (&["host"], ": is not in shop:"),
    ] {
        let ran = client(bistro, &authority, "shop", "127.0.0.1:1", words);
        assert_eq!(ran.code, 124, "{words:?}");
        assert!(ran.errors.contains(text), "{}", ran.errors);
    }
}

#[test]
fn images_follow_in_chunks() {
    let authority = shop();
    // Longer than what the sockets between hold.
    let hello = image(1, &[], 12 << 20);
    let file = authority.folder.file("hello.hvt", &hello);
    let take = |stream: &mut Conversation| {
        let image = read_chunks(stream);
        stream.write_all(&success("shop:web", DONE)).unwrap();
        image
    };
    let words = ["create", "shop:web", file.to_str().unwrap(), "--mem", "64", "--compression-level"];
    let server = TlsServer::new(&authority, "server", vec![take, take]);
    for level in ["0", "3"] {
        let ran = client(bistro, &authority, "shop", &server.place(), &[&words[..], &[level]].concat());
        assert_eq!(ran.code, 0, "{}", ran.errors);
    }
    let heard = server.heard();
    let mut inflated = Vec::new();
    ZlibDecoder::new(heard[1].1.as_slice()).read_to_end(&mut inflated).unwrap();
    assert!(heard[0].1 == hello && inflated == hello);
    for (heard, is_compressed) in heard.iter().zip([false, true]) {
        judged(heard, |chain| {
            let Command::Unikernel(UnikernelCommand::Create(config)) = chain.command else { unreachable!() };
            assert_eq!((config.image.len(), config.compressed), (0, is_compressed));
        });
    }
    // By a certificate that was signed before.
    authority.request("web", &["create", "web", file.to_str().unwrap(), "--mem", "64"]);
    authority.sign("web", Some("shop"));
    let ran = client(remote, &authority, "web", "127.0.0.1:1", &[]);
    assert_eq!(ran.code, 124);
    assert!(ran.errors.contains("which image? add --image FILE"), "{}", ran.errors);
    let server = TlsServer::new(&authority, "server", vec![take]);
    let ran = client(remote, &authority, "web", &server.place(), &["--image", file.to_str().unwrap()]);
    assert_eq!((ran.code, ran.out.as_str()), (0, "shop:web: done that\n"), "{}", ran.errors);
    assert!(server.heard()[0].1 == hello);
}

/// Tickets come after the handshake; a client that took them for an answer would stop sending.
#[test]
fn contents_go_both_ways() {
    let authority = shop();
    let content: Vec<u8> = (0..(19_u32 << 20)).map(|at| (at / 7) as u8).collect();
    let file = authority.folder.file("disk.img", &content);
    let server = TlsServer::new(
        &authority,
        "server",
        vec![|stream: &mut Conversation| {
            let content = read_chunks(stream);
            stream.write_all(&success("shop:data", DONE)).unwrap();
            content
        }],
    );
    let ran = client(bistro, &authority, "shop", &server.place(), &["set-block", "shop:data", file.to_str().unwrap()]);
    assert_eq!(ran.code, 0, "{}", ran.errors);
    assert!(server.heard()[0].1 == content);
    let mut dump = success("shop:data", Success::BlockImage { compressed: false });
    for chunk in content.chunks(4096) {
        dump.extend(frame("shop:data", Payload::Data(Data::Block(Some(Image::Inline(chunk))))));
    }
    dump.extend(frame("shop:data", Payload::Data(Data::Block(None))));
    authority.request("data", &["dump-block", "data"]);
    authority.sign("data", Some("shop"));
    let server = TlsServer::answering(&authority, vec![dump]);
    let output = authority.text("dumped");
    let ran = client(remote, &authority, "data", &server.place(), &["--output", &output]);
    assert_eq!((ran.code, ran.out), (0, format!("shop:data: 19.0 MB written to {output}\n")), "{}", ran.errors);
    assert!(fs::read(&output).unwrap() == content);
    judged(&server.heard()[0], |chain| assert_eq!(chain.command, Command::Block(BlockCommand::Dump { level: 0 })));
}

#[test]
fn streams_end_with_what_was_asked_for() {
    let authority = shop();
    let mut console = success("shop:web", Success::Text(Text(b"subscribed")));
    console.extend(frame("shop:web", Payload::Data(Data::Console { unix_ms: 0, line: Text(b"hi there") })));
    let mut log = success("shop:", Success::Text(Text(b"subscribed")));
    log.extend(frame("shop:", Payload::Data(Data::Note(Note::End { last: 3 }))));
    // What comes after the end is not waited for.
    log.extend(frame("shop:", Payload::Failure(Text(b"the stream has ended"))));
    let server = TlsServer::answering(&authority, vec![console.clone(), log, console]);
    let ran = client(bistro, &authority, "shop", &server.place(), &["console", "shop:web"]);
    assert_eq!((ran.code, ran.out.as_str()), (121, "1970-01-01T00:00:00Z hi there\n"), "{}", ran.errors);
    let ran = client(bistro, &authority, "shop", &server.place(), &["log"]);
    assert_eq!((ran.code, ran.errors.as_str()), (0, ""));
    authority.request("web", &["console", "web"]);
    authority.sign("web", Some("shop"));
    let ran = client(remote, &authority, "web", &server.place(), &[]);
    assert_eq!((ran.code, ran.out.as_str()), (121, "1970-01-01T00:00:00Z hi there\n"), "{}", ran.errors);
    let heard = server.heard();
    assert_eq!(said(&heard[2]).0, "shop:web");
    assert!(said(&heard[1]).1.starts_with("Events("));
}

#[test]
fn a_list_goes_with_the_key_that_has_signed_it() {
    let authority = shop();
    authority.delegate("sub", Some("shop"));
    let folder = authority.text("");
    authority.done(ca, &["revoke", "sub", "--folder", &folder, "--cert", &authority.text("shop.pem")]);
    let list = authority.text("shop.crl");
    let take = |stream: &mut Conversation| {
        let list = read_chunks(stream);
        stream.write_all(&success("shop:", Success::Text(Text(b"revoked")))).unwrap();
        list
    };
    let server = TlsServer::new(&authority, "server", vec![take, take]);
    let ran = client(bistro, &authority, "shop", &server.place(), &["revoke", &list]);
    assert_eq!((ran.code, ran.out.as_str()), (0, "shop: revoked\n"), "{}", ran.errors);
    let ran = client(
        bistro,
        &authority,
        "shop",
        &server.place(),
        &["revoke", &authority.text("shop.crl.pem"), "--remove", "shop:sub"],
    );
    assert_eq!((ran.code, ran.out.as_str()), (0, "shop:sub: revoked\n"), "{}", ran.errors);
    let heard = server.heard();
    let der = RevokedList::read(&authority.path("shop.crl")).unwrap().der;
    assert!(heard.iter().all(|(_, list)| *list == der));
    assert_eq!(said(&heard[0]), ("shop:".to_owned(), "Revoke { remove: false }".to_owned()));
    assert_eq!(said(&heard[1]), ("shop:sub".to_owned(), "Revoke { remove: true }".to_owned()));
    for (holder, words, text) in [
        ("cacert", &["revoke", &list][..], "is not signed by the key given"),
        ("shop", &["revoke", &list, "--remove", "shop:a:b"], "is not directly below shop:"),
        ("shop", &["revoke", &list, "--remove", "other"], "is not directly below shop:"),
    ] {
        let ran = client(bistro, &authority, holder, "127.0.0.1:1", words);
        assert_eq!(ran.code, 124);
        assert!(ran.errors.contains(text), "{}", ran.errors);
    }
}

#[test]
fn a_refusal_is_told_with_both_clocks() {
    let authority = shop();
    let failure = |text: &str| frame("shop:", Payload::Failure(Text(text.as_bytes())));
    let expired = "a certificate of the chain has expired at 2026-01-01T00:00:00Z, it is 2030-01-01T00:00:00Z here: get a new one";
    let answers =
        vec![failure(expired), failure("a certificate of the chain is revoked, number 01"), failure("no room")];
    let server = TlsServer::answering(&authority, answers);
    for (text, has_clock) in [("2030-01-01T00:00:00Z here", true), ("is revoked", false), ("no room", false)] {
        let ran = client(bistro, &authority, "shop", &server.place(), &["info"]);
        assert_eq!(ran.code, 117);
        assert!(ran.errors.contains(text), "{}", ran.errors);
        assert_eq!(ran.errors.contains("the clock of this machine says 20"), has_clock, "{}", ran.errors);
    }
}

#[test]
fn own_certificates_are_checked_before_they_are_sent() {
    let authority = shop();
    authority.request("web", &["info"]);
    authority.sign("web", Some("shop"));
    let other = Authority::new(present());
    let day = 86_400;
    let words = |ca: &Authority, cert: &str| {
        let [ca, cert, key] = [ca.text("cacert.pem"), authority.text(cert), authority.text("web.key")];
        ["--ca".to_owned(), ca, "--cert".to_owned(), cert, "--key".to_owned(), key, "127.0.0.1:1".to_owned()]
    };
    let run = |now, words: [String; 7]| run_at(remote, now, &words.each_ref().map(String::as_str));
    let pem = fs::read_to_string(authority.path("web.pem")).unwrap();
    let (leaf, above) = pem.split_at(pem.match_indices("-----BEGIN").nth(1).unwrap().0);
    authority.folder.file("turned.pem", format!("{above}{leaf}").as_bytes());
    authority.folder.file("alone.pem", leaf.as_bytes());
    for (now, words, text) in [
        (
            authority.now_unix_s + 2 * day,
            words(&authority, "web.pem"),
            "certificate '.' has expired: it was valid until",
        ),
        (authority.now_unix_s - day, words(&authority, "web.pem"), "certificate '.' is not valid yet: it will be from"),
        (authority.now_unix_s, words(&other, "web.pem"), "unknown issuer: certificate 'shop' is not signed by the CA"),
        (
            authority.now_unix_s,
            words(&authority, "alone.pem"),
            "unknown issuer: certificate '.' is not signed by the CA",
        ),
        (
            authority.now_unix_s,
            words(&authority, "turned.pem"),
            "certificate 'shop' is not signed by '.', which follows it",
        ),
        (authority.now_unix_s, words(&authority, "cacert.pem"), "it carries no command"),
    ] {
        let ran = run(now, words);
        assert_eq!(ran.code, 116, "{text}: {}", ran.errors);
        assert!(ran.errors.contains(text), "{text}: {}", ran.errors);
    }
    let later = run_at(
        bistro,
        authority.now_unix_s + 400 * day,
        &[
            "--ca",
            &authority.text("cacert.pem"),
            "--cert",
            &authority.text("shop.pem"),
            "--key",
            &authority.text("shop.key"),
            "127.0.0.1:1",
            "info",
        ],
    );
    assert_eq!(later.code, 116);
    assert!(later.errors.contains("certificate 'shop' has expired"), "{}", later.errors);
}

#[test]
fn only_servers_that_the_ca_itself_has_signed_are_trusted() {
    let authority = shop();
    let never = |_: &mut Conversation| -> Vec<u8> { unreachable!() };
    // One who holds a delegation can make such a certificate.
    let passphrase = PassphraseOption::default();
    let holder = Issuer::read(&authority.path("shop.pem"), &authority.path("shop.key"), &passphrase).unwrap();
    let key = Key::generate().unwrap();
    key.write(&authority.path("fake.key"), None).unwrap();
    let grant = Grant {
        subject: &encode::common_name("server"),
        key: key.public(),
        purpose: encode::Use::Server,
        carries: None,
        not_before_unix_s: authority.now_unix_s - 10,
        not_after_unix_s: authority.now_unix_s + 1000,
    };
    authority.folder.file("fake.pem", issue::pem(&holder.sign(&grant).unwrap()).as_bytes());
    let other = Authority::new(present());
    for file in ["server.pem", "server.key"] {
        fs::copy(other.path(file), authority.path(&file.replace("server", "other"))).unwrap();
    }
    for (stem, text) in [
        ("fake", "another CA has signed it"),
        ("other", "another CA has signed it"),
        ("shop", "its certificate is refused"),
    ] {
        let server = TlsServer::new(&authority, stem, vec![never]);
        let ran = client(bistro, &authority, "shop", &server.place(), &["info"]);
        assert_eq!(ran.code, 120, "{stem}: {}", ran.errors);
        assert!(ran.errors.contains(text), "{stem}: {}", ran.errors);
        assert!(server.heard().is_empty());
    }
    // A leaf of the CA that is for clients.
    authority.request("client", &["info"]);
    authority.sign("client", None);
    let server = TlsServer::new(&authority, "client", vec![never]);
    let ran = client(bistro, &authority, "shop", &server.place(), &["info"]);
    assert_eq!(ran.code, 120);
    assert!(ran.errors.contains("its certificate is not that of a server"), "{}", ran.errors);
}

#[test]
fn an_expired_server_is_told_as_such() {
    let authority = Authority::new(present() - 400 * 86_400);
    let now = Authority { now_unix_s: present(), folder: authority.folder };
    let server = TlsServer::new(&now, "server", vec![|_: &mut Conversation| -> Vec<u8> { unreachable!() }]);
    let ran = client(bistro, &now, "cacert", &server.place(), &["info"]);
    assert_eq!(ran.code, 120, "{}", ran.errors);
    assert!(ran.errors.contains("its certificate is of another time"), "{}", ran.errors);
    assert!(ran.errors.contains("nothing was sent"), "{}", ran.errors);
}

/// The server's CA is another one than the client's: each finds out about the other.
#[test]
fn a_server_that_does_not_know_our_ca_is_told_as_such() {
    let (authority, other) = (shop(), Authority::new(present()));
    // A server of our CA that takes the clients of the other one.
    for file in ["server.pem", "server.key"] {
        fs::copy(authority.path(file), other.path(file)).unwrap();
    }
    let server = TlsServer::new(&other, "server", vec![|_: &mut Conversation| -> Vec<u8> { unreachable!() }]);
    let ran = client(bistro, &authority, "shop", &server.place(), &["info"]);
    assert_eq!(ran.code, 119, "{}", ran.errors);
    assert!(ran.errors.contains("does not take our certificates"), "{}", ran.errors);
}

#[test]
fn what_is_no_tls_is_told_as_such() {
    let authority = shop();
    let listener = TcpListener::bind("[::1]:0").unwrap();
    let place = listener.local_addr().unwrap().to_string();
    let thread = std::thread::spawn(move || {
        for _ in 0..2 {
            let (mut stream, _) = listener.accept().unwrap();
            stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").unwrap();
            let _ = stream.read(&mut [0; 4096]);
        }
    });
    for _ in 0..2 {
        let ran = client(bistro, &authority, "shop", &place, &["info"]);
        assert_eq!(ran.code, 121, "{}", ran.errors);
        assert!(ran.errors.contains("does not speak TLS 1.3 with us"), "{}", ran.errors);
    }
    thread.join().unwrap();
    let ran = client(bistro, &authority, "shop", "127.0.0.1:1", &["info"]);
    assert_eq!(ran.code, 122);
    assert!(
        ran.errors.contains("127.0.0.1:1 cannot be reached") && ran.errors.contains("nothing was sent"),
        "{}",
        ran.errors
    );
}

#[test]
fn keys_of_every_kind_sign() {
    for kind in ["p256", "p384", "rsa2048"] {
        let authority = Authority { now_unix_s: present(), folder: common::Folder::new() };
        for file in ["cacert.pem", "ca.key"] {
            fs::copy(peers(&format!("keytypes/{kind}/{file}")), authority.path(file)).unwrap();
        }
        let folder = authority.text("");
        authority.done(ca, &["server", "--folder", &folder]);
        authority.delegate("shop", None);
        authority.done(ca, &["revoke", "shop", "--folder", &folder]);
        for holder in ["cacert", "shop"] {
            let server = TlsServer::answering(&authority, vec![success("shop:web", DONE)]);
            let name = if holder == "shop" { "shop:web" } else { ":web" };
            let ran = client(bistro, &authority, holder, &server.place(), &["destroy", name]);
            assert_eq!(ran.code, 0, "{kind}: {}", ran.errors);
            assert_eq!(said(&server.heard()[0]).0, name);
        }
        // The peer's own certificate and key of the client.
        for (from, to) in [("foo.pem", "foo.pem"), ("foo.key", "foo.key")] {
            fs::copy(peers(&format!("keytypes/{kind}/{from}")), authority.path(to)).unwrap();
        }
        let then = Cert::read_all(&authority.path("foo.pem")).unwrap()[0].not_before_unix_s;
        let own = Authority { now_unix_s: then + 1, folder: authority.folder };
        let ran = client(remote, &own, "foo", "127.0.0.1:1", &[]);
        assert_eq!(ran.code, 122, "its certificates and its key are good: {}", ran.errors);
    }
}
