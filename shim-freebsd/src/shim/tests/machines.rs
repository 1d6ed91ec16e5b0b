//! The same of virtual machines of bhyve.

use fulmar_core::halves::{VirtualMachine, machine_name};

use super::*;
use crate::fake::Loads;

const FREEBSD: VirtualMachine<'_> = VirtualMachine {
    processors: 2,
    macs: &[0, 0x80, 0x41, 0, 0, 1, 0, 0x80, 0x41, 0, 0, 2],
    disks: Texts::EMPTY,
    linux_boot: None,
};

fn machine(linux: bool) -> VirtualMachine<'static> {
    let disks = Texts::new(b"/dev/zvol/tank/vm\0@\0").unwrap();
    VirtualMachine { disks, linux_boot: linux.then_some("msdos1"), ..FREEBSD }
}

/// As the host half does: the taps are closed and known by their names.
fn launch(
    bench: &mut Bench,
    unit: u64,
    linux: bool,
    record: &mut dyn FnMut(Process) -> Result<(), OsError>,
) -> Result<Process, OsError> {
    let mut names = Vec::new();
    let mut taps = Vec::new();
    for bridge in [&b"service"[..], b"bridge0"] {
        match bench.shim.create_tap(bridge) {
            Ok(tap) => taps.push(tap),
            Err(error) => {
                bench.shim.release_taps(taps);
                return Err(error);
            }
        }
    }
    taps.drain(..).for_each(|tap| names.extend(tap.name.bytes().chain([0])));
    let status = File::open("/dev/null").unwrap();
    let plan = LaunchPlan {
        tender: Tender::Bhyve,
        networks: Texts::new(b"service\0bridge0\0").unwrap(),
        argv: Texts::EMPTY,
        machine: Some(machine(linux)),
        ..plan(unit)
    };
    plan.check().unwrap();
    let start = Start {
        plan: &plan,
        console: bench.console.as_fd(),
        image: bench.console.as_fd(),
        taps: &taps,
        tap_names: Texts::new(&names).unwrap(),
        blocks: &bench.blocks,
        status: status.as_fd(),
    };
    bench.shim.spawn(&start, record)
}

fn nothing_is_left(bench: &Bench, why: &dyn std::fmt::Debug) {
    assert_eq!(bench.kernel.tenders(), [], "{why:?}");
    assert_eq!((bench.kernel.processes(), bench.kernel.machines()), (0, vec![]), "{why:?}");
}

#[test]
fn the_host_says_whether_it_runs_them() {
    let mut bench = Bench::new();
    assert_eq!(bench.shim.capacity().unwrap().abilities.bhyve, Some(TAG));
    bench.kernel.unload("vmm");
    assert_eq!(bench.shim.capacity().unwrap().abilities.bhyve, None);
}

#[test]
fn a_machine_is_loaded_runs_ends_and_leaves_nothing() {
    for linux in [false, true] {
        let mut bench = Bench::new();
        let mut recorded = None;
        let mut before = None;
        let kernel = bench.kernel.clone();
        let process = launch(&mut bench, 5, linux, &mut |process| {
            before = Some(kernel.machines().len());
            recorded = Some(process);
            Ok(())
        });
        let process = process.unwrap();
        assert_eq!((recorded, before), (Some(process), Some(0)), "recorded before there is a machine");
        let pid = pid_of(process).unwrap();
        assert_eq!(
            bench.kernel.line_of(pid),
            "bhyve -A -H -P -s0,hostbridge -s1,lpc -s2,virtio-net,vmmtap0,type=tap,mac=00:80:41:00:00:01 \
             -s3,virtio-net,vmmtap1,type=tap,mac=00:80:41:00:00:02 -s4,virtio-blk,/dev/fd/3 -s5,virtio-blk,/dev/fd/4 \
             -lcom1,stdio -c2 -m32M fulmar-0000beef-5"
        );
        let (console, disk) = (&bench.console, &bench.blocks[0]);
        assert!(bench.kernel.has(pid, 1, console) && bench.kernel.has(pid, 2, console), "linux: {linux}");
        assert!(!bench.kernel.has(pid, 0, console), "it does not read what it writes");
        assert!(bench.kernel.has(pid, 4, disk), "behind the zvol");
        assert_eq!(bench.kernel.fds(pid), 8, "silence, the console twice, two disks, silence's end; and the taps");
        assert_eq!(bench.kernel.machines(), [machine_name(TAG, Unit(5)).as_str()]);
        assert_eq!((bench.kernel.processes(), bench.taps()), (1, 2), "what has loaded it is gone");
        bench.kernel.end(pid, 0);
        assert_eq!(bench.shim.next_exit(), Some(Exit { unit: Unit(5), status: Status::Code(0) }));
        nothing_is_left(&bench, &linux);
        assert_eq!(bench.taps(), 0);
    }
}

