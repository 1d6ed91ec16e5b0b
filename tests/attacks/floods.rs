//! Clients that send too much, too slowly, too often, or nothing: whoever they are, others are served meanwhile and memory is bounded.

use std::collections::VecDeque;
use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, TcpStream};

use flate2::{Compress, Compression, FlushCompress};
use fulmar_core::limits::{
    IMAGE_BYTES_MAX, TLS_CONNECTIONS_MAX, TLS_CONNECTIONS_PER_ADDRESS_MAX, TLS_CONNECTIONS_PER_DOMAIN_MAX,
    TLS_TRANSFERS_PER_DOMAIN_MAX, TLS_VMMD_CONNECTIONS_PER_DOMAIN_MAX,
};
use fulmar_core::wire::{BlockCommand, Command, ConsoleCommand, Policy, StatsCommand, Window};
use fulmar_tests::contents::{DUMP, MB, SET, SET_COMPRESSED, chunks, zlib};
use fulmar_tests::pki::Issuer;
use fulmar_tests::raw::{Answer, Wish};
use fulmar_tests::remote::{Broken, Remote, config, dial, dial_from, hello};
use fulmar_tests::system::wait_until;
use fulmar_tests::tenants::{DESTROY, INFO, REVOKE, Tenants, create, create_inline, policy};
use nix::sys::socket::{setsockopt, sockopt};

/// How much more memory each of `vmmd_tls` and the halves of `vmmd` may hold after an attack of one client, KiB.
const GROWTH_KB: [u64; 3] = [4 << 10, 1 << 10, 4 << 10];

/// The same after one of hundreds of clients: what TLS has for each.
const GROWTH_OF_MANY_KB: [u64; 3] = [12 << 10, 1 << 10, 4 << 10];

/// Four GiB.
const FOUR_GB: u64 = 4 << 30;

fn begin(test: &str) -> Option<(Tenants, Issuer)> {
    let tenants = Tenants::begin(test)?;
    let a = tenants.ca.delegate("a", Policy { block: Some(4096), ..policy(4, 128) });
    // What is made once and then kept is there before memory is looked at.
    assert_eq!(tenants.create(&a, "first", 16), Answer::Done("created unikernel".into()));
    assert_eq!(tenants.ask(&a.leaf("first", DESTROY)), Answer::Done("destroyed unikernel".into()));
    tenants.expect_service();
    Some((tenants, a))
}

/// Whether the server has ended this connection; what it has said is forgotten.
fn is_ended(tcp: &mut TcpStream) -> bool {
    tcp.set_nonblocking(true).unwrap();
    let ended = loop {
        match tcp.read(&mut [0; 4096]) {
            Ok(0) => break true,
            Ok(_) => {}
            Err(error) => break error.kind() != io::ErrorKind::WouldBlock,
        }
    };
    tcp.set_nonblocking(false).unwrap();
    ended
}

/// Sends the same piece until the server says something, or takes no more, or so many bytes are sent; how many were.
fn pour(remote: &mut Remote, piece: &[u8], bytes_max: u64) -> u64 {
    let mut sent = 0;
    while sent < bytes_max && !remote.has_come() && remote.send(piece) {
        sent += piece.len() as u64;
    }
    sent
}

/// An address of this host.
fn own(number: u8) -> IpAddr {
    IpAddr::from([127, 0, 1, number])
}

fn connect_from(tenants: &Tenants, number: u8, identity: &fulmar_tests::pki::Identity) -> Remote {
    let tcp = dial_from(own(number), tenants.address).unwrap();
    Remote::over(tcp, config(&tenants.server.chain[0], identity)).unwrap()
}

