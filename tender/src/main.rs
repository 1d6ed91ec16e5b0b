//! `fulmar-tender` runs one Solo5 unikernel: hvt on `/dev/kvm`, spt under seccomp. It opens everything first, confines itself,
//! and only then lets the guest run: [`Prepared`](spt::Prepared), `Confined`, `Running`, each consuming the one before.
//! After it is confined it must neither allocate nor open anything.
//!
//! | room | what is in it |
//! |---|---|
//! | `arguments` | the command line, without touching the system |
//! | `device` | taps and disks, opened and checked against the manifest |
//! | `memory` | the guest's memory: the one checked door to it, the loader |
//! | `boot` | what the guest is told at the start |
//! | `seccomp` | the filter as a table of (system call, argument rules, why) |
//! | `spt`, `hvt` | the two kinds |
#![cfg_attr(all(target_os = "linux", target_arch = "x86_64", not(test)), no_main)]

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod arguments;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod boot;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod device;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod hvt;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod image;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod memory;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod refusal;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod report;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod seccomp;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod spt;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod start;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod sys;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod tap;

/// The program's start, called by the C library. The Rust runtime's own start is left out: it would put handlers on the
/// signals of faults, and an spt guest that faults must die of the signal itself.
#[cfg(all(target_os = "linux", target_arch = "x86_64", not(test)))]
#[allow(unsafe_code, reason = "the C library knows the program's start by its bare name")]
#[unsafe(no_mangle)]
extern "C" fn main(_count: std::ffi::c_int, _words: *const *const std::ffi::c_char) -> std::ffi::c_int {
    start::main()
}

/// The same where the test harness needs a start of its own.
#[cfg(all(target_os = "linux", target_arch = "x86_64", test))]
fn main() {
    std::process::exit(start::main())
}

#[cfg(not(all(target_os = "linux", target_arch = "x86_64")))]
fn main() -> std::process::ExitCode {
    eprintln!("fulmar-tender: unikernels run on Linux x86_64 only: start it there");
    std::process::ExitCode::FAILURE
}
