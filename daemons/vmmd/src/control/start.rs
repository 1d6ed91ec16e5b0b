//! Coming up. First what is known (the journal), then what is there (the host half's survey), then what is to be done. A state that is not understood
//! wholly ends the start: nothing may be dropped silently.

use std::collections::VecDeque;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;
use std::{fmt, io};

use fulmar_core::halves::{Abilities, Answer, Host, MessageError, OsError, Request, Status, Texts, Unit};
use fulmar_core::limits::{CHANNEL_BYTES_MAX, POLICY_BRIDGES_MAX, SPOOL_BYTES_MAX, UNIKERNELS_MAX};
use fulmar_core::machine::{Input, POLICY_BYTES_MAX, PlanBuffers, Product, RestoreError, Tenders};
use fulmar_core::policy::Policy;
use fulmar_core::wire::{Event, RunEnd};
use fulmar_host::blocks::{BlockError, Blocks};
use fulmar_host::channel::{Channel, ReceivedFds};
use fulmar_host::daemon::{BeginError, listen};
use fulmar_host::disk::{FolderLock, HostFolder};
use fulmar_host::folder::Folder;
use fulmar_host::journal::{Batch, Journal, OpenError};
use fulmar_host::spool::{SpoolError, Spools};
use fulmar_host::store::{self, StoreError};
use fulmar_host::{error, info, warning};
use mio::{Interest, Poll, Waker};

use super::connections::Connections;
use super::console::Console;
use super::events::{Events, run_end};
use super::host::{Asking, HostLink, collect_bridges, exit_of};
use super::inventory::{bounds, lacks};
use super::log_link::LogLink;
use super::stats::Stats;
use super::turn::{HOST, LISTENER, WAKER};
use super::worker::Worker;
use super::{Appends, Clock, Control, SOCKET, Settings};

/// Records that are written together without taking memory.
const BATCH_RECORDS: usize = 32;

/// Why the control half could not start.
#[derive(Debug)]
pub enum StartError {
    /// A folder or a socket could not be had.
    Path(PathBuf, io::Error),
    /// Another daemon uses the state folder.
    Locked(PathBuf),
    /// The journal cannot be used.
    Journal(PathBuf, OpenError),
    /// What a predecessor left in the image folder cannot be removed.
    Images(SpoolError),
    /// The image folder cannot be looked at.
    Store(StoreError),
    /// What a predecessor left in the folder of block devices cannot be removed.
    Blocks(BlockError),
    /// The journal has a record that cannot be restored; its generation.
    Restore(u64, RestoreError),
    /// The host half did not answer, or nonsense.
    Channel(io::Error),
    /// It answered what is not a message.
    Message(MessageError),
    /// It could not look at the host.
    Survey(OsError),
    /// The event loop or the thread could not be had.
    System(io::Error),
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Path(path, error) if error.kind() == io::ErrorKind::AddrInUse => {
                write!(f, "{}: another daemon serves this socket, stop it first", path.display())
            }
            Self::Path(path, error) if error.kind() == io::ErrorKind::PermissionDenied => {
                let user = nix::unistd::geteuid();
                write!(f, "{}: {error}; user {user}, the control half, must be able to write to it", path.display())
            }
            Self::Path(path, error) => write!(f, "{}: {error}", path.display()),
            Self::Locked(path) => write!(f, "{}: another vmmd uses this folder, stop it first", path.display()),
            Self::Journal(path, error) => write!(f, "{}: {error}", path.display()),
            Self::Images(error) => error.fmt(f),
            Self::Store(error) => error.fmt(f),
            Self::Blocks(error) => error.fmt(f),
            Self::Restore(generation, error) => write!(f, "journal, generation {generation}: {error}"),
            Self::Channel(error) => write!(f, "the host half of vmmd does not answer: {error}"),
            Self::Message(error) => error.fmt(f),
            Self::Survey(error) => write!(f, "the host could not be looked at: {error}"),
            Self::System(error) => write!(f, "the event loop could not be started: {error}"),
        }
    }
}

