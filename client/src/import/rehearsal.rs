//! An import that changes nothing: the daemon's own machine, with all that the daemon has, is asked instead of the daemon, and
//! every disk and every process that it wants does what it is told. So what is refused here is refused there, in the same words.

use std::collections::VecDeque;
use std::thread;

use fulmar_core::halves::Unit;
use fulmar_core::journal::Record;
use fulmar_core::limits::FRAME_HEAD_BYTES_MAX;
use fulmar_core::machine::{Effect, Input, Now, Product, Spooled, StoreError, StoredImage, Tenders};
use fulmar_core::name::Name;
use fulmar_core::wire::{
    self, BlockCommand, Command, Config, Frame, Header, Payload, Policy, PolicyCommand, UnikernelCommand,
};

use super::content;
use super::host::{Host, done};
use super::image::{self, Seen};
use super::present::Present;
use super::state::BlockFile;
use crate::connection::{Daemon, refused};
use crate::error::Failure;

/// The machine is as large as a host's and passes over the stack once, where nothing optimises that away.
const STACK_BYTES: usize = 128 << 20;

/// The connection that asks.
const CONNECTION: u16 = 0;

/// Nothing here takes time.
const NOW: Now = Now { ms: 0, wall_ms: 0 };

/// What stands before a message.
const LENGTH_BYTES: usize = 4;

const UNEXPECTED: Failure = Failure::Unexpected { daemon: Daemon::Vmmd };

/// The machine that stands for the daemon.
pub(super) struct Rehearsal {
    machine: Box<Product>,
}

impl Rehearsal {
    /// A machine that has what the daemon has.
    pub(super) fn new(present: &Present, tenders: Tenders) -> Result<Self, Failure> {
        let made = thread::Builder::new().stack_size(STACK_BYTES).spawn(|| Box::new(Product::new()));
        let made = made.ok().and_then(|thread| thread.join().ok());
        let no_memory = || Failure::Usage { text: "not enough memory for a dry run".to_owned() };
        let mut rehearsal = Self { machine: made.ok_or_else(no_memory)? };
        rehearsal.restore(present, tenders).ok_or(UNEXPECTED)?;
        Ok(rehearsal)
    }

    /// Takes in what the daemon has, as the daemon does at its start; nothing where a listing makes no sense.
    fn restore(&mut self, present: &Present, tenders: Tenders) -> Option<()> {
        let machine = &mut self.machine;
        for (path, policy) in &present.policies {
            machine.restore(&Record::Policy { path: path.as_str(), policy: &policy.der }).ok()?;
        }
        for (name, block) in &present.blocks {
            let size_mb = u64::try_from(block.size_mb).ok()?;
            machine.restore(&Record::Block { name: name.as_str(), size_mb }).ok()?;
        }
        for (unit, (name, unikernel)) in (1..).zip(&present.unikernels) {
            let record = Record::Unikernel {
                name: name.as_str(),
                unit,
                digest: unikernel.digest.unwrap_or_default(),
                // What is there already is not launched again, so neither this nor what runs its image is looked at.
                image_bytes: 0,
                target: if unikernel.digest.is_some() { 1 } else { 3 },
                arguments: &unikernel.arguments,
            };
            machine.restore(&record).ok()?;
        }
        let blocks: Vec<(u16, u64)> = machine.blocks().map(|(slot, block)| (slot, block.bytes())).collect();
        for (slot, bytes) in blocks {
            self.handle(Input::BlockFile { slot, bytes: Some(bytes) }, None);
        }
        self.handle(Input::Host { root: &present.root, tenders }, None);
        for (unit, account) in (1..).zip(0..u16::try_from(present.unikernels.len()).ok()?) {
            self.handle(Input::Survivor { unit: Unit(unit), account, started_wall_ms: 0, told: false }, None);
        }
        self.handle(Input::Start, None);
        Some(())
    }

