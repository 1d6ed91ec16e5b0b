//! The half of `vmmd` that acts: it holds the privileges and does what the control half asks for, one request at a time.
//!
//! It must never decide who may have what, read anything that a tenant sent, or touch the network. It checks that a request
//! is within what it may do at all: bounds, CPUs that exist, memory and taps that the host has, bridges that are bridges, units
//! that it started.
//!
//! | room | what is in it |
//! |---|---|
//! | `outbox` | answers that the control half has not taken yet |
//! | `records` | two files for each unit, by which a successor finds it, or how it ended |
//! | `serve` | the loop that waits for requests, exits and signals |
//! | `traffic` | what the statistics daemon is told of block devices |
//! | `fuzzing` | the door that a fuzzer comes in by; in no default build |

#[cfg(any(test, feature = "fake-shim"))]
#[doc(hidden)]
pub mod fuzzing;
mod outbox;
mod records;
mod serve;
#[cfg(test)]
mod tests;
mod traffic;

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use fulmar_core::halves::{
    Answer, Attempt, BY_FD, Host, LaunchError, LaunchPlan, MessageError, OsError, Request, Signal, SignalOutcome,
    StatusRecord, TAPS_BYTES_MAX, Tender, Texts, TextsWriter, Unit,
};
use fulmar_core::limits::{
    CHANNEL_BYTES_MAX, HOST_BRIDGES_MAX, HOST_FILES_BASE, INTERFACE_BYTES_MAX, SERVING_MS, TAPS_MAX, UNITS_MAX,
};
use fulmar_core::machine::Usage;
use fulmar_core::policy::Bridge;
use fulmar_host::channel::{Channel, ReceivedFds};
use fulmar_host::files;
use fulmar_host::service::Service;
use fulmar_host::shim::{Capacity, Found, Process, Shim, Start, Tap};
use fulmar_host::{error, info, warning};

use self::outbox::Outbox;
use self::records::{Record, Records, STATUS_BYTES_MAX};
pub use self::serve::{Ending, Signals, serve};
use self::traffic::TrafficFile;

/// Why the host half cannot go on. Unikernels are not touched by its end.
#[derive(Debug)]
pub enum HostError {
    /// The host could not be looked at.
    Os(OsError),
    /// The folder of the records.
    Records(io::Error),
    /// The channel failed.
    Channel(io::Error),
    /// The control half says what it should not.
    Message(MessageError),
    /// Waiting failed.
    Wait(io::Error),
}

impl fmt::Display for HostError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Os(error) => error.fmt(f),
            Self::Records(error) => write!(f, "could not use the folder 'units' in the run folder: {error}"),
            Self::Channel(error) => write!(f, "could not talk to the control half: {error}"),
            Self::Message(error) => error.fmt(f),
            Self::Wait(error) => write!(f, "could not wait for events: {error}"),
        }
    }
}

impl std::error::Error for HostError {}

impl From<OsError> for HostError {
    fn from(error: OsError) -> Self {
        Self::Os(error)
    }
}

/// The host half, ready to serve.
#[derive(Debug)]
pub struct HostHalf<S> {
    shim: S,
    channel: Channel,
    outbox: Outbox,
    records: Records,
    traffic: TrafficFile,
    capacity: Capacity,
    /// The units whose end has not been told, and what each uses of the host.
    units: BTreeMap<Unit, Usage>,
    /// What a predecessor launched and has not been told of; `None` as soon as it has.
    inherited: Option<Inherited>,
    /// How many files may be open.
    files_max: u64,
    sending: Box<[u8]>,
    service: Service,
    /// Whether zvols may be opened.
    zvols: bool,
    /// How many run of how many, as the control half last said.
    serving: Option<(u16, u16)>,
}

/// The units of a predecessor.
#[derive(Debug, Default)]
struct Inherited {
    survivors: Vec<Record>,
    /// Those that have ended, and whether they were told to.
    ended: Vec<(Unit, bool)>,
}

