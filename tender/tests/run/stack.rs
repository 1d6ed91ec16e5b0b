//! The Internet of a unikernel, frame by frame: it answers who knows the manners, and survives who does not.

use crate::frames::{
    ARP, GUEST, GUEST_MAC, IPV4, OURS, RST, SYN, SYN_ACK, TCP, UDP, Wire, arp_request, ethernet, ipv4, is, tcp, udp,
};
use crate::tender::{Running, end, image, kinds, tender};
use fulmar_tests::built::Kind;

fn start(kind: Kind, name: &str, arguments: &[&str]) -> (Wire, Running) {
    Wire::start(tender(kind), |command| {
        command.arg(image(kind, name)).args(arguments);
    })
}

#[test]
fn a_ping_is_answered() {
    for kind in kinds("ping") {
        for name in ["http", "echo"] {
            let (wire, mut child) = start(kind, name, &["--ipv4=10.0.0.2/24"]);
            let said = child.console("port ");
            assert!(
                said.contains("network: I am 02:00:00:00:00:02, mtu 1500\nnetwork: I have 10.0.0.2/24\n"),
                "{said}"
            );
            (1..4).for_each(|number| wire.expect_life(number));
            child.finish();
        }
    }
}

#[test]
fn a_datagram_comes_back() {
    for kind in kinds("datagram") {
        let (wire, child) = start(kind, "echo", &["--ipv4=10.0.0.2/24", "--gateway=10.0.0.1", "--port=4000"]);
        wire.expect_life(1);
        // From a network that only the gateway knows.
        let far = ([192, 0, 2, 1], 5000);
        for payload in [&b"x"[..], &[7; 1400], b""] {
            // What comes from the port of another echo server is not given back.
            wire.send(&udp((OURS, 4000), (GUEST, 4000), b"ping-pong"));
            wire.send(&udp(far, (GUEST, 4000), payload));
            let reply =
                wire.receive(|frame| frame.len() >= 42 && frame[12..14] == IPV4.to_be_bytes() && frame[23] == UDP);
            let wanted = [&GUEST[..], &far.0, &4000_u16.to_be_bytes(), &5000_u16.to_be_bytes()].concat();
            assert_eq!(reply[26..38], wanted);
            assert_eq!(&reply[42..42 + payload.len()], payload);
        }
        child.finish();
    }
}

/// Bytes without a pattern; the same each time.
fn noise(seed: u32, len: usize) -> Vec<u8> {
    let mut state = seed | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state.to_le_bytes()[1]
    };
    (0..len).map(|_| next()).collect()
}

#[test]
fn frames_at_random_do_no_harm() {
    for kind in kinds("random frames") {
        let count = if kind == Kind::Hvt { 300 } else { 20_000 };
        for name in ["http", "echo"] {
            let (wire, child) = start(kind, name, &["--ipv4=10.0.0.2/24"]);
            wire.expect_life(1);
            let good = [
                arp_request(),
                ipv4(OURS, GUEST, 1, &noise(1, 64)),
                udp((OURS, 1000), (GUEST, 7), &noise(2, 200)),
                tcp((OURS, 1001), (GUEST, 80), 1, SYN),
                tcp((OURS, 1002), (GUEST, 7), 1, 0x29),
            ];
            for seed in 0_u32..count {
                let dice = noise(seed.wrapping_mul(2_654_435_761), 8);
                let base = &good[usize::from(dice[0]) % good.len()];
                let frame = match dice[1] % 4 {
                    // Nothing but noise.
                    0 => noise(seed, 1 + usize::from(dice[2]) * 5),
                    // Noise to whom it may concern.
                    1 => ethernet(GUEST_MAC, [ARP, IPV4][usize::from(dice[2] & 1)], &noise(seed, dice[3].into())),
                    // Cut off.
                    2 => base[..1 + usize::from(dice[2]) % base.len()].to_vec(),
                    // One byte of it is another.
                    _ => {
                        let mut frame = base.clone();
                        let at = 12 + usize::from(dice[2]) % (frame.len() - 12);
                        frame[at] ^= dice[3] | 1;
                        frame
                    }
                };
                wire.send(&frame);
            }
            wire.expect_life(2);
            child.finish();
        }
    }
}

