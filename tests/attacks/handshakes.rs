//! TLS itself, used as it must not be: older versions, data before the handshake is done, another handshake within the connection.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpStream};

use fulmar_tests::contents::{SET, chunks};
use fulmar_tests::raw::Answer;
use fulmar_tests::remote::{Broken, DATA, HANDSHAKE, Remote, config, dial, hello};
use fulmar_tests::tenants::{DESTROY, INFO, Tenants, create, policy};
use rustls::HandshakeKind;

/// A record's kind: an alert.
const ALERT: u8 = 21;
/// A handshake message's kind.
const CLIENT_HELLO: u8 = 1;
const SERVER_HELLO: u8 = 2;
const CERTIFICATE: u8 = 11;

/// A record: its kind and its content.
fn record(tcp: &mut TcpStream) -> Option<(u8, Vec<u8>)> {
    let mut head = [0; 5];
    tcp.read_exact(&mut head).ok()?;
    let mut content = vec![0; usize::from(u16::from_be_bytes([head[3], head[4]]))];
    tcp.read_exact(&mut content).ok()?;
    Some((head[0], content))
}

/// With its length in so many bytes before it.
fn sized(bytes: usize, content: &[u8]) -> Vec<u8> {
    let length = content.len().to_be_bytes();
    [&length[length.len() - bytes..], content].concat()
}

/// A handshake message within a record, as TLS has it before there are keys.
fn first_message(body: &[u8]) -> Vec<u8> {
    let message = [&[CLIENT_HELLO], &sized(3, body)[..]].concat();
    [&[HANDSHAKE, 3, 1], &sized(2, &message)[..]].concat()
}

fn extension(kind: u16, content: &[u8]) -> Vec<u8> {
    [&kind.to_be_bytes()[..], &sized(2, content)].concat()
}

/// A hello with further extensions at its end.
fn with_extensions(hello: &[u8], more: &[u8]) -> Vec<u8> {
    let body = &hello[9..];
    // Version, chance, session, ciphers, compression.
    let mut at = 34;
    at += 1 + usize::from(body[at]);
    at += 2 + usize::from(u16::from_be_bytes([body[at], body[at + 1]]));
    at += 1 + usize::from(body[at]);
    let extensions = [&body[at + 2..], more].concat();
    first_message(&[&body[..at], &sized(2, &extensions)].concat())
}

#[test]
fn older_versions_are_refused() {
    let Some(tenants) = Tenants::begin("older_versions_are_refused") else { return };
    let mut tcp = dial(tenants.address).unwrap();
    tcp.write_all(&hello(config(&tenants.server.chain[0], &tenants.ca.leaf(".", INFO))).1).unwrap();
    assert!(matches!(record(&mut tcp), Some((HANDSHAKE, content)) if content[0] == SERVER_HELLO));
    for version in [[3, 0], [3, 1], [3, 2], [3, 3]] {
        // ECDHE with AES-GCM, and what goes with it: a server of that version would take it.
        let groups = extension(10, &sized(2, &[0, 0x1d, 0, 0x17]));
        let schemes = extension(13, &sized(2, &[8, 7, 4, 3, 8, 4, 4, 1]));
        let extensions = sized(2, &[groups, schemes].concat());
        let ciphers = sized(2, &[0xc0, 0x2b, 0xc0, 0x2f, 0xcc, 0xa9, 0, 0x9c]);
        let body = [&version[..], &[7; 32], &[0], &ciphers, &[1, 0], &extensions].concat();
        let mut tcp = dial(tenants.address).unwrap();
        tcp.write_all(&first_message(&body)).unwrap();
        let Some((ALERT, alert)) = record(&mut tcp) else { panic!("{version:?}: no alert\n{}", tenants.log()) };
        // protocol_version, or handshake_failure where nothing in common was found.
        assert!(alert[0] == 2 && [70, 40].contains(&alert[1]), "{version:?}: {alert:?}");
        assert!(record(&mut tcp).is_none());
    }
    tenants.end();
}

#[test]
fn there_is_nothing_to_resume_and_no_early_data() {
    let Some(tenants) = Tenants::begin("there_is_nothing_to_resume_and_no_early_data") else { return };
    let mut config = config(&tenants.server.chain[0], &tenants.ca.leaf(".", INFO));
    config.enable_early_data = true;
    for _ in 0..3 {
        // The configuration keeps what the server gives it to come back with.
        let mut remote = Remote::connect(tenants.address, config.clone()).unwrap();
        assert!(matches!(remote.receive(), Ok(Answer::Other(_))));
        assert_eq!(remote.receive(), Err(Broken::Closed));
        assert_eq!(remote.tls.handshake_kind(), Some(HandshakeKind::Full));
        assert_eq!(remote.tls.tls13_tickets_received(), 0);
    }
    tenants.end();
}

