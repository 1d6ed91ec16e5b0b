//! The filter that a guest or its tender lives under: a table of (system call, argument rules, why), compiled to the
//! kernel's filter language. Whatever no row allows ends the process at once; a few rows call the tender instead.

use std::os::fd::RawFd;

use crate::refusal::Refusal;
use crate::sys;

/// `AUDIT_ARCH_X86_64`.
const ARCHITECTURE: u32 = 0xC000_003E;
/// System calls of the x32 ABI have this bit.
const X32: u32 = 0x4000_0000;
/// Instructions of a filter, at most (the kernel's limit).
const INSTRUCTIONS_MAX: usize = 4096;

/// Places in the kernel's `struct seccomp_data`.
const NUMBER_AT: u32 = 0;
const ARCHITECTURE_AT: u32 = 4;
const ARGUMENTS_AT: u32 = 16;

const LOAD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
const IF_EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
const IF_GREATER: u16 = (libc::BPF_JMP | libc::BPF_JGT | libc::BPF_K) as u16;
const IF_AT_LEAST: u16 = (libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K) as u16;
const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;

/// One row: what becomes of this call if every argument rule holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    pub(crate) call: i64,
    pub(crate) arguments: Vec<Argument>,
    pub(crate) verdict: Verdict,
    /// Why the guest cannot do without it.
    pub why: &'static str,
}

/// What becomes of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It is made.
    Allow,
    /// It is not, and the handler of SIGSYS is called in its place.
    Signal,
}

/// A rule for one argument, compared in all its 64 bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Argument {
    /// It is this.
    Is(u32, u64),
    /// It is not more than this.
    AtMost(u32, u64),
}

impl Row {
    /// A row.
    pub(crate) fn new(call: i64, arguments: &[Argument], why: &'static str) -> Row {
        Row { call, arguments: arguments.to_vec(), verdict: Verdict::Allow, why }
    }

    /// A row for a call that is the tender's business.
    pub(crate) fn signal(call: i64, why: &'static str) -> Row {
        Row { call, arguments: Vec::new(), verdict: Verdict::Signal, why }
    }

    /// A row whose first argument is this descriptor.
    pub(crate) fn on_fd(call: i64, fd: RawFd, why: &'static str) -> Row {
        Row::new(call, &[Argument::Is(0, fd as u64)], why)
    }
}

/// A filter that is ready to be installed.
pub(crate) struct Filter {
    program: Vec<libc::sock_filter>,
}

impl Filter {
    /// Compiles a table; rows are tried in order.
    pub(crate) fn compile(rows: &[Row]) -> Filter {
        let mut program = vec![
            load(ARCHITECTURE_AT),
            jump(IF_EQUAL, ARCHITECTURE, 1, 0),
            finish(libc::SECCOMP_RET_KILL_PROCESS),
            load(NUMBER_AT),
            jump(IF_AT_LEAST, X32, 0, 1),
            finish(libc::SECCOMP_RET_KILL_PROCESS),
        ];
        for row in rows {
            program.extend(compile_row(row));
        }
        program.push(finish(libc::SECCOMP_RET_KILL_PROCESS));
        assert!(program.len() <= INSTRUCTIONS_MAX, "63 devices of two rows each do not fill a filter");
        Filter { program }
    }

    /// Puts the filter on this process, for ever. The filter's own memory cannot be given back under it.
    pub(crate) fn confine(self) -> Result<(), Refusal> {
        let filter = std::mem::ManuallyDrop::new(self);
        sys::install_filter(&filter.program).map_err(|errno| Refusal::Step {
            what: "Could not confine the guest by seccomp",
            errno,
            remedy: "run a kernel of 4.14 or newer with CONFIG_SECCOMP_FILTER",
        })
    }
}

/// A row's instructions. Each begins and, if it does not hold, ends with the call's number loaded or loads it again.
fn compile_row(row: &Row) -> Vec<libc::sock_filter> {
    // A jump that leaves the row is written as NEXT and set when the row's length is known.
    const NEXT: u8 = u8::MAX;
    let mut code = vec![jump(IF_EQUAL, row.call as u32, 0, NEXT)];
    for argument in &row.arguments {
        match *argument {
            Argument::Is(index, value) => code.extend([
                load(high(index)),
                jump(IF_EQUAL, (value >> 32) as u32, 0, NEXT),
                load(low(index)),
                jump(IF_EQUAL, value as u32, 0, NEXT),
            ]),
            Argument::AtMost(index, value) => code.extend([
                load(high(index)),
                jump(IF_GREATER, (value >> 32) as u32, NEXT, 0),
                jump(IF_EQUAL, (value >> 32) as u32, 0, 2),
                load(low(index)),
                jump(IF_GREATER, value as u32, NEXT, 0),
            ]),
        }
    }
    code.push(finish(match row.verdict {
        Verdict::Allow => libc::SECCOMP_RET_ALLOW,
        Verdict::Signal => libc::SECCOMP_RET_TRAP,
    }));
    code.push(load(NUMBER_AT));
    let last = code.len() - 1;
    for (at, instruction) in code.iter_mut().enumerate() {
        let leave = last.saturating_sub(at + 1) as u8;
        for target in [&mut instruction.jt, &mut instruction.jf] {
            if *target == NEXT {
                *target = leave;
            }
        }
    }
    code
}

