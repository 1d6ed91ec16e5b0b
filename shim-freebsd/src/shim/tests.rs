//! Launches, ends and adoptions over the fake kernel, with a failure at each call in turn.

use std::fs::File;

use fulmar_core::halves::{LaunchPlan, Tender};
use fulmar_core::policy::CpuSet;

use super::*;
use crate::fake::FakeKernel;

mod machines;

/// What tells this host half from others.
const TAG: u32 = 0xbeef;

const ARGV: &[u8] = b"solo5-hvt\0--mem=32\0--\0/dev/fd/3\0";

fn plan(unit: u64) -> LaunchPlan<'static> {
    LaunchPlan {
        unit: Unit(unit),
        account: 7,
        tender: Tender::Hvt,
        cpus: CpuSet::first(2),
        memory_mb: 32,
        networks: Texts::default(),
        blocks: 1,
        argv: Texts::new(ARGV).unwrap(),
        machine: None,
    }
}

/// A host, and what a launch comes with.
struct Bench {
    kernel: FakeKernel,
    shim: HostShim<FakeKernel>,
    console: OwnedFd,
    image: OwnedFd,
    blocks: Vec<OwnedFd>,
}

impl Bench {
    fn new() -> Self {
        let kernel = FakeKernel::new();
        let shim = HostShim::new(kernel.clone(), Some(Path::new("/solo5-hvt")), TAG).unwrap();
        let fd = || kernel.socket().unwrap();
        Self { console: fd(), image: fd(), blocks: vec![File::open("/dev/null").unwrap().into()], shim, kernel }
    }

    /// As the host half does: taps, the process, and the taps are let go of.
    fn launch(
        &mut self,
        unit: u64,
        record: &mut dyn FnMut(Process) -> Result<(), OsError>,
    ) -> Result<Process, OsError> {
        let mut taps = Vec::new();
        let launched = self.launch_with(unit, &mut taps, record);
        self.shim.release_taps(taps);
        launched
    }

    fn launch_with(
        &mut self,
        unit: u64,
        taps: &mut Vec<Tap>,
        record: &mut dyn FnMut(Process) -> Result<(), OsError>,
    ) -> Result<Process, OsError> {
        for bridge in [&b"service"[..], b"bridge0"] {
            taps.push(self.shim.create_tap(bridge)?);
        }
        let names: Vec<u8> = taps.iter().flat_map(|tap| tap.name.bytes().chain([0])).collect();
        let status = File::open("/dev/null").unwrap();
        let start = Start {
            plan: &plan(unit),
            console: self.console.as_fd(),
            image: self.image.as_fd(),
            taps,
            tap_names: Texts::new(&names).unwrap(),
            blocks: &self.blocks,
            status: status.as_fd(),
        };
        let started = self.shim.spawn(&start, record)?;
        let pid = pid_of(started).unwrap();
        for (number, fd) in [(1, &self.console), (2, &self.console), (3, &self.image), (4, &taps[0].fd)] {
            assert!(self.kernel.has(pid, number, fd), "{number}");
        }
        assert!(self.kernel.has(pid, 5, &taps[1].fd) && self.kernel.has(pid, 6, &self.blocks[0]));
        assert_eq!(self.kernel.fds(pid), 7, "and nothing else");
        Ok(started)
    }

    fn taps(&self) -> usize {
        self.kernel.taps().len()
    }
}

fn kept(_: Process) -> Result<(), OsError> {
    Ok(())
}

#[test]
fn the_host_is_counted() {
    let mut bench = Bench::new();
    let Capacity { cpus, memory_mb, abilities } = bench.shim.capacity().unwrap();
    assert_eq!((cpus, memory_mb), (CpuSet::first(4), 8192));
    assert!(abilities.kvm && abilities.taps && abilities.tender && abilities.solo5 && !abilities.accounts);
    bench.kernel.unload("vmm");
    bench.kernel.unload("if_tuntap");
    let abilities = bench.shim.capacity().unwrap().abilities;
    assert!(!abilities.kvm && !abilities.taps);
    assert!(!HostShim::new(bench.kernel.clone(), None, TAG).unwrap().capacity().unwrap().abilities.tender);
    assert_eq!(bench.taps(), 0);
    bench.kernel.unmount_fdescfs();
    let error = HostShim::new(bench.kernel.clone(), None, TAG).unwrap_err();
    assert!(error.to_string().contains("mount -t fdescfs"), "{error}");
}

#[test]
fn a_unit_runs_ends_and_leaves_nothing() {
    for (status, expected) in [(7 << 8, Status::Code(7)), (9, Status::Signal(9))] {
        let mut bench = Bench::new();
        let mut recorded = None;
        let started = bench.launch(1, &mut |process| {
            recorded = Some(process);
            Ok(())
        });
        let process = started.unwrap();
        assert_eq!(recorded, Some(process));
        assert_eq!((bench.kernel.tenders().len(), bench.taps(), bench.kernel.machines().len()), (1, 2, 1));
        assert_eq!(bench.shim.next_exit(), None);
        let pid = pid_of(process).unwrap();
        bench.kernel.end(pid, status);
        assert_eq!(bench.shim.next_exit(), Some(Exit { unit: Unit(1), status: expected }));
        assert_eq!(bench.shim.next_exit(), None);
        assert_eq!((bench.kernel.processes(), bench.taps(), bench.kernel.machines().len()), (0, 0, 0));
        assert_eq!(bench.shim.signal(Unit(1), Signal::Kill), Ok(false));
    }
}

