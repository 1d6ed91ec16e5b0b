//! Everything that can go wrong in a client, and the one table from that to the exit code.
//!
//! Each text is one line that names the thing and says what to do. Exit codes are those that albatross's users know.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use fulmar_core::der::Malformed;
use fulmar_core::solo5::ImageError;

use crate::connection::Daemon;
use crate::deploy::Fault;
use crate::deploy::show::counted;
use crate::devices::DeviceFault;
use crate::output::text::{heading, plain};
use crate::pki::chain::ChainFault;

/// Why a command did not succeed.
#[derive(Debug)]
pub enum Failure {
    /// The daemon said no.
    Refused {
        /// What the command was about.
        name: String,
        /// The daemon's reason.
        text: String,
    },
    /// No connection to the daemon.
    Connect {
        /// Which daemon.
        daemon: Daemon,
        /// Where it should be.
        place: String,
        /// What the operating system says.
        error: io::Error,
    },
    /// The connection broke.
    Lost {
        /// Which daemon.
        daemon: Daemon,
        /// What the operating system says.
        error: io::Error,
    },
    /// The daemon closed the connection before it had answered.
    Closed {
        /// Which daemon.
        daemon: Daemon,
    },
    /// The daemon ended what would have gone on.
    Ended {
        /// Which daemon.
        daemon: Daemon,
    },
    /// Nothing came for this long.
    Silent {
        /// Which daemon.
        daemon: Daemon,
        /// How long we waited.
        time_out: Duration,
    },
    /// A reply that would be larger than any lawful one.
    Oversize {
        /// Which daemon.
        daemon: Daemon,
        /// Bytes that it announced.
        bytes: u64,
    },
    /// A reply that is none.
    Garbled {
        /// Which daemon.
        daemon: Daemon,
        /// What is wrong with it.
        error: Malformed,
    },
    /// A lawful message that does not answer the command.
    Unexpected {
        /// Which daemon.
        daemon: Daemon,
    },
    /// An image or a content from a daemon that cannot be uncompressed.
    Inflate {
        /// What the decompressor says.
        error: io::Error,
    },
    /// A value on the command line that is not possible.
    Usage {
        /// What and why.
        text: String,
    },
    /// An image that is none, or cannot run here.
    Image {
        /// Its file.
        file: PathBuf,
        /// Why.
        error: ImageError,
    },
    /// The devices given are not those of the image's manifest.
    Devices {
        /// The image's file.
        file: PathBuf,
        /// What is missing and what is too much.
        faults: Vec<DeviceFault>,
    },
    /// The image needs more memory.
    Memory {
        /// The image's file.
        file: PathBuf,
        /// MiB that were given.
        given_mib: u32,
        /// MiB that it needs at the least.
        needed_mib: u64,
    },
    /// A file given by the user that cannot be read.
    Input {
        /// The file.
        file: PathBuf,
        /// What the operating system says.
        error: io::Error,
    },
    /// A file that the result cannot be written to.
    Output {
        /// The file.
        file: PathBuf,
        /// What the operating system says.
        error: io::Error,
    },
    /// Standard output cannot be written.
    Print {
        /// What the operating system says.
        error: io::Error,
    },
    /// The request does not fit a message.
    TooLarge,
    /// A state file of albatross that is none.
    State {
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        error: Malformed,
    },
    /// Who answers is albatross.
    NotOurs {
        /// Who should answer.
        daemon: Daemon,
    },
    /// No connection to a host.
    Reach {
        /// The host and its port.
        place: String,
        /// What the operating system says.
        error: io::Error,
    },
    /// The connection broke, or nothing came, before the certificates were exchanged.
    Handshake {
        /// The host and its port.
        place: String,
        /// What the operating system or TLS says.
        error: io::Error,
    },
    /// The certificate of the server is not one to trust; nothing was sent.
    Server {
        /// The host and its port.
        place: String,
        /// Why.
        reason: String,
    },
    /// The server does not take our certificates.
    OwnRefused {
        /// The host and its port.
        place: String,
        /// What it says about them.
        reason: String,
    },
    /// Our own chain of certificates cannot be used; nothing was sent.
    Chain(ChainFault),
    /// The machine has no chance to give, or a key does not sign.
    Chance,
    /// No failure: the command was put aside instead of being sent, so there is no reply to wait for.
    PutAside,
    /// A manifest with mistakes, or one that cannot be; nothing was changed.
    Manifest {
        /// Its file.
        file: PathBuf,
        /// What is wrong.
        faults: Vec<Fault>,
    },
    /// No failure: what would change was shown and is not to be changed.
    Unapplied {
        /// How many changes that is.
        changes: usize,
    },
    /// Not all of an import came over; what did not has been said.
    Incomplete {
        /// What did not.
        lost: usize,
        /// Of how many.
        items: usize,
        /// Nothing was to come over yet.
        dry_run: bool,
    },
}

