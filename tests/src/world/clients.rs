//! Clients: what they ask, what they are told, and what they may rely on afterwards.

use std::collections::{BTreeMap, BTreeSet};

use fulmar_core::machine::{
    BlockFileError, BlockRefused, BlockStage, Digest, Done, Input, Pending, Refusal, Reply, Spooled, Stage, Unikernel,
};
use fulmar_core::name::Name;
use fulmar_core::wire::{Command, Frame, Header, Payload, Success, decode};

use super::{Violation, World};
use crate::ask::{Ask, Flaw, Wish};
use crate::images::IMAGES;
use crate::oracle::{self, Verdict};

/// A command that is under way.
#[derive(Clone, Debug)]
pub struct Question {
    /// What was asked.
    pub ask: Ask,
    /// The number in its header.
    pub sequence: u64,
    /// What the machine must say, worked out when it was asked.
    pub verdict: Verdict,
    /// The number of the unikernel that a create made.
    pub unit: u64,
}

impl Question {
    /// What it wants to be on a block device.
    pub(crate) fn content(&self) -> u64 {
        match self.ask.wish {
            Wish::BlockSet => self.sequence,
            Wish::BlockOldSet(octets) | Wish::BlockOldAdd(_, octets) if octets.is_held() => self.sequence,
            _ => 0,
        }
    }
}

/// A unikernel that was acknowledged.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Acknowledged {
    /// Its image.
    pub digest: Digest,
    /// Its arguments.
    pub arguments: Vec<u8>,
    /// Its number.
    pub unit: u64,
    /// Whether it has ended for good, by itself.
    pub over: bool,
}

/// What clients know to be so.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Known {
    /// Unikernels that are desired.
    pub unikernels: BTreeMap<Name, Acknowledged>,
    /// Policies, in DER.
    pub policies: BTreeMap<Name, Vec<u8>>,
    /// Block devices and their sizes, MiB.
    pub blocks: BTreeMap<Name, u64>,
    /// What may be on them.
    pub contents: BTreeMap<Name, BTreeSet<u64>>,
    /// Names and paths of which a change failed so that a crash may still bring it about.
    pub unsure: BTreeSet<Name>,
}

impl Known {
    fn unit_runs_again(&mut self, unit: u64) {
        self.unikernels.values_mut().filter(|it| it.unit == unit).for_each(|it| it.over = false);
    }

    pub(super) fn unit_is_over(&mut self, unit: u64) {
        self.unikernels.values_mut().filter(|it| it.unit == unit).for_each(|it| it.over = true);
    }
}

impl<const U: usize, const P: usize, const B: usize, const C: usize, const A: usize> World<U, P, B, C, A> {
    pub(super) fn ask(&mut self, connection: u16, ask: Ask) -> Result<(), Violation> {
        let Some(None) = self.clients.get(usize::from(connection)) else { return Ok(()) };
        if self.budget.commands == 0 {
            return Ok(());
        }
        self.budget.commands -= 1;
        self.sequence += 1;
        let (sequence, verdict) = (self.sequence, oracle::judge(self, &ask));
        let restarts = matches!(verdict, Verdict::Restart);
        let question = Question { ask, sequence, verdict, unit: 0 };
        self.clients[usize::from(connection)] = Some(question);
        let bytes = ask.encode(sequence);
        let message = decode(Frame::whole(&bytes)).map_err(|error| format!("own command: {error}"))?;
        let Payload::Command(command) = message.payload else { return Err("no command came back".into()) };
        let image = match ask.wish {
            Wish::Create(spec) | Wish::ForceCreate(spec) if spec.flaw != Flaw::NoImage => {
                Some(Spooled { spool: u32::try_from(spec.image).unwrap_or(0) })
            }
            Wish::BlockOldSet(octets) | Wish::BlockOldAdd(_, octets) if octets.is_held() => {
                Some(Spooled { spool: u32::try_from(sequence).unwrap_or(0) })
            }
            _ => None,
        };
        if let Some((_, unikernel)) = self.machine.find(&ask.name).filter(|_| restarts) {
            // Whoever wants it to run again takes back that it has ended for good.
            let unit = unikernel.unit();
            self.ended.remove(&unit);
            self.known.unit_runs_again(unit);
        }
        self.give(connection, &message.header, &command, image)?;
        let made = self.machine.find_successor(&ask.name).or_else(|| self.machine.find(&ask.name));
        let unit = made.map_or(0, |(_, unikernel)| unikernel.unit());
        let makes =
            |wish| matches!(wish, Wish::Create(_) | Wish::ForceCreate(_) | Wish::RestartWith(_) | Wish::Restart);
        let waits = match self.clients.get_mut(usize::from(connection)) {
            Some(Some(question)) if makes(ask.wish) => {
                question.unit = unit;
                Some(question)
            }
            Some(Some(question)) => Some(question),
            _ => None,
        };
        match waits {
            Some(question) if !question.verdict.may_wait() => Err(format!("no reply at once to {question:?}")),
            _ => Ok(()),
        }
    }

