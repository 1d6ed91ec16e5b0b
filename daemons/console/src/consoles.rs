//! The table of consoles: who runs, who is gone, who is waited for, and what each has written. It is sorted as listings
//! are, so a path with all below it is one range.

use std::collections::BTreeMap;

use fulmar_core::console::{Blocks, History, fullest_domain, is_short, make_room};
use fulmar_core::limits::{CONSOLE_PUSH_BYTES_MAX, CONSOLES_MAX};
use fulmar_core::name::Name;
use fulmar_host::error;
use mio::Token;

use crate::fifo::Fifo;

/// What a console is.
#[derive(Debug)]
pub(crate) enum State {
    /// Nobody has written to it yet, but somebody waits for it.
    Awaited,
    /// A unikernel writes to it.
    Running {
        /// What it writes to.
        fifo: Fifo,
        /// By which the event loop knows that.
        token: Token,
    },
    /// Its unikernel is gone.
    Inactive {
        /// Counts those that ended before.
        ended: u64,
    },
}

/// One console.
#[derive(Debug)]
pub(crate) struct Console {
    pub(crate) state: State,
    pub(crate) history: History,
    /// Connections that get each line, the oldest first.
    pub(crate) subscribers: Vec<Token>,
}

/// All consoles, and the memory that their lines share.
#[derive(Debug)]
pub(crate) struct Consoles<'m> {
    table: BTreeMap<Name, Console>,
    blocks: Blocks<'m>,
    ended: u64,
}

impl<'m> Consoles<'m> {
    /// No console; lines will go to `memory`.
    pub(crate) fn new(memory: &'m mut [u8]) -> Self {
        Self { table: BTreeMap::new(), blocks: Blocks::new(memory), ended: 0 }
    }

    pub(crate) fn get(&self, name: &Name) -> Option<&Console> {
        self.table.get(name)
    }

    pub(crate) fn get_mut(&mut self, name: &Name) -> Option<&mut Console> {
        self.table.get_mut(name)
    }

    /// The store of lines, for readers of histories.
    pub(crate) fn blocks(&self) -> &Blocks<'m> {
        &self.blocks
    }

    /// The console of this name, made where there is none.
    pub(crate) fn entry(&mut self, name: &Name) -> &mut Console {
        self.table.entry(*name).or_insert_with(|| Console {
            state: State::Awaited,
            history: History::default(),
            subscribers: Vec::new(),
        })
    }

    /// Whether one more must take the place of another.
    pub(crate) fn is_full(&self) -> bool {
        self.table.len() >= CONSOLES_MAX
    }

    /// Keeps what a unikernel wrote: at most [`CONSOLE_PUSH_BYTES_MAX`] bytes.
    pub(crate) fn push(&mut self, name: &Name, bytes: &[u8], unix_ms: i64) {
        debug_assert!(bytes.len() <= CONSOLE_PUSH_BYTES_MAX);
        self.make_room();
        let Some(console) = self.table.get_mut(name) else { return };
        if let Err(error) = console.history.push(&mut self.blocks, bytes, unix_ms) {
            error!(name = name; "console of {name}: lines lost: {error}");
        }
    }

    /// Where memory is short, the domain that holds most gives way, and in it the console that does. Where that has nothing to give
    /// but the line that it is writing, any other.
    fn make_room(&mut self) {
        if !is_short(&self.blocks) {
            return;
        }
        let holders = self.table.iter().map(|(name, console)| (name.domain(), &console.history));
        let fullest = fullest_domain(holders).map(str::to_owned);
        let of_fullest = self.table.iter_mut().filter(|(name, _)| name.domain() == fullest.as_deref());
        make_room(&mut self.blocks, of_fullest.map(|(_, console)| &mut console.history));
        make_room(&mut self.blocks, self.table.values_mut().map(|console| &mut console.history));
    }

    /// Nobody writes to this console any more: completes its last line.
    pub(crate) fn finish(&mut self, name: &Name, unix_ms: i64) {
        self.make_room();
        let Some(console) = self.table.get_mut(name) else { return };
        if let Err(error) = console.history.finish(&mut self.blocks, unix_ms) {
            error!(name = name; "console of {name}: the last line is lost: {error}");
        }
    }

    /// Marks a console as one whose unikernel is gone; gives what it was before.
    pub(crate) fn deactivate(&mut self, name: &Name) -> Option<State> {
        self.ended += 1;
        let state = State::Inactive { ended: self.ended };
        self.table.get_mut(name).map(|console| std::mem::replace(&mut console.state, state))
    }

    /// Forgets a console; its subscribers are the caller's to close.
    pub(crate) fn remove(&mut self, name: &Name) -> Option<Console> {
        let mut console = self.table.remove(name)?;
        console.history.clear(&mut self.blocks);
        Some(console)
    }

    /// The consoles in this path and below it whose unikernel is gone, in the order of listings.
    pub(crate) fn inactive(&self, path: &Name) -> Vec<&Name> {
        let below = self.table.range(*path..).take_while(|(name, _)| path.contains(name));
        below.filter(|(_, console)| is_inactive(console)).map(|(name, _)| name).collect()
    }

    /// The console that must go so that there are at most `keep` in exactly this path: of those whose unikernel is gone
    /// the one with the lowest label, which is the last in the order of listings.
    pub(crate) fn surplus(&self, path: &Name, keep: usize) -> Option<Name> {
        if self.table.len() <= keep {
            return None;
        }
        let below = self.table.range(*path..).take_while(|(name, _)| path.contains(name));
        let (mut count, mut last) = (0, None);
        for (name, console) in below.filter(|(name, _)| name.path() == *path) {
            count += usize::from(!matches!(console.state, State::Awaited));
            last = if is_inactive(console) { Some(*name) } else { last };
        }
        last.filter(|_| count > keep)
    }

    /// The console whose unikernel has been gone for longest.
    pub(crate) fn longest_inactive(&self) -> Option<Name> {
        let ended = |console: &Console| match console.state {
            State::Inactive { ended } => Some(ended),
            _ => None,
        };
        let inactive = self.table.iter().filter_map(|(name, console)| Some((ended(console)?, *name)));
        inactive.min_by_key(|(ended, _)| *ended).map(|(_, name)| name)
    }
}

