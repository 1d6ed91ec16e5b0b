//! Good examples of what nobody has recorded: packets between the halves, scripts, schedules, command lines.

use fulmar_core::halves::{
    Abilities, Answer, Attempt, Host, LaunchError, LaunchPlan, OsError, Request, Signal, SignalOutcome, Status,
    StatusRecord, Tender, Texts, Unit,
};
use fulmar_core::limits::{CHANNEL_BYTES_MAX, CONSOLE_LINE_BYTES_MAX};
use fulmar_core::policy::{Bridge, CpuSet};

use super::{Seed, numbered};
use crate::choose::{Choose, Seeded};

/// Schedules for the world, and bytes of each.
const SCHEDULES: u64 = 24;
const SCHEDULE_BYTES: u32 = 1500;

/// A plan that a host with the bridges `service` and `br0` carries out.
fn plan(unit: u64, networks: &'static [u8], blocks: u8) -> LaunchPlan<'static> {
    LaunchPlan {
        unit: Unit(unit),
        account: 1,
        tender: if unit.is_multiple_of(2) { Tender::Hvt } else { Tender::Spt },
        cpus: CpuSet::first(1),
        memory_mb: 16,
        networks: Texts::new(networks).unwrap_or_default(),
        blocks,
        argv: Texts::new(b"solo5-spt\0@3\0--name=a\0").unwrap_or_default(),
        machine: None,
    }
}

fn packet(request: &Request<'_>) -> Vec<u8> {
    request.encode(&mut vec![0; CHANNEL_BYTES_MAX]).map(<[u8]>::to_vec).unwrap_or_default()
}

/// Every kind of request and answer.
pub(super) fn halves() -> Vec<Seed> {
    let unit = Unit(7);
    let requests = [
        Request::Survey,
        Request::Bridges,
        Request::Launch(plan(7, b"service\0br0\0", 1)),
        Request::Signal { unit, signal: Signal::Terminate },
        Request::Signal { unit: Unit(u64::MAX), signal: Signal::Kill },
        Request::Forget { unit },
    ];
    let taps = Texts::new(b"vmmtap0\0vmmtap1\0").unwrap_or_default();
    let error = OsError { attempt: Attempt::CreateTap, errno: 13 };
    let abilities = Abilities {
        accounts: true,
        taps: false,
        kvm: true,
        tender: true,
        solo5: false,
        memory_cgroup: true,
        pids_cgroup: false,
        bhyve: None,
    };
    let failed = |error| Answer::LaunchFailed { unit, error };
    let records = ["exited 7", "faulted signal=11 rip=0x1001db", "terminated signal=15", "failed"];
    let records = records.map(|text| format!("{text:63}\n").into_bytes());
    let mut answers = vec![
        Answer::Adopted { unit, pid: 77, started: 5, account: 9, started_ms: 1_700_000_000_000, taps, told: true },
        Answer::Host(Host { cpus: CpuSet::first(128), memory_mb: 1 << 40, bridges: taps, abilities }),
        Answer::Bridges(taps),
        Answer::SurveyFailed(error),
        Answer::Launched { unit, pid: 77, started: u64::MAX, taps },
        failed(LaunchError::NoSuchAccount(9000)),
        failed(LaunchError::Os(error)),
        Answer::Signalled { unit, outcome: SignalOutcome::Sent },
        Answer::Signalled { unit, outcome: SignalOutcome::Failed(error) },
        Answer::Exited { unit, status: Status::Code(64), record: StatusRecord::new(b"exited 64") },
        Answer::Exited { unit, status: Status::Signal(9), record: StatusRecord::default() },
        Answer::Ended { unit, record: StatusRecord::OUT_OF_MEMORY },
        Answer::Ended { unit, record: StatusRecord::new(&records[0]) },
        Answer::Exited { unit, status: Status::Unknown, record: StatusRecord::new(&records[1]) },
        Answer::Exited { unit, status: Status::Code(1), record: StatusRecord::new(&records[2]) },
        Answer::Exited { unit, status: Status::Unknown, record: StatusRecord::new(&records[3]) },
    ];
    answers.extend(Bridge::new(b"service").map(|bridge| failed(LaunchError::NoSuchBridge(bridge))));
    let answers = answers
        .iter()
        .map(|answer| answer.encode(&mut vec![0; CHANNEL_BYTES_MAX]).map(<[u8]>::to_vec).unwrap_or_default());
    numbered("packet", requests.iter().map(packet).chain(answers))
}

/// Scripts for the host half, in the form of `fulmar_vmmd::host_half::fuzzing`: requests with their fds, ends, refusals, a
/// successor.
#[must_use]
pub fn host_half() -> Vec<Seed> {
    let send = |request: &Request<'_>, fds: u8| {
        let packet = packet(request);
        let len = u16::try_from(packet.len()).unwrap_or(0).to_le_bytes();
        [&[0, fds, len[0], len[1]], &packet[..]].concat()
    };
    let survey = send(&Request::Survey, 0);
    let launch = |unit, networks, blocks: u8| send(&Request::Launch(plan(unit, networks, blocks)), 2 + blocks);
    let signal = |unit, signal| send(&Request::Signal { unit: Unit(unit), signal }, 0);
    // The third is killed for want of memory, all others exit with 1 and have recorded that.
    let end = |number| {
        [&[1, number, if number == 2 { 8 } else { 1 }, 64][..], format!("{:63}\n", "exited 1").as_bytes()].concat()
    };
    let forget = |unit| send(&Request::Forget { unit: Unit(unit) }, 0);
    let successor = vec![3];
    let life = [&survey[..], &launch(7, b"service\0br0\0", 0), &signal(7, Signal::Terminate)].concat();
    let twice =
        [&survey[..], &launch(7, b"", 1), &launch(7, b"", 1), &launch(8, b"", 0), &end(1), &forget(7), &forget(8)]
            .concat();
    let unsurveyed = [&launch(1, b"", 0)[..], &end(0), &launch(1, b"", 0), &survey].concat();
    let launches = [launch(1, b"br0\0", 2), launch(2, b"", 0), launch(3, b"", 0)].concat();
    let succeeded =
        [&life[..], &launches, &end(2), &successor, &end(0), &survey, &end(0), &forget(3), &forget(2)].concat();
    let wrong = [
        survey.clone(),
        launch(1, b"nowhere\0", 0),
        send(&Request::Launch(plan(1, b"", 0)), 0),
        send(&Request::Launch(plan(1, b"", 1)), 2),
        send(&Request::Launch(plan(1, b"", 63)), 65),
        signal(3, Signal::Kill),
        send(&Request::Bridges, 3),
        vec![0, 1, 3, 0, 0xff, 0xff, 0xff],
    ]
    .concat();
    let refused = |calls| [&survey[..], &[2, calls], &launch(1, b"service\0", 0), &launch(1, b"service\0", 0)].concat();
    let mut scripts = vec![life, twice, unsurveyed, succeeded, wrong, [&[2, 0], &survey[..]].concat()];
    scripts.extend((0..4).map(refused));
    numbered("script", scripts)
}

