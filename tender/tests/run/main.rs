//! The real tender on real unikernels, built from `guest/` by the same code as everywhere else. What needs `/dev/kvm` is
//! skipped loudly where that does not open.
#![cfg(all(target_os = "linux", target_arch = "x86_64"))]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests may panic")]

mod abuse;
mod command_line;
mod confinement;
mod crash;
mod debugging;
mod devices;
mod disks;
mod echo;
mod frames;
mod guests;
mod images;
mod life;
mod process;
mod readme;
mod stack;
mod status;
mod tender;
mod web;
