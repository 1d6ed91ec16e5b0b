//! What a process has used, what went through its taps, and what the hypervisor counts for it.
//!
//! The kernel tells all of a process in one answer, when it started too, so an answer is of the process that was meant or is
//! not used. It is asked for last: a tap lives as long as its holder, and what was read of it before counts only then.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use fulmar_core::wire::{Interface, Memory, Moment, Rusage};
use fulmar_host::meter::{Meter, MeterError, Sample, Subject};
use nix::errno::Errno;

use crate::abi::{
    CTL_NET, Field, IFDATA_GENERAL, IFI_BAUDRATE, IFI_COLLISIONS, IFI_IBYTES, IFI_IERRORS, IFI_IMCASTS, IFI_IPACKETS,
    IFI_IQDROPS, IFI_MTU, IFI_OBYTES, IFI_OERRORS, IFI_OMCASTS, IFI_OPACKETS, IFI_OQDROPS, IFMD_DATA, IFMD_FLAGS,
    IFMD_NAME, IFMD_SND_DROPS, IFMD_SND_LEN, IFMD_SND_MAXLEN, IFMIB_IFDATA, IFMIBDATA_SIZE, KI_COW, KI_DSIZE,
    KI_RSSIZE, KI_RUNTIME, KI_RUSAGE, KI_SIZE, KI_SSIZE, KI_START, KI_TSIZE, NETLINK_GENERIC, PF_LINK, RU_MAXRSS,
    RU_NIVCSW, RU_STIME, RU_UTIME, TV_SEC, TV_USEC,
};
use crate::kernel::Kernel;
use crate::process::{Identities, Info};
use crate::tap::Interfaces;
use crate::vmm::{Counters, name_of};
use crate::watch::pid_of;
use fulmar_host::shim::Process;

/// This host.
#[derive(Debug)]
pub(crate) struct HostMeter<K> {
    kernel: K,
    socket: OwnedFd,
    identities: Identities,
    /// What the hypervisor counts, once it has been asked.
    counters: Vec<String>,
}

/// A process that is known.
#[derive(Debug)]
pub(crate) struct Target {
    pid: i32,
    process: Process,
    /// Its taps, with their indices where there were any of those names.
    taps: Vec<(Vec<u8>, Option<u32>)>,
    machine: Option<Counters>,
}

impl<K: Kernel> HostMeter<K> {
    /// Prepares to look at processes and taps.
    pub(crate) fn new(kernel: K) -> Result<Self, Errno> {
        let (socket, identities) = (kernel.socket()?, Identities::new(&kernel)?);
        Ok(Self { kernel, socket, identities, counters: Vec::new() })
    }

    fn look_at(&self, pid: i32) -> Result<(Process, Box<Info>), MeterError> {
        self.identities.look_at(&self.kernel, pid).map_err(|errno| match errno {
            Errno::ESRCH => MeterError::Gone,
            errno => MeterError::Os(errno.into()),
        })
    }

    fn interface(&self, name: &[u8], index: u32) -> Option<Interface<'static>> {
        let mut data = [0; IFMIBDATA_SIZE];
        let index = i32::try_from(index).ok()?;
        let path = [CTL_NET, PF_LINK, NETLINK_GENERIC, IFMIB_IFDATA, index, IFDATA_GENERAL];
        let length = self.kernel.value(&path, &mut data).ok()?;
        (length == IFMIBDATA_SIZE && IFMD_NAME.text(&data) == name).then(|| interface(&data))
    }
}

impl<K: Kernel> Meter for HostMeter<K> {
    type Target = Target;

    fn open(&mut self, subject: Subject<'_>, taps: &[&str]) -> Result<Target, MeterError> {
        let pid = pid_of(Process { pid: subject.pid, started: 0 }).ok_or(MeterError::Gone)?;
        let (process, _) = self.look_at(pid)?;
        if subject.started.is_some_and(|expected| expected != process.started) {
            return Err(MeterError::Gone);
        }
        let interfaces = Interfaces { kernel: &self.kernel, socket: self.socket.as_fd() };
        let taps = taps.iter().map(|name| (name.as_bytes().to_vec(), interfaces.index_of(name).ok())).collect();
        // Where it was `vmmd` that told, one without a name of its own is called by the process, as its tender does.
        let by_process = subject.started.filter(|_| subject.device.is_empty()).map(|_| name_of(pid));
        let machine = Counters::open(&self.kernel, by_process.as_deref().unwrap_or(subject.device));
        let target = Target { pid, process, taps, machine };
        // What was opened by a name that has the process id in it is this process's if that is still there.
        if self.look_at(pid)?.0 == process { Ok(target) } else { Err(MeterError::Gone) }
    }

    fn begin(&mut self) -> io::Result<()> {
        // The kernel tells of one interface at a time, so there is nothing that could be read for all.
        Ok(())
    }

