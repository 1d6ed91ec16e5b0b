//! One reader: what it asked for, what it has got. It costs its place in the log and nothing else while nothing happens.

use fulmar_core::wire::{Data, Event, Header, LogCommand, LogEntry, LogFrom, Note, Numbered, Payload, Window};
use fulmar_host::clients::Client;

use crate::store::{Left, Place, Seen, Store, Want};

/// Reads of the log for one reader in a turn.
const READS_PER_TURN: usize = 4;

/// In which words a reader is told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Form {
    /// Those of wire version 5, and only the events that it knows.
    Historic,
    /// All that there are, with their numbers and what is between them.
    Full,
}

/// Where a reader is to begin.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Begin {
    /// It has begun.
    Here,
    /// With the last so many events that it may see: the segments from this one on have been gone through.
    Last { count: u64, segment: u64 },
}

/// What follows for a client.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Served {
    /// It has what there is, or cannot take more now.
    Rests,
    /// There is more for it.
    Busy,
    /// It has all that it asked for.
    Over,
}

/// A reader.
#[derive(Debug)]
pub(crate) struct Subscription {
    /// Of the command, and so of each event. It sees what is at this name.
    pub(crate) header: Header,
    form: Form,
    follow: bool,
    begin: Begin,
    place: Place,
    /// Nothing that happened earlier.
    since_ms: i64,
    /// Whether it was told that it has all that there is.
    told_end: bool,
    /// Lost events that it knows of.
    told_lost: u64,
}

impl Subscription {
    /// As a command of wire version 5 has it.
    pub(crate) fn historic(header: Header, window: Window, store: &Store) -> Self {
        Self::new(header, Form::Historic, LogCommand { from: LogFrom::Window(window), follow: true }, store)
    }

    /// As our own command has it.
    pub(crate) fn full(header: Header, command: LogCommand, store: &Store) -> Self {
        Self::new(header, Form::Full, command, store)
    }

    fn new(header: Header, form: Form, command: LogCommand, store: &Store) -> Self {
        let (begin, sequence, since_ms) = match command.from {
            LogFrom::After(last) => (Begin::Here, last.saturating_add(1), i64::MIN),
            LogFrom::Window(Window::Since(unix_ms)) => (Begin::Here, store.since(unix_ms), unix_ms),
            LogFrom::Window(Window::Count(count)) => {
                let count = u64::try_from(count).unwrap_or(0);
                // Everything is told at the root: there the numbers say where to begin.
                if form == Form::Full && header.name.is_root() || count == 0 {
                    (Begin::Here, store.next().saturating_sub(count).max(store.oldest()), i64::MIN)
                } else {
                    (Begin::Last { count, segment: store.next() }, store.oldest(), i64::MIN)
                }
            }
        };
        let place = Place::before(sequence);
        Self { header, form, follow: command.follow, begin, place, since_ms, told_end: false, told_lost: 0 }
    }

    /// The event in the words that this reader is told it in, if it is told of it.
    fn words<'a>(&self, entry: &LogEntry<'a>) -> Option<Event<'a>> {
        let told = entry.event.concerns(&self.header.name) && entry.unix_ms >= self.since_ms;
        match self.form {
            _ if !told => None,
            Form::Full => Some(entry.event),
            Form::Historic => entry.event.historic(),
        }
    }

    /// Goes through one more segment to find where to begin.
    fn look_back(&mut self, store: &Store, buffer: &mut [u8]) {
        let Begin::Last { count, segment } = self.begin else { return };
        let Some(older) = store.newest_first().find(|first| *first < segment) else {
            self.begin = Begin::Here;
            return;
        };
        let mut found = 0;
        store.read_segment(older, buffer, |record| {
            found += u64::from(record.entry().is_ok_and(|entry| self.words(&entry).is_some()));
        });
        if found < count {
            self.begin = Begin::Last { count: count - found, segment: older };
            return;
        }
        let (mut passed, mut at) = (0, older);
        store.read_segment(older, buffer, |record| {
            if record.entry().is_ok_and(|entry| self.words(&entry).is_some()) {
                passed += 1;
                if passed == found - count + 1 {
                    at = record.sequence;
                }
            }
        });
        self.place = Place::before(at);
        self.begin = Begin::Here;
    }

    /// Puts what it is owed into the output of `client`, as far as there is room.
    pub(crate) fn serve(&mut self, client: &mut Client<Box<Self>>, store: &Store, buffer: &mut [u8]) -> Served {
        for _ in 0..READS_PER_TURN {
            if matches!(self.begin, Begin::Last { .. }) {
                self.look_back(store, buffer);
                continue;
            }
            if client.is_behind() {
                return Served::Rests;
            }
            let mut place = self.place;
            let left = store.read(&mut place, buffer, |seen| self.put(client, seen));
            self.place = place;
            if client.is_behind() {
                // What is left is looked at when there is room again.
                return Served::Rests;
            }
            if left == Left::Nothing {
                return self.put_end(client, store);
            }
        }
        Served::Busy
    }

    fn put(&self, client: &mut Client<Box<Self>>, seen: Seen<'_>) -> Want {
        if client.is_behind() {
            return Want::Enough;
        }
        match (seen, self.form) {
            (Seen::Gap { first, next, cause }, Form::Full) => {
                client.put(&self.header, Payload::Data(Data::Note(Note::Gap { first, next, cause })));
            }
            (Seen::Gap { .. }, Form::Historic) => {}
            (Seen::Record(record), form) => {
                // One of a later version is not told: this one has no words for it.
                let Ok(entry) = record.entry() else { return Want::More };
                let Some(event) = self.words(&entry) else { return Want::More };
                let entry = LogEntry { unix_ms: entry.unix_ms, event };
                let data = match form {
                    Form::Historic => Data::Log(entry),
                    Form::Full => Data::Event(Numbered { sequence: record.sequence, entry }),
                };
                client.put(&self.header, Payload::Data(data));
            }
        }
        Want::More
    }

    /// It has all that there is.
    fn put_end(&mut self, client: &mut Client<Box<Self>>, store: &Store) -> Served {
        if self.form == Form::Full {
            if store.lost() > self.told_lost {
                let count = i64::try_from(store.lost()).unwrap_or(i64::MAX);
                client.put(&self.header, Payload::Data(Data::Note(Note::Lost { count })));
            }
            if !std::mem::replace(&mut self.told_end, true) {
                let last = store.next().saturating_sub(1);
                client.put(&self.header, Payload::Data(Data::Note(Note::End { last })));
            }
        }
        self.told_lost = store.lost();
        if self.follow { Served::Rests } else { Served::Over }
    }

    /// Its last word: it reads too slowly.
    pub(crate) fn put_slow(&self, client: &mut Client<Box<Self>>) {
        if self.form == Form::Full {
            client.put(&self.header, Payload::Data(Data::Note(Note::Slow)));
        }
    }
}
