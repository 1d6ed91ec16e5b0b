//! What the tender still does in the process that it has given to an spt guest: when the guest faults, ends or is asked for a
//! core, a signal handler says so. The guest may have changed anything, its thread-local storage and the tender's memory
//! among them: nothing here goes through the C library, and nothing here is needed to keep the guest where it is.
#![allow(unsafe_code, reason = "what the kernel hands to a handler, and faults made on purpose")]

use std::arch::{asm, naked_asm};
use std::sync::OnceLock;

use crate::core_file::CoreFile;
use crate::load::Layout;
use crate::memory::Memory;
use crate::raw;
use crate::refusal::Refusal;
use crate::report::{self, Registers};
use crate::status::{self, ABORTED, Record};
use crate::sys;

/// Bytes of the handlers' stack: a line, a page of a core's state, and what the processor's extensions take.
const STACK_BYTES: usize = 64 * 1024;

/// `SYS_SECCOMP`: the code of a SIGSYS of our own filter.
const SYS_SECCOMP: i32 = 1;
/// Where the number of the call stands in the `siginfo_t` of a SIGSYS.
const SYSTEM_CALL_AT: usize = 24;

/// Bits of a page fault's error code.
const WRITE: i64 = 2;
const FETCH: i64 = 16;

/// What handlers look at.
pub(super) struct Scene {
    pub(super) memory: Memory,
    pub(super) layout: Layout,
    pub(super) core: Option<CoreFile>,
}

static SCENE: OnceLock<Scene> = OnceLock::new();
/// Whether the instruction that reads the base of the thread-local storage may be used.
static READS_FS: OnceLock<bool> = OnceLock::new();

/// Whether the guest's own end is the tender's business.
pub(super) fn end_is_watched(core: Option<&CoreFile>) -> bool {
    core.is_some() || status::fds() != (None, None)
}

/// Sets the handlers, once.
pub(super) fn watch(scene: Scene) -> Result<&'static Scene, Refusal> {
    let step = |errno| Refusal::Step { what: "Could not handle signals", errno, remedy: "give it more memory" };
    // Memory that nobody has touched, and that few guests ever make anybody touch.
    sys::set_signal_stack(Box::leak(Box::new_uninit_slice(STACK_BYTES))).map_err(step)?;
    READS_FS.get_or_init(sys::has_fs_instructions);
    let scene = SCENE.get_or_init(|| scene);
    for signal in [libc::SIGSEGV, libc::SIGBUS, libc::SIGILL, libc::SIGFPE, libc::SIGTRAP] {
        sys::on_signal(signal, enter_on_fault, libc::SA_ONSTACK | libc::SA_RESETHAND).map_err(step)?;
    }
    if end_is_watched(scene.core.as_ref()) {
        sys::on_signal(libc::SIGSYS, enter_on_exit, libc::SA_ONSTACK).map_err(step)?;
    }
    if scene.core.is_some() {
        sys::on_signal(libc::SIGUSR1, enter_on_request, libc::SA_ONSTACK | libc::SA_RESTART).map_err(step)?;
    }
    Ok(scene)
}

/// A handler's first instructions: the guest may have asked for faults on accesses that are not aligned, and the kernel leaves
/// that as it is.
macro_rules! entry {
    ($entry:ident, $handler:ident) => {
        #[unsafe(naked)]
        extern "C" fn $entry(signal: i32, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
            naked_asm!("pushfq", "and qword ptr [rsp], -0x40001", "popfq", "jmp {}", sym $handler)
        }
    };
}

entry!(enter_on_fault, on_fault);
entry!(enter_on_exit, on_exit);
entry!(enter_on_request, on_request);

/// Says what the guest did, and lets the process die of it.
extern "C" fn on_fault(signal: i32, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    let (registers, trap) = read(context);
    // SAFETY: the kernel hands a `siginfo_t` to a handler that asks for one.
    if unsafe { (*info).si_code } <= 0 {
        // The guest did nothing: somebody sent it.
        report::say(format_args!("signal {signal} came from outside"));
        fault_again(signal)
    }
    let Trap { number, error, address } = trap;
    let meets_memory = number == 14;
    let what = match number {
        0 => "divide error",
        1 | 3 => "breakpoint",
        6 => "invalid opcode",
        12 => "stack fault",
        13 => "general protection fault",
        14 if error & FETCH != 0 => "page fault: tried to execute what it may not",
        14 if error & WRITE != 0 => "page fault: tried to write what it may not",
        14 => "page fault: tried to read what it may not",
        17 => "misaligned access",
        16 | 19 => "floating point error",
        _ => "fault",
    };
    status::record(Record::Faulted { signal, rip: registers.rip });
    report::say(format_args!("guest fault (signal {signal}): {what}: rip={:#x}", registers.rip));
    if let Some(Scene { memory, layout, core }) = SCENE.get() {
        report::say_registers(memory, layout, &registers, meets_memory.then_some(address));
        if let Some(core) = core {
            core.dump(memory, &registers);
        }
    }
    fault_again(signal)
}