    fn read(&mut self, target: &Target) -> Result<Sample, MeterError> {
        let counted =
            |(place, (name, index)): (usize, &(Vec<u8>, Option<u32>))| Some((place, self.interface(name, (*index)?)?));
        let interfaces = target.taps.iter().enumerate().filter_map(counted).collect();
        // The machine may go before its process has.
        let counters = target.machine.as_ref().and_then(|machine| machine.read(&self.kernel, &mut self.counters).ok());
        let (process, info) = self.look_at(target.pid)?;
        if process != target.process {
            return Err(MeterError::Gone);
        }
        Ok(Sample { rusage: rusage(&info), memory: Some(memory(&info)), interfaces, counters })
    }
}

fn count(field: Field, structure: &[u8]) -> i64 {
    i64::try_from(field.number(structure)).unwrap_or(i64::MAX)
}

fn moment(field: Field, structure: &[u8]) -> Moment {
    Moment { seconds: count(TV_SEC.within(field), structure), microseconds: count(TV_USEC.within(field), structure) }
}

fn memory(info: &Info) -> Memory {
    Memory {
        vsize: count(KI_SIZE, info),
        rss: count(KI_RSSIZE, info),
        tsize: count(KI_TSIZE, info),
        dsize: count(KI_DSIZE, info),
        ssize: count(KI_SSIZE, info),
        runtime: count(KI_RUNTIME, info),
        cow: count(KI_COW, info),
        start: moment(KI_START, info),
    }
}

fn rusage(info: &Info) -> Rusage {
    // The numbers follow each other in the order of the fields.
    let number = |place: usize| {
        let field = Field { at: RU_MAXRSS.at + place * RU_MAXRSS.size, size: RU_MAXRSS.size };
        count(field.within(KI_RUSAGE), info)
    };
    Rusage {
        utime: moment(RU_UTIME.within(KI_RUSAGE), info),
        stime: moment(RU_STIME.within(KI_RUSAGE), info),
        maxrss: number(0),
        ixrss: number(1),
        idrss: number(2),
        isrss: number(3),
        minflt: number(4),
        majflt: number(5),
        nswap: number(6),
        inblock: number(7),
        outblock: number(8),
        msgsnd: number(9),
        msgrcv: number(10),
        nsignals: number(11),
        nvcsw: number(12),
        nivcsw: number(13),
    }
}

const _: () = assert!(RU_NIVCSW.at == RU_MAXRSS.at + 13 * RU_MAXRSS.size, "the numbers of `rusage` follow each other");

/// What the host received is what the guest put in: the input.
fn interface(data: &[u8]) -> Interface<'static> {
    let general = |field: Field| count(field.within(IFMD_DATA), data);
    Interface {
        flags: count(IFMD_FLAGS, data),
        send_length: count(IFMD_SND_LEN, data),
        max_send_length: count(IFMD_SND_MAXLEN, data),
        send_drops: count(IFMD_SND_DROPS, data),
        mtu: general(IFI_MTU),
        baudrate: general(IFI_BAUDRATE),
        input_packets: general(IFI_IPACKETS),
        input_errors: general(IFI_IERRORS),
        output_packets: general(IFI_OPACKETS),
        output_errors: general(IFI_OERRORS),
        collisions: general(IFI_COLLISIONS),
        input_bytes: general(IFI_IBYTES),
        output_bytes: general(IFI_OBYTES),
        input_mcast: general(IFI_IMCASTS),
        output_mcast: general(IFI_OMCASTS),
        input_dropped: general(IFI_IQDROPS),
        output_dropped: general(IFI_OQDROPS),
        ..Interface::default()
    }
}

#[cfg(test)]
mod tests {
    use fulmar_core::halves::{Unit, machine_name};

    use super::*;
    use crate::fake::FakeKernel;

