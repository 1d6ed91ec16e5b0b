//! The door that a fuzzer comes in by: what a control half gone mad may send, with any number of fds, to a host half whose host
//! has no kernel behind it and fails when it likes.
//!
//! Each request must be answered exactly once and truthfully, each end told once, and no fd, unit or record be left behind.

#![allow(clippy::unwrap_used, reason = "to panic is how a fuzzer is told")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{ErrorKind, Read};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

use fulmar_core::halves::Status;
use fulmar_core::limits::CHANNEL_FDS_MAX;
use fulmar_host::shim::fake::FakeShim;

use super::*;

/// What begins a step; any other byte is [`SEND`] too.
pub const SEND: u8 = 0;
/// The unit with this number among those that run ends, and has recorded something.
pub const END: u8 = 1;
/// The host refuses the call after the next so many.
pub const REFUSE: u8 = 2;
/// Another host half takes over.
pub const SUCCEED: u8 = 3;

/// A script of steps. Each begins with its kind: [`SEND`] is followed by the number of fds, the packet's length in two bytes
/// (low one first) and the packet; [`END`] by a number, how it ended, the length of its record and the record; [`REFUSE`] by a
/// number; [`SUCCEED`] by nothing.
///
/// # Panics
/// When the host half does not keep its word.
pub fn requests(mut script: &[u8]) {
    let Some(mut scene) = Scene::new() else { return };
    while let Some(kind) = take(&mut script) {
        match kind {
            END => {
                let [number, how, len] = [(); 3].map(|()| take(&mut script).unwrap_or(0));
                let (record, rest) = script.split_at(script.len().min(len.into()));
                script = rest;
                scene.end(number, how, record);
            }
            REFUSE => scene.refuse(take(&mut script).unwrap_or(0)),
            SUCCEED => match scene.succeed() {
                Some(next) => scene = next,
                None => break,
            },
            _ => {
                let fds = usize::from(take(&mut script).unwrap_or(0)) % (CHANNEL_FDS_MAX + 1);
                let len = [take(&mut script).unwrap_or(0), take(&mut script).unwrap_or(0)];
                let len = usize::from(u16::from_le_bytes(len)).min(script.len());
                let (packet, rest) = script.split_at(len);
                script = rest;
                if !scene.send(packet, fds) {
                    break;
                }
            }
        }
        scene.check();
    }
}

fn take(script: &mut &[u8]) -> Option<u8> {
    let (first, rest) = script.split_first()?;
    *script = rest;
    Some(*first)
}

