//! What is there, as far as this client may see it.

use std::collections::{BTreeMap, BTreeSet};

use fulmar_core::machine::Digest;
use fulmar_core::name::Name;
use fulmar_core::wire::{BlockCommand, Command, Kind, PolicyCommand, Success, UnikernelCommand};

use super::settings::{Policy, Settings};
use crate::commands::full_name;
use crate::connection::{Connection, Daemon, Door};
use crate::error::Failure;

const UNEXPECTED: Failure = Failure::Unexpected { daemon: Daemon::Vmmd };

/// What is there.
#[derive(Clone, Default, Debug)]
pub(super) struct Present {
    pub(super) policies: BTreeMap<Name, Policy>,
    /// Block devices and their size in MB.
    pub(super) blocks: BTreeMap<Name, i64>,
    pub(super) unikernels: BTreeMap<Name, Unikernel>,
    /// The host's bridges, where that can be known.
    pub(super) bridges: Option<BTreeSet<String>>,
}

/// A unikernel that is there.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Unikernel {
    /// SHA-256 of its image, uncompressed; nothing where it is no image for Solo5.
    pub(super) digest: Option<Digest>,
    pub(super) settings: Settings,
}

impl Present {
    /// Asks the daemon.
    ///
    /// # Errors
    /// All that can be wrong with a daemon.
    pub(super) fn ask(door: &dyn Door) -> Result<Self, Failure> {
        let root = door.root();
        let mut present = Self::default();
        let mut connection = asked(door, root, Command::Policy(PolicyCommand::Info))?;
        let Success::Policies(listed) = connection.receive(root)? else { return Err(UNEXPECTED) };
        present.policies = listed.iter().map(|it| (full_name(root, it.name), Policy::of(&it.policy))).collect();
        let mut connection = asked(door, root, Command::Block(BlockCommand::Info))?;
        let Success::Blocks(listed) = connection.receive(root)? else { return Err(UNEXPECTED) };
        present.blocks = listed.iter().map(|it| (full_name(root, it.name), it.size)).collect();
        let mut connection = asked(door, root, Command::Unikernel(UnikernelCommand::Info))?;
        let Success::Infos(listed) = connection.receive(root)? else { return Err(UNEXPECTED) };
        for entry in listed.iter() {
            let digest = Digest::try_from(entry.info.digest).ok().filter(|_| entry.info.kind == Kind::Solo5);
            let unikernel = Unikernel { digest, settings: Settings::of(&entry.info) };
            present.unikernels.insert(full_name(root, entry.name), unikernel);
        }
        // Not every daemon of this protocol can tell.
        let host = asked(door, Name::ROOT, Command::Host);
        if let Ok(mut connection) = host
            && let Ok(Success::Host(host)) = connection.receive(Name::ROOT)
        {
            present.bridges = Some(host.bridges.iter().map(str::to_owned).collect());
        }
        Ok(present)
    }
}

fn asked(door: &dyn Door, name: Name, command: Command<'_>) -> Result<Connection, Failure> {
    let mut connection = door.open(Daemon::Vmmd)?;
    connection.send(name, command)?;
    Ok(connection)
}
