//! The threads that move the content of block devices between files and what clients send and take. Each does one bounded step at
//! a time, of whichever block device is next; what a step needs travels with it. So a slow client costs them nothing, a large block device keeps
//! nobody else waiting for long, and no record waits for any of this.

use std::fs::{File, TryLockError};
use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;

use fulmar_core::limits::CONTENT_PIECE_BYTES;
use fulmar_core::machine::BlockFileError;
use fulmar_core::name::Name;
use fulmar_core::wire::Header;
use fulmar_host::blocks::{BlockError, Blocks};
use fulmar_host::content::{ContentError, Form, Incoming, Outgoing, Progress, Workspace};
use fulmar_host::disk::{Content, HostFolder, is_full};
use fulmar_host::spool::{Spool, SpoolError, Spools};
use fulmar_host::{error, warning};

use super::worker::{Images, Outbox, Outcome, Queue, errno};

type Folder = Arc<HostFolder>;

/// The threads: enough that a few compressions and a few disks do not wait for each other.
const THREADS: usize = 4;

/// A connection, told apart from those that had or will have its place.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Client {
    pub(super) connection: u16,
    pub(super) serial: u32,
}

/// A block device that is set or made, as it is known to the threads.
#[derive(Clone, Copy)]
pub(super) struct Target {
    /// Its slot.
    pub(super) slot: u16,
    pub(super) name: Name,
    pub(super) bytes: u64,
}

/// A block device that is being set by chunks, between two steps.
pub(super) struct Setting {
    pub(super) client: Client,
    target: Target,
    compressed: bool,
    /// Nothing before the first step.
    incoming: Option<Incoming<Folder>>,
    /// What has come and was not looked at.
    buffer: Box<[u8]>,
    filled: usize,
}

impl Setting {
    pub(super) fn new(client: Client, target: Target, compressed: bool) -> Self {
        let buffer = vec![0; CONTENT_PIECE_BYTES].into_boxed_slice();
        Self { client, target, compressed, incoming: None, buffer, filled: 0 }
    }

    /// Room for more bytes; none when a step is due.
    pub(super) fn room(&mut self) -> &mut [u8] {
        &mut self.buffer[self.filled..]
    }

    /// So many bytes have come into it.
    pub(super) fn filled(&mut self, count: usize) {
        self.filled += count;
    }

    /// Whether there is something to look at.
    pub(super) fn has_any(&self) -> bool {
        self.filled > 0
    }
}

/// A block device that is set to, or made with, what came in one message, between two steps.
pub(super) struct Whole {
    target: Target,
    /// Whether there is no such block device yet.
    makes: bool,
    /// Nothing where the content is empty.
    spool: Option<Spool<Images>>,
    compressed: bool,
    /// Nothing before the first step.
    incoming: Option<Incoming<Folder>>,
    offset: u64,
}

impl Whole {
    pub(super) fn new(target: Target, makes: bool, spool: Option<Spool<Images>>, compressed: bool) -> Self {
        Self { target, makes, spool, compressed, incoming: None, offset: 0 }
    }
}

/// A block device that is being dumped, between two steps.
pub(super) struct Dumping {
    pub(super) client: Client,
    /// The slot of the block device.
    pub(super) slot: u16,
    pub(super) outgoing: Outgoing<Folder>,
}

/// A block device that is to be opened to be dumped.
pub(super) struct Opening {
    pub(super) client: Client,
    pub(super) target: Target,
    /// What each message begins with.
    pub(super) header: Header,
    pub(super) form: Form,
}

/// What the threads are asked for.
pub(super) enum Transfer {
    /// Take what has come.
    Take(Box<Setting>),
    /// Forget it, for this reason.
    Drop(Box<Setting>, BlockFileError),
    /// Take what came in one message.
    Whole(Box<Whole>),
    /// Open it to be dumped.
    Open(Box<Opening>),
    /// Make more of what is sent.
    Step(Box<Dumping>),
    /// End.
    Stop,
}