/// A folder that goes with the run.
struct Folder(PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// What one host half leaves to the next.
#[derive(Clone, Default)]
struct Legacy {
    running: BTreeSet<Unit>,
    ended: BTreeSet<Unit>,
    told: BTreeSet<Unit>,
    used: BTreeMap<Unit, Usage>,
}

/// A host half, the control half's end of its channel, and what must be true.
struct Scene {
    half: HostHalf<FakeShim>,
    control: Channel,
    buffer: Vec<u8>,
    folder: Folder,
    /// Units that run.
    running: BTreeSet<Unit>,
    /// Units that have ended without having been told of.
    ended: BTreeSet<Unit>,
    /// Units that have ended and may still matter: nobody has said that they may be forgotten.
    kept: BTreeSet<Unit>,
    /// Those of all these that were told to end.
    told: BTreeSet<Unit>,
    /// What each of them used of the host when it was launched.
    used: BTreeMap<Unit, Usage>,
    /// What a survey has to say.
    inherited: Legacy,
    /// Whether a call to the host has still to fail, or has in this step.
    refusing: bool,
}

impl Scene {
    /// Nothing where the system has no room for one more folder or socket.
    fn new() -> Option<Self> {
        let folder = std::env::temp_dir().join(format!("fulmar-host-half-{}", std::process::id()));
        fs::create_dir_all(&folder).ok()?;
        Self::with(FakeShim::new().ok()?, Folder(folder), Legacy::default(), false)
    }

    /// Nothing where the host refuses to be looked at, as a script may want.
    fn with(shim: FakeShim, folder: Folder, inherited: Legacy, refusing: bool) -> Option<Self> {
        let (ours, control) = Channel::pair().ok()?;
        control.set_nonblocking(true).ok()?;
        let half = match HostHalf::new(shim, ours, &folder.0) {
            Ok(half) => half,
            Err(HostError::Os(_)) => return None,
            Err(error) => panic!("{error}"),
        };
        let Legacy { running, ended: kept, told, used } = inherited.clone();
        let (buffer, ended) = (vec![0; CHANNEL_BYTES_MAX], BTreeSet::new());
        Some(Self { half, control, buffer, folder, running, ended, kept, told, used, inherited, refusing })
    }

    fn end(&mut self, number: u8, how: u8, record: &[u8]) {
        let Some(unit) = self.running.iter().nth(usize::from(number)).copied() else { return };
        let status = match how {
            0..4 => Status::Code(how),
            4..8 => Status::Signal(how),
            8 => Status::OutOfMemory,
            _ => Status::Unknown,
        };
        fs::write(self.status_path(unit), record).unwrap();
        self.half.shim.end(unit, status);
        self.running.remove(&unit);
        self.ended.insert(unit);
        self.tell_exits();
    }

    fn status_path(&self, unit: Unit) -> PathBuf {
        self.folder.0.join("units").join(format!("{}.status", unit.0))
    }

    /// What may be told of the status file of a unit.
    fn status(&self, unit: Unit) -> Vec<u8> {
        let mut record = fs::read(self.status_path(unit)).unwrap_or_default();
        record.truncate(STATUS_BYTES_MAX);
        record
    }

    fn refuse(&mut self, calls: u8) {
        self.half.shim.fail_after(calls.into());
        self.refusing = true;
    }

    /// Whether the host has refused something in this step.
    fn has_refused(&self) -> bool {
        self.refusing && self.half.shim.has_failed()
    }

    /// As when `vmmd` starts again: what ended meanwhile is nobody's child.
    fn succeed(self) -> Option<Self> {
        let Self { half: HostHalf { mut shim, .. }, folder, running, mut ended, kept, told, used, refusing, .. } = self;
        while shim.next_exit().is_some() {}
        ended.extend(kept);
        Self::with(shim, folder, Legacy { running, ended, told, used }, refusing)
    }

    /// Sends a packet, lets it be served, and looks at what comes of it. False when the host half ends.
    fn send(&mut self, packet: &[u8], count: usize) -> bool {
        let (mut witness, theirs) = UnixStream::pair().unwrap();
        witness.set_nonblocking(true).unwrap();
        self.control.send(packet, &vec![theirs.as_fd(); count]).unwrap();
        drop(theirs);
        let mut buffer = std::mem::take(&mut self.buffer);
        let served = self.half.serve_request(&mut buffer);
        self.buffer = buffer;
        // A console is written to; when that is read, only its end is left, or somebody still holds it.
        let mut heard = Vec::new();
        if let Err(error) = witness.read_to_end(&mut heard) {
            assert_ne!(error.kind(), ErrorKind::WouldBlock, "an fd is left open");
        }
        let request = match Request::decode(packet) {
            Ok(request) => request,
            // A packet without a byte is how the end of the channel looks.
            Err(_) if packet.is_empty() => {
                assert!(matches!(served, Ok(false)));
                return false;
            }
            Err(wrong) => {
                assert!(matches!(served, Err(HostError::Message(said)) if said == wrong));
                assert!(self.hear().is_none(), "nonsense is answered");
                return false;
            }
        };
        assert!(matches!(served, Ok(true)), "{served:?}");
        match request {
            Request::Survey => self.surveyed(),
            Request::Bridges => self.answered(|scene, answer| match answer {
                Answer::Bridges(_) => {}
                Answer::SurveyFailed(_) => assert!(scene.has_refused()),
                other => panic!("{other:?}"),
            }),
            Request::Files => self.answered(|_, answer| assert!(matches!(answer, Answer::Files { open: 1.., .. }))),
            Request::Launch(plan) => self.launched(&plan, count),
            Request::Serving { .. } => assert!(self.hear().is_none(), "a sign of life is answered"),
            // Nothing is answered; what runs is not forgotten.
            Request::Forget { unit } => self.forget(unit),
            Request::Signal { unit, signal } => self.answered(|scene, answer| {
                let Answer::Signalled { unit: told, outcome } = answer else { panic!("{answer:?}") };
                assert_eq!(told, unit);
                if signal == Signal::Terminate && (scene.running.contains(&unit) || scene.ended.contains(&unit)) {
                    scene.told.insert(unit);
                }
                match outcome {
                    SignalOutcome::Sent => {
                        assert!(scene.running.remove(&unit));
                        scene.ended.insert(unit);
                    }
                    SignalOutcome::Gone => assert!(!scene.running.contains(&unit)),
                    SignalOutcome::Failed(_) => assert!(scene.has_refused()),
                }
            }),
        }
        self.tell_exits();
        true
    }

    /// Of a unit that has ended nothing is left, unless it runs once more.
    fn forget(&mut self, unit: Unit) {
        if self.kept.remove(&unit) && !self.running.contains(&unit) && !self.ended.contains(&unit) {
            self.told.remove(&unit);
        }
    }

    fn surveyed(&mut self) {
        let Legacy { running, ended, told, .. } = std::mem::take(&mut self.inherited);
        for wanted in running {
            self.answered(|_, answer| {
                let Answer::Adopted { unit, told: was_told, .. } = answer else { panic!("{answer:?}") };
                assert_eq!((unit, was_told), (wanted, told.contains(&wanted)));
            });
        }
        for wanted in ended {
            self.answered(|scene, answer| {
                let Answer::Ended { unit, record } = answer else { panic!("{answer:?}") };
                // What it has recorded of an end that was wanted does not matter.
                let status = if told.contains(&unit) { Vec::new() } else { scene.status(unit) };
                assert_eq!((unit, record.as_bytes()), (wanted, &status[..]));
            });
        }
        self.answered(|scene, answer| match answer {
            Answer::Host(_) => {}
            Answer::SurveyFailed(_) => assert!(scene.has_refused()),
            other => panic!("{other:?}"),
        });
    }

    fn launched(&mut self, plan: &LaunchPlan<'_>, fds: usize) {
        let known = |bridge: &[u8]| self.half.shim.bridges.iter().any(|known| known.as_bytes() == bridge);
        let networks = plan.networks.iter().count() as u64;
        let asked = Usage { unikernels: 1, memory_mb: plan.memory_mb.into(), block_mb: 0, networks };
        let all = self.running.union(&self.ended).filter_map(|unit| self.used.get(unit));
        let all = all.fold(asked, |sum, each| sum.plus(*each));
        let may = plan.check().is_ok()
            && fds == 2 + usize::from(plan.blocks)
            && !self.running.contains(&plan.unit)
            && !self.ended.contains(&plan.unit)
            && all.host_memory_mb() <= self.half.capacity.memory_mb
            && self.half.capacity.cpus.contains(&plan.cpus)
            && plan.networks.iter().all(known);
        self.answered(|scene, answer| match answer {
            Answer::Launched { unit, taps, .. } => {
                assert!(may && unit == plan.unit);
                assert_eq!(taps.iter().count(), plan.networks.iter().count());
                scene.running.insert(unit);
                scene.used.insert(unit, asked);
                scene.kept.remove(&unit);
                scene.told.remove(&unit);
            }
            Answer::LaunchFailed { unit, error } => {
                assert_eq!(unit, plan.unit);
                // What is left of a launch goes, and with it what was kept of a unit whose number is used twice.
                if !scene.folder.0.join("units").join(unit.0.to_string()).exists() {
                    scene.forget(unit);
                }
                assert!(!may || (scene.has_refused() && matches!(error, LaunchError::Os(_))), "{error}");
            }
            other => panic!("{other:?}"),
        });
    }

    /// Each end is told, once and of nothing else; before a survey of none, as the loop has it.
    fn tell_exits(&mut self) {
        if self.half.inherited.is_none() {
            self.half.tell_exits().unwrap();
            for _ in 0..self.ended.len() {
                self.answered(|scene, answer| {
                    let Answer::Exited { unit, status, record } = answer else { panic!("{answer:?}") };
                    assert!(scene.ended.remove(&unit) && scene.kept.insert(unit));
                    assert_eq!(record.as_bytes(), scene.status(unit));
                    assert!(status != Status::OutOfMemory || record == StatusRecord::OUT_OF_MEMORY);
                });
            }
        }
    }

    /// Takes one answer, which must be there.
    fn answered(&mut self, look: impl FnOnce(&mut Self, Answer<'_>)) {
        let packet = self.hear().unwrap();
        look(self, Answer::decode(&packet).unwrap());
    }

    fn hear(&mut self) -> Option<Vec<u8>> {
        match self.control.receive(&mut self.buffer, &mut ReceivedFds::default()) {
            Ok(packet) => packet.map(<[u8]>::to_vec),
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::WouldBlock);
                None
            }
        }
    }

    /// After each step: nothing more is said, and what runs is what is recorded.
    fn check(&mut self) {
        assert!(self.hear().is_none(), "one request has two answers");
        self.refusing &= !self.half.shim.has_failed();
        assert_eq!(self.half.shim.running(), self.running.len());
        let units: BTreeSet<Unit> = [&self.running, &self.ended, &self.kept].into_iter().flatten().copied().collect();
        assert!(self.told.is_subset(&units));
        let files = units.iter().flat_map(|unit| [format!("{}", unit.0), format!("{}.status", unit.0)]);
        let files = files.chain(self.told.iter().map(|unit| format!("{}.told", unit.0))).collect();
        let found = fs::read_dir(self.folder.0.join("units")).unwrap();
        let found: BTreeSet<String> = found.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        assert_eq!(found, files);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fulmar_tests::seeds;

    #[test]
    fn every_seed_is_served() {
        let seeds = seeds::host_half();
        assert!(seeds.len() > 5);
        for (_, script) in seeds {
            requests(&script);
        }
    }
}