    /// Hands in one input and does all that follows from it, each thing with success; an image is what was `seen` of it.
    fn handle(&mut self, input: Input<'_>, seen: Option<&Result<Seen, StoreError>>) {
        self.machine.handle(NOW, input);
        let mut effects = VecDeque::new();
        loop {
            effects.extend(std::iter::from_fn(|| self.machine.next_effect()));
            let Some(effect) = effects.pop_front() else { return };
            if let Some(outcome) = self.outcome(effect, seen) {
                self.machine.handle(NOW, outcome);
            }
        }
    }

    /// How an effect ends; nothing where nobody wants to know.
    fn outcome<'s>(&self, effect: Effect, seen: Option<&'s Result<Seen, StoreError>>) -> Option<Input<'s>> {
        match effect {
            Effect::Append(change) => Some(Input::Appended { change, outcome: Ok(()) }),
            Effect::MakeBlock { slot, .. } => Some(Input::BlockMade { slot, outcome: Ok(()) }),
            Effect::SetContent { slot, .. } => Some(Input::ContentSet { slot, outcome: Ok(()) }),
            Effect::RemoveBlock { slot } => Some(Input::BlockRemoved { slot }),
            Effect::Launch { slot } => {
                let unit = Unit(self.machine.unikernel(slot)?.unit());
                Some(Input::Launched { unit, outcome: Ok(()) })
            }
            Effect::Store { slot } => {
                let outcome = match seen? {
                    Ok(Seen { digest, bytes, facts }) => Ok(StoredImage { digest: *digest, bytes: *bytes, facts }),
                    Err(error) => Err(*error),
                };
                Some(Input::Stored { slot, outcome })
            }
            Effect::Reply { .. }
            | Effect::Release { .. }
            | Effect::Collect
            | Effect::Inspect { .. }
            | Effect::Signal { .. }
            | Effect::Rest { .. } => None,
        }
    }

    /// What the daemon would say to this command.
    fn ask(
        &mut self,
        name: Name,
        command: Command<'_>,
        image: Option<Spooled>,
        seen: Option<&Result<Seen, StoreError>>,
    ) -> Result<(), Failure> {
        let (connection, header) = (CONNECTION, Header::new(0, name));
        self.handle(Input::Command { connection, header: &header, command: &command, image }, seen);
        // As it would be sent: what a client is told is written nowhere else.
        let mut buffer = vec![0; FRAME_HEAD_BYTES_MAX];
        let frame = self.machine.encode_reply(CONNECTION, &mut buffer).map_err(|_| UNEXPECTED)?;
        let message = frame.get(LENGTH_BYTES..).map(|message| wire::decode(Frame::whole(message)));
        match message.ok_or(UNEXPECTED)?.map_err(|_| UNEXPECTED)?.payload {
            Payload::Success(success) => done(success),
            Payload::Failure(text) => Err(refused(name, text)),
            _ => Err(UNEXPECTED),
        }
    }
}

impl Host for Rehearsal {
    fn set_policy(&mut self, path: Name, policy: &Policy<'_>) -> Result<(), Failure> {
        self.ask(path, Command::Policy(PolicyCommand::Add(*policy)), None, None)
    }

    fn add_block(&mut self, name: Name, size: i64) -> Result<(), Failure> {
        self.ask(name, Command::Block(BlockCommand::Add { size }), None, None)
    }

    fn remove_block(&mut self, name: Name) -> Result<(), Failure> {
        self.ask(name, Command::Block(BlockCommand::Remove), None, None)
    }

    fn fill_block(&mut self, file: &BlockFile) -> Result<(), Failure> {
        if content::is_zeros(file)? {
            return Ok(());
        }
        self.ask(file.name, Command::Block(BlockCommand::Set { compressed: true }), None, None)
    }

    fn create(&mut self, name: Name, config: &Config<'_>, seen: &Result<Seen, StoreError>) -> Result<(), Failure> {
        let image = (!image::octets(config).is_empty()).then_some(Spooled { spool: 0 });
        let command = Command::Unikernel(UnikernelCommand::Create(*config));
        self.ask(name, command, image, Some(seen))
    }
}
