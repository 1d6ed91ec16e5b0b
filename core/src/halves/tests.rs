//! Messages survive the way there and back, the largest fits, and no bytes can break the reader.

extern crate std;

use std::format;
use std::string::ToString;
use std::vec;
use std::vec::Vec;

use proptest::prelude::*;

use super::*;
use crate::limits::*;
use crate::policy::Bridge;

fn plan<'a>(networks: Texts<'a>, argv: Texts<'a>) -> LaunchPlan<'a> {
    LaunchPlan {
        unit: Unit(7),
        account: 3,
        tender: Tender::Spt,
        cpus: CpuSet::first(2),
        memory_mb: 32,
        networks,
        blocks: 0,
        argv,
        machine: None,
    }
}

fn round_trip_request(request: Request<'_>) {
    let mut buffer = vec![0; CHANNEL_BYTES_MAX];
    let packet = request.encode(&mut buffer).unwrap();
    assert_eq!(Request::decode(packet), Ok(request));
}

fn round_trip_answer(answer: Answer<'_>) {
    let mut buffer = vec![0; CHANNEL_BYTES_MAX];
    let packet = answer.encode(&mut buffer).unwrap();
    assert_eq!(Answer::decode(packet), Ok(answer));
}

#[test]
fn requests_round_trip() {
    round_trip_request(Request::Survey);
    round_trip_request(Request::Bridges);
    round_trip_request(Request::Signal { unit: Unit(u64::MAX), signal: Signal::Kill });
    round_trip_request(Request::Forget { unit: Unit(7) });
    round_trip_request(Request::Files);
    round_trip_request(Request::Serving { running: 0, desired: u16::MAX });
    let networks = Texts::new(b"service\0br0\0").unwrap();
    round_trip_request(Request::Launch(plan(networks, Texts::new(b"solo5-spt\0--\0@3\0\0").unwrap())));
}

#[test]
fn answers_round_trip() {
    let taps = Texts::new(b"vmmtap0\0").unwrap();
    let error = OsError { attempt: Attempt::CreateTap, errno: 1 };
    let abilities = Abilities {
        accounts: true,
        taps: false,
        kvm: true,
        tender: true,
        solo5: false,
        memory_cgroup: false,
        pids_cgroup: true,
        bhyve: None,
    };
    round_trip_answer(Answer::Adopted {
        unit: Unit(1),
        pid: 77,
        started: u64::MAX,
        account: 9,
        started_ms: 1_700_000_000_000,
        told: true,
        taps,
    });
    round_trip_answer(Answer::Host(Host { cpus: CpuSet::first(128), memory_mb: 1 << 40, bridges: taps, abilities }));
    round_trip_answer(Answer::Bridges(Texts::default()));
    round_trip_answer(Answer::SurveyFailed(error));
    round_trip_answer(Answer::Launched { unit: Unit(1), pid: 77, started: 5, taps });
    round_trip_answer(Answer::LaunchFailed {
        unit: Unit(1),
        error: LaunchError::NoSuchBridge(Bridge::new(b"service").unwrap()),
    });
    round_trip_answer(Answer::LaunchFailed { unit: Unit(1), error: error.into() });
    round_trip_answer(Answer::Signalled { unit: Unit(1), outcome: SignalOutcome::Failed(error) });
    round_trip_answer(Answer::Files { open: 17, limit: u64::MAX });
    let record = StatusRecord::new(b"exited 255");
    round_trip_answer(Answer::Exited { unit: Unit(1), status: Status::Code(255), record });
    round_trip_answer(Answer::Ended { unit: Unit(1), record: StatusRecord::OUT_OF_MEMORY });
}

#[test]
fn the_largest_plan_fits() {
    let mut networks = vec![0; TAPS_BYTES_MAX];
    let mut writer = TextsWriter::new(&mut networks);
    for index in 0..DEVICES_MAX {
        writer.push_format(format_args!("bridge{index:09}")).unwrap();
    }
    assert!(writer.push(b"").is_err(), "the buffer is full");
    let networks = writer.finish();
    let mut argv = vec![b'a'; ARGV_BYTES_MAX];
    *argv.last_mut().unwrap() = 0;
    let mut largest = plan(networks, Texts::new(&argv).unwrap());
    largest.unit = Unit(u64::MAX);
    largest.cpus = CpuSet::first(u16::try_from(CPUS_MAX).unwrap());
    assert_eq!(largest.check(), Ok(()));
    round_trip_request(Request::Launch(largest));
}

#[test]
fn the_largest_host_fits() {
    let mut names = vec![0; HOST_BRIDGES_MAX * (INTERFACE_BYTES_MAX + 1)];
    let mut writer = TextsWriter::new(&mut names);
    for index in 0..HOST_BRIDGES_MAX {
        writer.push_format(format_args!("bridge{index:09}")).unwrap();
    }
    let abilities = Abilities {
        accounts: true,
        taps: true,
        kvm: true,
        tender: true,
        solo5: false,
        memory_cgroup: true,
        pids_cgroup: true,
        bhyve: None,
    };
    let cpus = CpuSet::first(u16::try_from(CPUS_MAX).unwrap());
    round_trip_answer(Answer::Host(Host { cpus, memory_mb: u64::MAX, bridges: writer.finish(), abilities }));
}

