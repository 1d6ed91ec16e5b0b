//! What is removed with a revocation: all unikernels, block devices and policies at a path and below, asked of `vmmd` one after the
//! other. What a parent's certificate makes there meanwhile is removed as well, or told.

use std::fmt;
use std::io;

use fulmar_core::name::Name;
use fulmar_core::wire::{
    self, BlockCommand, Command, Frame, Header, Message, Payload, PolicyCommand, Success, UnikernelCommand,
};
use fulmar_host::folder::Folder;
use mio::{Registry, Token};

use crate::local::{Local, VMMD};

/// How often everything is looked through: what is made in between is found once more.
const ROUNDS: u8 = 2;

/// Bytes of a message without an image.
const FRAME_BYTES: usize = 1024;

/// What is being removed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    Unikernels,
    Blocks,
    Policies,
}

impl Kind {
    fn list(self) -> Command<'static> {
        match self {
            Self::Unikernels => Command::Unikernel(UnikernelCommand::Info),
            Self::Blocks => Command::Block(BlockCommand::Info),
            Self::Policies => Command::Policy(PolicyCommand::Info),
        }
    }

    fn remove(self) -> Command<'static> {
        match self {
            Self::Unikernels => Command::Unikernel(UnikernelCommand::Destroy),
            Self::Blocks => Command::Block(BlockCommand::Remove),
            Self::Policies => Command::Policy(PolicyCommand::Remove),
        }
    }

    fn next(self) -> Option<Self> {
        match self {
            Self::Unikernels => Some(Self::Blocks),
            Self::Blocks => Some(Self::Policies),
            Self::Policies => None,
        }
    }
}

/// A removal on its way.
#[derive(Debug)]
pub(crate) struct Removal {
    path: Name,
    round: u8,
    kind: Kind,
    /// What is to be removed, the last one first; nothing while the list is asked for.
    names: Option<Vec<Name>>,
    local: Option<Local>,
    removed: [u32; 3],
    failed: u32,
    reason: String,
}

/// How it has ended.
pub(crate) enum Ended {
    /// It goes on; whether something was done.
    Not(bool),
    /// All is gone, in words.
    Done(String),
    /// Something is left, in words.
    Failed(String),
}

impl Removal {
    pub(crate) fn new(path: Name) -> Self {
        Self {
            path,
            round: 0,
            kind: Kind::Unikernels,
            names: None,
            local: None,
            removed: [0; 3],
            failed: 0,
            reason: String::new(),
        }
    }

    /// Goes on as far as it can without waiting.
    pub(crate) fn step(&mut self, sockets: &Folder, registry: &Registry, token: Token) -> Ended {
        let Some(local) = &mut self.local else {
            return match self.ask(sockets, registry, token) {
                Ok(true) => Ended::Not(true),
                Ok(false) => self.ended(),
                Err(error) => {
                    Ended::Failed(format!("revoked, but vmmd cannot be reached to remove what is there: {error}"))
                }
            };
        };
        let sent = local.flush();
        let Some(answer) = local.answer() else { return Ended::Not(sent) };
        self.local = None;
        self.take(&answer);
        Ended::Not(true)
    }

    /// Asks the next question; `false` when there is none.
    fn ask(&mut self, sockets: &Folder, registry: &Registry, token: Token) -> io::Result<bool> {
        let (name, command) = match &mut self.names {
            None => (self.path, self.kind.list()),
            Some(names) => match names.last() {
                Some(name) => (*name, self.kind.remove()),
                None => {
                    self.names = None;
                    match self.kind.next() {
                        Some(kind) => self.kind = kind,
                        None if self.round + 1 < ROUNDS => {
                            self.round += 1;
                            self.kind = Kind::Unikernels;
                        }
                        None => return Ok(false),
                    }
                    (self.path, self.kind.list())
                }
            },
        };
        let mut buffer = [0; FRAME_BYTES];
        let message = Message { header: Header::new(0, name), payload: Payload::Command(command) };
        let frame =
            wire::encode_frame(&message, &mut buffer).map_err(|_| io::Error::from(io::ErrorKind::InvalidData))?;
        let mut local = Local::connect(sockets, VMMD, registry, token)?;
        local.queue(frame);
        self.local = Some(local);
        Ok(true)
    }

    /// Takes an answer in.
    fn take(&mut self, answer: &[u8]) {
        let payload = wire::decode(Frame::whole(answer)).map(|message| message.payload);
        let Some(names) = &mut self.names else {
            // In the order of listings: each before what is below it, so the last one goes first.
            let path = self.path;
            let whole =
                |name: &Name| Name::parse(&format!("{}{}", path.as_str(), name.as_str().trim_start_matches(':')));
            let names: Vec<_> = match payload {
                Ok(Payload::Success(Success::Infos(list))) => list.iter().map(|it| whole(&it.name)).collect(),
                Ok(Payload::Success(Success::Blocks(list))) => list.iter().map(|it| whole(&it.name)).collect(),
                Ok(Payload::Success(Success::Policies(list))) => list.iter().map(|it| whole(&it.name)).collect(),
                Ok(Payload::Failure(text)) => return self.not_listed(&text.to_string()),
                _ => return self.not_listed("vmmd gave no answer"),
            };
            self.names = Some(names.into_iter().flatten().collect());
            return;
        };
        let Some(name) = names.pop() else { return };
        let place = self.removed.get_mut(self.kind as usize);
        match payload {
            Ok(Payload::Success(_)) => {
                if let Some(count) = place {
                    *count += 1;
                }
            }
            Ok(Payload::Failure(text)) => self.not_removed(format!("{name}: {text}")),
            _ => self.not_removed(format!("{name}: vmmd gave no answer")),
        }
    }

    fn not_listed(&mut self, reason: &str) {
        self.not_removed(format!("{}: {reason}", self.path));
        self.names = Some(Vec::new());
    }

    fn not_removed(&mut self, reason: String) {
        // What was not removed in the first round may be in the last one, a device that was in use, say.
        if self.round + 1 == ROUNDS {
            self.failed += 1;
            self.reason = reason;
        }
    }

    fn ended(&self) -> Ended {
        let text = format!("revoked, removed {}", Counts(self.removed));
        match self.failed {
            0 => Ended::Done(text),
            count => Ended::Failed(format!("{text}; {count} could not be removed, the last one {}", self.reason)),
        }
    }
}

struct Counts([u32; 3]);

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [unikernels, blocks, policies] = self.0;
        let plural = |count| if count == 1 { "" } else { "s" };
        write!(f, "{unikernels} unikernel{}, {blocks} block device{}, ", plural(unikernels), plural(blocks))?;
        match policies {
            1 => f.write_str("1 policy"),
            count => write!(f, "{count} policies"),
        }
    }
}
