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

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
fn main() -> std::process::ExitCode {
    start::main()
}

#[cfg(not(all(target_os = "linux", target_arch = "x86_64")))]
fn main() -> std::process::ExitCode {
    eprintln!("fulmar-tender: unikernels run on Linux x86_64 only: start it there");
    std::process::ExitCode::FAILURE
}
