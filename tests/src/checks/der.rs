//! The DER reader beside RustCrypto's `der`: on whatever bytes both read the same, but for what [`Lawful`] says.

use ::der::asn1::{AnyRef, ContextSpecific, GeneralizedTime, Null, OctetStringRef, SetOfVec, Utf8StringRef};
use ::der::{Decode, Reader as _, SliceReader, TagNumber};
use fulmar_core::der::{Malformed, Octets, Reader, by_encoding, tag};
use fulmar_core::limits::{WIRE_INT_MAX, WIRE_INT_MIN};

/// How deep elements are followed: each level is read again for itself.
const DEPTH_MAX: u8 = 24;

/// Where the two may differ: all of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Lawful {
    /// They read an INTEGER that no integer of the peer's language holds.
    IntegerRange,
    /// We read the thousandths of a second, which their profile (RFC 5280) forbids.
    Thousandths,
    /// We read the years before 1970, which they count from.
    BeforeUnix,
    /// They know which identifier octets there are, and those of several bytes; we are told which octet to want, and want only
    /// those of [`fulmar_core::der::tag`].
    UnknownTag,
    /// They put the members of a SET OF into order; we refuse the set (in the lists of the wire) if they are not.
    Order,
}

/// Any bytes, element by element and level by level.
///
/// # Panics
/// Where the two differ.
pub fn der(bytes: &[u8]) {
    walk(bytes, 0);
}

fn walk(bytes: &[u8], depth: u8) {
    let (mut ours, Ok(mut theirs)) = (Reader::new(bytes), SliceReader::new(bytes)) else { return };
    while let Some(octet) = ours.peek() {
        let rest = ours.rest();
        let content = ours.open(octet).ok().map(|content| content.rest());
        let expected = theirs.decode::<AnyRef<'_>>().ok().map(AnyRef::value);
        let lawful = explain_element(octet, expected);
        if lawful.is_some() {
            return;
        }
        assert_eq!(content, expected, "{rest:02x?}");
        let element = rest.get(..rest.len() - ours.rest().len()).unwrap_or_default();
        compare(if content.is_some() { element } else { rest });
        let Some(content) = content else { return };
        if octet & 0x20 != 0 && depth < DEPTH_MAX {
            walk(content, depth + 1);
        }
    }
    assert!(theirs.is_finished() && ours.finish().is_ok());
}

/// Why we may see another content behind this octet than they.
fn explain_element(octet: u8, theirs: Option<&[u8]>) -> Option<Lawful> {
    let known = [tag::BOOLEAN, tag::INTEGER, tag::OCTETS, tag::NULL, tag::UTF8, tag::TIME, tag::SEQUENCE, tag::SET];
    let ours = known.contains(&octet) || matches!(octet, 0xa0..=0xbe);
    let long = octet & 0x1f == 0x1f;
    (!ours && (theirs.is_none() || long)).then_some(Lawful::UnknownTag)
}

/// Reads all of `element` as `read` says; nothing where it is refused or something is left.
fn ours<'a, T>(element: &'a [u8], read: impl FnOnce(&mut Reader<'a>) -> Result<T, Malformed>) -> Option<T> {
    let mut reader = Reader::new(element);
    let value = read(&mut reader).ok()?;
    reader.finish().ok().map(|()| value)
}

