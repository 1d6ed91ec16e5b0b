//! Parts of unikernels that need no tender: what `http` makes of any bytes, and the ring of frames against a host of our own.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

#[path = "../../guest/http/src/request.rs"]
mod request;
#[path = "../../guest/runtime/src/hvt/ring.rs"]
mod ring;

use std::collections::VecDeque;
use std::sync::atomic::Ordering::SeqCst;

use proptest::prelude::*;
use request::{HEAD_BYTES_MAX, Refused, read};
use ring::{BUFFER_BYTES, BUFFERS, ENTRIES, Ring, Shared};

const HEAD: &[u8] = b"GET /a?b HTTP/1.1\r\nHost: x\r\nConnection: x , Close\r\n\r\n";

#[test]
fn a_head_is_read_when_all_of_it_is_there() {
    for len in 0..HEAD.len() {
        assert_eq!(read(&HEAD[..len]), Ok(None), "{len}");
    }
    let request = read(&[HEAD, b"\0more"].concat()).unwrap().map(|it| (it.path.to_vec(), it.keep_alive, it.head_bytes));
    assert_eq!(request, Some((b"/a?b".to_vec(), false, HEAD.len())));
    for (text, keep_alive) in [
        ("GET / HTTP/1.1\r\nHost:\r\n\r\n", true),
        ("GET / HTTP/1.0\r\n\r\n", false),
        ("GET / HTTP/1.0\r\nconnection: Keep-Alive\r\n\r\n", true),
        ("GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n", true),
        ("GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nConnection: keep-alive\r\n\r\n", false),
    ] {
        let request = read(text.as_bytes()).unwrap().unwrap();
        assert_eq!((request.method, request.keep_alive), (&b"GET"[..], keep_alive), "{text}");
    }
}

#[test]
fn a_head_without_end_is_refused() {
    let long = [b"GET / HTTP/1.1\r\nHost: ".to_vec(), vec![b'x'; HEAD_BYTES_MAX]].concat();
    assert_eq!(read(&long[..HEAD_BYTES_MAX - 1]), Ok(None));
    assert_eq!(read(&long[..HEAD_BYTES_MAX]), Err(Refused::TooLong));
    assert_eq!(read(b"GET /\n"), Err(Refused::Malformed));
}

proptest! {
    /// Nor does it depend on how the bytes are cut: what is refused is not accepted when more has come.
    #[test]
    fn any_bytes_are_read(
        bytes in prop::collection::vec(any::<u8>(), 0..100),
        at in 0..HEAD.len(),
        cut in 0..200_usize,
    ) {
        let _ = read(&bytes);
        let mixed = [&HEAD[..at], &bytes, &HEAD[at..]].concat();
        let cut = cut.min(mixed.len());
        match (read(&mixed[..cut]), read(&mixed)) {
            (Err(early), whole) => prop_assert_eq!(whole, Err(early)),
            (Ok(Some(early)), whole) => prop_assert_eq!(whole, Ok(Some(early))),
            (Ok(None), _) => {}
        }
    }

    /// Whatever the order in which both sides get on, and wherever the indices stand: every request comes once and in order,
    /// a buffer is not used again before the host is done with it, and a host that sleeps is woken.
    #[test]
    fn the_ring_loses_nothing(start in prop_oneof![Just(0), any::<u32>(), u32::MAX - 2000..=u32::MAX], steps in prop::collection::vec(0..8_u8, 0..3000)) {
        let shared: &'static Shared = Box::leak(Box::new(empty(start)));
        let buffers = Box::leak(Box::new([[0; BUFFER_BYTES]; BUFFERS as usize]));
        let addresses: Vec<u64> = buffers.iter().map(|buffer| buffer.as_ptr().addr() as u64).collect();
        let mut guest = Guest { ring: Ring::new(shared, buffers), sent: 0, asked: false };
        let mut host = Host { shared, waiting: VecDeque::new(), taken: start, asleep: false, addresses };
        for step in steps {
            match step {
                0..4 => guest.write(&mut host),
                4 => guest.read(&mut host),
                5 => host.asleep = host.sleep(),
                _ => host.take(),
            }
            guest.look(&host);
            prop_assert!(!host.asleep || host.waiting.is_empty(), "the host sleeps and has something to do");
        }
        while !host.waiting.is_empty() {
            host.take();
        }
        guest.look(&host);
        prop_assert!(!guest.asked && guest.ring.has_room());
    }
}