    fn give(
        &mut self,
        connection: u16,
        header: &Header,
        command: &Command<'_>,
        image: Option<Spooled>,
    ) -> Result<(), Violation> {
        self.handle(Input::Command { connection, header, command, image })
    }

    pub(super) fn hang_up(&mut self, connection: u16) -> Result<(), Violation> {
        let Some(question) = self.clients.get_mut(usize::from(connection)).and_then(Option::take) else {
            return Ok(());
        };
        self.mark("hang-up");
        self.orphans.push(question);
        self.handle(Input::HangUp { connection })
    }

    /// The machine answers a client.
    pub(super) fn answered(&mut self, connection: u16) -> Result<(), Violation> {
        let Some(question) = self.clients.get_mut(usize::from(connection)).and_then(Option::take) else {
            return Err(format!("a reply to connection {connection}, which waits for none"));
        };
        let reply = self.machine.reply(connection);
        self.last_reply = reply;
        let wrong = |what: &str| Err(format!("{what}: {reply:?} to {question:?}"));
        if let Err(why) = question.verdict.check(&reply, self.faulted.contains(&question.unit)) {
            return wrong(&why);
        }
        self.check_bytes(connection, &question, &reply)?;
        let name = question.ask.name;
        self.mark(match reply {
            Reply::Done(Done::CreatedUnikernel) => match question.ask.wish {
                Wish::ForceCreate(_) if self.known.unikernels.contains_key(&name) => "replaced",
                Wish::Restart => "restarted",
                Wish::RestartWith(_) => "restarted with other arguments",
                _ => Done::CreatedUnikernel.as_str(),
            },
            Reply::Done(done) => done.as_str(),
            Reply::Refused(refusal) => refusal_mark(&refusal),
            Reply::Infos(_) => "info",
            Reply::Conditions(_) => "conditions",
            Reply::Policies => "policies",
            Reply::Blocks => "blocks",
            Reply::Image { .. } => "image",
            Reply::Host => "host",
            Reply::Dump { .. } => "dump",
            Reply::None => return wrong("an empty reply"),
        });
        match (question.ask.wish, reply) {
            (Wish::Restart, Reply::Done(Done::CreatedUnikernel)) => {
                let unit = self.machine.find(&name).map_or(0, |(_, unikernel)| unikernel.unit());
                if !self.processes.contains_key(&unit) {
                    return wrong("it does not run");
                }
            }
            (
                Wish::Create(spec) | Wish::ForceCreate(spec) | Wish::RestartWith(spec),
                Reply::Done(Done::CreatedUnikernel),
            ) => {
                let unit = question.unit;
                let digest = match (question.ask.wish, self.journal.state().unikernels.get(&name)) {
                    (Wish::RestartWith(_), Some(kept)) => kept.digest,
                    _ => IMAGES[spec.image].digest,
                };
                if self.machine.find_successor(&name).is_some() {
                    return wrong("acknowledged before it is in its place");
                }
                let over = self.ended.get(&unit).is_some_and(|(_, over)| *over);
                let acknowledged = Acknowledged { digest, arguments: spec.arguments_der(), unit, over };
                if self.journal.state().unikernels.get(&name).is_none_or(|kept| kept.unit != unit) {
                    return wrong("acknowledged before it is durable");
                }
                self.known.unikernels.insert(name, acknowledged);
            }
            (Wish::Destroy, Reply::Done(Done::DestroyedUnikernel)) => {
                if self.journal.state().unikernels.contains_key(&name) {
                    return wrong("acknowledged before it is durable");
                }
                if let Some(gone) = self.known.unikernels.remove(&name)
                    && self.processes.contains_key(&gone.unit)
                {
                    return wrong("acknowledged while its process runs");
                }
            }
            (Wish::PolicyAdd(spec), Reply::Done(Done::AddedPolicy | Done::PolicyUnchanged)) => {
                let path = name.path();
                let Some(der) = self.journal.state().policies.get(&path).cloned() else {
                    return wrong("acknowledged before it is durable");
                };
                if oracle::policy_of(&der) != spec.policy().ok() {
                    return wrong("another policy is durable");
                }
                self.known.policies.insert(path, der);
            }
            (Wish::PolicyRemove, Reply::Done(Done::RemovedPolicy)) => {
                if self.journal.state().policies.contains_key(&name.path()) {
                    return wrong("acknowledged before it is durable");
                }
                self.known.policies.remove(&name.path());
            }
            (Wish::BlockAdd(_) | Wish::BlockOldAdd(..), Reply::Done(Done::AddedBlock)) => {
                let Some(size_mb) = self.journal.state().blocks.get(&name).copied() else {
                    return wrong("acknowledged before it is durable");
                };
                if self.block_files.get(&name) != Some(&size_mb) {
                    return wrong("acknowledged without its file");
                }
                self.known.blocks.insert(name, size_mb);
                self.known.contents.insert(name, [question.content()].into());
                self.check_content(&name)?;
            }
            (Wish::BlockSet | Wish::BlockOldSet(_), Reply::Done(Done::SetBlock)) => {
                self.known.contents.insert(name, [question.content()].into());
                self.check_content(&name)?;
            }
            (_, Reply::Refused(Refusal::Block(BlockRefused::File(BlockFileError::Unsettled(_))))) => {
                self.known.contents.entry(name).or_default().insert(question.content());
            }
            (Wish::BlockDump(..), Reply::Dump { slot, .. }) => self.take_dump(slot)?,
            (Wish::BlockRemove, Reply::Done(Done::RemovedBlock)) => {
                if self.journal.state().blocks.contains_key(&name) || self.block_files.contains_key(&name) {
                    return wrong("acknowledged before it is gone");
                }
                self.known.blocks.remove(&name);
                self.known.contents.remove(&name);
            }
            _ => {}
        }
        Ok(())
    }