    fn subject(pid: i32, started: Option<u64>) -> Subject<'static> {
        Subject { pid: pid.cast_unsigned(), started, device: "" }
    }

    #[test]
    fn each_number_is_read_from_its_place() {
        let kernel = FakeKernel::new();
        let pid = kernel.live();
        let mut info = crate::process::info(&kernel, pid).unwrap();
        // Every field a number of its own.
        for (field, number) in [
            (KI_SIZE, 1),
            (KI_RSSIZE, 2),
            (KI_TSIZE, 3),
            (KI_DSIZE, 4),
            (KI_SSIZE, 5),
            (KI_COW, 6),
            (KI_RUNTIME, 7),
            (TV_SEC.within(KI_START), 8),
            (TV_USEC.within(KI_START), 9),
            (TV_SEC.within(RU_UTIME.within(KI_RUSAGE)), 10),
            (TV_USEC.within(RU_STIME.within(KI_RUSAGE)), 11),
            (RU_MAXRSS.within(KI_RUSAGE), 12),
            (RU_NIVCSW.within(KI_RUSAGE), 13),
        ] {
            field.put(info.as_mut_slice(), &u64::to_le_bytes(number));
        }
        let start = Moment { seconds: 8, microseconds: 9 };
        let expected = Memory { vsize: 1, rss: 2, tsize: 3, dsize: 4, ssize: 5, cow: 6, runtime: 7, start };
        assert_eq!(memory(&info), expected);
        let read = rusage(&info);
        assert_eq!((read.utime.seconds, read.stime.microseconds, read.maxrss, read.nivcsw), (10, 11, 12, 13));
    }

    #[test]
    fn a_tap_is_counted_by_its_name_and_its_index() {
        let kernel = FakeKernel::new();
        let pid = kernel.live();
        kernel.make_interface("vmmtap4", 9);
        kernel.make_machine(&name_of(pid));
        kernel.count(3);
        let mut meter = HostMeter::new(kernel.clone()).unwrap();
        let started = meter.identities.identify(&kernel, pid).unwrap().started;
        let target = meter.open(subject(pid, Some(started)), &["none", "vmmtap4"]).unwrap();
        meter.begin().unwrap();
        let sample = meter.read(&target).unwrap();
        let [(1, counted)] = sample.interfaces.as_slice() else { panic!("{sample:?}") };
        // The fake fills the counters with the numbers 1, 2, 3 ... in the order of the structure.
        assert_eq!((counted.input_packets, counted.output_dropped), (1, 11));
        assert_eq!(sample.counters.map(|counters| counters.len()), Some(3));
        // The index has gone to another interface.
        kernel.make_interface("vmmtap5", 9);
        assert!(meter.read(&target).unwrap().interfaces.is_empty());
    }

    #[test]
    fn numbers_are_of_the_process_that_was_meant_or_there_are_none() {
        let kernel = FakeKernel::new();
        let pid = kernel.live();
        let mut meter = HostMeter::new(kernel.clone()).unwrap();
        let started = meter.identities.identify(&kernel, pid).unwrap().started;
        assert!(matches!(meter.open(subject(pid, Some(started ^ 1)), &[]), Err(MeterError::Gone)));
        assert!(matches!(meter.open(subject(4242, None), &[]), Err(MeterError::Gone)));
        assert!(matches!(meter.open(subject(0, None), &[]), Err(MeterError::Gone)));
        let target = meter.open(subject(pid, Some(started)), &[]).unwrap();
        assert_eq!(meter.read(&target).unwrap().counters, None, "who may not look at the machine");
        kernel.end(pid, 0);
        assert!(matches!(meter.read(&target), Err(MeterError::Gone)));
        kernel.reap(pid);
        kernel.live_as(pid);
        assert!(matches!(meter.read(&target), Err(MeterError::Gone)), "a later process of the same id");
    }

    #[test]
    fn a_virtual_machine_is_counted_by_its_own_name() {
        let kernel = FakeKernel::new();
        let pid = kernel.live();
        // Not its own, whatever its process id is.
        kernel.make_machine(&name_of(pid));
        kernel.count(3);
        let mut meter = HostMeter::new(kernel.clone()).unwrap();
        let started = Some(meter.identities.identify(&kernel, pid).unwrap().started);
        let machine = machine_name(0xbeef, Unit(17));
        let of = |meter: &mut HostMeter<FakeKernel>, started, device| {
            let subject = Subject { pid: pid.cast_unsigned(), started, device };
            let target = meter.open(subject, &[]).unwrap();
            meter.read(&target).unwrap().counters.map(|counters| counters.len())
        };
        assert_eq!(of(&mut meter, started, &machine), None, "there is none of this name");
        kernel.make_machine(&machine);
        assert_eq!(of(&mut meter, started, &machine), Some(3));
        assert_eq!(of(&mut meter, None, &machine), Some(3), "as albatross tells it");
        assert_eq!(of(&mut meter, started, "../null"), None);
        assert_eq!(of(&mut meter, None, ""), None, "who does not say which has none");
        let wrong = Subject { pid: pid.cast_unsigned(), started: started.map(|it| it ^ 1), device: &machine };
        assert!(matches!(meter.open(wrong, &[]), Err(MeterError::Gone)));
        // Its process may outlive it.
        let subject = Subject { pid: pid.cast_unsigned(), started, device: &machine };
        let target = meter.open(subject, &[]).unwrap();
        assert_eq!(crate::vmm::destroy_named(&kernel, &machine), Ok(true));
        assert_eq!(meter.read(&target).unwrap().counters, None);
    }

    #[test]
    fn every_conversation_may_fail() {
        for calls in 0.. {
            let kernel = FakeKernel::new();
            let pid = kernel.live();
            kernel.make_interface("vmmtap4", 9);
            kernel.make_machine(&name_of(pid));
            kernel.fail_after(calls);
            let read = HostMeter::new(kernel.clone()).map_err(io::Error::from).and_then(|mut meter| {
                let gone = |error: MeterError| io::Error::other(error.to_string());
                let target = meter.open(subject(pid, None), &["vmmtap4"]).map_err(gone)?;
                meter.read(&target).map_err(gone)
            });
            if !kernel.has_failed() {
                assert_eq!(read.unwrap().interfaces.len(), 1);
                assert!(calls > 8, "{calls}");
                return;
            }
            // Without the counters of a tap or of the machine it is a measurement still.
            assert!(read.is_err() || read.is_ok_and(|it| it.interfaces.is_empty() || it.counters.is_none()));
        }
    }
}