#[test]
fn a_slow_handshake_is_ended_and_in_nobodys_way() {
    let Some((tenants, a)) = begin("a_slow_handshake_is_ended_and_in_nobodys_way") else { return };
    let hello = || hello(config(&tenants.server.chain[0], &a.leaf(".", INFO))).1;
    // The same bytes at once are answered, and one by one too.
    for piece in [usize::MAX, 1] {
        let mut tcp = dial(tenants.address).unwrap();
        let bytes = hello();
        bytes.chunks(piece.min(bytes.len())).for_each(|piece| tcp.write_all(piece).unwrap());
        let mut record = [0; 6];
        tcp.read_exact(&mut record).unwrap();
        assert_eq!((record[0], record[5]), (22, 2), "no ServerHello");
    }
    let before = tenants.resident();
    // The first says nothing, the second drips all but one byte, the third is silent after the server's part.
    let mut slow: Vec<(TcpStream, VecDeque<u8>)> = Vec::new();
    for number in 0..90 {
        let mut bytes: VecDeque<u8> = hello().into();
        match number % 3 {
            0 => bytes.clear(),
            1 => drop(bytes.pop_back()),
            _ => {}
        }
        slow.push((dial(tenants.address).unwrap(), bytes));
    }
    tenants.expect_service();
    let mut polls = 0;
    let ended = wait_until(|| {
        for (tcp, bytes) in &mut slow {
            if let Some(byte) = bytes.pop_front() {
                // Once it is ended nothing can be written.
                let _ = tcp.write_all(&[byte]);
            }
        }
        polls += 1;
        if polls % 100 == 0 {
            tenants.expect_service();
        }
        slow.retain_mut(|(tcp, _)| !is_ended(tcp));
        slow.is_empty()
    });
    assert!(ended, "{} are not ended\n{}", slow.len(), tenants.log());
    assert!(tenants.log().contains("it has not proved in time who it is"), "{}", tenants.log());
    tenants.expect_bounded(before, GROWTH_OF_MANY_KB);
    tenants.end();
}

#[test]
fn slow_bodies_of_one_domain_are_bounded_and_ended() {
    let Some((tenants, a)) = begin("slow_bodies_of_one_domain_are_bounded_and_ended") else { return };
    let before = tenants.resident();
    let image = tenants.image("hello");
    let piece = &chunks(&image, 1 << 16)[..10_000];
    let mut slow: Vec<Remote> = (0..TLS_VMMD_CONNECTIONS_PER_DOMAIN_MAX)
        .map(|number| {
            let mut remote = tenants.connect(&a.leaf(&format!("u{number}"), create(16)));
            assert!(remote.send(piece));
            remote
        })
        .collect();
    // All of them have been let in.
    let is_crowded =
        || matches!(tenants.ask(&a.leaf(".", INFO)), Answer::Refused(text) if text.contains("of this domain"));
    assert!(wait_until(is_crowded));
    tenants.expect_service();
    let other = tenants.ca.delegate("other", policy(1, 16));
    assert_eq!(tenants.create(&other, "one", 16), Answer::Done("created unikernel".into()));
    for remote in &mut slow {
        let answer = remote.receive();
        assert!(matches!(answer, Ok(Answer::Refused(_)) | Err(Broken::Closed)), "{answer:?}");
    }
    tenants.expect_bounded(before, GROWTH_OF_MANY_KB);
    assert_eq!(tenants.create(&a, "one", 16), Answer::Done("created unikernel".into()));
    tenants.end();
}

#[test]
fn a_thousand_idle_connections_are_in_nobodys_way() {
    let Some((tenants, a)) = begin("a_thousand_idle_connections_are_in_nobodys_way") else { return };
    let before = tenants.resident();
    let mut idle = VecDeque::new();
    for number in 0..1000 {
        let from = own(u8::try_from(2 + number / 100).unwrap());
        idle.push_back(dial_from(from, tenants.address).unwrap());
        if number % 100 == 99 {
            tenants.expect_service();
        }
    }
    // As many as there are places for are left, and the last to come are among them.
    let is_open = |tcp: &mut TcpStream| !is_ended(tcp);
    let open = idle.iter_mut().map(is_open).filter(|open| *open).count();
    assert!(open <= TLS_CONNECTIONS_MAX, "{open}");
    assert!(idle.iter_mut().rev().take(TLS_CONNECTIONS_MAX / 2).all(is_open), "{open}");
    tenants.expect_bounded(before, GROWTH_OF_MANY_KB);
    // One that has been idle meanwhile goes on.
    let mut remote =
        Remote::over(idle.pop_back().unwrap(), config(&tenants.server.chain[0], &a.leaf(".", INFO))).unwrap();
    assert!(matches!(remote.receive(), Ok(Answer::Other(_))));
    drop(idle);
    tenants.end();
}