    /// The reply in bytes says what it should.
    fn check_bytes(&self, connection: u16, question: &Question, reply: &Reply) -> Result<(), Violation> {
        let mut buffer = vec![0; 1 << 16];
        let encoded = self.machine.encode_reply(connection, &mut buffer);
        if let Reply::Image { digest, .. } = reply {
            let known = self.known.unikernels.get(&question.ask.name);
            return match known {
                Some(known) if known.digest != *digest => Err("another image is handed out".into()),
                _ if !self.images.contains(digest) => Err("an image is handed out that is not in the store".into()),
                _ => Ok(()),
            };
        }
        if let Reply::Dump { .. } = reply {
            return Ok(());
        }
        let frame = encoded.map_err(|_| format!("the reply to {question:?} does not fit"))?;
        let Some((length, message)) = frame.split_first_chunk::<4>() else { return Err("no frame".into()) };
        if usize::try_from(u32::from_be_bytes(*length)) != Ok(message.len()) {
            return Err("the frame's length is wrong".into());
        }
        let message = decode(Frame::whole(message)).map_err(|error| format!("reply to {question:?}: {error}"))?;
        if message.header != Header::new(question.sequence, question.ask.name) {
            return Err(format!("another header: {:?} to {question:?}", message.header));
        }
        match (reply, message.payload) {
            (Reply::Done(done), Payload::Success(Success::Text(text))) if text.as_str() == Some(done.as_str()) => {
                Ok(())
            }
            (Reply::Refused(refusal), Payload::Failure(text))
                if text.as_str() == Some(&refusal.to_whom(&question.ask.name).to_string()) =>
            {
                Ok(())
            }
            (Reply::Infos(_), Payload::Success(Success::Infos(infos))) => oracle::check_infos(self, question, infos),
            (Reply::Conditions(_), Payload::Success(Success::Conditions(list))) => {
                oracle::check_conditions(self, question, list)
            }
            (Reply::Policies, Payload::Success(Success::Policies(list))) => {
                oracle::check_policies(self, question, list)
            }
            (Reply::Blocks, Payload::Success(Success::Blocks(list))) => oracle::check_blocks(self, question, list),
            (_, payload) => Err(format!("{payload:?} for {reply:?}")),
        }
    }

