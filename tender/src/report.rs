//! What the tender says, on stderr, one line each with the program's name before it. Also used while the guest runs and in
//! its process: a line is put together in a buffer on the stack and leaves in one write.

use std::fmt::{self, Write};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use crate::load::Layout;
use crate::memory::Memory;
use crate::raw;

/// Bytes of a line, at most; what is longer is cut.
pub(crate) const LINE_BYTES_MAX: usize = 1024;
/// Bytes of code that a report of a fault shows.
const CODE_BYTES: usize = 16;
/// Words of the stack that it shows.
const STACK_WORDS: usize = 8;

static PROGRAM: OnceLock<String> = OnceLock::new();
static GUEST_HAS_BEGUN: AtomicBool = AtomicBool::new(false);

/// From here on nothing that is said may wait.
pub(crate) fn guest_begins() {
    GUEST_HAS_BEGUN.store(true, Relaxed);
}

/// Sets the name before each line, once.
pub(crate) fn set_program(name: &str) {
    PROGRAM.get_or_init(|| name.to_owned());
}

/// Says one line. Once a guest has begun, a line that stderr has no room for is lost: the guest can fill the pipe, and is not
/// to stop us from ending it.
pub(crate) fn say(text: fmt::Arguments<'_>) {
    let mut line = Line::<LINE_BYTES_MAX>::new();
    let program = PROGRAM.get().map_or("fulmar-tender", String::as_str);
    // A line that is cut is still said.
    let _ = write!(line, "{program}: {text}");
    if !GUEST_HAS_BEGUN.load(Relaxed) || raw::is_writable(2) {
        // There is nobody left to tell that stderr is gone.
        let _ = raw::write(2, line.ended());
    }
}

/// The registers of a guest where it met its fault.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Registers {
    pub(crate) rax: u64,
    pub(crate) rbx: u64,
    pub(crate) rcx: u64,
    pub(crate) rdx: u64,
    pub(crate) rsi: u64,
    pub(crate) rdi: u64,
    pub(crate) rbp: u64,
    pub(crate) rsp: u64,
    /// r8 to r15.
    pub(crate) numbered: [u64; 8],
    pub(crate) rip: u64,
    pub(crate) rflags: u64,
    pub(crate) fs_base: u64,
}

impl Registers {
    /// As they stand in a core file: the kernel's `struct user_regs_struct`. A guest has flat segments, whose selectors are
    /// those of the ABI.
    pub(crate) fn in_core_order(&self) -> [u64; 27] {
        let Registers { rax, rbx, rcx, rdx, rsi, rdi, rbp, rsp, numbered, rip, rflags, fs_base } = *self;
        let [r8, r9, r10, r11, r12, r13, r14, r15] = numbered;
        [
            r15,
            r14,
            r13,
            r12,
            rbp,
            rbx,
            r11,
            r10,
            r9,
            r8,
            rax,
            rcx,
            rdx,
            rsi,
            rdi,
            u64::MAX,
            rip,
            8,
            rflags,
            rsp,
            16,
            fs_base,
            0,
            16,
            16,
            16,
            16,
        ]
    }
}

/// Says where a guest stands and what is there: registers, code, stack. `address` is the one that it should not have used,
/// where that is known.
pub(crate) fn say_registers(memory: &Memory, layout: &Layout, registers: &Registers, address: Option<u64>) {
    let Registers { rax, rbx, rcx, rdx, rsi, rdi, rbp, rsp, numbered, rip, rflags, fs_base } = *registers;
    let [r8, r9, r10, r11, r12, r13, r14, r15] = numbered;
    if let Some(address) = address {
        say(format_args!("  address {address:#018x} ({})", layout.place(address)));
    }
    say(format_args!("  rip={rip:#018x} ({}) rflags={rflags:#010x}", layout.place(rip)));
    say(format_args!("  rsp={rsp:#018x} ({}) rbp={rbp:#018x} fs={fs_base:#018x}", layout.place(rsp)));
    say(format_args!("  rax={rax:#018x} rbx={rbx:#018x} rcx={rcx:#018x} rdx={rdx:#018x}"));
    say(format_args!("  rsi={rsi:#018x} rdi={rdi:#018x} r8 ={r8:#018x} r9 ={r9:#018x}"));
    say(format_args!("  r10={r10:#018x} r11={r11:#018x} r12={r12:#018x} r13={r13:#018x}"));
    say(format_args!("  r14={r14:#018x} r15={r15:#018x}"));
    say_memory(memory, rip, rsp);
}

/// Says what lies at these two addresses, as far as the guest's memory goes.
fn say_memory(memory: &Memory, rip: u64, rsp: u64) {
    let mut code = [0; CODE_BYTES];
    if memory.copy_out(rip, &mut code).is_ok() {
        say(format_args!("  at rip: {}", Spaced(&code, |byte, f| write!(f, "{byte:02x}"))));
    }
    let mut words = [0; STACK_WORDS];
    let mut count = 0;
    for (address, word) in (rsp..memory.end().saturating_sub(7)).step_by(8).zip(&mut words) {
        match memory.u64_at(address) {
            Ok(value) => *word = value,
            Err(_) => break,
        }
        count += 1;
    }
    if let Some(words) = words.get(..count).filter(|words| !words.is_empty()) {
        say(format_args!("  at rsp: {}", Spaced(words, |word, f| write!(f, "{word:#x}"))));
    }
}

/// Numbers beside each other, each written in one way.
struct Spaced<'a, T>(&'a [T], fn(&T, &mut fmt::Formatter<'_>) -> fmt::Result);

impl<T> fmt::Display for Spaced<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().enumerate().try_for_each(|(index, number)| {
            f.write_str(if index == 0 { "" } else { " " })?;
            self.1(number, f)
        })
    }
}

/// A text of at most `N` bytes, its end included, that is put together without allocation.
pub(crate) struct Line<const N: usize> {
    bytes: [u8; N],
    len: usize,
}

impl<const N: usize> Line<N> {
    /// An empty line.
    pub(crate) fn new() -> Line<N> {
        Line { bytes: [b' '; N], len: 0 }
    }

    /// The line with a newline behind it.
    fn ended(&mut self) -> &[u8] {
        let end = self.len.min(N - 1);
        self.bytes[end] = b'\n';
        &self.bytes[..=end]
    }

    /// The whole buffer: the text, spaces, a newline.
    pub(crate) fn padded(mut self) -> [u8; N] {
        self.bytes[N - 1] = b'\n';
        self.bytes
    }
}

impl<const N: usize> Write for Line<N> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let room = &mut self.bytes[self.len..];
        let len = text.len().min(room.len());
        room[..len].copy_from_slice(&text.as_bytes()[..len]);
        self.len += len;
        if len == text.len() { Ok(()) } else { Err(fmt::Error) }
    }
}

#[cfg(test)]
mod tests {
    //! Lines keep their bounds.
    use super::*;

    #[test]
    fn what_is_too_long_is_cut_and_ended() {
        let mut line = Line::<8>::new();
        assert!(line.write_str("0123456789").is_err());
        assert_eq!(line.ended(), b"0123456\n");
        let mut line = Line::<8>::new();
        write!(line, "abc").unwrap();
        assert_eq!(line.ended(), b"abc\n");
        let mut line = Line::<8>::new();
        write!(line, "abc").unwrap();
        assert_eq!(&line.padded(), b"abc    \n");
    }
}
