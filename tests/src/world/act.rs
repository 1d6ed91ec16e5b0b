//! What can happen, and letting it happen.

use fulmar_core::halves::{Attempt, LaunchError, OsError, Unit};
use fulmar_core::limits::STOP_MS_MAX;
use fulmar_core::machine::{BlockFileError, Exit, Input, StoreError, StoredImage, Tenders};
use fulmar_core::policy::{Bridge, Bridges, CpuSet, Policy};

use super::{Crash, Fate, Laid, OnDisk, Process, Rest, SetFate, StoreTask, Violation, World};
use crate::ask::{Ask, Wish};
use crate::images::IMAGES;

/// One thing that happens.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[expect(clippy::large_enum_variant, reason = "a few hundred of them, copied at will")]
pub enum Action {
    /// A client asks.
    Ask(u16, Ask),
    /// A client is gone.
    HangUp(u16),
    /// The image store does its next task; `false` where its disk is full.
    Store(bool),
    /// The journal writes so many records together.
    Append(u8, Fate),
    /// The launch at this place is answered; `false` where it has failed.
    Launch(u8, bool),
    /// The set at this place ends.
    Set(u8, SetFate),
    /// The dump at this place ends.
    Dumped(u8),
    /// A process ends.
    Exit(u64, Exit),
    /// So many milliseconds pass, and nobody looks.
    Wait(u64),
    /// The deadline passes; the tick comes so many milliseconds late.
    Tick(u64),
    /// The host has something else now.
    Host(u8),
    /// The journal is written anew.
    Compact,
    /// `vmmd` dies and is started again.
    Crash(Crash),
}

/// Kinds of actions, each with a weight of its own in a run.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[expect(missing_docs, reason = "as the actions")]
pub enum ActionKind {
    Create,
    Replace,
    Destroy,
    Query,
    Policy,
    Block,
    HangUp,
    Store,
    Append,
    Launch,
    Content,
    Fault,
    Exit,
    Wait,
    Tick,
    Host,
    Compact,
    Crash,
}

/// All kinds.
pub const KINDS: [ActionKind; 18] = [
    ActionKind::Create,
    ActionKind::Replace,
    ActionKind::Destroy,
    ActionKind::Query,
    ActionKind::Policy,
    ActionKind::Block,
    ActionKind::HangUp,
    ActionKind::Store,
    ActionKind::Append,
    ActionKind::Launch,
    ActionKind::Content,
    ActionKind::Fault,
    ActionKind::Exit,
    ActionKind::Wait,
    ActionKind::Tick,
    ActionKind::Host,
    ActionKind::Compact,
    ActionKind::Crash,
];

/// How processes end by themselves.
pub(super) const EXITS: [Exit; 10] = [
    Exit::Code(0),
    Exit::Code(1),
    Exit::Code(2),
    Exit::Code(3),
    Exit::Code(60),
    Exit::Code(64),
    Exit::Code(255),
    Exit::Signal(11),
    Exit::OutOfMemory,
    Exit::Unknown,
];

/// What a host can have: plenty; less of everything; little.
pub(super) const HOSTS: u8 = 3;

