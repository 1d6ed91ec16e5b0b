//! gdb: a debugger at a unix socket stops the guest, looks into it and lets it go on. It comes before the guest runs, and
//! when it leaves, the guest runs on without it.

use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::os::unix::net::{UnixListener, UnixStream};

use gdbstub::arch::Arch;
use gdbstub::common::Signal;
use gdbstub::conn::Connection;
use gdbstub::stub::state_machine::GdbStubStateMachine as State;
use gdbstub::stub::{DisconnectReason, GdbStub, SingleThreadStopReason as Stop};
use gdbstub::target::ext::base::BaseOps;
use gdbstub::target::ext::base::singlethread::{
    SingleThreadBase, SingleThreadResume, SingleThreadResumeOps, SingleThreadSingleStep, SingleThreadSingleStepOps,
};
use gdbstub::target::ext::breakpoints::{
    Breakpoints, BreakpointsOps, HwBreakpoint, HwBreakpointOps, SwBreakpoint, SwBreakpointOps,
};
use gdbstub::target::{Target, TargetError, TargetResult};
use gdbstub_arch::x86::X86_64_SSE;
use gdbstub_arch::x86::reg::X86_64CoreRegs;

use super::calls::Death;
use super::kvm::{self, GuestDebug, Registers};
use super::{Event, Guest, requests};
use crate::refusal::Refusal;
use crate::seccomp::{Argument, Row};
use crate::sys::Errno;
use crate::{raw, report, sys};

/// Bytes of a packet, at most.
const PACKET_BYTES: usize = 4096;
/// Breakpoints that are written into code, at most.
const BREAKPOINTS_MAX: usize = 64;
/// Those that the processor has registers for.
const HARDWARE_MAX: usize = 4;
/// `int3`.
const TRAP: [u8; 1] = [0xcc];

/// `KVM_GUESTDBG_ENABLE`, with both kinds of breakpoints.
const WATCHED: u32 = 1 | 0x1_0000 | 0x2_0000;
/// `KVM_GUESTDBG_SINGLESTEP`.
const STEP: u32 = 2;

/// A debugger that has come.
pub(super) struct Debugger {
    stream: UnixStream,
}

impl Debugger {
    /// Waits for a debugger.
    pub(super) fn wait_for(listener: &UnixListener) -> Result<Debugger, Refusal> {
        let refusal = |errno| Refusal::Step { what: "gdb: no debugger came", errno, remedy: "start it again" };
        report::say(format_args!("gdb: waiting for a debugger; in gdb: target remote SOCKET"));
        let (stream, _) = listener.accept().map_err(|error| refusal(error.into()))?;
        stream.set_nonblocking(true).map_err(|error| refusal(error.into()))?;
        sys::signal_input(stream.as_fd()).map_err(refusal)?;
        Ok(Debugger { stream })
    }

    /// What a filter must let through for it.
    pub(super) fn rows(&self, vcpu: u64) -> [Row; 5] {
        let fd = self.stream.as_raw_fd();
        let on_vcpu = |request: u64| [Argument::Is(0, vcpu), Argument::Is(1, request)];
        [
            Row::on_fd(libc::SYS_read, fd, "a debugger's words"),
            Row::on_fd(libc::SYS_write, fd, "answers to a debugger"),
            Row::new(
                libc::SYS_ppoll,
                &[Argument::Is(1, 1), Argument::Is(2, 0), Argument::Is(3, 0)],
                "waiting for a debugger's words",
            ),
            Row::new(libc::SYS_ioctl, &on_vcpu(kvm::SET_REGS), "a debugger sets registers"),
            Row::new(libc::SYS_ioctl, &on_vcpu(kvm::SET_GUEST_DEBUG), "a debugger's steps and breakpoints"),
        ]
    }