/// Reads one element, as each type in turn, with both readers.
///
/// # Panics
/// Where the two differ.
pub fn compare(element: &[u8]) {
    let integer = i64::from_der(element).ok();
    assert_eq!(
        ours(element, Reader::integer),
        integer.filter(|value| explain_integer(*value).is_none()),
        "{element:02x?}"
    );
    assert_eq!(ours(element, Reader::boolean), bool::from_der(element).ok(), "{element:02x?}");
    assert_eq!(ours(element, Reader::null), Null::from_der(element).ok().map(|_| ()), "{element:02x?}");
    let octets = <&OctetStringRef>::from_der(element).ok().map(OctetStringRef::as_bytes);
    assert_eq!(ours(element, Reader::octets), octets.map(Octets::Inline), "{element:02x?}");
    assert_eq!(ours(element, Reader::held_octets), octets, "{element:02x?}");
    assert_eq!(ours(element, Reader::number), octets.and_then(|it| it.try_into().ok()).map(i64::from_be_bytes));
    assert_eq!(ours(element, Reader::mac), octets.and_then(|octets| octets.try_into().ok()));
    let text = Utf8StringRef::from_der(element).ok().map(|text| text.as_str());
    assert_eq!(ours(element, Reader::utf8), text, "{element:02x?}");
    compare_time(element);
    compare_lists(element);
    let explicit =
        |number| ContextSpecific::<i64>::decode_explicit(&mut SliceReader::new(element).ok()?, number).ok()?;
    for number in [0_u8, 7, 30] {
        let read = ours(element, |reader| reader.within(tag::context(number), Reader::integer));
        let expected = explicit(TagNumber(number.into())).map(|field| field.value);
        // They may leave something behind it: nothing there is what `element` is about.
        let whole = AnyRef::from_der(element).is_ok();
        assert_eq!(read, expected.filter(|value| whole && explain_integer(*value).is_none()), "{element:02x?}");
    }
}

fn explain_integer(value: i64) -> Option<Lawful> {
    (!(WIRE_INT_MIN..=WIRE_INT_MAX).contains(&value)).then_some(Lawful::IntegerRange)
}

fn compare_time(element: &[u8]) {
    let time = ours(element, Reader::time);
    let expected = GeneralizedTime::from_der(element).ok();
    let expected = expected.and_then(|time| i64::try_from(time.to_unix_duration().as_millis()).ok());
    if time != expected {
        let lawful = match (time, expected) {
            (Some(unix_ms), None) if element.contains(&b'.') => {
                // Without them it is a time of both, or of before 1970.
                let plain = [&[0x18, 15], element.get(2..16).unwrap_or_default(), b"Z"].concat();
                let (plain, whole) = (ours(&plain, Reader::time), element.len() == 2 + "YYYYMMDDhhmmss.fffZ".len());
                let within = |plain: i64| whole && (0..1000).contains(&(unix_ms - plain));
                plain.is_some_and(within).then_some(Lawful::Thousandths)
            }
            (Some(..0), None) => Some(Lawful::BeforeUnix),
            _ => None,
        };
        assert!(lawful.is_some(), "{element:02x?}: {time:?}, {expected:?}");
    }
}

/// SEQUENCE OF and SET OF.
fn compare_lists(element: &[u8]) {
    let integers = |tag| {
        ours(element, |reader| {
            reader.within(tag, |reader| {
                let mut list = Vec::new();
                while !reader.is_empty() {
                    list.push(reader.integer()?);
                }
                Ok(list)
            })
        })
    };
    let small = |list: &Vec<i64>| list.iter().all(|value| explain_integer(*value).is_none());
    let expected = Vec::<i64>::from_der(element).ok().filter(small);
    assert_eq!(integers(tag::SEQUENCE), expected, "{element:02x?}");
    let expected = SetOfVec::<i64>::from_der(element).ok().map(SetOfVec::into_vec).filter(small);
    let list = integers(tag::SET);
    assert_eq!(list.is_some(), expected.is_some(), "{element:02x?}");
    if list != expected {
        assert_eq!(explain_order(element, list.as_deref(), expected.as_deref()), Some(Lawful::Order), "{element:02x?}");
    }
}

/// Which difference there is between a list and the same in another order: our order of encodings must be theirs.
fn explain_order(element: &[u8], list: Option<&[i64]>, expected: Option<&[i64]>) -> Option<Lawful> {
    let mut encoded: Vec<&[u8]> = Vec::new();
    let mut set = Reader::new(element).open(tag::SET).ok()?;
    while !set.is_empty() {
        encoded.push(set.element(tag::INTEGER).ok()?);
    }
    encoded.sort_by(|a, b| by_encoding(a, b));
    let sorted: Option<Vec<i64>> = encoded.into_iter().map(|member| ours(member, Reader::integer)).collect();
    (list != sorted.as_deref() && sorted.as_deref() == expected).then_some(Lawful::Order)
}
