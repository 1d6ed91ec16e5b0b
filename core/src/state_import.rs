//! The state file of albatross, read once when a host moves over: the unikernels with their images, and the policies.
//!
//! All seven generations of the file are read; none is written. Nothing is applied here. One entry that cannot be taken over, a name
//! that is too long for us say, does not hide the others: so a file is refused as a whole only where it is not even a list.

use crate::der::{Malformed, Reader, Reason, tag};
use crate::name::Name;
use crate::wire::{Arguments, Config, Era, FailBehaviour, Form, Image, Kind, List, Order, Policy, read_argv};

/// A state file.
#[derive(Clone, Copy, Debug)]
pub struct State<'a> {
    unikernels: Reader<'a>,
    policies: Reader<'a>,
    era: FileEra,
    generation: u8,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum FileEra {
    /// Before all others: one network list, the image's kind tells the tender.
    V0,
    Config(Era),
}

/// One entry of a state file.
#[derive(Clone, Copy, Debug)]
pub struct Entry<'a, T> {
    /// Its name as it stands in the file, which may be none.
    pub text: &'a [u8],
    /// Its name and its content, or why we cannot have it.
    pub content: Result<(Name, T), Malformed>,
}

/// Reads a state file: that it is one, and where its entries are.
///
/// # Errors
/// [`Malformed`], as it says; its position is in the file.
pub fn decode(file: &[u8]) -> Result<State<'_>, Malformed> {
    let mut reader = Reader::new(file);
    let Some(choice) = reader.peek() else { return Err(reader.error(Reason::Truncated)) };
    let (generation, era) = match choice {
        0xa0 => (1, FileEra::Config(Era::StateV1)),
        0xa1 => (0, FileEra::V0),
        0xa2 => (2, FileEra::Config(Era::StateV2)),
        0xa3 => (3, FileEra::Config(Era::V3)),
        0xa4 => (4, FileEra::Config(Era::V3)),
        0xa5 => (5, FileEra::Config(Era::V4)),
        0xa6 => (6, FileEra::Config(Era::Current)),
        _ => return Err(reader.error(Reason::Choice)),
    };
    let state = reader.within(choice, |reader| {
        // The policies were not always kept.
        if generation < 4 {
            return Ok(State { unikernels: read_list(reader)?, policies: Reader::new(&[]), era, generation });
        }
        reader.within(tag::SEQUENCE, |reader| {
            Ok(State { unikernels: read_list(reader)?, policies: read_list(reader)?, era, generation })
        })
    })?;
    reader.finish()?;
    Ok(state)
}

/// Checks that the next element is a list of named entries, each as long as it says, and returns its content.
fn read_list<'a>(reader: &mut Reader<'a>) -> Result<Reader<'a>, Malformed> {
    let list = reader.open(tag::SEQUENCE)?;
    let mut entries = list;
    while !entries.is_empty() {
        entries.open(tag::SEQUENCE)?.text()?;
    }
    Ok(list)
}

/// The next entry of a list, whose content is read by `read`.
fn next_entry<'a, T>(
    list: &mut Reader<'a>,
    read: impl FnOnce(&mut Reader<'a>) -> Result<T, Malformed>,
) -> Option<Entry<'a, T>> {
    // Each was looked at before without error, so the end of the list is the only reason to stop.
    let mut entry = list.open(tag::SEQUENCE).ok()?;
    let start = entry;
    let text = entry.text().ok()?;
    let content = Name::parse_bytes(text).map_err(|error| start.error(Reason::Name(error))).and_then(|name| {
        let content = read(&mut entry)?;
        entry.finish()?;
        Ok((name, content))
    });
    Some(Entry { text, content })
}

fn read_config<'a>(reader: &mut Reader<'a>, era: FileEra) -> Result<Config<'a>, Malformed> {
    match era {
        FileEra::V0 => reader.within(tag::SEQUENCE, read_v0),
        FileEra::Config(era) => Config::read(reader, era),
    }
}

fn read_v0<'a>(reader: &mut Reader<'a>) -> Result<Config<'a>, Malformed> {
    let cpuids = List::read_one(reader, tag::INTEGER, Form::Current)?;
    let memory = reader.integer()?;
    let block_devices =
        if reader.peek() == Some(tag::UTF8) { List::read_one(reader, tag::UTF8, Form::Bare)? } else { List::EMPTY };
    let bridges =
        reader.optional(tag::SEQUENCE, |reader| List::read(reader, Order::Given, Form::Bare))?.unwrap_or(List::EMPTY);
    let (choice, compressed) = match reader.peek() {
        Some(choice @ (0xa0 | 0xa1)) => (choice, false),
        Some(choice @ 0xa2) => (choice, true),
        _ => return Err(reader.error(Reason::Choice)),
    };
    let image = reader.within(choice, Reader::held_octets)?;
    let argv = if reader.peek() == Some(tag::SEQUENCE) { Some(read_argv(reader)?) } else { None };
    let arguments = Arguments {
        fail_behaviour: FailBehaviour::Quit,
        startup: None,
        add_name: true,
        cpuids,
        memory,
        block_devices,
        bridges,
        argv,
        numcpus: 1,
        linux_boot: None,
    };
    Ok(Config { kind: Kind::Solo5, compressed, image: Image::Inline(image), arguments })
}

impl<'a> State<'a> {
    /// Which generation of the file this is: 0 to 6, the last is the one of albatross 2.
    #[must_use]
    pub fn generation(&self) -> u8 {
        self.generation
    }

    /// The unikernels, in the order of the file.
    pub fn unikernels(&self) -> impl Iterator<Item = Entry<'a, Config<'a>>> + Clone + use<'a> {
        let (mut list, era) = (self.unikernels, self.era);
        core::iter::from_fn(move || next_entry(&mut list, |reader| read_config(reader, era)))
    }

    /// The policies, in the order of the file; none in the files of before they were kept.
    pub fn policies(&self) -> impl Iterator<Item = Entry<'a, Policy<'a>>> + Clone + use<'a> {
        let mut list = self.policies;
        core::iter::from_fn(move || next_entry(&mut list, Policy::read))
    }
}
