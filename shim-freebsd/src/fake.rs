//! A kernel in memory, for tests on any system: it answers as FreeBSD's manual pages say and can fail at any call. A device is a
//! socket pair, so whether anybody still holds it is seen as the kernel sees it: by its last copy being closed.

mod answers;
mod devices;
mod programs;
mod steps;

use std::cell::{Ref, RefCell, RefMut};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ffi::CStr;
use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::sync::atomic::AtomicU32;

use fulmar_core::policy::CpuSet;
use nix::errno::Errno;
use nix::sys::stat::fstat;

pub(crate) use self::programs::Loads;
use crate::abi::{KINFO_PROC_SIZE, PointingRequest, Request};
use crate::kernel::{Ended, Held, Kernel, OpenFor, Sent};
use crate::spawn::{Failed, Prepared};

/// Real processes that tests are starting at the moment.
pub(crate) static STARTS: AtomicU32 = AtomicU32::new(0);

/// An interface.
#[derive(Clone, Debug)]
pub(crate) struct Interface {
    pub(crate) name: String,
    pub(crate) index: u16,
    pub(crate) group: &'static str,
    pub(crate) flags: u16,
    /// The bridge that it is in.
    pub(crate) bridge: Option<String>,
}

/// A process.
#[derive(Debug)]
struct Process {
    /// Microseconds since the kernel was booted.
    started: u64,
    is_child: bool,
    /// How it ended, while nobody has waited for it.
    zombie: Option<i32>,
    /// What it holds, by number.
    fds: BTreeMap<i32, OwnedFd>,
    /// What comes of it when it is given the word.
    at_word: Option<Result<(), Failed>>,
    /// Its command line.
    line: Vec<String>,
    is_tender: bool,
}

/// What an open fd is.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Device {
    Tap(u32),
    Machine(String),
    Other,
}

#[derive(Debug)]
struct State {
    interfaces: Vec<Interface>,
    /// What is open, by the number that the system has for it, and our end of it.
    devices: BTreeMap<u64, (Device, UnixStream)>,
    /// Taps by their unit numbers, with the name of each now.
    taps: BTreeMap<u32, String>,
    processes: BTreeMap<i32, Process>,
    watched: BTreeSet<i32>,
    ended: VecDeque<Ended>,
    machines: BTreeSet<String>,
    counters: usize,
    modules: BTreeSet<&'static str>,
    boot_id: u64,
    booted: u64,
    now: u64,
    next_pid: i32,
    info_size: usize,
    has_fdescfs: bool,
    loads: Loads,
    calls_until_failure: Option<u32>,
    has_failed: bool,
}

/// The kernel, and a hand on it for tests.
#[derive(Clone, Debug)]
pub(crate) struct FakeKernel {
    state: Rc<RefCell<State>>,
    ready: Rc<(UnixStream, UnixStream)>,
}

impl FakeKernel {
    /// With four CPUs, 8 GiB, a hypervisor and the bridges `bridge0` and `service`.
    pub(crate) fn new() -> Self {
        let bridge =
            |name: &str, index| Interface { name: name.to_owned(), index, group: "bridge", flags: 0, bridge: None };
        let (ready, readiness) = UnixStream::pair().unwrap();
        ready.set_nonblocking(true).unwrap();
        let state = State {
            interfaces: vec![bridge("bridge0", 2), bridge("service", 3)],
            devices: BTreeMap::new(),
            taps: BTreeMap::new(),
            processes: BTreeMap::new(),
            watched: BTreeSet::new(),
            ended: VecDeque::new(),
            machines: BTreeSet::new(),
            counters: 0,
            modules: BTreeSet::from(["vmm", "if_tuntap"]),
            boot_id: 0x1122_3344_5566_7788,
            booted: 1_700_000_000_000_000,
            now: 5_000_000,
            next_pid: 800,
            info_size: KINFO_PROC_SIZE,
            has_fdescfs: true,
            loads: Loads::Well,
            calls_until_failure: None,
            has_failed: false,
        };
        Self { state: Rc::new(RefCell::new(state)), ready: Rc::new((ready, readiness)) }
    }