impl<S: Shim> HostHalf<S> {
    /// Looks at the host, removes what a predecessor left behind, and watches the unikernels that still run.
    ///
    /// # Errors
    /// [`HostError::Os`] and [`HostError::Records`].
    pub fn new(mut shim: S, channel: Channel, run: &Path) -> Result<Self, HostError> {
        let records = Records::open(&run.join("units")).map_err(HostError::Records)?;
        let capacity = shim.capacity()?;
        channel.set_nonblocking(true).map_err(HostError::Channel)?;
        let mut inherited = Inherited::default();
        for record in records.read().map_err(HostError::Records)? {
            let taps = Texts::new(&record.taps).unwrap_or_default();
            match shim.adopt(record.unit, record.process, taps)? {
                Found::Running => inherited.survivors.push(record),
                Found::Gone(status) => {
                    records.note(record.unit, status);
                    inherited.ended.push((record.unit, record.told));
                }
            }
        }
        let known: Vec<u32> = inherited.survivors.iter().map(|record| record.process.pid).collect();
        match shim.end_strays(&known) {
            Ok(0) => {}
            Ok(count) => {
                warning!("ended {count} tenders whose records are gone: what is desired of them is brought up again")
            }
            Err(error) => warning!("tenders whose records are gone may still run: {error}"),
        }
        match shim.sweep() {
            Ok(0) => {}
            Ok(count) => info!("removed {count} taps and cgroups that a predecessor left"),
            Err(error) => warning!("taps and cgroups that a predecessor left may remain: {error}"),
        }
        let units = inherited.survivors.iter().map(|record| (record.unit, record.usage())).collect();
        let sending = vec![0; CHANNEL_BYTES_MAX].into_boxed_slice();
        let inherited = Some(inherited);
        let files_max = files::limit();
        Ok(Self {
            shim,
            channel,
            outbox: Outbox::default(),
            records,
            traffic: TrafficFile::new(run),
            capacity,
            units,
            inherited,
            files_max,
            sending,
            service: Service::default(),
            zvols: false,
            serving: None,
        })
    }

    /// Disks of virtual machines may be zvols: the control half was told of whom.
    #[must_use]
    pub fn with_zvols(mut self, zvols: bool) -> Self {
        self.zvols = zvols;
        self
    }

    /// Tells this service manager how `vmmd` does: that both halves serve, since what it is told comes from one through the other.
    #[must_use]
    pub fn with_service(mut self, service: Service) -> Self {
        let least = Duration::from_millis(2 * SERVING_MS);
        if let Some(patience) = service.patience().filter(|patience| *patience <= least) {
            warning!("WatchdogSec= of {patience:?} is too short for vmmd: give it more than {least:?}");
        }
        self.service = service;
        self
    }

    /// Whether the control half has ever said that it serves.
    #[must_use]
    pub fn has_served(&self) -> bool {
        self.serving.is_some()
    }

    fn note_serving(&mut self, running: u16, desired: u16) {
        let status = format_args!("{running} of {desired} unikernels run");
        match self.serving.replace((running, desired)) {
            None => self.service.ready(status),
            Some(before) if before != (running, desired) => self.service.status(status),
            Some(_) => {}
        }
        self.service.beat();
        self.traffic.refresh(&mut self.shim);
    }

    /// Receives one request and answers it; false when the control half is gone.
    fn serve_request(&mut self, buffer: &mut [u8]) -> Result<bool, HostError> {
        let mut fds = ReceivedFds::default();
        let Some(packet) = self.channel.receive(buffer, &mut fds).map_err(HostError::Channel)? else {
            return Ok(false);
        };
        match Request::decode(packet).map_err(HostError::Message)? {
            Request::Survey => self.answer_survey()?,
            Request::Bridges => self.answer_bridges()?,
            Request::Launch(plan) => self.answer_launch(&plan, &mut fds)?,
            Request::Signal { unit, signal } => self.answer_signal(unit, signal)?,
            // A unit that runs is not forgotten, whatever the control half says.
            Request::Forget { unit } if !self.units.contains_key(&unit) => self.records.remove(unit),
            Request::Forget { .. } => {}
            Request::Serving { running, desired } => self.note_serving(running, desired),
            Request::Files => self.send(&Answer::Files { open: files::count_open(), limit: self.files_max })?,
        }
        Ok(true)
    }

    fn answer_survey(&mut self) -> Result<(), HostError> {
        let Inherited { survivors, ended } = self.inherited.take().unwrap_or_default();
        for survivor in survivors {
            let Record { unit, process, account, ref taps, told, .. } = survivor;
            let taps = Texts::new(taps).unwrap_or_default();
            let started_ms = self.records.written_ms(unit);
            let Process { pid, started } = process;
            self.send(&Answer::Adopted { unit, pid, started, account, started_ms, told, taps })?;
        }
        for (unit, told) in ended {
            let mut buffer = [0; STATUS_BYTES_MAX];
            let record = match told {
                // Whatever it says of its end, that was wanted.
                true => StatusRecord::default(),
                false => StatusRecord::new(self.records.read_status(unit, &mut buffer)),
            };
            self.send(&Answer::Ended { unit, record })?;
        }
        let mut names = vec![0; HOST_BRIDGES_MAX * (INTERFACE_BYTES_MAX + 1)];
        let Capacity { cpus, memory_mb, abilities } = self.capacity;
        match list_bridges(&mut self.shim, &mut names) {
            Ok(bridges) => self.send(&Answer::Host(Host { cpus, memory_mb, bridges, abilities })),
            Err(error) => self.send(&Answer::SurveyFailed(error)),
        }
    }