#[test]
fn who_has_proved_who_it_is_stays_however_many_strangers_come() {
    let Some((tenants, a)) = begin("who_has_proved_who_it_is_stays_however_many_strangers_come") else { return };
    let b = tenants.ca.delegate("b", policy(1, 16));
    let before = tenants.resident();
    let mut known = Vec::new();
    for number in 0..100_u8 {
        for (issuer, address) in [(&a, 2), (&b, 3)] {
            let follow = Command::Console(ConsoleCommand::Subscribe(Window::Count(1)));
            let mut remote = connect_from(&tenants, address, &issuer.leaf(&format!("u{number}"), follow));
            assert_eq!(remote.receive(), Ok(Answer::Done("waiting for VM".into())));
            known.push(remote);
        }
    }
    let strangers: Vec<TcpStream> = (0..600_u16)
        .map(|number| dial_from(own(u8::try_from(10 + number / 100).unwrap()), tenants.address).unwrap())
        .collect();
    tenants.expect_service();
    assert!(known.iter().all(|remote| !remote.has_come()), "somebody was sent away\n{}", tenants.log());
    tenants.expect_bounded(before, GROWTH_OF_MANY_KB);
    drop((known, strangers));
    tenants.end();
}

#[test]
fn one_address_has_its_share_of_connections() {
    let Some((tenants, a)) = begin("one_address_has_its_share_of_connections") else { return };
    let mut idle: Vec<TcpStream> =
        (0..TLS_CONNECTIONS_PER_ADDRESS_MAX).map(|_| dial_from(own(9), tenants.address).unwrap()).collect();
    let info = a.leaf(".", INFO);
    let connect = || {
        let tcp = dial_from(own(9), tenants.address).unwrap();
        Remote::over(tcp, config(&tenants.server.chain[0], &info))
            .and_then(|mut remote| remote.receive().map_err(|broken| io::Error::other(format!("{broken:?}"))))
    };
    assert!(connect().is_err());
    assert!(idle.iter_mut().all(|tcp| !is_ended(tcp)));
    tenants.expect_service();
    assert!(tenants.log().contains("there are too many connections of this address"), "{}", tenants.log());
    idle.pop();
    assert!(wait_until(|| connect().is_ok()));
    tenants.end();
}

#[test]
fn one_domain_has_its_share_of_streams() {
    let Some((mut tenants, a)) = begin("one_domain_has_its_share_of_streams") else { return };
    tenants.siege.system.start_stats(&[]).unwrap();
    let subscribe = a.leaf(".", Command::Stats(StatsCommand::Subscribe));
    let before = tenants.resident();
    let mut streams = Vec::new();
    for number in 0..TLS_CONNECTIONS_PER_DOMAIN_MAX {
        let mut remote = connect_from(&tenants, u8::try_from(2 + number / 40).unwrap(), &subscribe);
        assert_eq!(remote.receive(), Ok(Answer::Done("subscribed".into())));
        streams.push(remote);
    }
    let answer = connect_from(&tenants, 77, &subscribe).receive().unwrap();
    assert!(answer.reason().contains("too many connections of this domain"), "{answer:?}");
    let other = tenants.ca.delegate("other", policy(1, 16)).leaf(".", Command::Stats(StatsCommand::Subscribe));
    assert_eq!(connect_from(&tenants, 78, &other).receive(), Ok(Answer::Done("subscribed".into())));
    tenants.expect_bounded(before, GROWTH_OF_MANY_KB);
    drop(streams);
    assert!(wait_until(|| connect_from(&tenants, 79, &subscribe).receive() == Ok(Answer::Done("subscribed".into()))));
    tenants.end();
}