    fn state(&self) -> Ref<'_, State> {
        self.state.borrow()
    }

    fn state_mut(&self) -> RefMut<'_, State> {
        self.state.borrow_mut()
    }

    /// Lets the call after the next `calls` calls fail, once.
    pub(crate) fn fail_after(&self, calls: u32) {
        self.state_mut().calls_until_failure = Some(calls);
    }

    /// Whether that has come to pass.
    pub(crate) fn has_failed(&self) -> bool {
        self.state().has_failed
    }

    fn call(&self) -> Result<(), Errno> {
        let mut state = self.state_mut();
        match state.calls_until_failure {
            Some(0) => {
                state.calls_until_failure = None;
                state.has_failed = true;
                Err(Errno::EIO)
            }
            Some(calls) => {
                state.calls_until_failure = Some(calls - 1);
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// A process of somebody else's.
    pub(crate) fn live(&self) -> i32 {
        let pid = self.state().next_pid;
        self.live_as(pid);
        self.state_mut().next_pid += 1;
        pid
    }

    /// The same, with this id.
    pub(crate) fn live_as(&self, pid: i32) {
        let mut state = self.state_mut();
        state.now += 1000;
        let started = state.now;
        let (fds, is_child) = (BTreeMap::new(), false);
        let process =
            Process { started, is_child, zombie: None, fds, at_word: None, line: Vec::new(), is_tender: false };
        state.processes.insert(pid, process);
    }

    /// Ends a process, whoever waits for it.
    pub(crate) fn end(&self, pid: i32, status: i32) {
        let mut state = self.state_mut();
        let process = state.processes.get_mut(&pid).unwrap();
        process.zombie = Some(status);
        process.fds.clear();
        if state.watched.remove(&pid) {
            state.ended.push_back(Ended { pid, status });
            // Full means readable, which is all that is wanted.
            let _ = (&self.ready.1).write(&[1]);
        }
    }

    /// Whoever its parent is has waited for it.
    pub(crate) fn reap(&self, pid: i32) {
        self.state_mut().processes.remove(&pid);
    }

    /// The ids of all tenders that run.
    pub(crate) fn tenders(&self) -> Vec<i32> {
        let state = self.state();
        state.processes.iter().filter(|(_, it)| it.is_tender && it.zombie.is_none()).map(|(pid, _)| *pid).collect()
    }

    /// How many processes there are, those included that nobody has waited for.
    pub(crate) fn processes(&self) -> usize {
        self.state().processes.len()
    }

    /// Whether a fd of ours and one of this process, by its number there, are the same.
    pub(crate) fn has(&self, pid: i32, number: i32, fd: impl AsFd) -> bool {
        let state = self.state();
        let theirs = state.processes[&pid].fds.get(&number);
        theirs.is_some_and(|theirs| fstat(theirs).unwrap().st_ino == fstat(fd).unwrap().st_ino)
    }

    /// How many fds a process has.
    pub(crate) fn fds(&self, pid: i32) -> usize {
        self.state().processes[&pid].fds.len()
    }

    /// The taps, each with its bridge and whether it is up.
    pub(crate) fn taps(&self) -> Vec<(String, Option<String>, bool)> {
        let state = self.state();
        let taps = state.interfaces.iter().filter(|it| it.group == "tap");
        taps.map(|it| (it.name.clone(), it.bridge.clone(), it.flags & 1 != 0)).collect()
    }

    /// An interface in the group of taps that nobody holds.
    pub(crate) fn make_interface(&self, name: &str, index: u16) {
        let mut state = self.state_mut();
        state.interfaces.retain(|it| it.index != index);
        let interface = Interface { name: name.to_owned(), index, group: "tap", flags: 0, bridge: None };
        state.interfaces.push(interface);
        let unit = name.trim_start_matches(|it: char| !it.is_ascii_digit()).parse().unwrap();
        state.taps.insert(unit, name.to_owned());
    }

    pub(crate) fn make_machine(&self, name: &str) {
        self.state_mut().machines.insert(name.to_owned());
    }

    pub(crate) fn machines(&self) -> Vec<String> {
        self.state().machines.iter().cloned().collect()
    }

    /// How many numbers each virtual machine counts.
    pub(crate) fn count(&self, counters: usize) {
        self.state_mut().counters = counters;
    }

    /// Sets the clock on the wall forward.
    pub(crate) fn set_clock(&self, microseconds: u64) {
        self.state_mut().booted += microseconds;
    }

    /// All as before, but for the number that says it is not.
    pub(crate) fn reboot(&self) {
        self.state_mut().boot_id += 1;
    }

    pub(crate) fn unload(&self, module: &str) {
        self.state_mut().modules.remove(module);
    }

    pub(crate) fn unmount_fdescfs(&self) {
        self.state_mut().has_fdescfs = false;
    }

    /// Lets the kernel tell only so many bytes of a process.
    pub(crate) fn cut_info(&self, size: usize) {
        self.state_mut().info_size = size;
    }

    fn device(&self, fd: BorrowedFd<'_>) -> Device {
        let number = fstat(fd).unwrap().st_ino;
        self.state().devices.get(&number).map_or(Device::Other, |(device, _)| device.clone())
    }
}

impl Kernel for FakeKernel {
    fn open(&self, path: &CStr, _: OpenFor) -> Result<OwnedFd, Errno> {
        self.call()?;
        let mut state = self.state_mut();
        let path = path.to_str().unwrap();
        if let Some(name) = path.strip_prefix("/dev/vmm/") {
            return if state.machines.contains(name) {
                state.open(Device::Machine(name.to_owned()))
            } else {
                Err(Errno::ENOENT)
            };
        }
        if path.starts_with("/dev/fd/") {
            return if state.has_fdescfs { state.open(Device::Other) } else { Err(Errno::ENOENT) };
        }
        if let Some(name) = path.strip_prefix("/dev/").filter(|name| name.starts_with("vmmtap")) {
            let unit = state.taps.iter().find(|(_, it)| *it == name).map(|(unit, _)| *unit).ok_or(Errno::ENOENT)?;
            return if state.is_held(unit) { Err(Errno::EBUSY) } else { state.open(Device::Tap(unit)) };
        }
        state.open(Device::Other)
    }

    fn socket(&self) -> Result<OwnedFd, Errno> {
        self.call()?;
        self.state_mut().open(Device::Other)
    }

    fn ask(&self, fd: BorrowedFd<'_>, request: Request, data: &mut [u8]) -> Result<(), Errno> {
        self.call()?;
        self.answer(&self.device(fd), request, data)
    }

    fn ask_pointing(
        &self,
        _: BorrowedFd<'_>,
        request: PointingRequest,
        data: &mut [u8],
        pointed: &mut [u8],
    ) -> Result<(), Errno> {
        self.call()?;
        self.answer_pointing(request, data, pointed)
    }

    fn value(&self, path: &[i32], value: &mut [u8]) -> Result<usize, Errno> {
        self.call()?;
        self.tell(path, value)
    }

    fn value_named(&self, name: &CStr, value: &mut [u8]) -> Result<usize, Errno> {
        self.call()?;
        let bytes: &[u8] = match name.to_bytes() {
            b"kern.boot_id" => &[self.state().boot_id.to_be_bytes(), [0; 8]].concat(),
            b"hw.physmem" => &(8_u64 << 30).to_le_bytes(),
            _ => return Err(Errno::ENOENT),
        };
        value.copy_from_slice(bytes);
        Ok(bytes.len())
    }

    fn set_value(&self, name: &CStr, value: &[u8]) -> Result<(), Errno> {
        self.call()?;
        assert_eq!(name, c"hw.vmm.destroy");
        let mut state = self.state_mut();
        if !state.modules.contains("vmm") {
            return Err(Errno::ENOENT);
        }
        let name = std::str::from_utf8(value).unwrap();
        if state.machines.remove(name) { Ok(()) } else { Err(Errno::EINVAL) }
    }

    fn has_module(&self, name: &CStr) -> bool {
        self.state().modules.contains(name.to_str().unwrap())
    }

    fn cpus(&self) -> Result<CpuSet, Errno> {
        self.call()?;
        Ok(CpuSet::first(4))
    }

    fn names_in(&self, folder: &CStr) -> Result<Vec<Vec<u8>>, Errno> {
        self.call()?;
        assert_eq!(folder, c"/dev/vmm");
        if !self.state().modules.contains("vmm") {
            return Err(Errno::ENOENT);
        }
        Ok(self.machines().into_iter().map(String::into_bytes).collect())
    }

    fn fork(&self, prepared: &Prepared<'_>) -> Result<Held, Errno> {
        self.call()?;
        let pid = self.live();
        self.state_mut().processes.get_mut(&pid).unwrap().is_child = true;
        let (mine, theirs) = UnixStream::pair().unwrap();
        let (at_word, fds) = self.run(prepared, theirs.as_fd());
        let mut state = self.state_mut();
        let process = state.processes.get_mut(&pid).unwrap();
        (process.at_word, process.fds) = (Some(at_word), fds);
        process.line = prepared.line.iter().map(|word| String::from_utf8_lossy(word).into_owned()).collect();
        Ok(Held { pid, line: mine.into() })
    }

    fn release(&self, held: &Held) -> Result<(), Failed> {
        let word = self.state_mut().processes.get_mut(&held.pid).unwrap().at_word.take().unwrap();
        match word {
            Ok(()) => self.execute(held.pid),
            Err(_) => self.end(held.pid, 127 << 8),
        }
        word
    }

    fn watch(&self, pid: i32) -> Result<(), Errno> {
        self.call()?;
        let zombie = self.state().processes.get(&pid).ok_or(Errno::ESRCH)?.zombie;
        self.state_mut().watched.insert(pid);
        if let Some(status) = zombie {
            self.end(pid, status);
        }
        Ok(())
    }

    fn next_ended(&self) -> Option<Ended> {
        let ended = self.state_mut().ended.pop_front();
        if ended.is_none() {
            while matches!((&self.ready.0).read(&mut [0; 64]), Ok(64)) {}
        }
        ended
    }

    fn ended_fd(&self) -> BorrowedFd<'_> {
        self.ready.0.as_fd()
    }

    fn signal(&self, pid: i32, signal: Sent) -> Result<(), Errno> {
        self.call()?;
        let is_zombie = self.state().processes.get(&pid).ok_or(Errno::ESRCH)?.zombie.is_some();
        if !is_zombie {
            self.end(pid, if signal == Sent::Kill { 9 } else { 15 });
        }
        Ok(())
    }

    fn wait(&self, pid: i32) -> Result<(), Errno> {
        let mut state = self.state_mut();
        let process = state.processes.get(&pid).filter(|process| process.is_child).ok_or(Errno::ECHILD)?;
        assert!(process.zombie.is_some(), "this would wait for ever");
        state.processes.remove(&pid);
        Ok(())
    }

    fn wait_within(&self, pid: i32, _: u64) -> Result<Option<bool>, Errno> {
        self.call()?;
        let status = self.state().processes.get(&pid).ok_or(Errno::ECHILD)?.zombie;
        if status.is_some() {
            self.wait(pid)?;
        }
        Ok(status.map(|status| status == 0))
    }

    fn pipe(&self) -> Result<(OwnedFd, OwnedFd), Errno> {
        self.call()?;
        nix::unistd::pipe()
    }
}
