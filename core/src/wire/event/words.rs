//! Events in words, for people.

use core::fmt;
use core::net::IpAddr;

use crate::name::Name;
use crate::wire::condition::RunEnd;
use crate::wire::event::{Event, ExitStatus, Login, Loss, Next};
use crate::wire::text::Text;

/// Who asked, in brackets.
struct AskedBy(Option<i64>);

impl fmt::Display for AskedBy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.map_or(Ok(()), |user| write!(f, " (asked by user {user})"))
    }
}

/// What is said about a name: a path has its colon already.
struct Heading<'a>(&'a Name);

impl fmt::Display for Heading<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.0, if self.0.is_path() { "" } else { ":" })
    }
}

impl fmt::Display for Event<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Startup => f.write_str("the daemon started"),
            Self::Login(login) => write!(f, "{} came from {login}", login.name),
            Self::Logout(login) => write!(f, "{} went, from {login}", login.name),
            Self::Proof { name, serials } => write!(f, "{} by the certificates {serials}", Heading(name)),
            Self::Start { name, pid, taps, block } => {
                write!(f, "{name} runs: process {pid}")?;
                taps.iter().try_for_each(|tap| write!(f, ", network {}", Text(tap.as_bytes())))?;
                block.map_or(Ok(()), |block| write!(f, ", block device {}", Text(block.as_bytes())))
            }
            Self::Stop { name, status, .. } => match status {
                ExitStatus::Exit(code) => write!(f, "{name} ended: {}", RunEnd::Code(*code)),
                ExitStatus::Signal(signal) => write!(f, "{name} ended: {}", RunEnd::Signal(*signal)),
                ExitStatus::Stop(signal) => write!(f, "{name} was stopped by signal {signal}"),
            },
            Self::Hup => f.write_str("the daemon was told to open its files again"),
            Self::Daemon { program, version, up } => {
                let (program, version) = (Text(program.as_bytes()), Text(version.as_bytes()));
                write!(f, "{program} {version} {}", if *up { "started" } else { "ended" })
            }
            Self::Done { name, deed, user } => write!(f, "{} {}{}", Heading(name), deed.as_str(), AskedBy(*user)),
            Self::Refused { name, reason, user } => {
                write!(f, "{} refused: {reason}{}", Heading(name), AskedBy(*user))
            }
            Self::Ended { name, end, asked, .. } => {
                write!(f, "{name} ended: {end}{}", if *asked { ", as it was told" } else { "" })
            }
            Self::Decided { name, next, reason } => match next {
                Next::Rest { seconds, failures } => {
                    write!(
                        f,
                        "{name} does not run, next try in {seconds} s (short runs in a row: {failures}): {reason}"
                    )
                }
                Next::Again { restarts } => write!(f, "{name} is started again, restart {restarts}: {reason}"),
                Next::Never => write!(f, "{name} is not started again: {reason}"),
                Next::Stays => write!(f, "{name} does not run: {reason}"),
            },
            Self::Revoked { name, number, count } => {
                write!(f, "{} revoked certificates: list {number} with {count} of them", Heading(name))
            }
            Self::Trouble { name, reason } if name.is_root() => write!(f, "{reason}"),
            Self::Trouble { name, reason } => write!(f, "{name} {reason}"),
            Self::Lost { count, loss } => match loss {
                Loss::Away => write!(f, "{count} events are lost: the log daemon was not there"),
                Loss::Disk => write!(f, "{count} events are lost: the disk of the log took no more"),
                Loss::Torn => {
                    write!(f, "{count} bytes of the log are lost: it was being written when everything stopped")
                }
                Loss::Refusals => write!(f, "{count} more commands were refused"),
            },
        }
    }
}

impl fmt::Display for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.address {
            IpAddr::V4(address) => write!(f, "{address}:{}", self.port),
            IpAddr::V6(address) => write!(f, "[{address}]:{}", self.port),
        }
    }
}