fn is_inactive(console: &Console) -> bool {
    matches!(console.state, State::Inactive { .. })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> Name {
        Name::parse(text).unwrap()
    }

    #[test]
    fn a_domain_that_writes_much_takes_nothing_from_others() {
        let mut memory = vec![0; 400 * 512];
        let mut consoles = Consoles::new(&mut memory);
        let loud: Vec<Name> = (0..20).map(|number| name(&format!("loud:u{number}"))).collect();
        let quiet = name("quiet:a");
        consoles.entry(&quiet);
        // More than any one console of the other domain holds in the end.
        for round in 0..60 {
            consoles.push(&quiet, &[b'q'; 501], round);
            consoles.push(&quiet, b"\n", round);
        }
        let before = consoles.get(&quiet).unwrap().history.ring().lines();
        for round in 0..100 {
            for writer in &loud {
                consoles.entry(writer);
                consoles.push(writer, &[b'l'; 511], round);
                consoles.push(writer, b"\n", round);
            }
        }
        assert!(loud.iter().all(|it| consoles.get(it).unwrap().history.ring().lines() < before));
        assert_eq!(consoles.get(&quiet).unwrap().history.ring().lines(), before);
    }

    #[test]
    fn the_lowest_inactive_label_of_the_exact_path_goes_first() {
        let mut memory = [0; 4096];
        let mut consoles = Consoles::new(&mut memory);
        for text in ["p:a", "p:c", "p:b", "p:q:a", "p:waiting", "a"] {
            consoles.entry(&name(text));
        }
        for text in ["p:c", "p:b", "p:a", "p:q:a", "a"] {
            consoles.deactivate(&name(text));
        }
        assert_eq!(consoles.surplus(&name("p:"), 3), None);
        assert_eq!(consoles.surplus(&name("p:"), 2), Some(name("p:a")));
        assert_eq!(consoles.longest_inactive(), Some(name("p:c")));
        let listed: Vec<&str> = consoles.inactive(&name("p:")).into_iter().map(Name::as_str).collect();
        assert_eq!(listed, ["p:q:a", "p:c", "p:b", "p:a"]);
        consoles.remove(&name("p:a"));
        assert_eq!(consoles.surplus(&name("p:"), 2), None);
    }
}
