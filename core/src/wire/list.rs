//! Lists: either DER that was validated when it was decoded and is read again item by item, or a slice.
//!
//! Nothing is copied or allocated for a list, however long; a list taken from one message can be put into another.

use core::cmp::Ordering;
use core::fmt;

use crate::der::{Malformed, Reader, Reason, Writer, by_encoding, by_value, tag};

/// The historic shapes of an item. Decoding knows them all; most items have only one.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Form {
    /// The shape that is written today.
    #[default]
    Current,
    /// A device that is only a text, its name (state file).
    Bare,
    /// Information about a unikernel with one CPU, as client command `[18]` wants it.
    Info5,
    /// The same without the start order, as client command `[15]` wants it.
    Info4,
}

/// In which order a list's members are on the wire.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Order {
    /// As the sender likes: a SEQUENCE OF.
    Given,
    /// By their encoding, where two may be the same: a SET OF that the peer keeps as a list.
    Encoding,
    /// By their encoding, all distinct: a SET OF that the peer keeps as a set.
    Distinct,
    /// By their value, all distinct: a SEQUENCE OF that the peer keeps as a set.
    Value,
}

/// How two encoded elements compare.
type Compare = fn(&[u8], &[u8]) -> Ordering;

impl Order {
    fn compare(self) -> Option<Compare> {
        match self {
            Self::Given => None,
            Self::Encoding | Self::Distinct => Some(by_encoding),
            Self::Value => Some(by_value),
        }
    }

    fn allows(self, last: &[u8], next: &[u8]) -> bool {
        match (self.compare(), self) {
            (None, _) => true,
            (Some(compare), Self::Encoding) => compare(last, next) != Ordering::Greater,
            (Some(compare), _) => compare(last, next) == Ordering::Less,
        }
    }
}

/// What can be in a [`List`].
pub trait Item<'a>: Copy {
    /// Reads one item.
    ///
    /// # Errors
    /// [`Malformed`], as the reader says.
    fn read(reader: &mut Reader<'a>, form: Form) -> Result<Self, Malformed>;

    /// Writes one item.
    fn write(&self, writer: &mut Writer<'_>, form: Form);
}

impl<'a> Item<'a> for i64 {
    fn read(reader: &mut Reader<'a>, _: Form) -> Result<Self, Malformed> {
        reader.integer()
    }

    fn write(&self, writer: &mut Writer<'_>, _: Form) {
        writer.integer(*self);
    }
}

/// A list of `T`.
#[derive(Clone, Copy)]
pub enum List<'a, T> {
    /// As it was on the wire.
    Encoded(Encoded<'a>),
    /// As the program has it.
    Items(&'a [T]),
}

/// Items in DER of which every one has been read once. Only the decoders make it.
#[derive(Clone, Copy, Debug)]
pub struct Encoded<'a> {
    content: &'a [u8],
    count: usize,
    form: Form,
    /// Whether the content can be copied into a message of today as it is.
    canonical: bool,
}

impl<'a, T: Item<'a>> List<'a, T> {
    /// The list of nothing.
    pub const EMPTY: Self = Self::Items(&[]);

    /// How many items there are.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Self::Encoded(encoded) => encoded.count,
            Self::Items(items) => items.len(),
        }
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The items, in the order of the wire.
    #[must_use]
    pub fn iter(&self) -> Iter<'a, T> {
        match self {
            Self::Encoded(encoded) => Iter(Source::Encoded(Reader::new(encoded.content), encoded.form)),
            Self::Items(items) => Iter(Source::Items(items.iter())),
        }
    }

    /// Reads what is left of `reader` as items in this form and order.
    ///
    /// # Errors
    /// What the items say, and [`Reason::Order`].
    pub(crate) fn read(reader: &mut Reader<'a>, order: Order, form: Form) -> Result<Self, Malformed> {
        let content = reader.rest();
        let mut count = 0_usize;
        let mut last: &[u8] = &[];
        while !reader.is_empty() {
            let start = *reader;
            T::read(reader, form)?;
            if order != Order::Given {
                let whole = start.rest();
                let next = whole.get(..whole.len().wrapping_sub(reader.rest().len())).unwrap_or_default();
                if count > 0 && !order.allows(last, next) {
                    return Err(start.error(Reason::Order));
                }
                last = next;
            }
            count = count.wrapping_add(1);
        }
        Ok(Self::Encoded(Encoded { content, count, form, canonical: form == Form::Current }))
    }

    /// Reads the next element, a SET OF in this order.
    ///
    /// # Errors
    /// As [`List::read`].
    #[inline]
    pub(crate) fn read_set(reader: &mut Reader<'a>, order: Order) -> Result<Self, Malformed> {
        reader.within(tag::SET, |inner| Self::read(inner, order, Form::Current))
    }

    /// Reads the next element, a SEQUENCE OF in this order.
    ///
    /// # Errors
    /// As [`List::read`].
    #[inline]
    pub(crate) fn read_sequence(reader: &mut Reader<'a>, order: Order) -> Result<Self, Malformed> {
        reader.within(tag::SEQUENCE, |inner| Self::read(inner, order, Form::Current))
    }

    /// A list that is written item by item because its bytes are not in today's form or order.
    pub(crate) fn recoded(self) -> Self {
        match self {
            Self::Encoded(encoded) => Self::Encoded(Encoded { canonical: false, ..encoded }),
            items => items,
        }
    }

    /// The single-item list of the next element, which must have this tag.
    ///
    /// # Errors
    /// What the item says.
    pub(crate) fn read_one(reader: &mut Reader<'a>, tag: u8, form: Form) -> Result<Self, Malformed> {
        let mut inner = Reader::new(reader.element(tag)?);
        Self::read(&mut inner, Order::Given, form)
    }

    /// Writes the items, without a header around them.
    pub(crate) fn write(&self, writer: &mut Writer<'_>, order: Order, form: Form) {
        match self {
            Self::Encoded(encoded) if encoded.canonical && form == Form::Current => writer.bytes(encoded.content),
            Self::Items(items) => write_items(writer, items.iter().copied().rev(), order, form),
            Self::Encoded(_) => {
                // The reader goes forwards and the writer backwards: turn round by index. Such lists are short and rare.
                let backwards = (0..self.len()).rev().filter_map(|index| self.iter().nth(index));
                write_items(writer, backwards, order, form);
            }
        }
    }

    /// Writes a SET OF in this order.
    pub(crate) fn write_set(&self, writer: &mut Writer<'_>, order: Order) {
        writer.within(tag::SET, |writer| self.write(writer, order, Form::Current));
    }

    /// Writes a SEQUENCE OF in this order.
    pub(crate) fn write_sequence(&self, writer: &mut Writer<'_>, order: Order) {
        writer.within(tag::SEQUENCE, |writer| self.write(writer, order, Form::Current));
    }
}