impl std::error::Error for StartError {}

pub(super) fn start<'m>(
    settings: &Settings,
    channel: Channel,
    machine: &'m mut Product,
) -> Result<Control<'m>, StartError> {
    let clock = Clock { start: Instant::now() };
    for folder in ["", "util", "fifo"] {
        make_folder(&settings.run.join(folder))?;
    }
    let state = Arc::new(open_folder(&settings.state)?);
    let lock = FolderLock::take(&state).map_err(|error| match error.kind() {
        io::ErrorKind::WouldBlock => StartError::Locked(settings.state.clone()),
        _ => StartError::Path(settings.state.join("lock"), error),
    })?;
    let images = Arc::new(open_folder(&settings.state.join("images"))?);
    let block_folder = Arc::new(open_folder(&settings.state.join("block"))?);
    let is_state = store::count(&*images).map_err(StartError::Store)? > 0
        || Blocks::new(Arc::clone(&block_folder)).count().map_err(StartError::Blocks)? > 0;
    let journal = restore(settings, &state, is_state, machine)?;
    let survey = Survey::ask(&channel)?;

    let system = StartError::System;
    let poll = Poll::new().map_err(system)?;
    let waker = Waker::new(poll.registry(), WAKER).map_err(system)?;
    let spools = Spools::new(Arc::clone(&images), SPOOL_BYTES_MAX);
    spools.clear().map_err(StartError::Images)?;
    let worker = Worker::start(journal, spools.clone(), &block_folder, waker).map_err(system)?;
    channel.set_nonblocking(true).map_err(StartError::Channel)?;
    let host = HostLink::new(channel);
    host.register(poll.registry(), HOST).map_err(system)?;
    let console = Console::new(&settings.run).map_err(|error| StartError::Path(settings.run.join("fifo"), error))?;
    let util = settings.run.join("util");
    let sockets = Folder::open(&util).map_err(|error| StartError::Path(util, error))?;
    let handed_over = settings.handed_over.as_ref().map(|socket| socket.try_clone()).transpose().map_err(system)?;
    let (listener, made) = listen(&settings.run.join(SOCKET), handed_over).map_err(|error| match error {
        BeginError::Listen(path, error) => StartError::Path(path, error),
        error => StartError::Path(settings.run.join(SOCKET), io::Error::other(error.to_string())),
    })?;
    fulmar_host::socket::trust(nix::unistd::geteuid());
    let mut listener = mio::net::UnixListener::from_std(listener);
    poll.registry().register(&mut listener, LISTENER, Interest::READABLE).map_err(system)?;

    let batch = || Batch::with_room_for(BATCH_RECORDS);
    let mut control = Control {
        machine,
        now: clock.now(),
        clock,
        _lock: lock,
        poll,
        listener: Some(listener),
        made,
        signals: None,
        asked: false,
        accepting: true,
        connections: Connections::new(),
        serving: None,
        host,
        console,
        stats: Stats::default(),
        log_link: LogLink::new(sockets, salt()?),
        events: Events::new(),
        worker,
        images,
        blocks: Blocks::new(block_folder),
        spools,
        plan: Box::new(PlanBuffers::new()),
        root: root_policy(&survey, settings),
        tenders: survey.tenders,
        zvols: settings.zvols,
        abilities: survey.abilities,
        askers: heapless::Vec::new(),
        bridges_at_ms: 0,
        appends: Appends {
            filling: batch(),
            changes: Vec::with_capacity(BATCH_RECORDS),
            under_way: Vec::with_capacity(BATCH_RECORDS),
            spare: Some(batch()),
            policy: Box::new([0; POLICY_BYTES_MAX]),
        },
        stillborn: VecDeque::with_capacity(BATCH_RECORDS),
    };
    control.tell_daemon(true);
    control.find_blocks().map_err(StartError::Blocks)?;
    control.take_over(&survey);
    let fifos = settings.run.join("fifo");
    control.clear_fifos().map_err(|error| StartError::Path(fifos, error))?;
    control.handle(Input::Start);
    control.ask(Asking::Serving);
    Ok(control)
}