    /// Commands whose client hung up come to their end too, and unikernels that are over go: what is so then is read
    /// from the journal.
    pub(super) fn settle_orphans(&mut self) {
        let (settled, waiting): (Vec<_>, Vec<_>) =
            self.orphans.drain(..).partition(|question| match question.ask.wish {
                Wish::PolicyAdd(_) | Wish::PolicyRemove => {
                    let account = self.machine.ledger().account_at(&question.ask.name.path());
                    account.is_none_or(|it| *it.pending() == Pending::None)
                }
                Wish::BlockSet | Wish::BlockOldSet(_) => {
                    self.settings.iter().all(|setting| setting.name != question.ask.name)
                }
                Wish::BlockAdd(_) | Wish::BlockOldAdd(..) | Wish::BlockRemove => {
                    let found = self.machine.find_block(&question.ask.name);
                    found.is_none_or(|(_, it)| matches!(it.stage(), BlockStage::Kept | BlockStage::Undoing(_)))
                }
                _ => {
                    let name = &question.ask.name;
                    // One that has ended for good is being dropped as soon as it is recorded.
                    let may_drop = !matches!(question.ask.wish, Wish::Destroy);
                    let settled = |it: &Unikernel| match it.stage() {
                        Stage::Kept => !it.is_restarting(),
                        Stage::Dropping | Stage::Dropped => may_drop,
                        _ => false,
                    };
                    self.machine.find_successor(name).is_none()
                        && self.machine.find(name).is_none_or(|(_, it)| settled(it))
                }
            });
        self.orphans = waiting;
        for question in settled {
            self.learn(&question.ask);
        }
        let over = self.known.unikernels.iter().filter(|(_, known)| known.over);
        let gone: Vec<Name> = over.map(|(name, _)| *name).filter(|name| self.machine.find(name).is_none()).collect();
        for name in gone {
            self.known.unikernels.remove(&name);
        }
    }

    /// What is on a block device now is what clients will find there.
    pub(super) fn learn_content(&mut self, name: Name) {
        let unsettled = self.known.contents.get(&name).cloned().unwrap_or_default();
        match self.contents.get(&name) {
            // What is not durable may go, and what may come instead was told to somebody.
            Some(on_disk) if on_disk.now != on_disk.before => {
                self.known.contents.insert(name, unsettled.into_iter().chain([on_disk.now, on_disk.before]).collect());
            }
            Some(on_disk) => {
                self.known.contents.insert(name, [on_disk.now].into());
            }
            None => {
                self.known.contents.remove(&name);
            }
        }
    }