/// The guest ends by itself: the filter calls this in the place of its last system call.
extern "C" fn on_exit(signal: i32, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    let (registers, _) = read(context);
    // SAFETY: the kernel hands a `siginfo_t` to a handler that asks for one.
    let code = unsafe { (*info).si_code };
    // SAFETY: as above; the number of the call stands in it behind a pointer.
    let call = unsafe { info.wrapping_byte_add(SYSTEM_CALL_AT).cast::<i32>().read() };
    if code != SYS_SECCOMP || i64::from(call) != libc::SYS_exit_group {
        report::say(format_args!("signal {signal} came from outside"));
        raw::trespass()
    }
    let status = registers.rdi as i32;
    status::record(Record::Exited { status });
    if let Some(Scene { memory, core: Some(core), .. }) = SCENE.get()
        && status == ABORTED
    {
        core.dump(memory, &registers);
    }
    raw::exit(status)
}

/// Somebody wants a core of the guest, which then goes on.
extern "C" fn on_request(_: i32, _: *mut libc::siginfo_t, context: *mut libc::c_void) {
    let (registers, _) = read(context);
    if let Some(Scene { memory, core: Some(core), .. }) = SCENE.get() {
        core.dump(memory, &registers);
    }
}

/// What the processor said of a fault.
struct Trap {
    number: i64,
    error: i64,
    address: u64,
}

/// What the kernel has saved of the guest.
fn read(context: *mut libc::c_void) -> (Registers, Trap) {
    // SAFETY: the kernel hands a `ucontext_t` to a handler that asks for one.
    let machine = unsafe { &(*context.cast::<libc::ucontext_t>()).uc_mcontext.gregs };
    let raw = |index: i32| usize::try_from(index).ok().and_then(|index| machine.get(index)).copied().unwrap_or(0);
    let at = |index: i32| raw(index).cast_unsigned();
    let registers = Registers {
        rax: at(libc::REG_RAX),
        rbx: at(libc::REG_RBX),
        rcx: at(libc::REG_RCX),
        rdx: at(libc::REG_RDX),
        rsi: at(libc::REG_RSI),
        rdi: at(libc::REG_RDI),
        rbp: at(libc::REG_RBP),
        rsp: at(libc::REG_RSP),
        numbered: [
            at(libc::REG_R8),
            at(libc::REG_R9),
            at(libc::REG_R10),
            at(libc::REG_R11),
            at(libc::REG_R12),
            at(libc::REG_R13),
            at(libc::REG_R14),
            at(libc::REG_R15),
        ],
        rip: at(libc::REG_RIP),
        rflags: at(libc::REG_EFL),
        fs_base: fs_base(),
    };
    (registers, Trap { number: raw(libc::REG_TRAPNO), error: raw(libc::REG_ERR), address: at(libc::REG_CR2) })
}

/// The base of the guest's thread-local storage, which the kernel does not save with the rest; 0 where it cannot be read.
fn fs_base() -> u64 {
    let mut base = 0u64;
    if READS_FS.get().copied().unwrap_or(false) {
        // SAFETY: this processor and kernel allow it.
        unsafe { asm!("rdfsbase {}", out(reg) base, options(nomem, nostack, preserves_flags)) };
    }
    base
}

/// Does what the guest did, so that the process dies of the very signal: by now it has its default effect.
fn fault_again(signal: i32) -> ! {
    match signal {
        // SAFETY: none: this is the end, by a division by zero.
        libc::SIGFPE => unsafe { asm!("div {0:e}", in(reg) 0u32, out("eax") _, out("edx") _, options(nostack)) },
        // SAFETY: none: this is the end, by an undefined instruction.
        libc::SIGILL => unsafe { asm!("ud2", options(nostack)) },
        // SAFETY: none: this is the end, by a breakpoint.
        libc::SIGTRAP => unsafe { asm!("int3", options(nostack)) },
        // SAFETY: none: this is the end, by an address on the stack that no processor has.
        libc::SIGBUS => unsafe {
            asm!("mov rsp, {0}", "pop rax", in(reg) 1u64 << 63, options(noreturn));
        },
        _ => {}
    }
    // SAFETY: none: this is the end, by an address where nothing is.
    unsafe { asm!("mov {0}, [{0}]", inout(reg) 0u64 => _, options(nostack, readonly)) };
    raw::exit(128 + signal)
}

#[cfg(test)]
mod tests {
    //! The registers are found where the kernel puts them.
    use super::*;

    #[test]
    fn registers_come_from_the_context() {
        // SAFETY: all zero is a valid context.
        let mut context: libc::ucontext_t = unsafe { std::mem::zeroed() };
        for (index, register) in context.uc_mcontext.gregs.iter_mut().enumerate() {
            *register = 100 + index as i64;
        }
        let (registers, trap) = read((&raw mut context).cast());
        assert_eq!(registers.rip, 100 + libc::REG_RIP as u64);
        assert_eq!(registers.numbered, [100, 101, 102, 103, 104, 105, 106, 107]);
        assert_eq!((trap.address, trap.number), (100 + libc::REG_CR2 as u64, 100 + i64::from(libc::REG_TRAPNO)));
    }
}