impl Action {
    /// Its kind.
    #[must_use]
    pub fn kind(&self) -> ActionKind {
        match self {
            Self::Ask(_, ask) => match ask.wish {
                Wish::Create(_) => ActionKind::Create,
                Wish::ForceCreate(_) | Wish::Restart | Wish::RestartWith(_) => ActionKind::Replace,
                Wish::Destroy => ActionKind::Destroy,
                Wish::Info | Wish::Condition | Wish::Get(_) | Wish::PolicyInfo | Wish::Unknown => ActionKind::Query,
                Wish::PolicyAdd(_) | Wish::PolicyRemove => ActionKind::Policy,
                Wish::BlockAdd(_)
                | Wish::BlockRemove
                | Wish::BlockInfo
                | Wish::BlockSet
                | Wish::BlockOldSet(_)
                | Wish::BlockOldAdd(..)
                | Wish::BlockDump(..) => ActionKind::Block,
            },
            Self::HangUp(_) => ActionKind::HangUp,
            Self::Store(true) => ActionKind::Store,
            Self::Append(_, Fate::Durable) => ActionKind::Append,
            Self::Launch(_, true) => ActionKind::Launch,
            Self::Set(_, SetFate::Done | SetFate::Refused) | Self::Dumped(_) => ActionKind::Content,
            Self::Store(_) | Self::Append(..) | Self::Launch(..) | Self::Set(..) => ActionKind::Fault,
            Self::Exit(..) => ActionKind::Exit,
            Self::Wait(_) => ActionKind::Wait,
            Self::Tick(_) => ActionKind::Tick,
            Self::Host(_) => ActionKind::Host,
            Self::Compact => ActionKind::Compact,
            Self::Crash(_) => ActionKind::Crash,
        }
    }
}

/// What the host of this number has.
///
/// # Panics
/// When the number is not below [`HOSTS`].
#[must_use]
pub(super) fn root_policy(host: usize) -> Policy {
    let hosts: [(u64, u16, u64, &[&str]); HOSTS as usize] =
        [(420, 3, 40, &["br0", "br1"]), (200, 2, 20, &["br0"]), (60, 1, 6, &[])];
    let (memory_mb, cpus, block_mb, bridges) = hosts[host];
    let mut set = Bridges::EMPTY;
    for bridge in bridges.iter().filter_map(|bridge| Bridge::new(bridge.as_bytes()).ok()) {
        // Two of thirty-two.
        let _ = set.insert(bridge);
    }
    Policy { unikernels: 1 << 40, cpus: CpuSet::first(cpus), memory_mb, block_mb: Some(block_mb), bridges: set }
}

/// Which images the host of this number can run.
#[must_use]
pub(super) fn tenders(host: usize) -> Tenders {
    Tenders { hvt: host != 1, spt: true, solo5: false, bhyve: None }
}

impl<const U: usize, const P: usize, const B: usize, const C: usize, const A: usize> World<U, P, B, C, A> {
    /// Everything that can happen now, of commands a few that stand for all.
    #[must_use]
    pub fn actions(&self) -> Vec<Action> {
        let mut actions = self.happenings();
        if let Some(connection) = self.free_connection()
            && self.budget.commands > 0
        {
            actions.extend(Ask::pool(U).into_iter().map(|ask| Action::Ask(connection, ask)));
        }
        actions
    }

    /// A connection without a command.
    #[must_use]
    pub fn free_connection(&self) -> Option<u16> {
        self.clients.iter().position(Option::is_none).and_then(|index| u16::try_from(index).ok())
    }

    /// Everything that can happen now, without commands.
    #[must_use]
    pub fn happenings(&self) -> Vec<Action> {
        let mut actions = vec![Action::Wait(1), Action::Wait(700), Action::Wait(20_000)];
        let faults = self.budget.faults > 0;
        for (index, _) in self.clients.iter().enumerate().filter(|(_, client)| client.is_some()) {
            actions.push(Action::HangUp(u16::try_from(index).unwrap_or(0)));
        }
        if let Some(task) = self.store_tasks.front() {
            actions.push(Action::Store(true));
            if faults
                && matches!(task, StoreTask::Store { .. } | StoreTask::Inspect { .. } | StoreTask::MakeBlock { .. })
            {
                actions.push(Action::Store(false));
            }
        }
        for count in 1..=u8::try_from(self.appends.len()).unwrap_or(u8::MAX) {
            actions.push(Action::Append(count, Fate::Durable));
            if faults {
                actions.push(Action::Append(count, Fate::NotWritten));
                actions.push(Action::Append(count, Fate::Unknown));
            }
        }
        for index in 0..u8::try_from(self.launches.len()).unwrap_or(u8::MAX) {
            actions.push(Action::Launch(index, true));
            if faults {
                actions.push(Action::Launch(index, false));
            }
        }
        for index in 0..u8::try_from(self.settings.len()).unwrap_or(u8::MAX) {
            actions.extend([Action::Set(index, SetFate::Done), Action::Set(index, SetFate::Refused)]);
            if faults {
                actions.push(Action::Set(index, SetFate::Unsettled));
            }
        }
        actions.extend((0..u8::try_from(self.dumps.len()).unwrap_or(u8::MAX)).map(Action::Dumped));
        for (unit, process) in &self.processes {
            if process.killed {
                actions.push(Action::Exit(*unit, Exit::Signal(9)));
            } else if process.terminated_ms.is_some() {
                actions.push(Action::Exit(*unit, Exit::Signal(15)));
            }
            actions.extend(EXITS.iter().map(|exit| Action::Exit(*unit, *exit)));
        }
        if self.machine.deadline().is_some() {
            actions.extend([Action::Tick(0), Action::Tick(1), Action::Tick(STOP_MS_MAX)]);
        }
        actions.extend((0..HOSTS).filter(|host| usize::from(*host) != self.host).map(Action::Host));
        actions.push(Action::Compact);
        if self.budget.crashes > 0 {
            actions.extend(Crash::some().map(Action::Crash));
        }
        actions
    }