    fn answer_bridges(&mut self) -> Result<(), HostError> {
        let mut names = vec![0; HOST_BRIDGES_MAX * (INTERFACE_BYTES_MAX + 1)];
        match list_bridges(&mut self.shim, &mut names) {
            Ok(bridges) => self.send(&Answer::Bridges(bridges)),
            Err(error) => self.send(&Answer::SurveyFailed(error)),
        }
    }

    fn answer_launch(&mut self, plan: &LaunchPlan<'_>, fds: &mut ReceivedFds) -> Result<(), HostError> {
        let unit = plan.unit;
        let mut names = [0; TAPS_BYTES_MAX];
        match self.launch(plan, fds, &mut names) {
            Ok((process, taps)) => {
                self.units.insert(unit, usage(plan));
                self.send(&Answer::Launched { unit, pid: process.pid, started: process.started, taps })
            }
            Err(error) => {
                error!(unit = unit.0; "unit {}: {error}", unit.0);
                self.send(&Answer::LaunchFailed { unit, error })
            }
        }
    }

    /// Carries out a plan. Whatever it made is gone again when it fails.
    fn launch<'n>(
        &mut self,
        plan: &LaunchPlan<'_>,
        fds: &mut ReceivedFds,
        names: &'n mut [u8],
    ) -> Result<(Process, Texts<'n>), LaunchError> {
        plan.check()?;
        let blocks = usize::from(plan.blocks);
        let (console, image, blocks) = if plan.machine.is_some() {
            let ([console], blocks) = fds.take(blocks).ok_or(LaunchError::Fds)?;
            (console, None, blocks)
        } else {
            let ([console, image], blocks) = fds.take(blocks).ok_or(LaunchError::Fds)?;
            (console, Some(image), blocks)
        };
        if self.units.contains_key(&plan.unit) {
            return Err(LaunchError::UnitInUse);
        }
        if self.units.len() >= UNITS_MAX {
            return Err(LaunchError::HostFull);
        }
        // Said before the kernel does, which could be at any step, and for want of which nobody could be watched.
        if self.units.len() as u64 + 1 + HOST_FILES_BASE > self.files_max {
            return Err(LaunchError::TooFewFiles(self.files_max));
        }
        self.check_room(plan)?;
        if !self.capacity.cpus.contains(&plan.cpus) {
            return Err(LaunchError::NoCpu);
        }
        self.check_tender(plan)?;
        let mut taps = Vec::new();
        let launched =
            self.launch_with(plan, [&console, image.as_ref().unwrap_or(&console)], &blocks, &mut taps, names);
        // The tender has them, or they are to go.
        self.shim.release_taps(taps);
        launched
    }

    /// Whether the host has what the plan asks for, beside all that runs: it holds also where the control half does not.
    fn check_room(&self, plan: &LaunchPlan<'_>) -> Result<(), LaunchError> {
        let used = self.units.values().fold(usage(plan), |sum, each| sum.plus(*each));
        if used.host_memory_mb() > self.capacity.memory_mb {
            return Err(LaunchError::HostMemory(self.capacity.memory_mb));
        }
        if used.networks > TAPS_MAX { Err(LaunchError::HostTaps) } else { Ok(()) }
    }

    /// Whether this host runs what the plan asks for, and may open the disks that it names.
    fn check_tender(&self, plan: &LaunchPlan<'_>) -> Result<(), LaunchError> {
        let abilities = &self.capacity.abilities;
        match (plan.tender, &plan.machine) {
            (Tender::Bhyve, _) if abilities.bhyve.is_none() => Err(LaunchError::NoBhyve),
            (Tender::Bhyve, Some(machine)) if !self.zvols && machine.disks.iter().any(|disk| disk != BY_FD) => {
                Err(LaunchError::NoZvols)
            }
            (Tender::Hvt | Tender::Spt, _) if !abilities.tender => Err(LaunchError::NoTender),
            (Tender::Hvt, _) if !abilities.kvm => Err(LaunchError::NoKvm),
            _ => Ok(()),
        }
    }

    /// Carries out a plan that may be; `taps` are those that were made for it, whatever came of it.
    fn launch_with<'n>(
        &mut self,
        plan: &LaunchPlan<'_>,
        [console, image]: [&OwnedFd; 2],
        blocks: &[OwnedFd],
        taps: &mut Vec<Tap>,
        names: &'n mut [u8],
    ) -> Result<(Process, Texts<'n>), LaunchError> {
        for bridge in plan.networks.iter() {
            taps.push(self.create_tap(bridge)?);
        }
        let mut writer = TextsWriter::new(names);
        for tap in taps.iter() {
            // Bounded as interface names are.
            writer.push(tap.name.as_bytes()).map_err(|_| LaunchError::TooManyDevices)?;
        }
        let names = writer.finish();
        let Self { shim, records, .. } = self;
        let failed = |error: io::Error| OsError {
            attempt: Attempt::RecordProcess,
            errno: error.raw_os_error().unwrap_or_default(),
        };
        let status = records.open_status(plan.unit).map_err(failed)?;
        if plan.machine.is_some() {
            // Whoever fails from here on removes them by their names.
            taps.clear();
        }
        let start = Start {
            plan,
            console: console.as_fd(),
            image: image.as_fd(),
            taps,
            tap_names: names,
            blocks,
            status: status.as_fd(),
        };
        let mut record = |process| {
            let taps = names.as_bytes().to_vec();
            let Usage { memory_mb, .. } = usage(plan);
            let record = Record { unit: plan.unit, process, account: plan.account, memory_mb, taps, told: false };
            records.write(&record).map_err(failed)
        };
        match shim.spawn(&start, &mut record) {
            Ok(process) => Ok((process, names)),
            Err(error) => {
                records.remove(plan.unit);
                Err(error.into())
            }
        }
    }

    fn create_tap(&mut self, bridge: &[u8]) -> Result<Tap, LaunchError> {
        self.shim.create_tap(bridge).map_err(|error| match (error.attempt, Bridge::new(bridge)) {
            (Attempt::FindBridge, Ok(bridge)) => LaunchError::NoSuchBridge(bridge),
            _ => error.into(),
        })
    }

    fn answer_signal(&mut self, unit: Unit, signal: Signal) -> Result<(), HostError> {
        if signal == Signal::Terminate && self.units.contains_key(&unit) {
            self.records.tell(unit);
        }
        let outcome = match self.shim.signal(unit, signal) {
            Ok(true) => SignalOutcome::Sent,
            Ok(false) => SignalOutcome::Gone,
            Err(error) => {
                error!(unit = unit.0; "unit {}: {error}", unit.0);
                SignalOutcome::Failed(error)
            }
        };
        self.send(&Answer::Signalled { unit, outcome })
    }

    /// Tells of units that have ended, as many as the control half takes now. Their records stay until it says that they may
    /// go: should it die over what it was told, the next one is told again.
    fn tell_exits(&mut self) -> Result<(), HostError> {
        while self.outbox.is_empty()
            && let Some(exit) = self.shim.next_exit()
        {
            if self.units.remove(&exit.unit).is_some() {
                self.records.note(exit.unit, exit.status);
                let mut buffer = [0; STATUS_BYTES_MAX];
                let record = StatusRecord::new(self.records.read_status(exit.unit, &mut buffer));
                self.send(&Answer::Exited { unit: exit.unit, status: exit.status, record })?;
            }
        }
        Ok(())
    }

    fn send(&mut self, answer: &Answer<'_>) -> Result<(), HostError> {
        let packet = answer.encode(&mut self.sending).map_err(HostError::Message)?;
        self.outbox.send(&self.channel, packet).map_err(HostError::Channel)
    }
}

/// What a plan takes of the host.
fn usage(plan: &LaunchPlan<'_>) -> Usage {
    let networks = u64::try_from(plan.networks.iter().count()).unwrap_or(u64::MAX);
    Usage { unikernels: 1, memory_mb: plan.memory_mb.into(), block_mb: 0, networks }
}

fn list_bridges<'n>(shim: &mut impl Shim, names: &'n mut [u8]) -> Result<Texts<'n>, OsError> {
    let mut writer = TextsWriter::new(names);
    shim.bridges(&mut |name| {
        if Bridge::new(name).is_ok() {
            // What does not fit is not listed, nor what no policy can name.
            let _ = writer.push(name);
        }
    })?;
    Ok(writer.finish())
}
