//! `fulmar-tender` runs one Solo5 unikernel: hvt on `/dev/kvm`, spt under seccomp. It opens everything first, gives up what it
//! is, looks at the image, gives up the kernel, and only then lets the guest run: `Prepared`, `Confined`, `Running`, each
//! consuming the one before. After it is confined it must neither allocate nor open anything.
//!
//! | room | what is in it |
//! |---|---|
//! | `arguments` | the command line, without touching the system |
//! | `start`, `opened`, `stages` | from there to a guest, step by step |
//! | `inherited`, `device`, `tap`, `disk` | what stands behind a guest's devices: opened, then checked against the manifest |
//! | `privilege` | the first half of confinement: user, capabilities, namespaces |
//! | `memory` | the guest's memory: the one checked door to it |
//! | `load`, `boot` | the image, and what the guest is told at the start |
//! | `seccomp` | the second half: the filter as a table of (system call, argument rules, why) |
//! | `spt`, `hvt` | the two kinds |
//! | `report`, `status`, `core_file` | what is said, recorded and left of a guest |
//! | `sys`, `raw` | system calls: of the set-up, and beside a guest |
#![cfg(all(target_os = "linux", target_arch = "x86_64"))]

mod arguments;
mod boot;
mod core_file;
mod device;
mod disk;
#[doc(hidden)]
pub mod fuzzing;
mod hvt;
mod image;
mod inherited;
mod load;
mod memory;
mod opened;
mod privilege;
mod raw;
mod refusal;
mod report;
mod seccomp;
mod spt;
mod stages;
pub mod start;
mod status;
mod sys;
mod tap;
mod waiting;

pub use seccomp::Row;