    /// Lets one thing happen and checks everything. What cannot happen now does not.
    ///
    /// # Errors
    /// What has gone wrong.
    pub fn apply(&mut self, action: &Action) -> Result<(), Violation> {
        match *action {
            Action::Ask(connection, ask) => self.ask(connection, ask)?,
            Action::HangUp(connection) => self.hang_up(connection)?,
            Action::Store(good) => self.store(good)?,
            Action::Append(count, fate) => self.append(usize::from(count), fate)?,
            Action::Launch(index, good) => self.launch(usize::from(index), good)?,
            Action::Set(index, fate) => self.end_setting(usize::from(index), fate)?,
            Action::Dumped(index) => self.end_dump(usize::from(index))?,
            Action::Exit(unit, exit) => self.exit(unit, exit)?,
            Action::Wait(ms) => self.pass(ms),
            Action::Tick(late_ms) => self.tick(late_ms)?,
            Action::Host(host) => self.tell_host(usize::from(host))?,
            Action::Compact => self.compact()?,
            Action::Crash(crash) => self.crash(crash)?,
        }
        self.finish_step()
    }

    fn pass(&mut self, ms: u64) {
        self.now.ms += ms;
        self.now.wall_ms += i64::try_from(ms).unwrap_or(0);
    }

    pub(super) fn spend_fault(&mut self) -> bool {
        let left = self.budget.faults > 0;
        self.budget.faults = self.budget.faults.saturating_sub(1);
        left
    }

    /// Counts an effect that is about to be carried out; `true` when the crash comes before it.
    pub(super) fn crashes_before(&mut self) -> bool {
        let point = self.crash_point;
        self.effects += 1;
        point.is_some_and(|point| !point.carried_out && point.effect + 1 == self.effects)
    }

    pub(super) fn crashes_after(&self) -> bool {
        self.crash_point.is_some_and(|point| point.carried_out && point.effect + 1 == self.effects)
    }