    /// Runs the guest as the debugger says, to its end.
    pub(super) fn serve(self, guest: &mut Guest) -> Result<(i32, u64), Death> {
        let fd = self.stream.as_raw_fd();
        // Its descriptor cannot be closed under the filter.
        std::mem::forget(self.stream);
        let mut packet = [0; PACKET_BYTES];
        let mut scene =
            Scene { guest, breakpoints: [None; BREAKPOINTS_MAX], hardware: [None; HARDWARE_MAX], end: None };
        let line = Line { fd, bytes: [0; PACKET_BYTES], len: 0 };
        if let Ok(stub) = GdbStub::builder(line).with_packet_buffer(&mut packet).build() {
            let _left = stub.run_state_machine(&mut scene).and_then(|state| converse(state, &mut scene));
        }
        // However it left: it is over.
        scene.unplug();
        match scene.end.take() {
            Some(end) => end,
            None => scene.guest.run_on(),
        }
    }
}

/// What can go wrong with a debugger's line; it is then as good as gone.
type Lost = gdbstub::stub::GdbStubError<Errno, Errno>;

fn converse<'s>(mut state: State<'_, Scene<'s>, Line>, scene: &mut Scene<'s>) -> Result<(), Lost> {
    loop {
        state = match state {
            State::Idle(mut idle) => match idle.borrow_conn().await_byte() {
                Some(byte) => idle.incoming_data(scene, byte)?,
                None => return Ok(()),
            },
            State::Running(mut running) => {
                let heard = running.borrow_conn().take_byte();
                match heard {
                    Heard::Byte(byte) => running.incoming_data(scene, byte)?,
                    Heard::Gone => return Ok(()),
                    Heard::Nothing => {
                        let stop = scene.run();
                        match stop {
                            Some(stop) => running.report_stop(scene, stop)?,
                            None => State::Running(running),
                        }
                    }
                }
            }
            State::CtrlCInterrupt(interrupt) => {
                interrupt.interrupt_handled(scene, Some(Stop::Signal(Signal::SIGINT)))?
            }
            State::Disconnected(gone) => {
                if gone.get_reason() == DisconnectReason::Kill {
                    report::say(format_args!("gdb: killed by the debugger"));
                    raw::exit(1);
                }
                return Ok(());
            }
        };
    }
}

/// The guest as a debugger sees it.
struct Scene<'a> {
    guest: &'a mut Guest,
    /// Address and the byte that belongs there.
    breakpoints: [Option<(u64, u8)>; BREAKPOINTS_MAX],
    hardware: [Option<u64>; HARDWARE_MAX],
    /// How the guest ended.
    end: Option<Result<(i32, u64), Death>>,
}

impl Scene<'_> {
    /// Runs the guest until there is something to say of it, or the debugger may have spoken.
    fn run(&mut self) -> Option<Stop<u64>> {
        if let Some(end) = &self.end {
            // What has died can be looked at and let go, no more.
            return Some(match end {
                Ok((status, _)) => Stop::Exited(*status as u8),
                Err(_) => Stop::Terminated(Signal::SIGSEGV),
            });
        }
        loop {
            match self.guest.step() {
                Ok(Event::Nothing) => self.guest.serve_requests(),
                Ok(Event::Debug) => return Some(self.why()),
                Ok(Event::Halt { status, cookie }) => {
                    self.end = Some(Ok((status, cookie)));
                    return Some(Stop::Exited(status as u8));
                }
                Err(death) => {
                    self.end = Some(Err(death));
                    return Some(Stop::Signal(Signal::SIGSEGV));
                }
            }
            if requests::take_input() {
                return None;
            }
        }
    }

    fn why(&self) -> Stop<u64> {
        let rip = self.guest.vcpu.general().rip;
        match () {
            () if self.breakpoints.iter().flatten().any(|(address, _)| *address == rip) => Stop::SwBreak(()),
            () if self.hardware.iter().flatten().any(|address| *address == rip) => Stop::HwBreak(()),
            () => Stop::DoneStep,
        }
    }

    fn watch(&self, step: u32) -> Result<(), Errno> {
        let mut debug = GuestDebug { control: WATCHED | step, ..GuestDebug::default() };
        for (index, address) in self.hardware.iter().enumerate() {
            if let Some(address) = address {
                debug.registers[index] = *address;
                // DR7: the breakpoint of this register is on, for execution.
                debug.registers[7] |= 2 << (2 * index);
            }
        }
        self.guest.vcpu.set_debug(&debug)
    }

    /// Takes every breakpoint out again.
    fn unplug(&mut self) {
        for (address, byte) in self.breakpoints.iter_mut().filter_map(Option::take) {
            let _ = self.guest.memory.copy_in(address, &[byte]);
        }
        let _ = self.guest.vcpu.set_debug(&GuestDebug::default());
    }
}

