//! Every way in which a unikernel can die ends it, as the ABI has it: a fault is a signal under spt, and under hvt what the
//! guest's own handler says of it, or the tender's word where no handler can help.

use nix::sys::signal::Signal;

use crate::tender::{End, end, kinds, run};
use fulmar_tests::built::Kind;

fn crash(kind: Kind, how: &str) -> End {
    let end = end(run(kind, "crash").args([&format!("--how={how}"), "--status=42"]));
    assert!(end.stdout.starts_with(&format!("crash: now {how}\n")), "{how}: {end:?}");
    end
}

#[test]
fn a_unikernel_ends_itself() {
    for kind in kinds("crash itself") {
        for (how, code, said) in [("exit", 42, ""), ("abort", 255, ""), ("panic", 255, "panic at crash/src/main.rs:")] {
            let end = crash(kind, how);
            assert_eq!((end.code(), end.stderr.as_str()), (Some(code), ""), "{how}: {end:?}");
            assert!(end.stdout.contains(said), "{how}: {end:?}");
        }
    }
}

#[test]
fn death_can_wait() {
    for kind in kinds("crash later") {
        let end = end(run(kind, "crash").args(["--how=exit", "--after=1", "--status=5"]));
        assert_eq!((end.code(), end.stdout.as_str()), (Some(5), "crash: now exit\n"), "{end:?}");
    }
}

#[test]
fn a_fault_is_a_signal_under_spt() {
    for (how, signal) in [
        ("null", Signal::SIGSEGV),
        ("text", Signal::SIGSEGV),
        ("data", Signal::SIGSEGV),
        ("stack", Signal::SIGSEGV),
        ("undefined", Signal::SIGILL),
        ("divide", Signal::SIGFPE),
        ("align", Signal::SIGILL),
        ("call", Signal::SIGSYS),
    ] {
        let end = crash(Kind::Spt, how);
        assert_eq!(end.signal(), Some(signal as i32), "{how}: {end:?}");
        // What the filter ends, nobody is left to report.
        let is_reported = end.stderr.contains(&format!("guest fault (signal {}): ", signal as i32));
        assert_eq!(is_reported, signal != Signal::SIGSYS, "{how}: {end:?}");
    }
}

#[test]
fn an_hvt_guest_says_its_own_faults() {
    if !kinds("crash faults").contains(&Kind::Hvt) {
        return;
    }
    for (how, name, address) in
        [("null", "#PF", Some("trap: cr2=0x0")), ("undefined", "#UD", None), ("divide", "#DE", None)]
    {
        let end = crash(Kind::Hvt, how);
        assert_eq!(end.code(), Some(255), "{how}: {end:?}");
        let lines: Vec<_> = end.stdout.lines().skip(1).collect();
        let words: Vec<_> = lines[0].split(' ').collect();
        assert_eq!(words[..3], ["trap:", &format!("type={name}"), "ec=0x0"], "{how}: {end:?}");
        // Where it was: in the text, with the stack at the end of its 2 MiB.
        let number = |word: &str, key: &str| u64::from_str_radix(word.strip_prefix(key).unwrap(), 16).unwrap();
        assert!((0x10_0000..0x11_0000).contains(&number(words[3], "rip=0x")), "{how}: {end:?}");
        assert!((0x1f_f000..0x20_0000).contains(&number(words[4], "rsp=0x")), "{how}: {end:?}");
        assert!(number(words[5], "rflags=0x") & 2 != 0, "{how}: {end:?}");
        assert_eq!(lines.get(1).copied(), address, "{how}: {end:?}");
    }
}

#[test]
fn the_tender_says_what_an_hvt_guest_cannot() {
    if !kinds("crash under hvt").contains(&Kind::Hvt) {
        return;
    }
    for (how, said) in [
        ("text", "KVM: host/guest translation fault: rip=0x"),
        ("stack", "KVM: host/guest translation fault: rip=0x"),
        ("port", "Invalid guest port access: port=0x80"),
        ("hypercall", "Invalid guest hypercall: num=0"),
        ("reach", "Invalid guest access: gpa=0x1ffff8, sz=9"),
        ("triple", "KVM: unhandled exit: exit_reason=0x8, rip=0x"),
        ("halt", "KVM: unhandled exit: exit_reason=0x5, rip=0x"),
    ] {
        let end = crash(Kind::Hvt, how);
        assert_eq!(end.code(), Some(1), "{how}: {end:?}");
        assert!(end.stderr.starts_with(&format!("solo5-hvt: {said}")), "{how}: {end:?}");
    }
    // There is no page of an hvt guest that it may not run.
    assert_eq!(crash(Kind::Hvt, "data").code(), Some(3));
}

#[test]
fn an_unknown_way_names_the_known_ones() {
    for kind in kinds("crash unknown") {
        let own = if kind == Kind::Hvt { "  triple\n" } else { "  call\n" };
        for arguments in [&[][..], &["--how=sleep"], &["--solo5:quiet", "how=null", "--how"]] {
            let end = end(run(kind, "crash").args(arguments));
            assert_eq!((end.code(), end.stderr.as_str()), (Some(2), ""), "{end:?}");
            assert!(end.stdout.contains("  divide\n") && end.stdout.contains(own), "{end:?}");
        }
    }
}