    /// Reads from the journal what has become of a command that nobody was told about.
    fn learn(&mut self, ask: &Ask) {
        let state = self.journal.state();
        match ask.wish {
            Wish::Create(_) | Wish::ForceCreate(_) | Wish::RestartWith(_) | Wish::Destroy => {
                match state.unikernels.get(&ask.name) {
                    Some(kept) => {
                        let over = self.ended.get(&kept.unit).is_some_and(|(_, over)| *over);
                        let (unit, digest, arguments) = (kept.unit, kept.digest, kept.arguments.clone());
                        let known = Acknowledged { digest, arguments, unit, over };
                        self.known.unikernels.insert(ask.name, known);
                    }
                    None => {
                        self.known.unikernels.remove(&ask.name);
                    }
                }
            }
            Wish::PolicyAdd(_) | Wish::PolicyRemove => match state.policies.get(&ask.name.path()).cloned() {
                Some(policy) => {
                    self.known.policies.insert(ask.name.path(), policy);
                }
                None => {
                    self.known.policies.remove(&ask.name.path());
                }
            },
            Wish::BlockSet | Wish::BlockOldSet(_) => self.learn_content(ask.name),
            Wish::BlockAdd(_) | Wish::BlockOldAdd(..) | Wish::BlockRemove => match state.blocks.get(&ask.name).copied()
            {
                Some(size_mb) => {
                    self.known.blocks.insert(ask.name, size_mb);
                    self.learn_content(ask.name);
                }
                None => {
                    self.known.blocks.remove(&ask.name);
                    self.known.contents.remove(&ask.name);
                }
            },
            _ => {}
        }
    }
}

fn content_mark(refused: &BlockRefused) -> Option<&'static str> {
    Some(match refused {
        BlockRefused::SetNotFound => "refused: set not found",
        BlockRefused::SetInUse => "refused: set in use",
        BlockRefused::DumpNotFound => "refused: dump not found",
        BlockRefused::DumpInUse => "refused: dump in use",
        BlockRefused::Transfer => "refused: transfer",
        BlockRefused::TransfersFull => "refused: transfers full",
        BlockRefused::InTransfer(_) => "refused: block in transfer",
        _ => return None,
    })
}

fn refusal_mark(refusal: &Refusal) -> &'static str {
    match refusal {
        Refusal::UnknownCommand => "refused: unknown command",
        Refusal::Path => "refused: path",
        Refusal::HostPath => "refused: host",
        Refusal::Exists => "refused: exists",
        Refusal::DestroyNotFound => "refused: destroy not found",
        Refusal::InfoNotFound => "refused: info not found",
        Refusal::GetNotFound => "refused: get not found",
        Refusal::RestartNotFound => "refused: restart not found",
        Refusal::Destroyed => "refused: destroyed meanwhile",
        Refusal::Busy => "refused: busy",
        Refusal::UnikernelsFull => "refused: unikernels full",
        Refusal::ArgumentsFull => "refused: arguments full",
        Refusal::Admission(_) => "refused: admission",
        Refusal::Policy(_) | Refusal::Chain => "refused: policy",
        Refusal::Arguments(_) => "refused: arguments",
        Refusal::Block(refused) => match refused {
            BlockRefused::Exists => "refused: block exists",
            BlockRefused::Busy => "refused: block busy",
            BlockRefused::Full => "refused: blocks full",
            BlockRefused::RemoveNotFound => "refused: remove not found",
            BlockRefused::RemoveInUse => "refused: remove in use",
            BlockRefused::Missing(_) => "refused: no such block",
            BlockRefused::InUse(_) => "refused: block in use",
            BlockRefused::File(_) => "refused: block file",
            other => content_mark(other).unwrap_or("refused: block"),
        },
        Refusal::NoImage => "refused: no image",
        Refusal::Store(_) => "refused: store",
        Refusal::NoTender(_) => "refused: no tender",
        Refusal::MemoryForImage { .. } => "refused: memory for image",
        Refusal::Launch(_) => "refused: launch",
        Refusal::Journal(_) => "refused: journal",
    }
}