/// A unikernel that runs since before.
struct Adopted {
    unit: Unit,
    pid: u32,
    started: u64,
    /// As [`Texts`] have them.
    taps: Vec<u8>,
    account: u16,
    started_ms: i64,
    told: bool,
}

/// A unikernel that ran before and has ended while nobody watched, and how, if it did so by itself. One that was ended from
/// outside is not done: it comes up again, as after a reboot.
#[derive(Clone, Copy)]
struct Ended {
    unit: Unit,
    status: Option<Status>,
}

impl Control<'_> {
    /// Tells the machine what there is.
    fn take_over(&mut self, survey: &Survey) {
        let (root, tenders) = (self.root.clone(), self.tenders);
        if let Some(path) = &self.zvols {
            self.machine.handle(self.now, Input::Zvols { path });
        }
        self.handle(Input::Host { root: &root, tenders });
        for Ended { unit, status } in survey.ended.iter().copied() {
            let exit = status.map(exit_of);
            if let Some((_, unikernel)) = self.machine.find_unit(unit) {
                match exit {
                    Some(exit) => {
                        info!(name = unikernel.name(), unit = unit.0; "{} ended while vmmd was away: {exit}", unikernel.name())
                    }
                    None => {
                        info!(name = unikernel.name(), unit = unit.0; "{} was ended while vmmd was away: it is brought up again", unikernel.name())
                    }
                }
            }
            let name = self.machine.find_unit(unit).map(|(_, unikernel)| *unikernel.name());
            if let Some(name) = name {
                let end = exit.map_or(RunEnd::Unknown, run_end);
                self.record(&Event::Ended { name, pid: 0, end, asked: false });
            }
            if let Some(exit) = exit {
                self.handle(Input::Ended { unit, exit });
                self.tell_decision(unit);
            }
            self.forget(unit);
        }
        for &Adopted { unit, pid, started, ref taps, account, started_ms, told } in &survey.adopted {
            self.events.note_pid(unit, pid);
            match self.machine.find_unit(unit) {
                Some((_, unikernel)) if told => {
                    info!(name = unikernel.name(), unit = unit.0; "{} was told to end and still runs", unikernel.name())
                }
                Some((_, unikernel)) => {
                    info!(name = unikernel.name(), unit = unit.0; "{} still runs", unikernel.name())
                }
                None => warning!(unit = unit.0; "unit {} runs and nothing says that it should: ending it", unit.0),
            }
            self.add_stats(unit, pid, started, Texts::new(taps).unwrap_or_default());
            self.handle(Input::Survivor { unit, account, started_wall_ms: started_ms, told });
        }
    }
}

/// Reads the journal into the machine.
fn restore(
    settings: &Settings,
    state: &Arc<HostFolder>,
    is_state: bool,
    machine: &mut Product,
) -> Result<Journal<Arc<HostFolder>>, StartError> {
    let mut failed = None;
    let opened = Journal::open(Arc::clone(state), salt()?, is_state, |entry| {
        if failed.is_none()
            && let Err(error) = machine.restore(&entry.record)
        {
            failed = Some(StartError::Restore(entry.generation, error));
        }
    });
    let (journal, opened) = opened.map_err(|error| StartError::Journal(settings.state.join("journal"), error))?;
    if let Some(error) = failed {
        return Err(error);
    }
    if opened.cut_bytes > 0 {
        warning!(
            "cut {} bytes of an unfinished write off the journal, after generation {}",
            opened.cut_bytes,
            opened.generation
        );
    }
    info!(
        "journal: generation {}, {} unikernels desired, {} block devices",
        opened.generation,
        machine.unikernels().count(),
        machine.blocks().count()
    );
    Ok(journal)
}