fn empty(start: u32) -> Shared {
    let shared = Shared {
        guests: ring::Guests::default(),
        hosts: ring::Hosts::default(),
        submissions: std::array::from_fn(|_| ring::Submission::default()),
        completions: std::array::from_fn(|_| ring::Completion::default()),
    };
    for index in [&shared.guests.submitted, &shared.guests.seen, &shared.hosts.taken, &shared.hosts.completed] {
        index.store(start, SeqCst);
    }
    shared
}

struct Guest {
    ring: Ring,
    sent: u32,
    asked: bool,
}

/// A tender's thread, one step at a time.
struct Host {
    shared: &'static Shared,
    /// What the guest has asked for and we have not done: the operation and the length.
    waiting: VecDeque<(u32, u32)>,
    taken: u32,
    asleep: bool,
    addresses: Vec<u64>,
}

impl Guest {
    fn write(&mut self, host: &mut Host) {
        assert_eq!(self.ring.has_room(), host.waiting.len() < BUFFERS as usize);
        if !self.ring.has_room() {
            return;
        }
        let len = 60 + self.sent % 1000;
        self.sent += 1;
        host.waiting.push_back((1, len));
        self.ring.write(7, &vec![1; len as usize], || host.asleep = false);
    }

    fn read(&mut self, host: &mut Host) {
        if self.asked || !self.ring.has_room() {
            return;
        }
        self.asked = true;
        host.waiting.push_back((2, 1514));
        self.ring.read(7, 0x10_0000, 1514, || host.asleep = false);
    }

    /// Takes the answer to what was asked, which is the number of the request.
    fn look(&mut self, host: &Host) {
        if let Some(answer) = self.ring.completion() {
            assert!(self.asked);
            let number = host.shared.hosts.completed.load(SeqCst);
            assert_eq!(answer, number.is_multiple_of(2).then_some(100 + number as usize % 1000));
            self.asked = false;
        }
    }
}

impl Host {
    /// Says that it sleeps, and looks once more.
    fn sleep(&mut self) -> bool {
        self.shared.hosts.sleeps.store(1, SeqCst);
        let idle = self.shared.guests.submitted.load(SeqCst) == self.taken;
        self.shared.hosts.sleeps.store(u32::from(idle), SeqCst);
        idle
    }

    fn take(&mut self) {
        if self.asleep || self.shared.guests.submitted.load(SeqCst) == self.taken {
            return;
        }
        self.shared.hosts.sleeps.store(0, SeqCst);
        let entry = &self.shared.submissions[(self.taken % ENTRIES) as usize];
        let (operation, len) = self.waiting.pop_front().unwrap();
        assert_eq!((entry.operation.load(SeqCst), entry.len.load(SeqCst)), (operation, len));
        assert_eq!((entry.id.load(SeqCst), entry.handle.load(SeqCst)), (self.taken, 7));
        let data = entry.data.load(SeqCst);
        if operation == 2 {
            assert_eq!(data, 0x10_0000);
            let number = self.shared.hosts.completed.load(SeqCst).wrapping_add(1);
            let place = number.wrapping_sub(1) % ENTRIES;
            let completion = &self.shared.completions[place as usize];
            completion.id.store(self.taken, SeqCst);
            completion.result.store(number % 2, SeqCst);
            completion.len.store(100 + number % 1000, SeqCst);
            self.shared.hosts.completed.store(number, SeqCst);
        } else {
            // Every waiting frame is in a buffer of its own.
            assert_eq!(data, self.addresses[(self.taken % BUFFERS) as usize]);
        }
        self.taken = self.taken.wrapping_add(1);
        self.shared.hosts.taken.store(self.taken, SeqCst);
    }
}