#[test]
fn a_stream_of_four_gigabytes_is_refused_where_it_is_too_large() {
    let Some((tenants, a)) = begin("a_stream_of_four_gigabytes_is_refused_where_it_is_too_large") else { return };
    assert_eq!(tenants.ask(&a.leaf("disk", Command::Block(BlockCommand::Add { size: 1 }))), done("added block device"));
    assert_eq!(tenants.say(&a.leaf("disk", SET), &[7; 1000]), done("set block device"));
    let before = tenants.resident();
    let piece = {
        let mut piece = chunks(&vec![7; MB], MB);
        // It goes on.
        piece.truncate(piece.len() - 4);
        piece
    };
    for (what, identity, most) in [
        ("an image", a.leaf("large", create(16)), IMAGE_BYTES_MAX),
        ("a block device", a.leaf("disk", SET), MB as u64),
        ("a list", a.leaf(".", REVOKE), MB as u64),
    ] {
        let mut remote = tenants.connect(&identity);
        let sent = pour(&mut remote, &piece, FOUR_GB);
        assert!(sent < most + (64 << 20), "{what}: {sent} bytes were taken");
        let answer = remote.receive();
        assert!(matches!(answer, Ok(Answer::Refused(_))), "{what}: {answer:?}");
        tenants.expect_bounded(before, GROWTH_KB);
    }
    // One chunk that says that it has two of them; whether its end ever comes is not waited for.
    let mut remote = tenants.connect(&a.leaf("large", create(16)));
    assert!(remote.send(&0x7fff_ffff_u32.to_be_bytes()));
    let sent = pour(&mut remote, &piece, FOUR_GB);
    assert!(sent < IMAGE_BYTES_MAX + (64 << 20), "{sent} bytes were taken");
    assert!(matches!(remote.receive(), Ok(Answer::Refused(_))));
    // And one of a length that no chunk has.
    let mut remote = tenants.connect(&a.leaf("large", create(16)));
    assert!(remote.send(&[0xff; 4]));
    assert!(matches!(remote.receive(), Ok(Answer::Refused(_))));
    tenants.expect_bounded(before, GROWTH_KB);
    assert_eq!(tenants.siege.names(), <[&str; 0]>::default());
    tenants.end();
}

fn done(text: &str) -> Answer {
    Answer::Done(text.into())
}

/// A zlib stream of so many MB of zeros. Once the window is full of zeros every further MB looks the same.
fn bomb(megabytes: usize) -> Vec<u8> {
    let mut deflate = Compress::new(Compression::best(), true);
    let zeros = vec![0; MB];
    let mut next = || {
        let mut out = Vec::with_capacity(1 << 16);
        deflate.compress_vec(&zeros, &mut out, FlushCompress::Sync).unwrap();
        out
    };
    let (first, second) = (next(), next());
    assert!(first.len() < 1 << 16 && second.len() < 1 << 12, "{} {}", first.len(), second.len());
    [first, second.repeat(megabytes - 1)].concat()
}

#[test]
fn a_zlib_bomb_goes_off_within_bounds() {
    let Some((tenants, a)) = begin("a_zlib_bomb_goes_off_within_bounds") else { return };
    let image = tenants.image("hello");
    let create_compressed = Wish { compressed: true, memory: 16, ..Wish::of(&[]) }.command();
    assert_eq!(tenants.say(&a.leaf("good", create_compressed), &zlib(&image)), done("created unikernel"));
    assert_eq!(tenants.ask(&a.leaf("disk", Command::Block(BlockCommand::Add { size: 2 }))), done("added block device"));
    // One that ends where the block device does is good.
    let zeros = zlib(&vec![0; 2 * MB]);
    assert_eq!(tenants.say(&a.leaf("disk", SET_COMPRESSED), &zeros), done("set block device"));
    let before = tenants.resident();
    let bomb = bomb(4096);
    assert!(bomb.len() < 8 * MB, "{}", bomb.len());
    for identity in [a.leaf("bomb", create_compressed), a.leaf("disk", SET_COMPRESSED)] {
        let answer = tenants.say(&identity, &bomb);
        assert!(matches!(answer, Answer::Refused(_)), "{answer:?}");
        tenants.expect_bounded(before, GROWTH_KB);
    }
    // Within the certificate itself, as clients of the peer send images.
    let small = &bomb[..40_000];
    let answer = tenants.ask(&a.leaf("bomb", compressed(create_inline(small, 16))));
    assert!(matches!(answer, Answer::Refused(_)), "{answer:?}");
    tenants.expect_bounded(before, GROWTH_KB);
    assert_eq!(tenants.siege.names(), ["a:good"]);
    tenants.end();
}