/// Who only begins connections takes all sockets, for a while.
#[test]
fn half_open_connections_are_given_up() {
    let (wire, child) = start(Kind::Spt, "http", &["--ipv4=10.0.0.2/24", "--gateway=10.0.0.1"]);
    wire.expect_life(1);
    // Answers to them go to the gateway, whose address it now knows.
    for client in 1..100 {
        wire.send(&tcp(([192, 0, 2, client], 3000), (GUEST, 80), 1, SYN));
    }
    wire.expect_life(2);
    let mut port = 20_000;
    let flags =
        |frame: &[u8], port: u16| is(frame, TCP) && frame[36..38] == port.to_be_bytes() && frame[47] & 0x12 != 0;
    // Refused at first, and served once some were given up.
    loop {
        port += 1;
        wire.send(&tcp((OURS, port), (GUEST, 80), 1, SYN));
        let answer = wire.receive(|frame| flags(frame, port));
        if answer[47] == SYN_ACK {
            break;
        }
        assert!(answer[47] & RST != 0, "{answer:?}");
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    wire.expect_life(3);
    child.finish();
}

#[test]
fn the_network_gives_an_address() {
    for kind in kinds("dhcp") {
        let (wire, mut child) = start(kind, "echo", &["--dhcp"]);
        // It asks who would give it one, is offered one, asks for that, and gets it.
        for (asks, says) in [(1, 2), (3, 5)] {
            let asked =
                wire.receive(|frame| is(frame, UDP) && frame[36..38] == [0, 67] && kind_of(frame) == Some(asks));
            wire.send(&udp((OURS, 67), ([255; 4], 68), &lease(&asked[42..], says)));
        }
        child.console("network: I have 10.0.0.2/24\n");
        wire.expect_life(1);
        child.finish();
    }
}

/// What kind of message of DHCP a frame carries: the first option by custom.
fn kind_of(frame: &[u8]) -> Option<u8> {
    let options = frame.get(42 + 240..)?;
    let at = options.windows(2).position(|pair| pair == [53, 1])?;
    options.get(at + 2).copied()
}

/// An answer to a message of DHCP: 10.0.0.2 of 10.0.0.0/24, by way of us.
fn lease(asked: &[u8], kind: u8) -> Vec<u8> {
    let mut message = asked[..240].to_vec();
    message[0] = 2;
    message[16..20].copy_from_slice(&GUEST);
    message
        .extend([53, 1, kind, 54, 4, 10, 0, 0, 1, 51, 4, 0, 0, 14, 16, 1, 4, 255, 255, 255, 0, 3, 4, 10, 0, 0, 1, 255]);
    message
}

#[test]
fn wrong_arguments_are_named() {
    for (name, arguments, said) in [
        ("http", &[][..], "network: FAILED: say --dhcp or --ipv4="),
        ("echo", &["--ipv4=10.0.0.2"], "network: FAILED: say --dhcp or --ipv4="),
        ("echo", &["--ipv4=10.0.0.256/24"], "network: FAILED: "),
        ("echo", &["--ipv4=10.0.0.2/33"], "network: FAILED: "),
        ("echo", &["--ipv4=224.0.0.1/24"], "network: FAILED: "),
        ("echo", &["--ipv4=0.0.0.0/0"], "network: FAILED: "),
        ("http", &["--ipv4=10.0.0.2/24", "--gateway=10.0.0"], "network: FAILED: "),
        ("http", &["--ipv4=10.0.0.2/24", "--port=65536"], "http: FAILED: --port= must be 1 to 65535"),
        ("echo", &["--ipv4=10.0.0.2/24", "--port=0"], "echo: FAILED: --port= must be 1 to 65535"),
        ("http", &["--ipv4=10.0.0.2/24", "--fetch=there"], "http: FAILED: --fetch= must be an address"),
        ("http", &["--ipv4=10.0.0.2/24", "--fetch=10.0.0.1:0"], "http: FAILED: --fetch= must be an address"),
    ] {
        let (_wire, child) = start(Kind::Spt, name, arguments);
        let end = child.wait();
        assert_eq!((end.code(), end.stderr.as_str()), (Some(1), ""), "{arguments:?}: {end:?}");
        assert!(end.stdout.contains(said), "{arguments:?}: {end:?}");
    }
    let (_wire, child) = Wire::start_as(tender(Kind::Spt), "01:00:5e:00:00:01", |command| {
        command.arg(image(Kind::Spt, "http")).arg("--ipv4=10.0.0.2/24");
    });
    let refused = child.wait();
    assert!(refused.code() == Some(1) && refused.stdout.contains("is an address of a group"), "{refused:?}");
    // And without any network it does not start.
    let end = end(tender(Kind::Spt).arg("--mem=2").arg(image(Kind::Spt, "http")));
    assert_eq!(end.code(), Some(1));
}