impl Target for Scene<'_> {
    type Arch = X86_64_SSE;
    type Error = Errno;

    fn base_ops(&mut self) -> BaseOps<'_, X86_64_SSE, Errno> {
        BaseOps::SingleThread(self)
    }

    fn support_breakpoints(&mut self) -> Option<BreakpointsOps<'_, Self>> {
        Some(self)
    }
}

impl SingleThreadBase for Scene<'_> {
    fn read_registers(&mut self, registers: &mut X86_64CoreRegs) -> TargetResult<(), Self> {
        let Registers { rax_to_rsi, rdi, rsp, rbp_to_r15, rip, rflags } = self.guest.vcpu.general();
        let [rax, rbx, rcx, rdx, rsi] = rax_to_rsi;
        let [rbp, r8, r9, r10, r11, r12, r13, r14, r15] = rbp_to_r15;
        registers.regs = [rax, rbx, rcx, rdx, rsi, rdi, rbp, rsp, r8, r9, r10, r11, r12, r13, r14, r15];
        registers.rip = rip;
        registers.eflags = rflags as u32;
        let system = self.guest.vcpu.system();
        let segments = &mut registers.segments;
        (segments.cs, segments.ss) = (system.cs.selector.into(), system.ss.selector.into());
        (segments.ds, segments.es) = (system.ds.selector.into(), system.es.selector.into());
        (segments.fs, segments.gs) = (system.fs.selector.into(), system.gs.selector.into());
        Ok(())
    }

    fn write_registers(&mut self, registers: &X86_64CoreRegs) -> TargetResult<(), Self> {
        let [rax, rbx, rcx, rdx, rsi, rdi, rbp, rsp, numbered @ ..] = registers.regs;
        let [r8, r9, r10, r11, r12, r13, r14, r15] = numbered;
        let general = Registers {
            rax_to_rsi: [rax, rbx, rcx, rdx, rsi],
            rdi,
            rsp,
            rbp_to_r15: [rbp, r8, r9, r10, r11, r12, r13, r14, r15],
            rip: registers.rip,
            rflags: registers.eflags.into(),
        };
        self.guest.vcpu.set_general(&general).map_err(|Errno(errno)| TargetError::Errno(errno as u8))
    }

    fn read_addrs(&mut self, start: u64, data: &mut [u8]) -> TargetResult<usize, Self> {
        let rest = self.guest.memory.end().saturating_sub(start);
        let len = data.len().min(usize::try_from(rest).unwrap_or(usize::MAX));
        match self.guest.memory.copy_out(start, &mut data[..len]) {
            Ok(()) if len > 0 => Ok(len),
            _ => Err(TargetError::NonFatal),
        }
    }

    fn write_addrs(&mut self, start: u64, data: &[u8]) -> TargetResult<(), Self> {
        self.guest.memory.copy_in(start, data).map_err(|_| TargetError::NonFatal)
    }

    fn support_resume(&mut self) -> Option<SingleThreadResumeOps<'_, Self>> {
        Some(self)
    }
}

impl SingleThreadResume for Scene<'_> {
    fn resume(&mut self, _: Option<Signal>) -> Result<(), Errno> {
        self.watch(0)
    }

    fn support_single_step(&mut self) -> Option<SingleThreadSingleStepOps<'_, Self>> {
        Some(self)
    }
}

impl SingleThreadSingleStep for Scene<'_> {
    fn step(&mut self, _: Option<Signal>) -> Result<(), Errno> {
        self.watch(STEP)
    }
}

