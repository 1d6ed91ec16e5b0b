//! Where an import goes: to the running daemon, or to a machine that stands for it ([`super::rehearsal`]).

use fulmar_core::machine::StoreError;
use fulmar_core::name::Name;
use fulmar_core::wire::{
    BlockCommand, Command, Config, Image, Policy, PolicyCommand, Success, UnikernelCommand, Window,
};

use super::image::{self, Seen};
use super::state::BlockFile;
use crate::connection::{Daemon, Door};
use crate::error::Failure;

/// Something that unikernels can be brought to. What it will not have it says by [`Failure::Refused`].
pub(super) trait Host {
    /// Sets the policy of a path.
    fn set_policy(&mut self, path: Name, policy: &Policy<'_>) -> Result<(), Failure>;

    /// Makes a block device, full of zeros.
    fn add_block(&mut self, name: Name, size_mb: i64) -> Result<(), Failure>;

    /// Removes a block device again whose content did not come over.
    fn remove_block(&mut self, name: Name) -> Result<(), Failure>;

    /// Fills a block device that is there with the content of this file.
    fn fill_block(&mut self, file: &BlockFile) -> Result<(), Failure>;

    /// Creates a unikernel, and runs it.
    fn create(&mut self, name: Name, config: &Config<'_>, seen: &Result<Seen, StoreError>) -> Result<(), Failure>;
}

/// The running daemon.
#[derive(Clone, Copy)]
pub(super) struct Running<'a>(pub(super) &'a dyn Door);

impl Running<'_> {
    fn act(self, name: Name, command: Command<'_>) -> Result<(), Failure> {
        let mut connection = self.0.open(Daemon::Vmmd)?;
        connection.send(name, command)?;
        done(connection.receive(name)?)
    }
}

/// That it was done.
pub(super) fn done(success: Success<'_>) -> Result<(), Failure> {
    match success {
        Success::Text(_) | Success::Empty => Ok(()),
        _ => Err(Failure::Unexpected { daemon: Daemon::Vmmd }),
    }
}

impl Host for Running<'_> {
    fn set_policy(&mut self, path: Name, policy: &Policy<'_>) -> Result<(), Failure> {
        self.act(path, Command::Policy(PolicyCommand::Add(*policy)))
    }

    fn add_block(&mut self, name: Name, size: i64) -> Result<(), Failure> {
        self.act(name, Command::Block(BlockCommand::Add { size }))
    }

    fn remove_block(&mut self, name: Name) -> Result<(), Failure> {
        self.act(name, Command::Block(BlockCommand::Remove))
    }

    fn fill_block(&mut self, file: &BlockFile) -> Result<(), Failure> {
        super::content::fill(self.0, file)
    }

    fn create(&mut self, name: Name, config: &Config<'_>, _: &Result<Seen, StoreError>) -> Result<(), Failure> {
        let octets = image::octets(config);
        let image = match octets.len() as u64 {
            0 => Image::Inline(octets),
            len => Image::Diverted { len },
        };
        let mut connection = self.0.open(Daemon::Vmmd)?;
        let command = Command::Unikernel(UnikernelCommand::Create(Config { image, ..*config }));
        connection.send_around(name, command, &mut |out| out.write_all(octets).map_err(Failure::print))?;
        done(connection.receive(name)?)
    }
}

/// Whether who answers here is `vmmd` and not albatross, which has the same socket: the one refuses a command of the event
/// log with a text, the other closes the connection, as it does where it cannot decode.
pub(super) fn is_vmmd(door: &dyn Door) -> Result<bool, Failure> {
    let mut connection = door.open(Daemon::Vmmd)?;
    connection.send(Name::ROOT, Command::Log(Window::Count(0)))?;
    match connection.receive(Name::ROOT) {
        Ok(_) | Err(Failure::Refused { .. }) => Ok(true),
        Err(Failure::Closed { .. }) => Ok(false),
        Err(failure) => Err(failure),
    }
}
