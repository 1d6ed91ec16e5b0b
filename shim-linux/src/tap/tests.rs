//! Real taps and bridges, each test in a network namespace of its own thread; without the right to make one it is skipped.

use std::io::{ErrorKind, Read, Write};
use std::time::{Duration, Instant};

use nix::sched::{CloneFlags, unshare};

use super::*;

/// Local experimental Ethertype 1 (IEEE 802), which nobody else sends.
const ETHERTYPE: [u8; 2] = [0x88, 0xb5];

/// How long a frame may take through the kernel on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);

/// Runs `test` in a fresh network namespace with the bridges `br0` and `br1`.
fn in_namespace(name: &str, test: impl FnOnce(&mut Netlink) + Send) {
    std::thread::scope(|scope| {
        let run = scope.spawn(|| {
            let ready = unshare(CloneFlags::CLONE_NEWNET).and_then(|()| Netlink::open()).and_then(|mut netlink| {
                netlink.add_bridge(b"br0")?;
                netlink.add_bridge(b"br1")?;
                open_tun()?;
                Ok(netlink)
            });
            match ready {
                Ok(mut netlink) => test(&mut netlink),
                Err(errno) => {
                    fulmar_tests::skips::skip(name, &format!("no taps in a network namespace here: {}", errno.desc()))
                }
            }
        });
        run.join().unwrap();
    });
}

/// The interfaces of this thread's namespace.
fn interfaces() -> Vec<String> {
    let table = std::fs::read_to_string("/proc/thread-self/net/dev").unwrap();
    table.lines().filter_map(|line| Some(line.split_once(':')?.0.trim().to_owned())).collect()
}

fn frame(number: u8) -> [u8; 60] {
    let mut frame = [0; 60];
    frame[..6].fill(0xff);
    frame[6..12].copy_from_slice(&[2, 0, 0, 0, 0, number]);
    frame[12..14].copy_from_slice(&ETHERTYPE);
    frame[14] = number;
    frame
}

/// Waits for a frame of ours and returns its number; none when `until` has passed.
fn next_frame(tap: &mut File, until: Instant) -> Option<u8> {
    let mut buffer = [0; 2048];
    while Instant::now() < until {
        match tap.read(&mut buffer) {
            Ok(length) if length >= 15 && buffer[12..14] == ETHERTYPE => return Some(buffer[14]),
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => std::thread::yield_now(),
            Err(error) => panic!("{error}"),
        }
    }
    None
}

#[test]
fn only_our_names_are_swept() {
    assert!(is_ours("vmmtap0") && is_ours("vmmtap4095"));
    for name in ["vmmtap", "vmmtap1a", "tap0", "vmmtap-1", ""] {
        assert!(!is_ours(name), "{name}");
    }
}

#[test]
fn bridges_are_listed_and_nothing_else() {
    in_namespace("bridges_are_listed_and_nothing_else", |netlink| {
        let tap = create(netlink, b"br0").unwrap();
        let mut names = Vec::new();
        netlink.links_of("bridge", &mut |name| names.push(String::from_utf8_lossy(name).into_owned())).unwrap();
        names.sort();
        assert_eq!(names, ["br0", "br1"]);
        assert!(interfaces().contains(&tap.name));
    });
}

#[test]
fn taps_get_the_lowest_free_number_and_vanish() {
    in_namespace("taps_get_the_lowest_free_number_and_vanish", |netlink| {
        let taps: Vec<_> = (0..3).map(|_| create(netlink, b"br0").unwrap()).collect();
        assert_eq!(taps.iter().map(|tap| tap.name.as_str()).collect::<Vec<_>>(), ["vmmtap0", "vmmtap1", "vmmtap2"]);
        let [zero, one, two] = taps.try_into().unwrap();
        drop((zero, one));
        assert_eq!(create(netlink, b"br0").unwrap().name, "vmmtap0");
        assert!(interfaces().contains(&two.name));
        drop(two);
        assert!(!interfaces().iter().any(|name| name.starts_with(PREFIX)), "{:?}", interfaces());
    });
}

#[test]
fn what_is_no_bridge_is_not_found() {
    in_namespace("what_is_no_bridge_is_not_found", |netlink| {
        let missing = OsError { attempt: Attempt::FindBridge, errno: Errno::ENODEV as i32 };
        let tap = create(netlink, b"br1").unwrap();
        for name in [&b"br2"[..], b"lo", tap.name.as_bytes(), b"a-name-that-is-far-too-long", b""] {
            assert_eq!(create(netlink, name).err(), Some(missing), "{}", name.escape_ascii());
        }
        assert_eq!(interfaces().iter().filter(|name| name.starts_with(PREFIX)).count(), 1);
    });
}

#[test]
fn frames_go_through_their_bridge_and_no_other() {
    in_namespace("frames_go_through_their_bridge_and_no_other", |netlink| {
        let [mut one, mut two, mut other] =
            [b"br0", b"br0", b"br1"].map(|bridge| File::from(create(netlink, bridge).unwrap().fd));
        let until = Instant::now() + PATIENCE;
        // A port forwards a moment after it is up, so the first frames may be lost.
        let mut arrived = None;
        while arrived.is_none() && Instant::now() < until {
            one.write_all(&frame(7)).unwrap();
            arrived = next_frame(&mut two, Instant::now() + Duration::from_millis(50));
        }
        assert_eq!(arrived, Some(7));
        // What was sent to the one bridge would be in the other's tap by now: the kernel forwards within the write.
        assert_eq!(next_frame(&mut other, Instant::now() + Duration::from_millis(1)), None);
    });
}

#[test]
fn taps_that_nobody_holds_are_swept() {
    in_namespace("taps_that_nobody_holds_are_swept", |netlink| {
        let persistent = |name: &str| {
            let tun = open_tun().unwrap();
            sys::attach_tap(tun.as_fd(), name).unwrap();
            sys::keep_tap(tun.as_fd(), true).unwrap();
            tun
        };
        drop(persistent("vmmtap7"));
        drop(persistent("vmmtap12"));
        drop(persistent("tap9"));
        let held = persistent("vmmtap3");
        let ours = create(netlink, b"br0").unwrap();
        assert_eq!(sweep(netlink), Ok(2));
        let left = interfaces();
        for name in ["vmmtap3", "tap9", ours.name.as_str()] {
            assert!(left.iter().any(|found| found == name), "{name} in {left:?}");
        }
        for name in ["vmmtap7", "vmmtap12"] {
            assert!(!left.iter().any(|found| found == name), "{name} in {left:?}");
        }
        drop(held);
        assert_eq!(sweep(netlink), Ok(1));
    });
}