impl Breakpoints for Scene<'_> {
    fn support_sw_breakpoint(&mut self) -> Option<SwBreakpointOps<'_, Self>> {
        Some(self)
    }

    fn support_hw_breakpoint(&mut self) -> Option<HwBreakpointOps<'_, Self>> {
        Some(self)
    }
}

impl SwBreakpoint for Scene<'_> {
    fn add_sw_breakpoint(&mut self, address: u64, _: <X86_64_SSE as Arch>::BreakpointKind) -> TargetResult<bool, Self> {
        let memory = self.guest.memory;
        let Some(place) = self.breakpoints.iter_mut().find(|place| place.is_none()) else { return Ok(false) };
        let mut byte = [0];
        let set = memory.copy_out(address, &mut byte).and_then(|()| memory.copy_in(address, &TRAP));
        let [byte] = byte;
        *place = set.is_ok().then_some((address, byte));
        Ok(place.is_some())
    }

    fn remove_sw_breakpoint(
        &mut self,
        address: u64,
        _: <X86_64_SSE as Arch>::BreakpointKind,
    ) -> TargetResult<bool, Self> {
        let memory = self.guest.memory;
        let is_this = |place: &&mut Option<(u64, u8)>| place.is_some_and(|(at, _)| at == address);
        let Some((_, byte)) = self.breakpoints.iter_mut().find(is_this).and_then(Option::take) else {
            return Ok(false);
        };
        Ok(memory.copy_in(address, &[byte]).is_ok())
    }
}

impl HwBreakpoint for Scene<'_> {
    fn add_hw_breakpoint(&mut self, address: u64, _: <X86_64_SSE as Arch>::BreakpointKind) -> TargetResult<bool, Self> {
        let Some(place) = self.hardware.iter_mut().find(|place| place.is_none()) else { return Ok(false) };
        *place = Some(address);
        Ok(true)
    }

    fn remove_hw_breakpoint(
        &mut self,
        address: u64,
        _: <X86_64_SSE as Arch>::BreakpointKind,
    ) -> TargetResult<bool, Self> {
        let place = self.hardware.iter_mut().find(|place| **place == Some(address));
        Ok(place.and_then(Option::take).is_some())
    }
}

/// The line to a debugger, whose answers are gathered until they are complete.
struct Line {
    fd: RawFd,
    bytes: [u8; PACKET_BYTES],
    len: usize,
}

/// What is on the line.
enum Heard {
    Byte(u8),
    Nothing,
    Gone,
}

impl Line {
    /// The next byte, if it is there.
    fn take_byte(&mut self) -> Heard {
        let mut byte = [0];
        match raw::read(self.fd, &mut byte) {
            Ok(1) => Heard::Byte(byte[0]),
            Err(Errno(libc::EAGAIN | libc::EINTR)) => Heard::Nothing,
            _ => Heard::Gone,
        }
    }

    /// The next byte; none if the debugger is gone.
    fn await_byte(&mut self) -> Option<u8> {
        loop {
            match self.take_byte() {
                Heard::Byte(byte) => return Some(byte),
                Heard::Gone => return None,
                // A signal only makes us look again.
                Heard::Nothing => drop(raw::wait_readable(self.fd)),
            }
        }
    }
}

impl Connection for Line {
    type Error = Errno;

    fn write(&mut self, byte: u8) -> Result<(), Errno> {
        if self.len == self.bytes.len() {
            self.flush()?;
        }
        self.bytes[self.len] = byte;
        self.len += 1;
        Ok(())
    }

    fn flush(&mut self) -> Result<(), Errno> {
        let mut done = 0;
        while done < self.len {
            match raw::write(self.fd, &self.bytes[done..self.len]) {
                Ok(len) => done += len,
                Err(Errno(libc::EINTR)) => {}
                Err(Errno(libc::EAGAIN)) => raw::wait_writable(self.fd)?,
                Err(errno) => return Err(errno),
            }
        }
        self.len = 0;
        Ok(())
    }
}
