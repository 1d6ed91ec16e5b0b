//! Carries a plan out, one change after the other, each by the command that a person would give. The first that fails ends it.

use fulmar_core::name::Name;
use fulmar_core::wire::{BlockCommand, Command, Config, Image, Kind, PolicyCommand, Success, UnikernelCommand};

use super::manifest::{Manifest, UnikernelWish};
use super::plan::{Action, Change};
use crate::connection::{Daemon, Door};
use crate::error::Failure;
use crate::image::ImageFile;

/// What changes are made of.
pub(super) struct Means<'a> {
    pub(super) door: &'a dyn Door,
    pub(super) manifest: &'a Manifest,
    /// In the order of the manifest's unikernels.
    pub(super) images: &'a [Option<ImageFile>],
}

impl Means<'_> {
    /// Does it.
    ///
    /// # Errors
    /// What the daemon says, and all that can be wrong with a daemon.
    pub(super) fn apply(&self, change: &Change) -> Result<(), Failure> {
        let unexpected = Failure::Unexpected { daemon: Daemon::Vmmd };
        match change.action {
            Action::Destroy => self.act(change.name, Command::Unikernel(UnikernelCommand::Destroy)),
            Action::SetPolicy(index) => {
                let wish = self.manifest.policies.get(index).ok_or(unexpected)?;
                wish.policy.with_wire(|policy| self.act(wish.path, Command::Policy(PolicyCommand::Add(policy))))
            }
            Action::AddBlock(index) => {
                let wish = self.manifest.blocks.get(index).ok_or(unexpected)?;
                self.act(wish.name, Command::Block(BlockCommand::Add { size: wish.size_mb }))
            }
            Action::Create(index) | Action::Replace(index) => {
                let image = self.images.get(index).and_then(Option::as_ref);
                let wish = self.manifest.unikernels.get(index);
                let (Some(wish), Some(image)) = (wish, image) else { return Err(unexpected) };
                self.create(wish, image, matches!(change.action, Action::Replace(_)))
            }
        }
    }

    fn create(&self, wish: &UnikernelWish, image: &ImageFile, force: bool) -> Result<(), Failure> {
        let parcel = image.pack(0)?;
        wish.settings.with_arguments(|arguments| {
            let image = Image::Diverted { len: parcel.bytes() };
            let config = Config { kind: Kind::Solo5, compressed: false, image, arguments };
            let command = if force { UnikernelCommand::ForceCreate(config) } else { UnikernelCommand::Create(config) };
            let mut connection = self.door.open(Daemon::Vmmd)?;
            connection.send_around(wish.name, Command::Unikernel(command), &mut |out| parcel.write(out))?;
            done(connection.receive(wish.name)?)
        })
    }

    fn act(&self, name: Name, command: Command<'_>) -> Result<(), Failure> {
        let mut connection = self.door.open(Daemon::Vmmd)?;
        connection.send(name, command)?;
        done(connection.receive(name)?)
    }
}

/// That it was done.
fn done(success: Success<'_>) -> Result<(), Failure> {
    match success {
        Success::Text(_) | Success::Empty => Ok(()),
        _ => Err(Failure::Unexpected { daemon: Daemon::Vmmd }),
    }
}