impl Failure {
    /// The exit code of the process.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            // Whoever read our output has read enough.
            Self::Print { error } if error.kind() == io::ErrorKind::BrokenPipe => 0,
            Self::PutAside => 0,
            Self::Unapplied { .. } => 1,
            Self::Chain(_) => 116,
            Self::OwnRefused { .. } => 119,
            Self::Server { .. } => 120,
            Self::Refused { .. } | Self::Incomplete { .. } => 117,
            Self::Lost { .. }
            | Self::Handshake { .. }
            | Self::Closed { .. }
            | Self::Ended { .. }
            | Self::Silent { .. }
            | Self::Oversize { .. }
            | Self::Garbled { .. }
            | Self::Unexpected { .. }
            | Self::NotOurs { .. }
            | Self::Inflate { .. } => 121,
            Self::Connect { .. } | Self::Reach { .. } => 122,
            Self::Usage { .. }
            | Self::Image { .. }
            | Self::Devices { .. }
            | Self::Memory { .. }
            | Self::Input { .. }
            | Self::State { .. }
            | Self::Manifest { .. }
            | Self::TooLarge => 124,
            Self::Output { .. } | Self::Print { .. } | Self::Chance => 125,
        }
    }

    /// Standard output failed.
    #[must_use]
    pub fn print(error: io::Error) -> Self {
        Self::Print { error }
    }
}

impl std::error::Error for Failure {}

