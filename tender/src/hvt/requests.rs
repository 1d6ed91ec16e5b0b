//! Signals while a guest runs: SIGTERM and SIGINT end it, SIGUSR1 wants a core of it, SIGIO says that a debugger has spoken.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use super::kvm;
use crate::refusal::Refusal;
use crate::status::{self, Record};
use crate::sys;
use crate::{raw, report};

static CORE_WANTED: AtomicBool = AtomicBool::new(false);
static INPUT_CAME: AtomicBool = AtomicBool::new(false);
static ARE_POSSIBLE: AtomicBool = AtomicBool::new(false);

/// Sets the handlers that are needed.
pub(super) fn watch(core: bool, debugger: bool) -> Result<(), Refusal> {
    let step = |errno| Refusal::Step { what: "Could not handle signals", errno, remedy: "run another kernel" };
    sys::on_signal(libc::SIGINT, terminate, 0).map_err(step)?;
    sys::on_signal(libc::SIGTERM, terminate, 0).map_err(step)?;
    ARE_POSSIBLE.store(core || debugger, Relaxed);
    if core {
        sys::on_signal(libc::SIGUSR1, want_core, 0).map_err(step)?;
    }
    if debugger {
        sys::on_signal(libc::SIGIO, note_input, 0).map_err(step)?;
    }
    Ok(())
}

/// How long the tender may sleep without looking for requests: a signal may come just before it sleeps.
pub(super) fn patience_ms() -> i32 {
    if ARE_POSSIBLE.load(Relaxed) { 100 } else { -1 }
}

/// Whether a core has been asked for since the last time.
pub(super) fn take_core() -> bool {
    CORE_WANTED.swap(false, Relaxed)
}

/// Whether a debugger may have spoken since the last time.
pub(super) fn take_input() -> bool {
    INPUT_CAME.swap(false, Relaxed)
}

/// The exit code says that the guest did not end by itself.
extern "C" fn terminate(signal: i32, _: *mut libc::siginfo_t, _: *mut libc::c_void) {
    status::record(Record::Terminated { signal });
    report::say(format_args!("Exiting on signal {signal}"));
    raw::exit(1)
}

extern "C" fn want_core(_: i32, _: *mut libc::siginfo_t, _: *mut libc::c_void) {
    CORE_WANTED.store(true, Relaxed);
    kvm::interrupt();
}

extern "C" fn note_input(_: i32, _: *mut libc::siginfo_t, _: *mut libc::c_void) {
    INPUT_CAME.store(true, Relaxed);
    kvm::interrupt();
}