#[test]
fn what_cannot_be_loaded_is_undone_and_said() {
    for (loads, expected) in [
        (Loads::Fails, "could not load the kernel of the virtual machine from its disk 0, its console says why"),
        (
            Loads::Never,
            "could not load the kernel of the virtual machine within a second: have its boot loader not wait",
        ),
    ] {
        let mut bench = Bench::new();
        bench.kernel.load(loads);
        let error = launch(&mut bench, 1, false, &mut kept).unwrap_err();
        assert_eq!(error.to_string(), expected);
        nothing_is_left(&bench, &loads);
        assert_eq!((bench.taps(), bench.shim.next_exit()), (0, None));
        bench.kernel.load(Loads::Well);
        launch(&mut bench, 1, false, &mut kept).unwrap();
    }
}

#[test]
fn what_cannot_be_recorded_is_never_loaded() {
    let mut bench = Bench::new();
    let refused = failed(Attempt::RecordProcess)(Errno::ENOSPC);
    assert_eq!(launch(&mut bench, 1, false, &mut |_| Err(refused)), Err(refused));
    nothing_is_left(&bench, &refused);
    assert_eq!(bench.taps(), 0);
}

#[test]
fn every_conversation_of_a_launch_may_fail() {
    for linux in [false, true] {
        for calls in 0.. {
            let mut bench = Bench::new();
            bench.kernel.fail_after(calls);
            let launched = launch(&mut bench, 1, linux, &mut kept);
            if !bench.kernel.has_failed() {
                assert!(launched.is_ok() && calls > 60, "{calls}");
                break;
            }
            let error = launched.unwrap_err();
            assert_eq!(error.errno, Errno::EIO as i32, "{error}");
            nothing_is_left(&bench, &(calls, error));
            assert_eq!(bench.shim.next_exit(), None);
            bench.shim.sweep().unwrap();
            assert_eq!(bench.taps(), 0, "after {calls} calls: {error}");
            launch(&mut bench, 1, linux, &mut kept).unwrap();
        }
    }
}

#[test]
fn a_successor_adopts_it_and_removes_it_when_it_ends() {
    let mut bench = Bench::new();
    let process = launch(&mut bench, 1, false, &mut kept).unwrap();
    let gone = launch(&mut bench, 2, false, &mut kept).unwrap();
    bench.kernel.end(pid_of(gone).unwrap(), 9);
    bench.kernel.reap(pid_of(gone).unwrap());
    let mut successor = HostShim::new(bench.kernel.clone(), None, TAG).unwrap();
    let taps = Texts::new(b"vmmtap0\0vmmtap1\0").unwrap();
    assert_eq!(successor.adopt(Unit(1), process, taps), Ok(Found::Running));
    let taps = Texts::new(b"vmmtap2\0vmmtap3\0").unwrap();
    assert_eq!(successor.adopt(Unit(2), gone, taps), Ok(Found::Gone(Status::Unknown)));
    assert_eq!((bench.kernel.machines(), bench.taps()), (vec![machine_name(TAG, Unit(1)).to_string()], 2));
    // One that no record names.
    bench.kernel.make_machine(&machine_name(TAG, Unit(3)));
    bench.kernel.make_machine(&machine_name(TAG + 1, Unit(3)));
    assert_eq!(successor.sweep(), Ok(1));
    assert_eq!(bench.kernel.machines(), [machine_name(TAG, Unit(1)).as_str(), machine_name(TAG + 1, Unit(3)).as_str()]);
    bench.kernel.end(pid_of(process).unwrap(), 0);
    bench.kernel.reap(pid_of(process).unwrap());
    assert_eq!(successor.next_exit(), Some(Exit { unit: Unit(1), status: Status::Code(0) }));
    assert_eq!((bench.kernel.machines(), bench.taps()), (vec![machine_name(TAG + 1, Unit(3)).to_string()], 0));
}
