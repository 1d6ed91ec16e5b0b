//! Replies that are long lists, written straight from what the caller walks through: no slice, no second buffer.
//!
//! The writer goes backwards, so the items must be walkable backwards. The order given is the order on the wire.

use crate::der::{Full, Writer, tag};
use crate::name::Name;
use crate::wire::block::BlockInfo;
use crate::wire::condition::Condition;
use crate::wire::info::Info;
use crate::wire::list::{Form, Item};
use crate::wire::message::{Header, finish_frame, write};
use crate::wire::policy::{Policy, write_named};
use crate::wire::success;

/// In which form unikernels are listed: as the command that asked wants it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum InfoForm {
    /// For [`crate::wire::UnikernelCommand::Info`].
    Current,
    /// For [`crate::wire::UnikernelCommand::OldInfo5`].
    Old5,
    /// For [`crate::wire::UnikernelCommand::OldInfo4`].
    Old4,
}

/// Writes the reply that lists unikernels, with its length before it. `describe` makes the entry of one item and hands
/// it on, with its name as text, while what it borrows is alive, so that nothing of a listing is ever held as a whole.
///
/// # Errors
/// [`Full`] when `buffer` is too small.
pub fn encode_infos<'b, T>(
    header: &Header,
    form: InfoForm,
    items: impl DoubleEndedIterator<Item = T>,
    buffer: &'b mut [u8],
    mut describe: impl FnMut(T, &mut dyn FnMut(&str, &Info<'_>)),
) -> Result<&'b [u8], Full> {
    let (choice, form) = match form {
        InfoForm::Current => (success::INFOS, Form::Current),
        InfoForm::Old5 => (success::INFOS_5, Form::Info5),
        InfoForm::Old4 => (success::INFOS_4, Form::Info4),
    };
    let write_one = |item: T, writer: &mut Writer<'_>| {
        describe(item, &mut |name, info| write_named(writer, name, |writer| info.write(writer, form)));
    };
    encode_list(header, choice, items, write_one, buffer)
}

/// Writes the reply that says how unikernels fare, with its length before it; `describe` as for [`encode_infos`].
///
/// # Errors
/// [`Full`] when `buffer` is too small.
pub fn encode_conditions<'b, T>(
    header: &Header,
    items: impl DoubleEndedIterator<Item = T>,
    buffer: &'b mut [u8],
    mut describe: impl FnMut(T, &mut dyn FnMut(&str, &Condition<'_>)),
) -> Result<&'b [u8], Full> {
    let write_one = |item: T, writer: &mut Writer<'_>| {
        describe(item, &mut |name, condition| write_named(writer, name, |writer| condition.write(writer)));
    };
    encode_list(header, success::CONDITIONS, items, write_one, buffer)
}

/// Writes the reply that lists policies, with its length before it; `describe` as for [`encode_infos`].
///
/// # Errors
/// [`Full`] when `buffer` is too small.
pub fn encode_policies<'b, T>(
    header: &Header,
    items: impl DoubleEndedIterator<Item = T>,
    buffer: &'b mut [u8],
    mut describe: impl FnMut(T, &mut dyn FnMut(&str, &Policy<'_>)),
) -> Result<&'b [u8], Full> {
    let write_one = |item: T, writer: &mut Writer<'_>| {
        describe(item, &mut |name, policy| write_named(writer, name, |writer| policy.write(writer)));
    };
    encode_list(header, success::POLICIES, items, write_one, buffer)
}

/// Writes the reply that lists block devices, with its length before it.
///
/// # Errors
/// [`Full`] when `buffer` is too small.
pub fn encode_blocks<'b, I>(header: &Header, items: I, buffer: &'b mut [u8]) -> Result<&'b [u8], Full>
where
    I: IntoIterator<Item = BlockInfo>,
    I::IntoIter: DoubleEndedIterator,
{
    encode_list(header, success::BLOCKS, items.into_iter(), |item, writer| item.write(writer, Form::Current), buffer)
}

/// Writes the reply that lists consoles, with its length before it.
///
/// # Errors
/// [`Full`] when `buffer` is too small.
pub fn encode_consoles<'b, I>(header: &Header, items: I, buffer: &'b mut [u8]) -> Result<&'b [u8], Full>
where
    I: IntoIterator<Item = Name>,
    I::IntoIter: DoubleEndedIterator,
{
    encode_list(header, success::CONSOLES, items.into_iter(), |item, writer| item.write(writer, Form::Current), buffer)
}

fn encode_list<'b, T>(
    header: &Header,
    choice: u8,
    items: impl DoubleEndedIterator<Item = T>,
    mut write_one: impl FnMut(T, &mut Writer<'_>),
    buffer: &'b mut [u8],
) -> Result<&'b [u8], Full> {
    let mut writer = Writer::new(buffer);
    write(&mut writer, header, |writer| {
        writer.within(tag::context(1), |writer| {
            writer.within(choice, |writer| {
                writer.within(tag::SEQUENCE, |writer| items.rev().for_each(|item| write_one(item, writer)));
            });
        });
    });
    finish_frame(writer).map(|frame| frame.head)
}