#[test]
fn a_unit_is_signalled() {
    for (signal, number) in [(Signal::Terminate, 15), (Signal::Kill, 9)] {
        let mut bench = Bench::new();
        bench.launch(3, &mut kept).unwrap();
        assert_eq!(bench.shim.signal(Unit(4), signal), Ok(false));
        assert_eq!(bench.shim.signal(Unit(3), signal), Ok(true));
        // It has ended, and we have not heard of it: the id is its own still.
        assert_eq!(bench.shim.signal(Unit(3), signal), Ok(true));
        assert_eq!(bench.shim.next_exit(), Some(Exit { unit: Unit(3), status: Status::Signal(number) }));
    }
}

#[test]
fn what_cannot_be_recorded_never_runs() {
    let mut bench = Bench::new();
    let refused = failed(Attempt::RecordProcess)(Errno::ENOSPC);
    assert_eq!(bench.launch(1, &mut |_| Err(refused)), Err(refused));
    assert_eq!((bench.kernel.processes(), bench.taps(), bench.kernel.machines().len()), (0, 0, 0));
    assert_eq!(bench.shim.next_exit(), None);
}

#[test]
fn every_conversation_of_a_launch_may_fail() {
    for calls in 0.. {
        let mut bench = Bench::new();
        bench.kernel.fail_after(calls);
        let launched = bench.launch(1, &mut kept);
        if !bench.kernel.has_failed() {
            assert!(launched.is_ok() && calls > 40, "{calls}");
            return;
        }
        match launched {
            // The last: taps were let go of, which failed, and the tender has them anyway.
            Ok(_) => assert_eq!(bench.kernel.tenders().len(), 1),
            Err(error) => {
                assert_eq!(error.errno, Errno::EIO as i32, "{error}");
                assert_eq!(bench.kernel.tenders(), [], "after {calls} calls: {error}");
                assert_eq!(bench.kernel.machines().len(), 0, "after {calls} calls: {error}");
                assert_eq!(bench.kernel.processes(), 0, "after {calls} calls: {error}");
                assert_eq!(bench.shim.next_exit(), None);
                bench.shim.sweep().unwrap();
                assert_eq!(bench.taps(), 0, "after {calls} calls: {error}");
                bench.launch(1, &mut kept).unwrap();
            }
        }
    }
}

#[test]
fn a_successor_adopts_what_runs_and_hears_how_it_ends() {
    let mut bench = Bench::new();
    let process = bench.launch(1, &mut kept).unwrap();
    let pid = pid_of(process).unwrap();
    let taps = Texts::new(b"vmmtap0\0vmmtap1\0").unwrap();
    let mut successor = HostShim::new(bench.kernel.clone(), None, TAG).unwrap();
    assert_eq!(successor.adopt(Unit(1), process, taps), Ok(Found::Running));
    assert_eq!(successor.sweep(), Ok(0));
    assert_eq!(successor.signal(Unit(1), Signal::Terminate), Ok(true));
    // Init is its parent.
    bench.kernel.reap(pid);
    assert_eq!(successor.next_exit(), Some(Exit { unit: Unit(1), status: Status::Signal(15) }));
    assert_eq!((bench.taps(), bench.kernel.machines().len()), (0, 0));
}

#[test]
fn who_was_not_meant_is_neither_adopted_nor_signalled() {
    let mut bench = Bench::new();
    let process = bench.launch(1, &mut kept).unwrap();
    let pid = pid_of(process).unwrap();
    let mut successor = HostShim::new(bench.kernel.clone(), None, TAG).unwrap();
    let gone = Ok(Found::Gone(Status::Unknown));
    let other = Process { started: process.started ^ 1, ..process };
    assert_eq!(successor.adopt(Unit(9), other, Texts::default()), gone);
    for id in [0, u32::MAX, 4242] {
        assert_eq!(successor.adopt(Unit(9), Process { pid: id, started: 0 }, Texts::default()), gone);
    }
    assert_eq!(bench.kernel.machines().len(), 1, "it is the one who runs under this id");
    assert_eq!(successor.adopt(Unit(1), process, Texts::default()), Ok(Found::Running));
    // It ends unheard, and its id goes to another.
    bench.kernel.end(pid, 0);
    bench.kernel.reap(pid);
    bench.kernel.live_as(pid);
    assert_eq!(successor.signal(Unit(1), Signal::Kill), Ok(false));
    assert_eq!(bench.kernel.processes(), 1, "which lives");
}

#[test]
fn what_ended_while_nobody_watched_is_cleared_away() {
    let mut bench = Bench::new();
    let process = bench.launch(1, &mut kept).unwrap();
    let pid = pid_of(process).unwrap();
    bench.kernel.end(pid, 9);
    bench.kernel.reap(pid);
    assert_eq!((bench.taps(), bench.kernel.machines().len()), (2, 1));
    let mut successor = HostShim::new(bench.kernel.clone(), None, TAG).unwrap();
    let taps = Texts::new(b"vmmtap0\0vmmtap1\0").unwrap();
    assert_eq!(successor.adopt(Unit(1), process, taps), Ok(Found::Gone(Status::Unknown)));
    assert_eq!((bench.taps(), bench.kernel.machines().len()), (0, 0));
}

#[test]
fn every_conversation_of_an_adoption_may_fail() {
    for calls in 0.. {
        let mut bench = Bench::new();
        let process = bench.launch(1, &mut kept).unwrap();
        let mut successor = HostShim::new(bench.kernel.clone(), None, TAG).unwrap();
        bench.kernel.fail_after(calls);
        let adopted = successor.adopt(Unit(1), process, Texts::default());
        if !bench.kernel.has_failed() {
            assert_eq!((adopted, calls), (Ok(Found::Running), 4));
            return;
        }
        assert_eq!(adopted, Err(failed(Attempt::WatchProcess)(Errno::EIO)));
        // What runs is not harmed by it.
        assert_eq!(bench.kernel.tenders().len(), 1);
    }
}