fn low(argument: u32) -> u32 {
    ARGUMENTS_AT + 8 * argument
}

fn high(argument: u32) -> u32 {
    low(argument) + 4
}

fn load(at: u32) -> libc::sock_filter {
    libc::sock_filter { code: LOAD, jt: 0, jf: 0, k: at }
}

fn jump(code: u16, value: u32, jt: u8, jf: u8) -> libc::sock_filter {
    libc::sock_filter { code, jt, jf, k: value }
}

fn finish(action: u32) -> libc::sock_filter {
    libc::sock_filter { code: RETURN, jt: 0, jf: 0, k: action }
}

#[cfg(test)]
mod tests {
    //! The compiled filter, run by a little interpreter of the kernel's language.
    use super::*;

    const ALLOW: u32 = libc::SECCOMP_RET_ALLOW;
    const KILL: u32 = libc::SECCOMP_RET_KILL_PROCESS;

    fn verdict(filter: &Filter, architecture: u32, call: u32, arguments: [u64; 6]) -> u32 {
        let mut data = Vec::from(call.to_le_bytes());
        data.extend(architecture.to_le_bytes());
        data.extend([0; 8]);
        data.extend(arguments.iter().flat_map(|argument| argument.to_le_bytes()));
        let (mut at, mut register) = (0, 0u32);
        loop {
            let instruction = filter.program[at];
            at += 1;
            let skip = |holds: bool| usize::from(if holds { instruction.jt } else { instruction.jf });
            match instruction.code {
                LOAD => {
                    let place = instruction.k as usize;
                    register = u32::from_le_bytes(data[place..place + 4].try_into().unwrap());
                }
                IF_EQUAL => at += skip(register == instruction.k),
                IF_GREATER => at += skip(register > instruction.k),
                IF_AT_LEAST => at += skip(register >= instruction.k),
                RETURN => return instruction.k,
                other => panic!("unknown instruction {other}"),
            }
        }
    }

    #[test]
    fn rows_are_alternatives_and_their_rules_all_hold() {
        let limit = (7u64 << 32) + 512;
        let filter = Filter::compile(&[
            Row::on_fd(1, 1, ""),
            Row::on_fd(1, 9, ""),
            Row::new(17, &[Argument::Is(0, 5), Argument::Is(2, 512), Argument::AtMost(3, limit)], ""),
            Row::new(231, &[Argument::Is(1, 7)], ""),
            Row::signal(231, ""),
        ]);
        let on = |call, arguments| verdict(&filter, ARCHITECTURE, call, arguments);
        assert_eq!(on(1, [1, 0, 0, 0, 0, 0]), ALLOW);
        assert_eq!(on(1, [9, 0, 0, 0, 0, 0]), ALLOW);
        assert_eq!(on(1, [2, 0, 0, 0, 0, 0]), KILL);
        assert_eq!(on(1, [1 << 32 | 1, 0, 0, 0, 0, 0]), KILL);
        assert_eq!(on(17, [5, 0, 512, 0, 0, 0]), ALLOW);
        assert_eq!(on(17, [5, 0, 512, limit, 0, 0]), ALLOW);
        assert_eq!(on(17, [5, 0, 512, limit + 1, 0, 0]), KILL);
        assert_eq!(on(17, [5, 0, 512, (6 << 32) + 0xffff_ffff, 0, 0]), ALLOW);
        assert_eq!(on(17, [5, 0, 512, 8 << 32, 0, 0]), KILL);
        assert_eq!(on(17, [5, 0, 513, 0, 0, 0]), KILL);
        assert_eq!(on(231, [3, 7, 0, 0, 0, 0]), ALLOW);
        assert_eq!(on(231, [3; 6]), libc::SECCOMP_RET_TRAP);
        assert_eq!(on(39, [0; 6]), KILL);
        assert_eq!(on(X32 | 231, [0; 6]), KILL);
        assert_eq!(verdict(&filter, 0x4000_0003, 231, [0; 6]), KILL);
    }
}
