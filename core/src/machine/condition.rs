//! How unikernels fare: what people look at when something does not run.

use core::fmt::Write as _;

use super::outcome::{End, Exit};
use super::refusal::Refusal;
use super::unikernel::{Again, Life, Stage, Stop, Unikernel};
use super::{Machine, Now, Reply};
use crate::name::Name;
use crate::wire::{self, Condition, Full, Header, LastRun, Phase, RunEnd, Text};

/// Bytes of the reason why a unikernel does not run.
const REASON_BYTES_MAX: usize = 320;

impl<const U: usize, const P: usize, const B: usize, const C: usize, const A: usize> Machine<U, P, B, C, A> {
    pub(super) fn condition(&mut self, now: Now, connection: u16, name: &Name) {
        let known = name.is_path() || self.find(name).is_some_and(|(_, unikernel)| unikernel.is_listed());
        let reply = if known { Reply::Conditions(now) } else { Reply::Refused(Refusal::InfoNotFound) };
        self.answer(connection, reply);
    }

    pub(super) fn encode_conditions<'b>(
        &self,
        header: &Header,
        now: Now,
        buffer: &'b mut [u8],
    ) -> Result<&'b [u8], Full> {
        let name = &header.name;
        let exact = self.unikernels.find(name);
        wire::encode_conditions(header, self.listed(name, &exact), buffer, |(_, unikernel), write| {
            let mut reason = heapless::String::<REASON_BYTES_MAX>::new();
            if unikernel.life != Life::Alive {
                // A text that does not fit is cut.
                let _ = write!(reason, "{}", unikernel.trouble);
            }
            let own = &unikernel.name;
            let shown = if name.is_path() { own.relative_text(name) } else { own.as_str() };
            write(shown, &describe(unikernel, now, &reason));
        })
    }
}

fn describe<'a>(unikernel: &Unikernel, now: Now, reason: &'a str) -> Condition<'a> {
    let next_ms = match unikernel.again {
        Again::Launch(at) | Again::Drop(at) => Some(at),
        Again::Never | Again::Queued | Again::Undecided => None,
    };
    let ahead_ms = next_ms.map(|at| i64::try_from(at.saturating_sub(now.ms)).unwrap_or(i64::MAX));
    let end = match unikernel.last_end {
        End::None => None,
        End::Exit(Exit::Code(code)) => Some(RunEnd::Code(i64::from(code))),
        End::Exit(Exit::Signal(signal)) => Some(RunEnd::Signal(i64::from(signal))),
        End::Exit(Exit::OutOfMemory) => Some(RunEnd::OutOfMemory),
        End::Exit(Exit::Unknown) => Some(RunEnd::Unknown),
        End::Stopped => Some(RunEnd::Stopped),
    };
    Condition {
        phase: phase(unikernel),
        restarts: i64::from(unikernel.restarts),
        failures: i64::from(unikernel.failures),
        last: end.map(|end| LastRun { ended_unix_ms: unikernel.ended_wall_ms, end }),
        next_unix_ms: ahead_ms.map(|ahead_ms| now.wall_ms.saturating_add(ahead_ms)),
        reason: (!reason.is_empty()).then_some(Text(reason.as_bytes())),
    }
}

fn phase(unikernel: &Unikernel) -> Phase {
    match (unikernel.life, unikernel.stop, unikernel.stage, unikernel.again) {
        (Life::Alive, _, Stage::Dropping | Stage::Dropped, _) => Phase::Stopping,
        (Life::Alive, Stop::No, ..) => Phase::Running,
        (Life::Alive, ..) => Phase::Stopping,
        (Life::None, _, _, Again::Launch(_) | Again::Drop(_)) => Phase::Resting,
        // It is queued, or the one that takes its place is being started.
        (Life::Launching | Life::None, ..) => Phase::Starting,
    }
}
