//! The control half of `vmmd`: unprivileged, one thread, one machine. It moves bytes between the clients, the console daemon, the
//! host half and the disk, and carries out what the machine says. It must never decide about a unikernel or a policy itself, never wait for anybody but the
//! kernel, and never answer before the machine does.
//!
//! | file | what is in it |
//! |---|---|
//! | `start` | recovery: the journal, what the host has, what still runs |
//! | `turn` | one turn of the event loop, deadlines |
//! | `effects` | what the machine wants done |
//! | `clients` | accepting, reading, dispatching |
//! | `arrivals` | images that arrive |
//! | `replies` | writing, long replies, images |
//! | `connections` | their memory, and where each conversation is |
//! | `blocks` | the files of block devices |
//! | `content` | clients that set or dump a block device |
//! | `host` | the channel to the host half |
//! | `inventory` | what there is of the host and what of it is used |
//! | `link` | a link to a daemon that we call |
//! | `console` | the link to the console daemon |
//! | `fifos` | what unikernels write to |
//! | `log_link` | the link to the event log |
//! | `stats` | the link to the statistics daemon |
//! | `worker` | the threads that wait: for the journal, for files, for the compressor |
//! | `events` | what is worth an event, and who asked for it |
//! | `finish` | ending in order |
//! | `transfers` | the threads that move the content of block devices |

mod arrivals;
mod blocks;
mod clients;
mod connections;
mod console;
mod content;
mod effects;
mod events;
mod fifos;
mod finish;
mod host;
mod inventory;
mod link;
mod log_link;
mod replies;
mod start;
mod stats;
mod transfers;
mod turn;
mod worker;

use std::collections::VecDeque;
use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use fulmar_core::halves::{Abilities, LaunchError, Unit};
use fulmar_core::limits::CONNECTIONS_MAX;
use fulmar_core::machine::{Change, Now, POLICY_BYTES_MAX, PlanBuffers, Product, Tenders};
use fulmar_core::name::Name;
use fulmar_core::policy::Policy;
use fulmar_host::blocks::Blocks;
use fulmar_host::channel::Channel;
use fulmar_host::daemon::Made;
use fulmar_host::disk::{FolderLock, HostFolder};
use fulmar_host::error;
use fulmar_host::journal::Batch;
use fulmar_host::spool::{Spool, Spools};
use mio::{Interest, Poll};

use connections::Connections;
use console::Console;
use events::Events;
use host::HostLink;
use log_link::LogLink;
use stats::Stats;
use turn::SIGNALS;
use worker::Worker;

/// Where the control half works.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The run folder: `util/*.sock`, `fifo/`.
    pub run: PathBuf,
    /// The state folder: the journal, `images/`, `block/`.
    pub state: PathBuf,
    /// Where clients connect, if that was handed over.
    pub handed_over: Option<Arc<OwnedFd>>,
    /// The path whose virtual machines may have zvols as disks, if there is one.
    pub zvols: Option<Name>,
}

impl Settings {
    /// These folders, and a socket that is made.
    #[must_use]
    pub fn new(run: PathBuf, state: PathBuf) -> Self {
        Self { run, state, handed_over: None, zvols: None }
    }
}

pub use start::StartError;

/// Where images arrive.
type ImageSpools = Spools<Arc<HostFolder>>;
type ImageSpool = Spool<Arc<HostFolder>>;

/// A clock that never goes back, and the one for people.
#[derive(Debug)]
struct Clock {
    start: Instant,
}

impl Clock {
    fn now(&self) -> Now {
        let milliseconds = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        let wall = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Now { ms: milliseconds(self.start.elapsed()), wall_ms: i64::try_from(wall.as_millis()).unwrap_or(i64::MAX) }
    }
}

/// The control half.
pub struct Control<'m> {
    machine: &'m mut Product,
    clock: Clock,
    now: Now,
    poll: Poll,
    /// Nothing when it is ending.
    listener: Option<mio::net::UnixListener>,
    /// The socket that was made; gone before another one may come.
    made: Option<Made>,
    signals: Option<mio::net::UnixStream>,
    /// Whether a signal has asked it to end.
    asked: bool,
    /// Whether connections may be waiting to be accepted: edges are told once.
    accepting: bool,
    connections: Connections,
    /// The connection that is being served now: it needs no wake-up.
    serving: Option<u16>,
    /// The state folder is ours alone.
    _lock: FolderLock,
    host: HostLink,
    console: Console,
    stats: Stats,
    log_link: LogLink,
    events: Events,
    worker: Worker,
    images: Arc<HostFolder>,
    blocks: Blocks<Arc<HostFolder>>,
    spools: ImageSpools,
    plan: Box<PlanBuffers>,
    /// The root policy, with the bridges that were there when last asked.
    root: Policy,
    tenders: Tenders,
    zvols: Option<Name>,
    abilities: Abilities,
    /// Connections, with their serials, that have asked about the host.
    askers: heapless::Vec<(u16, u32), CONNECTIONS_MAX>,
    bridges_at_ms: u64,
    appends: Appends,
    /// Launches that failed before the host half was asked.
    stillborn: VecDeque<(Unit, LaunchError)>,
}

/// Records on their way to the disk: one batch is being made durable, the next one is being filled.
struct Appends {
    filling: Batch,
    changes: Vec<Change>,
    under_way: Vec<Change>,
    /// The memory of the other batch; nothing while the worker has it.
    spare: Option<Batch>,
    policy: Box<[u8; POLICY_BYTES_MAX]>,
}

impl<'m> Control<'m> {
    /// Recovers what was desired, asks the host half what there is, and listens. Survivors are adopted and what is desired is launched in
    /// the first turns.
    ///
    /// # Errors
    /// [`StartError`]: nothing may be served.
    pub fn start(settings: &Settings, channel: Channel, machine: &'m mut Product) -> Result<Self, StartError> {
        start::start(settings, channel, machine)
    }

    /// Ends when this becomes readable, once it runs.
    ///
    /// # Errors
    /// The event loop's.
    pub fn heed(&mut self, signals: std::os::unix::net::UnixStream) -> io::Result<()> {
        let mut signals = mio::net::UnixStream::from_std(signals);
        self.poll.registry().register(&mut signals, SIGNALS, Interest::READABLE)?;
        self.signals = Some(signals);
        Ok(())
    }

    /// Serves until it is asked to end or the host half is gone.
    ///
    /// # Errors
    /// What the event loop died of.
    pub fn run(&mut self) -> io::Result<Ended> {
        let mut events = mio::Events::with_capacity(256);
        while self.turn(&mut events, None)? {
            if self.asked {
                return self.finish(&mut events);
            }
        }
        error!("the host half is gone: the control half ends too, unikernels go on");
        self.tell_daemon(false);
        // As far as it goes: nobody is waited for.
        self.flush_log();
        Ok(Ended::HostGone)
    }
}

/// Why [`Control::run`] has ended without an error.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ended {
    /// It was asked to.
    Asked,
    /// The host half is gone.
    HostGone,
}

/// What a listening socket is called in the run folder.
const SOCKET: &str = "util/vmmd.sock";
