//! A process that was taken over: it makes the calls that a test chooses, under all that holds it.
#![allow(clippy::unwrap_used, reason = "for tests, which panic to fail")]

use std::fs::{self, File};
use std::net::SocketAddrV4;
use std::os::unix::fs::FileExt as _;

use nix::errno::Errno;
use nix::libc;
use nix::sys::ptrace::{self, Options};
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use crate::system::wait_until;

/// The instruction by which a system call is made.
const SYSCALL: [u8; 2] = [0x0f, 0x05];

/// Bytes that one argument may have.
const ARGUMENT_BYTES_MAX: u64 = 512;

/// A process whose first thread does as it is told, from where it made its last call. It does nothing else any more, and ends with this.
#[derive(Debug)]
pub struct Puppet {
    pid: Pid,
    memory: File,
    registers: libc::user_regs_struct,
    /// The far end of its stack.
    spare: u64,
}

/// An argument of a call.
#[derive(Clone, Copy, Debug)]
pub enum Argument<'a> {
    /// A number: a flag, a descriptor.
    Number(u64),
    /// The address of these bytes, which are put into its memory. A text needs an end of its own.
    Bytes(&'a [u8]),
}

/// What came of a call in the place of a result.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refused {
    /// The system said no.
    Said(Errno),
    /// It was ended by this signal.
    Ended(Signal),
}

impl Puppet {
    /// Takes this process over. Nobody else of this program may wait for it meanwhile, and only this thread can lead it.
    ///
    /// # Panics
    /// Where that cannot be.
    #[must_use]
    pub fn take(pid: Pid) -> Self {
        ptrace::seize(pid, Options::PTRACE_O_TRACESYSGOOD | Options::PTRACE_O_EXITKILL).unwrap();
        let memory = File::options().read(true).write(true).open(format!("/proc/{pid}/mem")).unwrap();
        // Most of the time it waits in a call; where it just does something, a little later.
        let mut registers = None;
        let waits = wait_until(|| {
            ptrace::interrupt(pid).unwrap();
            assert!(matches!(wait(pid), WaitStatus::PtraceEvent(..)));
            let mut found = ptrace::getregs(pid).unwrap();
            let mut instruction = [0; SYSCALL.len()];
            found.rip -= SYSCALL.len() as u64;
            memory.read_exact_at(&mut instruction, found.rip).unwrap();
            registers = (instruction == SYSCALL).then_some(found);
            if registers.is_none() {
                ptrace::cont(pid, None).unwrap();
            }
            registers.is_some()
        });
        assert!(waits, "it never waits in a call");
        let registers = registers.unwrap();
        let maps = fs::read_to_string(format!("/proc/{pid}/maps")).unwrap();
        let stack = maps.lines().find(|line| line.ends_with("[stack]")).unwrap();
        let spare = u64::from_str_radix(stack.split_once('-').unwrap().0, 16).unwrap();
        assert!(registers.rsp > spare + 16 * ARGUMENT_BYTES_MAX, "its stack is in use to the end");
        Self { pid, memory, registers, spare }
    }

    /// Has it make this call.
    ///
    /// # Errors
    /// [`Refused`].
    ///
    /// # Panics
    /// Where it cannot be led any more.
    pub fn call(&self, number: libc::c_long, arguments: &[Argument<'_>]) -> Result<u64, Refused> {
        let mut values = [0; 6];
        for (place, argument) in arguments.iter().enumerate() {
            values[place] = match argument {
                Argument::Number(number) => *number,
                Argument::Bytes(bytes) => {
                    let address = self.spare + ARGUMENT_BYTES_MAX * place as u64;
                    assert!(bytes.len() as u64 <= ARGUMENT_BYTES_MAX);
                    self.memory.write_all_at(bytes, address).unwrap();
                    address
                }
            };
        }
        let result = self.make(number, values)?;
        // Who is ended for a call is at the end of that call first, as if it had never been made.
        if result == number.cast_unsigned() {
            self.make(libc::SYS_close, [u64::MAX; 6])?;
        }
        match i32::try_from(result.cast_signed().wrapping_neg()) {
            Ok(errno @ 1..4096) => Err(Refused::Said(Errno::from_raw(errno))),
            _ => Ok(result),
        }
    }

    fn make(&self, number: libc::c_long, [rdi, rsi, rdx, r10, r8, r9]: [u64; 6]) -> Result<u64, Refused> {
        // Without the number of the call in which it was stopped, that one is not made again.
        let (rax, orig_rax) = (number.cast_unsigned(), u64::MAX);
        let begun = libc::user_regs_struct { rax, orig_rax, rdi, rsi, rdx, r10, r8, r9, ..self.registers };
        ptrace::setregs(self.pid, begun).unwrap();
        // At its begin and at its end.
        for _ in 0..2 {
            ptrace::syscall(self.pid, None).unwrap();
            match wait(self.pid) {
                WaitStatus::PtraceSyscall(_) => {}
                WaitStatus::Signaled(_, signal, _) => return Err(Refused::Ended(signal)),
                other => panic!("{other:?}"),
            }
        }
        Ok(ptrace::getregs(self.pid).unwrap().rax)
    }

    /// Has it open a file, with these flags.
    ///
    /// # Errors
    /// [`Refused`].
    pub fn open(&self, path: &std::path::Path, flags: i32) -> Result<u64, Refused> {
        let path = [path.as_os_str().as_encoded_bytes(), &[0]].concat();
        let at = i64::from(libc::AT_FDCWD).cast_unsigned();
        let flags = u64::from(flags.cast_unsigned());
        let arguments =
            [Argument::Number(at), Argument::Bytes(&path), Argument::Number(flags), Argument::Number(0o600)];
        self.call(libc::SYS_openat, &arguments)
    }

    /// Has it connect this socket.
    ///
    /// # Errors
    /// [`Refused`].
    pub fn connect(&self, fd: u64, to: SocketAddrV4) -> Result<u64, Refused> {
        self.with_address(libc::SYS_connect, fd, to)
    }

    /// Has it make a call of which an address follows a descriptor.
    ///
    /// # Errors
    /// [`Refused`].
    pub fn with_address(&self, call: libc::c_long, fd: u64, address: SocketAddrV4) -> Result<u64, Refused> {
        let family = u16::try_from(libc::AF_INET).unwrap().to_ne_bytes();
        let bytes = [&family[..], &address.port().to_be_bytes(), &address.ip().octets(), &[0; 8]].concat();
        self.call(call, &[Argument::Number(fd), Argument::Bytes(&bytes), Argument::Number(16)])
    }
}

impl Drop for Puppet {
    fn drop(&mut self) {
        let _ = nix::sys::signal::kill(self.pid, Signal::SIGKILL);
    }
}

/// Its next stop, or its end. A signal that it is sent it never hears of.
fn wait(pid: Pid) -> WaitStatus {
    loop {
        match waitpid(pid, Some(WaitPidFlag::__WALL)).unwrap() {
            WaitStatus::Stopped(..) => ptrace::syscall(pid, None).unwrap(),
            status => return status,
        }
    }
}
