//! What the certificates of a chain say together: who it is, by which policies, and what is to be done (`docs/wire.md`, certificates).
//! Whoever calls this has seen that each is signed by the one above it and the highest by the CA.

use core::fmt;

use super::decode;
use super::x509::{Certificate, Unreadable};
use crate::der::Malformed;
use crate::limits::{CHAIN_CERTIFICATES_MAX, CHAIN_POLICIES_MAX};
use crate::name::{Name, NameError};
use crate::wire::{Command, ConsoleCommand, NamedPolicy, PolicyCommand, StatsCommand};

/// What a chain says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chain<'a> {
    /// Of whom, or of what: the labels of the certificates, from the top down.
    pub name: Name,
    /// The policies of all paths down to that of `name` that are not the root, from the top down.
    pub policies: heapless::Vec<NamedPolicy<'a>, CHAIN_POLICIES_MAX>,
    /// What is to be done.
    pub command: Command<'a>,
}

/// Why a chain is refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ChainRefused {
    /// Which certificate: 0 is the leaf, 1 is the one that has signed it.
    pub at: usize,
    /// What is wrong with it.
    pub fault: ChainFault,
}

/// What is wrong with a certificate of a chain.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ChainFault {
    /// There are too many below it.
    TooLong,
    /// It cannot be read.
    Unreadable(Unreadable),
    /// Its key is not for what it is used for.
    KeyUsage,
    /// What it carries cannot be read.
    Extension(Malformed),
    /// It carries a policy, for which it must have a common name.
    NoLabel,
    /// Its common name is no label, or one too many.
    Label(NameError),
    /// It is no leaf, and carries something else than a policy.
    NotPolicy,
    /// It is a leaf, and carries nothing.
    NoCommand,
    /// It is a leaf, and carries a command that is none for clients that come from afar.
    Command,
}

impl fmt::Display for ChainRefused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.at {
            0 => f.write_str("the certificate is refused: ")?,
            at => write!(f, "the issuer's certificate (number {at} above the leaf) is refused: ")?,
        }
        match &self.fault {
            ChainFault::TooLong => write!(f, "a chain has at most {CHAIN_CERTIFICATES_MAX} certificates"),
            ChainFault::Unreadable(unreadable) => unreadable.fmt(f),
            ChainFault::KeyUsage => f.write_str("its key usage does not allow what it is used for"),
            ChainFault::Extension(malformed) => write!(f, "its command cannot be read: {malformed}"),
            ChainFault::NoLabel => f.write_str("it carries a policy and has no common name: whose policy is it?"),
            ChainFault::Label(error) => write!(f, "its common name: {error}"),
            ChainFault::NotPolicy => f.write_str("above the leaf nothing but a policy can be carried"),
            ChainFault::NoCommand => f.write_str("it carries no command"),
            ChainFault::Command => f.write_str("this command cannot be given by a certificate"),
        }
    }
}

impl core::error::Error for ChainRefused {}

/// Judges a chain: the leaf, and the certificates above it from the one that has signed the leaf upwards, without the CA's own.
///
/// # Errors
/// [`ChainRefused`], for the highest certificate with a fault.
pub fn judge<'a>(leaf: &'a [u8], above: &[&'a [u8]]) -> Result<Chain<'a>, ChainRefused> {
    let mut path = Name::ROOT;
    let mut policies = heapless::Vec::new();
    for (index, der) in above.iter().enumerate().rev() {
        let at = index.saturating_add(1);
        let refused = |fault| ChainRefused { at, fault };
        let certificate = Certificate::read(der).map_err(|error| refused(ChainFault::Unreadable(error)))?;
        if !certificate.may_sign_certificates() {
            return Err(refused(ChainFault::KeyUsage));
        }
        let Some(extension) = certificate.extension else { continue };
        let command = decode(extension).map_err(|error| refused(ChainFault::Extension(error)))?;
        let Command::Policy(PolicyCommand::Add(policy)) = command else { return Err(refused(ChainFault::NotPolicy)) };
        let label = certificate.common_name.ok_or(refused(ChainFault::NoLabel))?;
        path = join(&path, label, Name::join_path).map_err(|error| refused(ChainFault::Label(error)))?;
        let named = NamedPolicy { name: path, policy };
        policies.push(named).map_err(|_| refused(ChainFault::TooLong))?;
    }
    let refused = |fault| ChainRefused { at: 0, fault };
    let certificate = Certificate::read(leaf).map_err(|error| refused(ChainFault::Unreadable(error)))?;
    if !certificate.may_sign_handshakes() {
        return Err(refused(ChainFault::KeyUsage));
    }
    let extension = certificate.extension.ok_or(refused(ChainFault::NoCommand))?;
    let command = decode(extension).map_err(|error| refused(ChainFault::Extension(error)))?;
    if !is_for_leaves(&command) {
        return Err(refused(ChainFault::Command));
    }
    let name = match certificate.common_name {
        None | Some(b"." | b":") => path,
        Some(label) => join(&path, label, Name::join).map_err(|error| refused(ChainFault::Label(error)))?,
    };
    Ok(Chain { name, policies, command })
}

fn join(path: &Name, label: &[u8], join: impl Fn(&Name, &str) -> Result<Name, NameError>) -> Result<Name, NameError> {
    crate::name::check_label(label)?;
    // A label is ASCII.
    join(path, core::str::from_utf8(label).unwrap_or_default())
}

/// Whether a leaf may carry this. What only daemons say to each other it may not, nor a policy: those of its chain are set anyway.
fn is_for_leaves(command: &Command<'_>) -> bool {
    match command {
        Command::Unikernel(_)
        | Command::Block(_)
        | Command::Policy(PolicyCommand::Info)
        | Command::Console(ConsoleCommand::Subscribe(_) | ConsoleCommand::ListInactive)
        | Command::Stats(StatsCommand::Subscribe)
        | Command::Log(_)
        | Command::Events(_)
        | Command::Host
        | Command::Revoke { .. } => true,
        Command::Policy(PolicyCommand::Add(_) | PolicyCommand::Remove | PolicyCommand::Chain(_))
        | Command::Console(ConsoleCommand::Add { .. })
        | Command::Stats(StatsCommand::Add { .. } | StatsCommand::Remove | StatsCommand::Initial) => false,
    }
}