/// What the host half found.
struct Survey {
    root: Policy,
    tenders: Tenders,
    abilities: Abilities,
    adopted: Vec<Adopted>,
    ended: Vec<Ended>,
}

impl Survey {
    fn ask(channel: &Channel) -> Result<Self, StartError> {
        let (mut buffer, mut fds) = (vec![0; CHANNEL_BYTES_MAX], ReceivedFds::default());
        let packet = Request::Survey.encode(&mut buffer).map_err(StartError::Message)?;
        channel.send(packet, &[]).map_err(StartError::Channel)?;
        let (mut adopted, mut ended) = (Vec::new(), Vec::new());
        loop {
            let packet = match channel.receive(&mut buffer, &mut fds) {
                Ok(Some(packet)) => packet,
                Ok(None) => return Err(StartError::Channel(io::ErrorKind::UnexpectedEof.into())),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(StartError::Channel(error)),
            };
            match Answer::decode(packet).map_err(StartError::Message)? {
                Answer::Adopted { unit, pid, started, account, started_ms, told, taps } => {
                    let taps = taps.as_bytes().to_vec();
                    adopted.push(Adopted { unit, pid, started, taps, account, started_ms, told });
                }
                Answer::Ended { unit, record } => ended.push(Ended { unit, status: record.end() }),
                Answer::Host(host) => return Ok(Self::of(&host, adopted, ended)),
                Answer::SurveyFailed(error) => return Err(StartError::Survey(error)),
                answer => error!("the host half answered what was not asked: {answer:?}"),
            }
        }
    }

    fn of(host: &Host<'_>, adopted: Vec<Adopted>, ended: Vec<Ended>) -> Self {
        let abilities = host.abilities;
        lacks(&abilities).for_each(|what| warning!("{what}"));
        let (memory, processes) = bounds(&abilities);
        info!("each tender is bounded in its memory by its {memory}, in its processes by its {processes}");
        let bridges = host.bridges.iter().count();
        if bridges > POLICY_BRIDGES_MAX {
            warning!("the host has {bridges} bridges: the first {POLICY_BRIDGES_MAX} can be used");
        }
        let root = Policy {
            unikernels: UNIKERNELS_MAX as u64,
            cpus: host.cpus,
            memory_mb: host.memory_mb,
            block_mb: None,
            bridges: collect_bridges(host.bridges.iter()),
        };
        let solo5 = abilities.solo5;
        let (hvt, spt) = (abilities.kvm && abilities.tender, abilities.tender && !solo5);
        let tenders = Tenders { hvt, spt, solo5, bhyve: abilities.bhyve };
        Self { root, tenders, abilities, adopted, ended }
    }
}

/// What the host has, with the size of the file system of the state folder, as the peer counts it.
fn root_policy(survey: &Survey, settings: &Settings) -> Policy {
    let bytes = nix::sys::statvfs::statvfs(&settings.state).map(|it| it.blocks().saturating_mul(it.fragment_size()));
    Policy { block_mb: Some(bytes.unwrap_or(0) >> 20), ..survey.root.clone() }
}

fn open_folder(path: &Path) -> Result<HostFolder, StartError> {
    HostFolder::open(path).map_err(|error| StartError::Path(path.to_owned(), error))
}

fn make_folder(path: &Path) -> Result<(), StartError> {
    match std::fs::DirBuilder::new().mode(0o750).create(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(StartError::Path(path.to_owned(), error)),
        _ => Ok(()),
    }
}

/// Something that a stranger cannot guess.
fn salt() -> Result<u32, StartError> {
    let path = Path::new("/dev/urandom");
    let mut bytes = [0; 4];
    let read = std::fs::File::open(path).and_then(|mut file| io::Read::read_exact(&mut file, &mut bytes));
    read.map_err(|error| StartError::Path(path.to_owned(), error))?;
    Ok(u32::from_le_bytes(bytes))
}
