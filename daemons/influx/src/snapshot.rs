//! What is known now, for all to read.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use fulmar_core::name::Name;
use fulmar_core::wire::RunEnd;

/// One network interface of a unikernel, counted from its side.
#[derive(Clone, Debug, Default)]
pub(crate) struct Interface {
    /// Its name in the unikernel.
    pub(crate) name: String,
    pub(crate) received: Traffic,
    pub(crate) sent: Traffic,
}

/// What went one way.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Traffic {
    pub(crate) bytes: u64,
    pub(crate) packets: u64,
    pub(crate) dropped: u64,
}

/// What was last measured of a unikernel.
#[derive(Clone, Debug)]
pub(crate) struct Measured {
    pub(crate) cpu_us: u64,
    /// Nothing where it could not be read.
    pub(crate) resident_bytes: Option<u64>,
    pub(crate) interfaces: Vec<Interface>,
    /// Bytes read from storage and written to it; nothing where they are not counted.
    pub(crate) block_read: Option<u64>,
    pub(crate) block_written: Option<u64>,
}

/// What `vmmd` says of a unikernel.
#[derive(Clone, Debug, Default)]
pub(crate) struct Unikernel {
    pub(crate) is_running: bool,
    pub(crate) restarts: u64,
    pub(crate) last: Option<RunEnd>,
    pub(crate) memory_mb: u64,
    /// Of its block devices together.
    pub(crate) block_mb: u64,
}

/// What a path uses and may use.
#[derive(Clone, Debug, Default)]
pub(crate) struct Domain {
    pub(crate) unikernels: u64,
    pub(crate) memory_mb: u64,
    pub(crate) block_mb: u64,
    pub(crate) allowed: Allowed,
}

/// What a policy allows.
#[derive(Clone, Debug, Default)]
pub(crate) struct Allowed {
    pub(crate) unikernels: u64,
    pub(crate) memory_mb: u64,
    pub(crate) block_mb: u64,
    pub(crate) cpus: u64,
}

/// Something that a host has only so much of.
#[derive(Clone, Debug)]
pub(crate) struct Use {
    pub(crate) what: String,
    pub(crate) used: u64,
    pub(crate) limit: u64,
}

/// What `vmmd` said last.
#[derive(Debug, Default)]
pub(crate) struct Survey {
    pub(crate) version: String,
    pub(crate) unikernels: BTreeMap<Name, Unikernel>,
    pub(crate) domains: BTreeMap<Name, Domain>,
    pub(crate) uses: Vec<Use>,
    /// Whether each daemon could be reached.
    pub(crate) daemons: [(&'static str, bool); 4],
}

/// All of it.
#[derive(Debug, Default)]
pub(crate) struct Snapshot {
    pub(crate) measured: BTreeMap<Name, Measured>,
    pub(crate) survey: Survey,
    /// When `vmmd` was last asked everything, whatever came of it.
    surveyed_at: Option<Instant>,
}

impl Snapshot {
    /// `vmmd` has been asked, or is about to be for the first time.
    pub(crate) fn note_survey(&mut self) {
        self.surveyed_at = Some(Instant::now());
    }

    /// How long ago that was.
    pub(crate) fn since_survey(&self) -> Duration {
        self.surveyed_at.map_or(Duration::ZERO, |at| at.elapsed())
    }
}

/// The same, for several threads.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    snapshot: Mutex<Snapshot>,
    /// Measurements that have come.
    measurements: AtomicU64,
    /// How often `vmmd_stats` was lost or not found.
    disconnections: AtomicU64,
}

impl Shared {
    /// A thread that panicked left nothing half done: each change is one assignment.
    pub(crate) fn lock(&self) -> MutexGuard<'_, Snapshot> {
        self.snapshot.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn count_measurement(&self) {
        self.measurements.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn count_disconnection(&self) {
        self.disconnections.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn measurements(&self) -> u64 {
        self.measurements.load(Ordering::Relaxed)
    }

    pub(crate) fn disconnections(&self) -> u64 {
        self.disconnections.load(Ordering::Relaxed)
    }
}