/// Scripts for consoles: what is chosen, one after the other.
pub(super) fn consoles() -> Vec<Seed> {
    // Which console, what, how many bytes, which byte, where lines end.
    let write = |which, len: u16, ends| {
        let len = len.to_be_bytes();
        vec![which, 0, len[0], len[1], b'x', ends]
    };
    let lines = [write(0, 40, 3), write(1, 500, 1), write(0, 7, 0), vec![0, 10], vec![1, 14]].concat();
    let long = [&write(2, 512, 0)[..], &write(2, 512, 0), &write(2, 9, 0), &[2, 10], &write(2, 90, 2)].concat();
    let full = write(1, 512, 1).repeat(60);
    let cut = write(0, 512, 0).repeat(2 + CONSOLE_LINE_BYTES_MAX / 512);
    numbered("script", [lines.clone(), long, full, cut, [lines, vec![1, 12, 0, 15, 1, 13]].concat()])
}

/// Schedules for the world, at random: what is chosen is whatever the bytes say.
pub(super) fn schedules() -> Vec<Seed> {
    let schedule = |seed| {
        let mut choices = Seeded::new(seed);
        let len = choices.below(SCHEDULE_BYTES);
        (0..len).map(|_| u8::try_from(choices.below(256)).unwrap_or(0)).collect()
    };
    numbered("schedule", (1..=SCHEDULES).map(schedule))
}

pub(super) fn command_lines() -> Vec<Seed> {
    let lines: [&[u8]; 5] = [
        b"--mem=32\0--net:n=@4\0--net-mac:n=2:0:0:0:0:1\0--block:b=/d\0--block-sector-size:b=512\0--user=1:2\0--\0k\0a",
        b"--kvm=@5\0--net-control=@6\0--no-net-ring\0--status-fd=7\0--exit-status-file=/s\0@3",
        b"--x-exec-heap\0--dumpcore=/c\0--gdb=/g\0k",
        b"--gdb-port=1\0k",
        b"--mem=1\0--help",
    ];
    numbered("line", lines.map(<[u8]>::to_vec))
}

/// Where a guest of the fuzzer keeps things: in the middle of what it may write.
const ROOM: u64 = 0x18_0000;

/// One good call of each kind: its number, the address of its structure, the structure, in 48 bytes each.
pub(super) fn hypercalls() -> Vec<u8> {
    let calls: [(u8, &[u64]); 8] = [
        (1, &[0]),
        (2, &[ROOM + 0x100, 12]),
        (3, &[1, 0, 0]),
        (4, &[2, 512, ROOM + 0x1000, 512, 0]),
        (5, &[2, 0, ROOM + 0x1000, 512, 0]),
        (6, &[1, ROOM + 0x1000, 60, 0]),
        (7, &[1, ROOM + 0x1000, 1514, 0]),
        (8, &[ROOM + 0x100, 7]),
    ];
    let call = |(number, words): &(u8, &[u64])| {
        let mut bytes = vec![*number];
        bytes.extend((ROOM as u32).to_le_bytes());
        bytes.extend(words.iter().flat_map(|word| word.to_le_bytes()));
        bytes.resize(48, 0);
        bytes
    };
    calls.iter().flat_map(call).collect()
}

/// A frame to send, and one to receive, as they stand in the ring.
pub(super) fn submissions() -> Vec<u8> {
    let submission = |operation: u32, len: u32| {
        let words = [operation, 1, ROOM as u32, 0, len, 7, 0, 0];
        words.into_iter().flat_map(u32::to_le_bytes).collect::<Vec<_>>()
    };
    [submission(1, 60), submission(2, 1514)].concat()
}