    fn store(&mut self, good: bool) -> Result<(), Violation> {
        if self.store_tasks.is_empty() || (!good && !self.spend_fault()) {
            return Ok(());
        }
        if self.crashes_before() {
            return self.crash(Crash::PLAIN);
        }
        let Some(task) = self.store_tasks.pop_front() else { return Ok(()) };
        match task {
            StoreTask::Store { slot, image } => {
                let unit = self.machine.unikernel(slot).map_or(0, fulmar_core::machine::Unikernel::unit);
                let image = &IMAGES[image];
                let outcome = match &image.facts {
                    _ if !good => Err(StoreError::DiskFull),
                    None => Err(StoreError::Compression),
                    Some(facts) => Ok(StoredImage { digest: image.digest, bytes: image.bytes.len() as u64, facts }),
                };
                if outcome.is_ok() {
                    self.images.insert(image.digest);
                } else {
                    self.faulted.insert(unit);
                }
                self.mark(if good { "stored" } else { "store failed" });
                if self.crashes_after() {
                    return self.crash(Crash::PLAIN);
                }
                self.handle(Input::Stored { slot, outcome })
            }
            StoreTask::Inspect { slot, digest } => {
                let unit = self.machine.unikernel(slot).map_or(0, fulmar_core::machine::Unikernel::unit);
                let image = IMAGES.iter().find(|image| image.digest == digest).ok_or("an unknown image")?;
                let outcome = match &image.facts {
                    Some(facts) if good => Ok(StoredImage { digest, bytes: image.bytes.len() as u64, facts }),
                    _ => Err(StoreError::DiskFull),
                };
                if !good {
                    self.faulted.insert(unit);
                }
                self.mark("inspected");
                if self.crashes_after() {
                    return self.crash(Crash::PLAIN);
                }
                self.handle(Input::Stored { slot, outcome })
            }
            StoreTask::MakeBlock { slot, name, size_mb, content } => {
                self.mark(if good { "block made" } else { "block not made" });
                if good {
                    self.block_files.insert(name, size_mb);
                    self.contents.insert(name, OnDisk::durable(content));
                }
                if self.crashes_after() {
                    return self.crash(Crash::PLAIN);
                }
                let outcome = if good { Ok(()) } else { Err(BlockFileError::DiskFull) };
                self.handle(Input::BlockMade { slot, outcome })
            }
            StoreTask::RemoveBlock { slot, name } => {
                self.mark("block removed");
                self.block_files.remove(&name);
                self.contents.remove(&name);
                if self.crashes_after() { self.crash(Crash::PLAIN) } else { self.handle(Input::BlockRemoved { slot }) }
            }
            StoreTask::Release(digest) => {
                self.mark("released");
                self.images.remove(&digest);
                if self.crashes_after() { self.crash(Crash::PLAIN) } else { Ok(()) }
            }
            StoreTask::Collect(keep) => {
                self.mark("collected");
                self.images.retain(|digest| keep.contains(digest));
                if self.crashes_after() { self.crash(Crash::PLAIN) } else { Ok(()) }
            }
        }
    }

    fn append(&mut self, count: usize, fate: Fate) -> Result<(), Violation> {
        let count = count.min(self.appends.len());
        if count == 0 || (fate != Fate::Durable && !self.spend_fault()) {
            return Ok(());
        }
        if self.crashes_before() {
            return self.crash(Crash::PLAIN);
        }
        let records: Vec<Laid> = self.appends.iter().take(count).map(|append| append.record.clone()).collect();
        let was_closed = self.journal.is_closed();
        let durable = self.journal.append(&records, fate)?;
        self.append_failed = !durable;
        if durable {
            self.known.unsure.clear();
        } else if fate == Fate::Unknown && !was_closed {
            let subjects = self.appends.iter().take(count).filter_map(|append| append.record.subject());
            self.known.unsure.extend(subjects);
        }
        self.mark(match fate {
            Fate::Durable => "appended",
            Fate::NotWritten => "append not written",
            Fate::Unknown => "append unknown",
        });
        if self.crashes_after() {
            let crash = if fate == Fate::Durable { self.forget_appends(count) } else { Crash::PLAIN };
            return self.crash(crash);
        }
        for append in self.appends.drain(..count).collect::<Vec<_>>() {
            let outcome = if durable { Ok(()) } else { Err(fate.error()) };
            if !durable && let fulmar_core::machine::Change::Unikernel(slot) = append.change {
                let unit = self.machine.unikernel(slot).map_or(0, fulmar_core::machine::Unikernel::unit);
                self.faulted.insert(unit);
            }
            self.handle(Input::Appended { change: append.change, outcome })?;
        }
        Ok(())
    }