#[test]
fn early_data_that_comes_nevertheless_is_done_by_nobody() {
    let Some(tenants) = Tenants::begin("early_data_that_comes_nevertheless_is_done_by_nobody") else { return };
    let a = tenants.ca.delegate("a", policy(2, 64));
    assert_eq!(tenants.create(&a, "one", 16), Answer::Done("created unikernel".into()));
    let hello = hello(config(&tenants.server.chain[0], &a.leaf("one", DESTROY))).1;
    // An early data extension and a ticket that nobody has given, which must come last.
    let identity = sized(2, &[&sized(2, &[7; 64])[..], &[0; 4]].concat());
    let binders = sized(2, &sized(1, &[7; 32]));
    let ticket = extension(41, &[identity, binders].concat());
    let early = with_extensions(&hello, &[extension(42, &[]), ticket].concat());
    let mut tcp = dial(tenants.address).unwrap();
    tcp.write_all(&early).unwrap();
    // Without the ticket's keys nothing can be read of what follows.
    let content = fulmar_tests::raw::frame("a:one", DESTROY);
    for _ in 0..4 {
        let _ = tcp.write_all(&[&[DATA, 3, 3], &sized(2, &content)[..]].concat());
    }
    let _ = tcp.shutdown(Shutdown::Write);
    let kinds: Vec<u8> = std::iter::from_fn(|| record(&mut tcp)).map(|(kind, _)| kind).collect();
    assert_eq!(tenants.siege.names(), ["a:one"], "{kinds:?}");
    // The server goes on with a whole handshake, or ends it there.
    assert!(tenants.log().contains("handshake"), "{kinds:?}\n{}", tenants.log());
    assert_eq!(tenants.ask(&a.leaf("one", DESTROY)), Answer::Done("destroyed unikernel".into()));
    tenants.end();
}

#[test]
fn another_handshake_within_the_connection_ends_it() {
    let Some(tenants) = Tenants::begin("another_handshake_within_the_connection_ends_it") else { return };
    let a = tenants.ca.delegate("a", policy(2, 64));
    let image = chunks(&tenants.image("hello"), 1 << 12);
    let create = |label: &str| tenants.connect(&a.leaf(label, create(16))).forge();
    // Records that are forged well are taken.
    let mut good = create("good");
    image.chunks(4000).for_each(|piece| assert!(good.send(DATA, piece)));
    assert!(good.drain() > 0);
    assert_eq!(tenants.siege.names(), ["a:good"], "{}", tenants.log());
    let hello = hello(config(&tenants.server.chain[0], &a.leaf("good", DESTROY))).1;
    let certificate = {
        let entry = [&sized(3, &a.leaf("good", DESTROY).chain[0])[..], &[0, 0]].concat();
        [&[CERTIFICATE], &sized(3, &[&[0], &sized(3, &entry)[..]].concat())[..]].concat()
    };
    for (what, message) in [
        ("a hello", hello[5..].to_vec()),
        ("a certificate", certificate),
        ("a finish", [&[20], &sized(3, &[7; 32])[..]].concat()),
        ("a request of version 1.2", vec![0, 0, 0, 0]),
        ("an unknown message", vec![99, 0, 0, 1, 0]),
        ("a message that never ends", [&[CLIENT_HELLO, 0xff, 0xff, 0xff], &[7; 8000][..]].concat()),
    ] {
        let mut forger = create("bad");
        assert!(forger.send(DATA, &image[..4000]));
        forger.send(HANDSHAKE, &message);
        for piece in image[4000..].chunks(4000) {
            forger.send(DATA, piece);
        }
        forger.drain();
        assert_eq!(tenants.siege.names(), ["a:good"], "{what}");
    }
    tenants.end();
}

#[test]
fn a_flood_of_new_keys_is_ended() {
    let Some(tenants) = Tenants::begin("a_flood_of_new_keys_is_ended") else { return };
    let a = tenants.ca.delegate("a", policy(2, 64));
    let create = a.leaf("one", create(16));
    let image = chunks(&tenants.image("hello"), 1 << 16);
    let mut good = tenants.connect(&create);
    assert!(good.send(&image[..1000]));
    good.tls.refresh_traffic_keys().unwrap();
    assert!(good.send(&image[1000..]));
    assert_eq!(good.receive(), Ok(Answer::Done("created unikernel".into())));
    let before = tenants.resident();
    let mut bad = tenants.connect(&a.leaf("disk", SET));
    let mut changes = 0;
    // Each asks the server for new keys of its own, which it would have to send.
    while changes < 100_000 && bad.tls.refresh_traffic_keys().is_ok() && bad.send(&[]) {
        changes += 1;
    }
    assert!(changes < 100_000, "{}", tenants.log());
    tenants.expect_bounded(before, [2 << 10, 1 << 10, 1 << 10]);
    tenants.end();
}

#[test]
fn what_is_no_tls_is_hung_up_on() {
    let Some(tenants) = Tenants::begin("what_is_no_tls_is_hung_up_on") else { return };
    tenants.expect_service();
    let before = tenants.resident();
    let message = fulmar_tests::raw::frame("a:one", DESTROY);
    let large_record =
        [&[HANDSHAKE, 3, 1, 0xff, 0xff][..], &[CLIENT_HELLO, 0xff, 0xff, 0xff], &[0; 70_000][..]].concat();
    for bytes in [&b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n"[..], &message, &large_record, &[0; 100_000], &[0xff; 9]]
    {
        let mut tcp = dial(tenants.address).unwrap();
        let _ = tcp.write_all(bytes);
        // An alert at the most.
        if let Some((kind, content)) = record(&mut tcp) {
            assert_eq!((kind, content.len()), (ALERT, 2));
        }
        assert!(record(&mut tcp).is_none());
    }
    tenants.expect_bounded(before, [2 << 10, 1 << 10, 1 << 10]);
    tenants.end();
}
