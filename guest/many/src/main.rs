//! Proves that each of 63 devices, all that an image can have, is the one that it says: 21 networks `n1` to `n21` and 42
//! disks `b1` to `b42`. The last byte of a network's address is its number, and so is the first byte of the frame that is waited
//! for there and of the one that is sent there; the first byte of a disk is its number too, and becomes 100 more.
#![no_std]
#![no_main]

use fulmar_guest::{Block, Guest, Net, Text, clock, say, unikernel, wait_until};

const NETS: u8 = 21;
const BLOCKS: u8 = 42;
const SECTOR_BYTES: usize = 512;
/// The first byte of what a host says to its neighbours by itself when an interface comes up (RFC 2464, section 7).
const IPV6_MULTICAST: u8 = 0x33;
/// How long it waits for all frames; who measures it meanwhile needs a while on a busy machine.
const PATIENCE_S: u64 = 120;

unikernel!(
    main,
    [
        net("n1"),
        net("n2"),
        net("n3"),
        net("n4"),
        net("n5"),
        net("n6"),
        net("n7"),
        net("n8"),
        net("n9"),
        net("n10"),
        net("n11"),
        net("n12"),
        net("n13"),
        net("n14"),
        net("n15"),
        net("n16"),
        net("n17"),
        net("n18"),
        net("n19"),
        net("n20"),
        net("n21"),
        block("b1"),
        block("b2"),
        block("b3"),
        block("b4"),
        block("b5"),
        block("b6"),
        block("b7"),
        block("b8"),
        block("b9"),
        block("b10"),
        block("b11"),
        block("b12"),
        block("b13"),
        block("b14"),
        block("b15"),
        block("b16"),
        block("b17"),
        block("b18"),
        block("b19"),
        block("b20"),
        block("b21"),
        block("b22"),
        block("b23"),
        block("b24"),
        block("b25"),
        block("b26"),
        block("b27"),
        block("b28"),
        block("b29"),
        block("b30"),
        block("b31"),
        block("b32"),
        block("b33"),
        block("b34"),
        block("b35"),
        block("b36"),
        block("b37"),
        block("b38"),
        block("b39"),
        block("b40"),
        block("b41"),
        block("b42"),
    ]
);

fn main(guest: &Guest) -> i32 {
    let held = (1..=NETS).all(|number| is_net(guest, number))
        && (1..=BLOCKS).all(|number| is_block(guest, number))
        && come_frames(guest);
    say!(if held { "many: all held" } else { "many: FAILED" });
    i32::from(!held)
}

/// The name of a device.
fn named<T>(prefix: &str, number: u8, find: impl FnOnce(&str) -> Option<T>) -> Option<T> {
    let mut name = Text::new();
    name.push(prefix.as_bytes());
    if number >= 10 {
        name.push(&[b'0' + number / 10]);
    }
    name.push(&[b'0' + number % 10]);
    let found = core::str::from_utf8(name.bytes()).ok().and_then(find);
    if found.is_none() {
        say!("many: there is no ", name.bytes());
    }
    found
}

fn net(guest: &Guest, number: u8) -> Option<Net> {
    named("n", number, |name| Net::find(guest, name))
}

fn is_net(guest: &Guest, number: u8) -> bool {
    net(guest, number).is_some_and(|net| {
        let [.., last] = net.mac();
        last == number && net.write(&[number; 60])
    })
}

fn is_block(guest: &Guest, number: u8) -> bool {
    let mut sector = [0; SECTOR_BYTES];
    named("b", number, |name| Block::find(guest, name)).is_some_and(|disk| {
        let is_it = disk.read(0, &mut sector) && sector.first() == Some(&number);
        sector.fill(number + 100);
        is_it && disk.write(0, &sector)
    })
}

/// A frame comes to each network, all of which are waited for at once.
fn come_frames(guest: &Guest) -> bool {
    let deadline_ns = clock::in_seconds(PATIENCE_S);
    let mut missing: u64 =
        (1..=NETS).filter_map(|number| net(guest, number)).fold(0, |set, net| set | 1 << net.handle());
    say!("many: waiting for frames");
    while missing != 0 {
        if clock::monotonic_ns() >= deadline_ns {
            return false;
        }
        let ready = wait_until(deadline_ns);
        for number in 1..=NETS {
            let Some(net) = net(guest, number) else { return false };
            if ready & missing & 1 << net.handle() == 0 {
                continue;
            }
            let mut frame = [0; 1514];
            match net.read(&mut frame).and(frame.first()) {
                Some(&IPV6_MULTICAST) => {}
                Some(first) if *first == number => missing &= !(1 << net.handle()),
                _ => return false,
            }
        }
    }
    true
}
