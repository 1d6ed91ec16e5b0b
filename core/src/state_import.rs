//! The state file of albatross, read once when a host moves over: the unikernels with their images, and the policies.
//!
//! All seven generations of the file are read; none is written. Nothing is applied here.

use crate::der::{Malformed, Reader, Reason, tag};
use crate::name::Name;
use crate::wire::{Arguments, Config, Era, FailBehaviour, Form, Image, Kind, List, NamedPolicy, Order, read_argv};

/// A state file.
#[derive(Clone, Copy, Debug)]
pub struct State<'a> {
    unikernels: &'a [u8],
    era: FileEra,
    /// The policies; none in the files of before they were kept.
    pub policies: List<'a, NamedPolicy<'a>>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum FileEra {
    /// Before all others: one network list, the image's kind tells the tender.
    V0,
    Config(Era),
}

/// Reads a state file; every entry is checked.
///
/// # Errors
/// [`Malformed`], as it says; its position is in the file.
pub fn decode(file: &[u8]) -> Result<State<'_>, Malformed> {
    let mut reader = Reader::new(file);
    let Some(choice) = reader.peek() else { return Err(reader.error(Reason::Truncated)) };
    let (era, has_policies) = match choice {
        0xa0 => (FileEra::Config(Era::StateV1), false),
        0xa1 => (FileEra::V0, false),
        0xa2 => (FileEra::Config(Era::StateV2), false),
        0xa3 => (FileEra::Config(Era::V3), false),
        0xa4 => (FileEra::Config(Era::V3), true),
        0xa5 => (FileEra::Config(Era::V4), true),
        0xa6 => (FileEra::Config(Era::Current), true),
        _ => return Err(reader.error(Reason::Choice)),
    };
    let state = reader.within(choice, |reader| {
        if !has_policies {
            return Ok(State { unikernels: read_unikernels(reader, era)?, era, policies: List::EMPTY });
        }
        reader.within(tag::SEQUENCE, |reader| {
            let unikernels = read_unikernels(reader, era)?;
            let policies = reader.within(tag::SEQUENCE, |reader| List::read(reader, Order::Given, Form::Current))?;
            Ok(State { unikernels, era, policies })
        })
    })?;
    reader.finish()?;
    Ok(state)
}

/// Checks the list of unikernels and returns its content.
fn read_unikernels<'a>(reader: &mut Reader<'a>, era: FileEra) -> Result<&'a [u8], Malformed> {
    reader.within(tag::SEQUENCE, |reader| {
        let content = reader.rest();
        while !reader.is_empty() {
            read_unikernel(reader, era)?;
        }
        Ok(content)
    })
}

fn read_unikernel<'a>(reader: &mut Reader<'a>, era: FileEra) -> Result<(Name, Config<'a>), Malformed> {
    reader.within(tag::SEQUENCE, |reader| {
        let name = reader.name()?;
        let config = match era {
            FileEra::V0 => reader.within(tag::SEQUENCE, read_v0)?,
            FileEra::Config(era) => Config::read(reader, era)?,
        };
        Ok((name, config))
    })
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
    /// The unikernels, in the order of the file.
    pub fn unikernels(&self) -> impl Iterator<Item = (Name, Config<'a>)> + Clone + use<'a> {
        let mut reader = Reader::new(self.unikernels);
        let era = self.era;
        // Each was read before without error, so the end of the bytes is the only reason to stop.
        core::iter::from_fn(move || read_unikernel(&mut reader, era).ok())
    }
}
