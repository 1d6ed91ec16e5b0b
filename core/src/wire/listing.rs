//! Replies that are long lists, written straight from what the caller walks through: no slice, no second buffer.
//!
//! The writer goes backwards, so the items must be walkable backwards. The order given is the order on the wire.

use crate::der::{Full, Writer, tag};
use crate::name::Name;
use crate::wire::block::BlockInfo;
use crate::wire::info::{Info, NamedInfo};
use crate::wire::list::{Form, Item, Order, write_items};
use crate::wire::message::{Header, finish_frame, write};
use crate::wire::policy::{NamedPolicy, Policy};
use crate::wire::success;

/// In which form unikernels are listed: as the command that asked wants it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum InfoForm {
    /// For [`crate::wire::UnikernelCommand::Info`].
    Current,
    /// For [`crate::wire::UnikernelCommand::OldInfo5`].
    Old5,
    /// For [`crate::wire::UnikernelCommand::OldInfo4`].
    Old4,
}

/// Writes the reply that lists unikernels, with its length before it.
///
/// # Errors
/// [`Full`] when `buffer` is too small.
pub fn encode_infos<'a, 'b, I>(
    header: &Header,
    form: InfoForm,
    items: I,
    buffer: &'b mut [u8],
) -> Result<&'b [u8], Full>
where
    I: IntoIterator<Item = (Name, Info<'a>)>,
    I::IntoIter: DoubleEndedIterator,
{
    let items = items.into_iter().map(|(name, info)| NamedInfo { name, info });
    let (choice, form) = match form {
        InfoForm::Current => (success::INFOS, Form::Current),
        InfoForm::Old5 => (success::INFOS_5, Form::Info5),
        InfoForm::Old4 => (success::INFOS_4, Form::Info4),
    };
    encode_list(header, choice, items, form, buffer)
}

/// Writes the reply that lists policies, with its length before it.
///
/// # Errors
/// [`Full`] when `buffer` is too small.
pub fn encode_policies<'a, 'b, I>(header: &Header, items: I, buffer: &'b mut [u8]) -> Result<&'b [u8], Full>
where
    I: IntoIterator<Item = (Name, Policy<'a>)>,
    I::IntoIter: DoubleEndedIterator,
{
    let items = items.into_iter().map(|(name, policy)| NamedPolicy { name, policy });
    encode_list(header, success::POLICIES, items, Form::Current, buffer)
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
    encode_list(header, success::BLOCKS, items.into_iter(), Form::Current, buffer)
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
    encode_list(header, success::CONSOLES, items.into_iter(), Form::Current, buffer)
}

fn encode_list<'a, 'b, T: Item<'a>>(
    header: &Header,
    choice: u8,
    items: impl DoubleEndedIterator<Item = T>,
    form: Form,
    buffer: &'b mut [u8],
) -> Result<&'b [u8], Full> {
    let mut writer = Writer::new(buffer);
    write(&mut writer, header, |writer| {
        writer.within(tag::context(1), |writer| {
            writer.within(choice, |writer| {
                writer.within(tag::SEQUENCE, |writer| write_items(writer, items.rev(), Order::Given, form));
            });
        });
    });
    finish_frame(writer).map(|frame| frame.head)
}
