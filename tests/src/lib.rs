//! What the whole-program tests, the demo and the benchmarks share. Nothing of it is part of a program that users run.
//!
//! | room | what is in it |
//! |---|---|
//! | [`choose`] | one source of choices: a seed, a fuzzer's bytes, an odometer |
//! | [`ask`], [`images`] | what clients ask for, and the images that they send |
//! | [`albatross`] | state files of albatross |
//! | [`world`] | a simulated host around the machine of `vmmd`: disk, processes, clients, faults, crashes |
//! | [`invariants`] | what must be true after every step |
//! | [`oracle`] | what the machine must answer, worked out the slow way |
//! | [`drive`] | runs of the world: by seed, shrunk when they fail |
//! | [`checks`] | what holds for any bytes given to a decoder: shared with the fuzzers |
//! | [`seeds`] | where the fuzzers begin |
//! | [`generate`], [`render`] | messages at random, and messages as the recorded vectors write them |
//! | [`recorded`] | malformed messages as they were recorded |
//! | [`mixture`], [`acknowledged`] | clients that change everything at once, and what they were told |
//! | [`system`], [`siege`], [`raw`] | the real daemons in a private folder, under attack; a client that says any bytes |
//! | [`pages`] | the documentation, and a shell that types its lines |
//! | [`daemon`] | one daemon that a test has to itself |
//! | [`managed`] | daemons as a service manager has them |
//! | [`contents`] | setting and dumping block devices of such a system |
//! | [`pki`], [`remote`], [`tenants`] | certificates made by hand; a client that comes by TLS; a system that serves such clients |
//! | [`bridge`] | a siege in a network of its own, with a bridge |
//! | [`trace`], [`puppet`] | the system calls of a daemon; a daemon that was taken over |
//! | [`namespace`], [`dns`] | mounts and networks that vanish with their test; a server of names in such a one |

pub mod acknowledged;
pub mod albatross;
pub mod ask;
#[cfg(target_os = "linux")]
pub mod bridge;
pub mod built;
pub mod checks;
pub mod choose;
pub mod contents;
pub mod daemon;
pub mod dns;
pub mod drive;
pub mod generate;
pub mod images;
pub mod invariants;
pub mod managed;
pub mod mixture;
#[cfg(target_os = "linux")]
pub mod namespace;
pub mod oracle;
pub mod pages;
pub mod pki;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
pub mod puppet;
pub mod raw;
pub mod recorded;
pub mod remote;
pub mod render;
pub mod seeds;
pub mod siege;
pub mod skips;
pub mod system;
pub mod tenants;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
pub mod trace;
pub mod world;