/// What comes of it.
pub(super) enum Transferred {
    /// More is to come.
    Taken(Box<Setting>),
    /// The set is over. Which client it was, where it sent chunks; the slot.
    Set(Option<Client>, u16, Result<(), BlockFileError>),
    /// The block device in this slot was made, or not.
    Made(u16, Result<(), BlockFileError>),
    /// There may be something to send.
    Ready(Box<Dumping>),
    /// It cannot be dumped: whose, the slot, why.
    NotOpened(Client, u16, NotOpened),
}

/// Why a block device cannot be dumped.
pub(super) enum NotOpened {
    /// A process has it that is on its way out.
    InUse,
    /// Its file has so many bytes.
    Size(u64),
    /// Something with a file.
    File(ContentError),
}

/// The threads, from outside.
pub(super) struct Transfers {
    queue: Arc<Queue<Transfer>>,
    threads: [Option<JoinHandle<()>>; THREADS],
}

impl Transfers {
    /// Starts the threads.
    pub(super) fn start(blocks: &Folder, spools: &Spools<Images>, outbox: &Outbox) -> io::Result<Self> {
        let mut transfers = Self { queue: Arc::new(Queue::new()), threads: [const { None }; THREADS] };
        for place in &mut transfers.threads {
            let (inbox, outbox) = (Arc::clone(&transfers.queue), outbox.clone());
            let mover = Mover { blocks: Blocks::new(Arc::clone(blocks)), spools: spools.clone() };
            *place = Some(
                std::thread::Builder::new().name("content".to_owned()).spawn(move || mover.work(&inbox, &outbox))?,
            );
        }
        Ok(transfers)
    }

    /// Asks for something.
    pub(super) fn push(&self, transfer: Transfer) {
        self.queue.push(transfer);
    }
}

impl Drop for Transfers {
    fn drop(&mut self) {
        for _ in &self.threads {
            self.queue.push(Transfer::Stop);
        }
        for thread in self.threads.iter_mut().filter_map(Option::take) {
            // A panic over there has been reported over there.
            let _ = thread.join();
        }
    }
}

/// One of the threads, from inside.
struct Mover {
    blocks: Blocks<Folder>,
    spools: Spools<Images>,
}

impl Mover {
    fn work(&self, inbox: &Queue<Transfer>, outbox: &Outbox) {
        let mut workspace = Workspace::default();
        loop {
            let done = match inbox.pop() {
                Transfer::Take(setting) => self.take(setting, &mut workspace),
                Transfer::Drop(setting, error) => self.end_setting(&setting, Err(error)),
                Transfer::Whole(mut whole) => match self.take_whole(&mut whole, &mut workspace) {
                    Ok(Progress::More) => {
                        // Others have their turn first.
                        inbox.push(Transfer::Whole(whole));
                        continue;
                    }
                    ended => {
                        let (target, outcome) = (whole.target, ended.map(|_| ()));
                        let outcome = outcome.map_err(|error| file_error(&target.name, &error));
                        if whole.makes {
                            Transferred::Made(target.slot, outcome)
                        } else {
                            Transferred::Set(None, target.slot, outcome)
                        }
                    }
                },
                Transfer::Open(opening) => match self.open(&opening) {
                    Ok(outgoing) => {
                        let Opening { client, target, .. } = *opening;
                        let mut dumping = Box::new(Dumping { client, slot: target.slot, outgoing });
                        dumping.outgoing.step(&mut workspace);
                        Transferred::Ready(dumping)
                    }
                    Err(error) => Transferred::NotOpened(opening.client, opening.target.slot, error),
                },
                Transfer::Step(mut dumping) => {
                    dumping.outgoing.step(&mut workspace);
                    Transferred::Ready(dumping)
                }
                Transfer::Stop => return,
            };
            outbox.tell(Outcome::Transferred(done));
        }
    }

