//! The three states of a tender, whatever its kind, each made of the one before: a guest whose image is in place, the same with
//! no system call left that neither of them needs, and a guest that runs.

use crate::refusal::Refusal;
use crate::report;
use crate::seccomp::{Filter, Row};

/// What a kind of tender runs.
pub(crate) trait Guest {
    /// Runs to the guest's end, which is the process's end. Nothing may be allocated, dropped or opened.
    fn run(self) -> !;
}

/// All is open, the image is in place, and what will be left of the kernel is known.
pub(crate) struct Prepared<G> {
    guest: G,
    rows: Vec<Row>,
}

/// No system call is left but those of the rows.
pub(crate) struct Confined<G> {
    guest: G,
}

/// The guest, about to run.
pub(crate) struct Running<G> {
    guest: G,
}

impl<G: Guest> Prepared<G> {
    /// A guest and the rows of its filter.
    pub(crate) fn new(guest: G, rows: Vec<Row>) -> Prepared<G> {
        Prepared { guest, rows }
    }

    /// The rows of the filter.
    pub(crate) fn rows(&mut self) -> &mut Vec<Row> {
        &mut self.rows
    }

    /// Gives up every other system call, for ever. From here on nothing is allocated or dropped.
    pub(crate) fn confine(self) -> Result<Confined<G>, Refusal> {
        let Prepared { guest, rows } = self;
        Filter::compile(&rows).confine()?;
        // Their memory cannot be given back under the filter.
        std::mem::forget(rows);
        report::guest_begins();
        Ok(Confined { guest })
    }
}

impl<G: Guest> Confined<G> {
    /// Ready to let the guest run.
    pub(crate) fn ready(self) -> Running<G> {
        Running { guest: self.guest }
    }
}

impl<G: Guest> Running<G> {
    /// Lets it run.
    pub(crate) fn run(self) -> ! {
        self.guest.run()
    }
}
