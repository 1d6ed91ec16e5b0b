//! The end of an hvt guest: what is said of it, what is left of it, and the exit code.

use super::Guest;
use super::calls::Death;
use crate::memory::{Memory, Outside};
use crate::raw;
use crate::report::{self, Registers};
use crate::status::{self, ABORTED, Record};

/// The kernel's number for a processor that shut down: a fault within a fault within a fault.
const SHUTDOWN: u32 = 8;
/// The selectors that a guest's code and stack have.
const SELECTORS: (u64, u64) = (8, 16);

/// What the cookie of a guest's end says, where its processor had trapped.
pub(super) struct Trap {
    cr2: u64,
    error: u64,
    rip: u64,
    rflags: u64,
    rsp: u64,
}

impl Guest {
    /// The guest ended by itself. If it says that its processor had trapped, so do we.
    pub(super) fn halted(&self, status: i32, cookie: u64) -> ! {
        if let Some(ring) = self.ring {
            ring.stop();
        }
        status::record(Record::Exited { status });
        if status == ABORTED {
            let mut registers = self.vcpu.stand().0;
            if let Some(trap) = Trap::read(self.memory, cookie) {
                let Trap { cr2, error, rip, rflags, rsp } = trap;
                registers = Registers { rip, rflags, rsp, ..registers };
                // Of what it says there are these; the rest of the registers is as its halt left it.
                report::say(format_args!("guest trap: error code {error:#x}, cr2={cr2:#x}, at this rip and rsp:"));
                report::say_registers(self.memory, &self.layout, &registers, None);
            }
            self.leave_core(&registers);
        }
        raw::exit(status)
    }

    /// The guest did what it may not, or the host could not go on.
    pub(super) fn died(&self, death: Death) -> ! {
        status::record(Record::Failed);
        report::say(format_args!("{death}"));
        let (registers, cr2) = self.vcpu.stand();
        let is_shutdown = matches!(death, Death::Unhandled { reason: SHUTDOWN, .. });
        if is_shutdown {
            report::say(format_args!(
                "  triple fault: a fault that the guest did not handle, the last page fault at cr2"
            ));
        }
        report::say_registers(self.memory, &self.layout, &registers, is_shutdown.then_some(cr2));
        self.leave_core(&registers);
        raw::exit(1)
    }

    fn leave_core(&self, registers: &Registers) {
        if let Some(core) = &self.core {
            core.dump(self.memory, registers);
        }
    }
}

impl Trap {
    /// Reads what a cookie points to: seven numbers, if the two selectors among them are those of a guest.
    pub(super) fn read(memory: &Memory, cookie: u64) -> Option<Trap> {
        let word = |index: u64| memory.u64_at(cookie.saturating_add(8 * index)).map_err(|Outside { .. }| ());
        let read = || {
            let selectors = (word(3)?, word(6)?);
            let trap = Trap { cr2: word(0)?, error: word(1)?, rip: word(2)?, rflags: word(4)?, rsp: word(5)? };
            Ok::<_, ()>((selectors == SELECTORS || selectors == (SELECTORS.0, 0)).then_some(trap))
        };
        if cookie == 0 { None } else { read().ok().flatten() }
    }
}