    fn take(&self, mut setting: Box<Setting>, workspace: &mut Workspace) -> Transferred {
        let Target { name, bytes, .. } = setting.target;
        let begun = match setting.incoming.take() {
            Some(incoming) => Ok(incoming),
            None => Incoming::begin(&self.blocks, &name, bytes, setting.compressed),
        };
        let taken = begun.and_then(|mut incoming| {
            let progress = incoming.take(&setting.buffer[..setting.filled], workspace);
            setting.filled = 0;
            setting.incoming = Some(incoming);
            progress
        });
        let ended = match taken {
            Ok(Progress::More) => return Transferred::Taken(setting),
            Ok(Progress::Whole) => setting.incoming.take().map_or(Ok(()), |incoming| incoming.finish(&self.blocks)),
            Err(error) => Err(error),
        };
        self.end_setting(&setting, ended.map_err(|error| file_error(&name, &error)))
    }

    /// The set is over; nothing of it is left aside.
    fn end_setting(&self, setting: &Setting, outcome: Result<(), BlockFileError>) -> Transferred {
        if setting.incoming.is_some() {
            self.drop_aside(&setting.target.name);
        }
        Transferred::Set(Some(setting.client), setting.target.slot, outcome)
    }

    /// Takes some of what is in its spool. When it has ended, in whatever way, nothing of it is left aside.
    fn take_whole(&self, whole: &mut Whole, workspace: &mut Workspace) -> Result<Progress, ContentError> {
        let Target { name, bytes, .. } = whole.target;
        let mut incoming = match whole.incoming.take() {
            Some(incoming) => incoming,
            None => Incoming::begin(&self.blocks, &name, bytes, whole.compressed)?,
        };
        let progress = match &whole.spool {
            Some(spool) => incoming.take_spool(spool, &mut whole.offset, workspace),
            None => Ok(Progress::Whole),
        };
        match progress {
            Ok(Progress::More) => {
                whole.incoming = Some(incoming);
                Ok(Progress::More)
            }
            Ok(Progress::Whole) => incoming.finish(&self.blocks).map(|()| Progress::Whole),
            Err(error) => {
                self.drop_aside(&name);
                Err(error)
            }
        }
    }

    fn drop_aside(&self, name: &Name) {
        if let Err(error) = self.blocks.drop_aside(name) {
            warning!(name = name; "{name}: {error}, which the next start tries again");
        }
    }

    fn open(&self, opening: &Opening) -> Result<Outgoing<Folder>, NotOpened> {
        let Opening { target, header, form, .. } = opening;
        let failed = |error| NotOpened::File(ContentError::File(error));
        let file = self.blocks.open_read_only(&target.name).map_err(failed)?;
        // As for a tender: nobody may write it meanwhile, also a process that nobody recorded and that is on its way out.
        match File::try_lock_shared(&file) {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(NotOpened::InUse),
            Err(TryLockError::Error(error)) => {
                let attempt = "lock the file of a block device";
                return Err(failed(BlockError { attempt, error }));
            }
        }
        match Content::bytes(&file) {
            Ok(bytes) if bytes == target.bytes => {}
            Ok(bytes) => return Err(NotOpened::Size(bytes)),
            Err(error) => {
                let attempt = "look at the file of a block device";
                return Err(failed(BlockError { attempt, error }));
            }
        }
        Outgoing::new(*header, file, target.bytes, *form, &self.spools).map_err(NotOpened::File)
    }
}

/// What the machine calls it.
fn file_error(name: &Name, error: &ContentError) -> BlockFileError {
    error!(name = name; "{name}: {error}");
    let system = |error: &io::Error| {
        if is_full(error) { BlockFileError::DiskFull } else { BlockFileError::Disk(errno(error)) }
    };
    match error {
        ContentError::TooLarge => BlockFileError::TooLarge,
        ContentError::Compression => BlockFileError::Compression,
        ContentError::Cut => BlockFileError::Cut,
        ContentError::File(error) => system(&error.error),
        ContentError::Unsettled(error) => BlockFileError::Unsettled(errno(&error.error)),
        ContentError::Spool(SpoolError::Io(_, error)) => system(error),
        ContentError::Spool(
            SpoolError::TooLarge(_) | SpoolError::Quota | SpoolError::UserQuota | SpoolError::Reserve,
        ) => BlockFileError::DiskFull,
    }
}