fn compressed(command: Command<'_>) -> Command<'_> {
    match command {
        Command::Unikernel(fulmar_core::wire::UnikernelCommand::Create(mut config)) => {
            config.compressed = true;
            Command::Unikernel(fulmar_core::wire::UnikernelCommand::Create(config))
        }
        other => other,
    }
}

#[test]
fn a_dump_that_is_not_read_waits_in_no_memory() {
    let Some((tenants, a)) = begin("a_dump_that_is_not_read_waits_in_no_memory") else { return };
    for (label, size) in [("small", 1), ("large", 1024)] {
        let add = Command::Block(BlockCommand::Add { size });
        assert_eq!(tenants.ask(&a.leaf(label, add)), done("added block device"));
    }
    let mut remote = tenants.connect(&a.leaf("small", DUMP));
    let bytes: usize = std::iter::from_fn(|| remote.receive_bytes().ok()).map(|message| message.len()).sum();
    assert!(bytes > MB, "{bytes}");
    let before = tenants.resident();
    let mut slow: Vec<Remote> =
        (0..TLS_TRANSFERS_PER_DOMAIN_MAX).map(|_| tenants.connect(&a.leaf("large", DUMP))).collect();
    for remote in &mut slow {
        for _ in 0..8 {
            remote.receive_bytes().unwrap();
        }
    }
    tenants.expect_service();
    tenants.expect_bounded(before, GROWTH_KB);
    drop(slow);
    // Whoever goes in the middle leaves nothing in use.
    let removed = || tenants.ask(&a.leaf("large", Command::Block(BlockCommand::Remove))) == done("removed block");
    assert!(wait_until(removed));
    tenants.end();
}

#[test]
fn a_chain_that_does_not_fit_a_handshake_is_refused() {
    let Some((tenants, a)) = begin("a_chain_that_does_not_fit_a_handshake_is_refused") else { return };
    let image = vec![7; 70_000];
    // What fits is looked at: this one is no image.
    let answer = tenants.ask(&a.leaf("one", create_inline(&image[..40_000], 16)));
    assert!(matches!(answer, Answer::Refused(_)), "{answer:?}");
    let before = tenants.resident();
    let unused = fulmar_tests::pki::extension(&[0x2a, 3], false, &image);
    for _ in 0..20 {
        let large = a.leaf_by("one", create(16), |draft| draft.extensions.push(unused.clone()));
        let answer = tenants.try_ask(&large);
        assert!(matches!(answer, Err(Broken::Alert(_) | Broken::Cut)), "{answer:?}");
    }
    tenants.expect_bounded(before, GROWTH_KB);
    tenants.end();
}

#[test]
fn a_client_that_vanishes_in_the_middle_leaves_nothing() {
    let Some((tenants, a)) = begin("a_client_that_vanishes_in_the_middle_leaves_nothing") else { return };
    let stream = chunks(&tenants.image("hello"), 1 << 16);
    assert_eq!(tenants.ask(&a.leaf("disk", Command::Block(BlockCommand::Add { size: 1 }))), done("added block device"));
    for round in 0..24 {
        let identity = if round % 2 == 0 { a.leaf("one", create(16)) } else { a.leaf("disk", SET) };
        let mut remote = tenants.connect(&identity);
        remote.send(&stream[..500 * (1 + round)]);
        match round % 3 {
            0 => drop(remote),
            1 => remote.half_close(),
            _ => {
                let reset = nix::libc::linger { l_onoff: 1, l_linger: 0 };
                setsockopt(&remote.tcp, sockopt::Linger, &reset).unwrap();
                drop(remote);
            }
        }
    }
    // The last of them may not have been missed yet.
    let is_free = || tenants.say(&a.leaf("disk", SET), b"there is nobody in the way") == done("set block device");
    assert!(wait_until(is_free), "{}", tenants.log());
    assert_eq!(tenants.ask(&a.leaf("disk", Command::Block(BlockCommand::Remove))), done("removed block"));
    assert_eq!(tenants.siege.names(), <[&str; 0]>::default());
    tenants.siege.expect_nothing_left();
    tenants.end();
}