#[test]
fn what_is_out_of_bounds_is_refused() {
    let argv = Texts::new(b"solo5-spt\0").unwrap();
    let fine = plan(Texts::default(), argv);
    assert_eq!(fine.check(), Ok(()));
    assert_eq!(LaunchPlan { account: ACCOUNTS_MAX, ..fine }.check(), Err(LaunchError::NoSuchAccount(ACCOUNTS_MAX)));
    assert_eq!(LaunchPlan { cpus: CpuSet::EMPTY, ..fine }.check(), Err(LaunchError::NoCpu));
    assert_eq!(LaunchPlan { memory_mb: 0, ..fine }.check(), Err(LaunchError::NoMemory));
    assert_eq!(LaunchPlan { argv: Texts::default(), ..fine }.check(), Err(LaunchError::Arguments));
    let many = b"b\0".repeat(DEVICES_MAX + 1);
    assert_eq!(plan(Texts::new(&many).unwrap(), argv).check(), Err(LaunchError::TooManyDevices));
    let full = u8::try_from(DEVICES_MAX).unwrap();
    assert_eq!(LaunchPlan { blocks: full, ..fine }.check(), Ok(()));
    assert_eq!(LaunchPlan { blocks: full + 1, ..fine }.check(), Err(LaunchError::TooManyDevices));
    for name in [&b"\0"[..], b"a/b\0", b"..\0", b"sixteen-letters-\0"] {
        assert_eq!(plan(Texts::new(name).unwrap(), argv).check(), Err(LaunchError::BridgeName));
    }
}

#[test]
fn a_buffer_that_is_too_small_is_an_error() {
    assert_eq!(Request::Survey.encode(&mut []), Err(MessageError::TooLong));
    assert_eq!(Request::decode(&vec![0; CHANNEL_BYTES_MAX + 1]), Err(MessageError::TooLong));
}

#[test]
fn what_follows_a_message_is_refused() {
    assert_eq!(Request::decode(&[0]), Ok(Request::Survey));
    assert_eq!(Request::decode(&[0, 0]), Err(MessageError::Malformed));
    assert_eq!(Request::decode(&[]), Err(MessageError::Malformed));
}

#[test]
fn texts_are_taken_apart_as_they_were_put_together() {
    let mut buffer = [0; 16];
    let mut writer = TextsWriter::new(&mut buffer);
    writer.push(b"one").unwrap();
    assert_eq!(writer.push(b"a NUL\0"), Err(TextsFull));
    assert_eq!(writer.push(b"far too long for it"), Err(TextsFull));
    writer.push_format(format_args!("t{}o", 'w')).unwrap();
    writer.push(b"").unwrap();
    let texts = writer.finish();
    assert_eq!(texts.iter().collect::<Vec<_>>(), [&b"one"[..], b"two", b""]);
    assert_eq!(texts.as_bytes(), b"one\0two\0\0");
    assert_eq!(Texts::new(b"open"), None);
}

#[test]
fn errors_name_the_thing_and_the_remedy() {
    let error = LaunchError::from(OsError { attempt: Attempt::CreateTap, errno: 1 });
    assert_eq!(
        error.to_string(),
        "could not create tap: not permitted, vmmd needs root or a namespace of its own for this (error 1)"
    );
    assert_eq!(
        LaunchError::NoSuchBridge(Bridge::new(b"br7").unwrap()).to_string(),
        "the host has no bridge br7, make it first"
    );
    assert_eq!(format!("{:?}", Texts::new(b"a\0\xff\0").unwrap()), r#"["a" "\xff" ]"#);
}

proptest! {
    #[test]
    fn hostile_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        if let Ok(Request::Launch(plan)) = Request::decode(&bytes) {
            let _ = plan.check();
            let _ = plan.argv.iter().count();
        }
        if let Ok(answer) = Answer::decode(&bytes) {
            let _ = format!("{answer:?}");
        }
    }

    #[test]
    fn a_damaged_plan_never_panics(at in 0..64usize, value: u8) {
        let mut buffer = vec![0; 512];
        let request = Request::Launch(plan(Texts::new(b"br0\0br1\0").unwrap(), Texts::new(b"solo5-spt\0@3\0").unwrap()));
        let mut packet = request.encode(&mut buffer).unwrap().to_vec();
        if let Some(byte) = packet.get_mut(at) {
            *byte = value;
        }
        if let Ok(Request::Launch(plan)) = Request::decode(&packet) {
            let _ = plan.check();
            let _ = format!("{plan:?}");
        }
    }
}