impl From<ChainFault> for Failure {
    fn from(fault: ChainFault) -> Self {
        Self::Chain(fault)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            // What is about everything is about nothing in particular.
            Self::Refused { name, text } if name == ":" => f.write_str(&plain(text.as_bytes())),
            Self::Refused { name, text } => write!(f, "{} {}", heading(name), plain(text.as_bytes())),
            Self::Connect { daemon, place, error } => write_connect(f, *daemon, place, error),
            Self::Lost { daemon, error } => write!(f, "the connection to {daemon} broke ({error}): see {daemon}'s log"),
            Self::Closed { daemon } => {
                write!(f, "{daemon} closed the connection without a reply: see {daemon}'s log")
            }
            Self::Ended { daemon } => {
                write!(
                    f,
                    "the stream has ended, {daemon} or the way to it was closed: see {daemon}'s log, and follow again"
                )
            }
            Self::Silent { daemon, time_out } => write!(
                f,
                "{daemon} sent nothing for {} s, the command may have been done or not: look with 'info', see {daemon}'s log",
                time_out.as_secs_f32()
            ),
            Self::Oversize { daemon, bytes } => {
                write!(f, "{daemon} announced a reply of {bytes} bytes, which no reply has: is it {daemon} at all?")
            }
            Self::Garbled { daemon, error } => {
                write!(f, "the reply of {daemon} cannot be read ({error}): use a client of the daemon's version")
            }
            Self::Unexpected { daemon } => {
                write!(f, "{daemon} did not answer what was asked: use a client of the daemon's version")
            }
            Self::Inflate { error } => {
                write!(f, "what the daemon sent cannot be uncompressed ({error}): try --compression-level 0")
            }
            Self::Usage { text } => f.write_str(text),
            Self::Image { file, error } => write!(f, "{}: {error}", file.display()),
            Self::Devices { file, faults } => {
                write!(f, "{}: the devices given are not those of its manifest", file.display())?;
                for (index, fault) in faults.iter().enumerate() {
                    write!(f, "{} {fault}", if index == 0 { ':' } else { ';' })?;
                }
                Ok(())
            }
            Self::Memory { file, given_mib, needed_mib } => write!(
                f,
                "{}: it needs more than the given {given_mib} MB of memory: add --mem {needed_mib} or more",
                file.display()
            ),
            Self::Input { file, error } => write!(f, "{}: cannot be read ({error}): check the file", file.display()),
            Self::Output { file, error } if error.kind() == io::ErrorKind::AlreadyExists => {
                write!(f, "{}: is there already and is not overwritten: give another file", file.display())
            }
            Self::Output { file, error } => {
                write!(f, "{}: cannot be written ({error}): give another file", file.display())
            }
            Self::Print { error } => write!(f, "standard output cannot be written ({error})"),
            Self::State { file, error } => write!(
                f,
                "{}: is no state file of albatross, or is damaged (at byte {}: {}): try state.bak beside it",
                file.display(),
                error.at,
                error.reason
            ),
            Self::Reach { place, error } => write!(
                f,
                "{place} cannot be reached ({error}): check the host and the port, and that vmmd_tls runs there; nothing was sent"
            ),
            Self::Handshake { place, error } => {
                write!(f, "{place} does not speak TLS 1.3 with us ({error}): is it vmmd_tls? see its log")
            }
            Self::Server { place, reason } => {
                write!(f, "the server at {place} is not to be trusted: {reason}; nothing was sent")
            }
            Self::OwnRefused { place, reason } => {
                write!(f, "{place} does not take our certificates: {reason}; check with vmmp_ca inspect CERT --ca CA")
            }
            Self::Chain(fault) => write!(f, "{fault}"),
            Self::Chance => {
                f.write_str("this machine gives no random numbers, or the key does not sign: nothing was made")
            }
            Self::PutAside => f.write_str("put aside"),
            Self::Manifest { file, faults } => {
                write!(f, "{}: nothing was changed:", file.display())?;
                faults.iter().try_for_each(|fault| write!(f, "\n  {}", plain(fault.to_string().as_bytes())))
            }
            Self::Unapplied { changes } => write!(f, "{}, nothing was changed", counted(*changes)),
            Self::NotOurs { daemon } => {
                write!(
                    f,
                    "what answers in the place of {daemon} is albatross: stop it and start {daemon}, or give --run DIR"
                )
            }
            Self::Incomplete { lost, items, dry_run } => write!(
                f,
                "{lost} of {items} {} not come over: mend what is said above and import again, what is there already stays",
                if *dry_run { "would" } else { "did" }
            ),
            Self::TooLarge => f.write_str("the command does not fit a message: give fewer or shorter arguments"),
        }
    }
}

fn write_connect(f: &mut fmt::Formatter<'_>, daemon: Daemon, place: &str, error: &io::Error) -> fmt::Result {
    match error.kind() {
        io::ErrorKind::NotFound => write!(f, "{daemon} is not running at {place}: start it, or give --run DIR"),
        io::ErrorKind::ConnectionRefused => {
            write!(f, "nobody listens at {place}: {daemon} has ended, start it again")
        }
        io::ErrorKind::PermissionDenied => {
            write!(f, "no permission for {place}: run this as root or as a member of the group of {daemon}")
        }
        io::ErrorKind::TimedOut => {
            write!(f, "{daemon} at {place} does not take the connection: it is stuck or busy, try again or see its log")
        }
        _ => write!(f, "{daemon} at {place} cannot be reached ({error}): check --run DIR"),
    }
}
