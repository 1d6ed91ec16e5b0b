//! What the daemons share of the operating system: files, sockets, framing. It moves bytes and decides nothing: what they
//! mean is for the core to say. It must compile for every system that has a shim.
//!
//! | room | what is in it |
//! |---|---|
//! | [`blocks`] | the files of block devices |
//! | [`channel`] | the socket between the two halves of `vmmd` |
//! | [`check`] | what `--check` finds |
//! | [`clients`] | those of a daemon on a Unix socket: the event loop, and one client |
//! | [`content`] | the content of block devices, on its way in and out |
//! | [`daemon`] | how a daemon begins that needs no privilege |
//! | [`disk`] | a folder, as narrow as durability needs it, so that crashes can be simulated |
//! | [`files`] | how many may be open |
//! | [`folder`] | one that stays open, and its files by their names alone |
//! | [`journal`] | the file of the desired state: append, compact, recover |
//! | [`log`] | lines for people |
//! | [`meter`] | what the statistics daemon needs of its operating system |
//! | [`privilege`] | becoming another user for good |
//! | [`renounce`] | giving up what a process was started with |
//! | [`reread`] | a file that is read at the start and again later |
//! | [`service`] | what is said to a service manager, the socket that it hands over |
//! | [`settings`] | the command line and the configuration file |
//! | [`shim`] | what a host half needs of its operating system |
//! | [`signals`] | those that a daemon is sent, as something to be read |
//! | [`socket`] | listening Unix sockets, who is on the other side |
//! | [`spool`] | bytes that arrive, until it is known what they are |
//! | [`store`] | images by their digest |
//! | [`traffic`] | what unikernels have read from and written to storage, from the host half to the statistics |
//! | [`unreadable`] | what clients send that is no message |

pub mod blocks;
pub mod channel;
pub mod check;
pub mod clients;
pub mod content;
pub mod daemon;
pub mod disk;
pub mod files;
pub mod folder;
pub mod journal;
pub mod log;
pub mod meter;
pub mod plain;
pub mod privilege;
pub mod renounce;
pub mod reread;
pub mod service;
pub mod settings;
pub mod shim;
pub mod signals;
pub mod socket;
pub mod spool;
pub mod store;
mod sys;
pub mod traffic;
pub mod unreadable;
