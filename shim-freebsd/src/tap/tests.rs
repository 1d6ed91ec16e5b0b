//! Taps over the fake kernel.

use std::os::fd::AsFd;

use super::*;
use crate::fake::FakeKernel;

/// The taps that there are, by their names.
fn names(kernel: &FakeKernel) -> Vec<String> {
    kernel.taps().into_iter().map(|(name, ..)| name).collect()
}

fn with<T>(kernel: &FakeKernel, run: impl FnOnce(Interfaces<'_, FakeKernel>) -> T) -> T {
    let socket = kernel.socket().unwrap();
    run(Interfaces { kernel, socket: socket.as_fd() })
}

#[test]
fn a_tap_is_named_by_its_number_and_is_up_in_its_bridge() {
    let kernel = FakeKernel::new();
    with(&kernel, |interfaces| {
        let first = interfaces.create(b"service").unwrap();
        let second = interfaces.create(b"bridge0").unwrap();
        assert_eq!((first.name.as_str(), second.name.as_str()), ("vmmtap0", "vmmtap1"));
        let expected = [("vmmtap0", "service"), ("vmmtap1", "bridge0")];
        let expected = expected.map(|(name, bridge)| (name.to_owned(), Some(bridge.to_owned()), true));
        assert_eq!(kernel.taps(), expected);
        assert_eq!(interfaces.bridges().unwrap(), [b"bridge0".to_vec(), b"service".to_vec()]);
        assert_eq!(interfaces.index_of("vmmtap1"), Ok(101));
    });
}

#[test]
fn what_is_no_bridge_is_not_found() {
    let kernel = FakeKernel::new();
    kernel.make_interface("tap3", 9);
    with(&kernel, |interfaces| {
        for name in [&b"nowhere"[..], b"tap3", b"a-name-that-no-interface-has"] {
            assert_eq!(interfaces.create(name).unwrap_err(), failed(Attempt::FindBridge)(Errno::ENODEV));
        }
    });
    assert_eq!(names(&kernel), ["tap3"]);
}

#[test]
fn a_tap_stays_while_anybody_holds_it() {
    let kernel = FakeKernel::new();
    with(&kernel, |interfaces| {
        let tap = interfaces.create(b"service").unwrap();
        let tenders = tap.fd.try_clone().unwrap();
        assert_eq!(interfaces.release(tap), Ok(false));
        assert_eq!(interfaces.sweep(), Ok(0));
        drop(tenders);
        assert_eq!(interfaces.destroy_unheld("vmmtap0"), Ok(true));
        assert_eq!(interfaces.destroy_unheld("vmmtap0"), Ok(false));
    });
    assert!(names(&kernel).is_empty());
}

#[test]
fn only_our_taps_are_swept() {
    let kernel = FakeKernel::new();
    for (name, index) in [("tap3", 9), ("vmmtap4", 10), ("vmmtapx5", 11), ("vmmtap6", 12)] {
        kernel.make_interface(name, index);
    }
    with(&kernel, |interfaces| assert_eq!(interfaces.sweep(), Ok(2)));
    assert_eq!(names(&kernel), ["tap3", "vmmtapx5"]);
}

#[test]
fn every_conversation_may_fail_and_leaves_nothing_that_a_sweep_does_not_find() {
    for calls in 0.. {
        let kernel = FakeKernel::new();
        let socket = kernel.socket().unwrap();
        let interfaces = Interfaces { kernel: &kernel, socket: socket.as_fd() };
        kernel.fail_after(calls);
        let created = interfaces.create(b"service");
        if !kernel.has_failed() {
            assert!(created.is_ok() && calls == 8, "two to list, made, named, opened, flags twice, member: {calls}");
            return;
        }
        assert!(created.is_err());
        assert!(names(&kernel).is_empty(), "{:?} after {calls} calls", kernel.taps());
    }
}