/// Writes items that come last first, and puts them in order.
pub(crate) fn write_items<'a, T: Item<'a>>(
    writer: &mut Writer<'_>,
    backwards: impl Iterator<Item = T>,
    order: Order,
    form: Form,
) {
    let end = writer.written();
    let mut count = 0_usize;
    for item in backwards {
        item.write(writer, form);
        count = count.wrapping_add(1);
    }
    // Most lists have one item or none, and those are in order.
    if let Some(compare) = order.compare().filter(|_| count > 1) {
        writer.sort_since(end, compare);
    }
}

impl<'a, T: Item<'a> + PartialEq> PartialEq for List<'a, T> {
    fn eq(&self, other: &Self) -> bool {
        self.len() == other.len() && self.iter().eq(other.iter())
    }
}

impl<'a, T: Item<'a> + Eq> Eq for List<'a, T> {}

impl<'a, T: Item<'a> + fmt::Debug> fmt::Debug for List<'a, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

impl<'a, T: Item<'a>> From<&'a [T]> for List<'a, T> {
    fn from(items: &'a [T]) -> Self {
        Self::Items(items)
    }
}

impl<'a, T: Item<'a>> IntoIterator for List<'a, T> {
    type Item = T;
    type IntoIter = Iter<'a, T>;

    fn into_iter(self) -> Iter<'a, T> {
        self.iter()
    }
}

/// The items of a [`List`].
#[derive(Clone, Debug)]
pub struct Iter<'a, T>(Source<'a, T>);

#[derive(Clone, Debug)]
enum Source<'a, T> {
    Encoded(Reader<'a>, Form),
    Items(core::slice::Iter<'a, T>),
}

impl<'a, T: Item<'a>> Iterator for Iter<'a, T> {
    type Item = T;

    fn next(&mut self) -> Option<T> {
        match &mut self.0 {
            // It was read before without error, so the end of the bytes is the only reason to stop.
            Source::Encoded(reader, form) => T::read(reader, *form).ok(),
            Source::Items(items) => items.next().copied(),
        }
    }
}