    /// They are durable, and the machine dies before it knows.
    fn forget_appends(&mut self, count: usize) -> Crash {
        self.appends.drain(..count);
        Crash { written: 0, rest: Rest::Lost, ..Crash::PLAIN }
    }

    fn launch(&mut self, index: usize, good: bool) -> Result<(), Violation> {
        if index >= self.launches.len() || (!good && !self.spend_fault()) {
            return Ok(());
        }
        if self.crashes_before() {
            return self.crash(Crash::PLAIN);
        }
        let launch = self.launches.remove(index);
        let unit = Unit(launch.unit);
        // A process that is being ended and that no record names has its block devices until it is gone.
        let busy = self.is_busy(&launch);
        let good = good && !busy;
        self.mark(match (good, busy) {
            (true, _) => "launched",
            (false, true) => "launch failed: block busy",
            (false, false) => "launch failed",
        });
        if good {
            self.run_process(launch)?;
        } else {
            self.faulted.insert(unit.0);
        }
        if self.crashes_after() {
            return self.crash(Crash::PLAIN);
        }
        let outcome = match (good, busy) {
            (true, _) => Ok(()),
            (false, true) => Err(LaunchError::BlockBusy),
            (false, false) => Err(LaunchError::Os(OsError { attempt: Attempt::Fork, errno: 12 })),
        };
        self.handle(Input::Launched { unit, outcome })
    }

    /// Whether a process has a block device of this launch.
    pub(super) fn is_busy(&self, launch: &super::Launch) -> bool {
        self.processes.values().any(|process| process.blocks.iter().any(|block| launch.blocks.contains(block)))
    }

    pub(super) fn run_process(&mut self, launch: super::Launch) -> Result<(), Violation> {
        let unit = launch.unit;
        self.ended.remove(&unit);
        let super::Launch { account, fail, named, blocks, .. } = launch;
        let process = Process { account, fail, named, blocks, terminated_ms: None, killed: false };
        match self.processes.insert(unit, process) {
            None => Ok(()),
            Some(_) => Err(format!("unit {unit} was launched while it runs")),
        }
    }

    fn exit(&mut self, unit: u64, exit: Exit) -> Result<(), Violation> {
        let Some(process) = self.processes.remove(&unit) else { return Ok(()) };
        let unasked = process.terminated_ms.is_none() && !process.killed;
        let renamed = process.named && exit == Exit::Code(64);
        let over = unasked && !renamed && !crate::oracle::runs_again(process.fail.as_deref(), exit);
        self.mark(match (unasked, over) {
            (false, _) => "exit, asked for",
            (true, true) => "exit, over",
            (true, false) => "exit, to run again",
        });
        self.ended.insert(unit, (exit, over));
        if over {
            self.known.unit_is_over(unit);
        }
        self.handle(Input::Exited { unit: Unit(unit), exit })
    }

    fn tick(&mut self, late_ms: u64) -> Result<(), Violation> {
        let Some(deadline) = self.machine.deadline() else { return Ok(()) };
        self.pass(deadline.saturating_sub(self.now.ms) + late_ms);
        self.mark("tick");
        self.handle(Input::Tick)?;
        let forgotten = self.processes.iter().find(|(_, process)| {
            !process.killed && process.terminated_ms.is_some_and(|at| at + STOP_MS_MAX <= self.now.ms)
        });
        match forgotten {
            Some((unit, _)) => Err(format!("unit {unit} ignores SIGTERM and was not killed in time")),
            None => Ok(()),
        }
    }

    pub(super) fn tell_host(&mut self, host: usize) -> Result<(), Violation> {
        let host = host % usize::from(HOSTS);
        self.mark("host");
        self.shrunk |= host > self.host;
        self.host = host;
        let root = root_policy(host);
        self.handle(Input::Host { root: &root, tenders: tenders(host) })
    }

    fn compact(&mut self) -> Result<(), Violation> {
        if self.appends.is_empty() {
            self.mark("compaction");
            self.journal.compact()?;
            self.known.unsure.clear();
        }
        Ok(())
    }
}
