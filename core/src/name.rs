//! Names: `path:label`, as in DNS but the root comes first. Access to a path is access to all below it.
//!
//! The text form is the peer's (`docs/wire.md`, names): `:` is the root path, `foo:` a path, `:hello` a unikernel at the
//! root, `foo:bar:web` one below. A [`Name`] is always valid and in lower case: there is no other way to make one.

use core::cmp::Ordering;
use core::fmt;
use core::hash::{Hash, Hasher};

use crate::limits::{LABEL_BYTES_MAX, NAME_BYTES_MAX};

/// Why a text is not a name.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NameError {
    /// Nothing at all.
    Empty,
    /// Two colons in a row.
    EmptyLabel,
    /// A label of more than [`LABEL_BYTES_MAX`] bytes.
    LabelTooLong,
    /// More than [`NAME_BYTES_MAX`] bytes in all.
    TooLong,
    /// A byte that is not a letter, a digit, `.` or `-`.
    Character(u8),
    /// A label that begins with `-`.
    LeadingDash,
    /// A path where a unikernel is needed, or the other way round.
    WrongKind,
}

impl fmt::Display for NameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("invalid name: it is empty"),
            Self::EmptyLabel => f.write_str("invalid name: a label is empty"),
            Self::LabelTooLong => write!(f, "invalid name: a label is longer than {LABEL_BYTES_MAX} bytes"),
            Self::TooLong => write!(f, "invalid name: longer than {NAME_BYTES_MAX} bytes"),
            Self::Character(byte) => write!(
                f,
                "invalid name: '{}' is not allowed, labels are made of letters, digits, '.' and '-'",
                core::ascii::escape_default(*byte)
            ),
            Self::LeadingDash => f.write_str("invalid name: a label begins with '-'"),
            Self::WrongKind => f.write_str("invalid name: a path ends with ':', a unikernel does not"),
        }
    }
}

impl core::error::Error for NameError {}

/// The name of a unikernel, of a block device, or of a path (then [`Name::is_path`]).
///
/// Its order is that of the peer's listings: a node before what is below it, siblings by descending label. So a
/// sorted table lists itself, and a path with all below it is one range.
#[derive(Clone, Copy)]
pub struct Name {
    len: u8,
    text: [u8; NAME_BYTES_MAX],
}

const _: () = assert!(NAME_BYTES_MAX <= u8::MAX as usize);

impl Name {
    /// No name: only for slots that hold nothing.
    pub(crate) const EMPTY: Self = Self { len: 0, text: [0; NAME_BYTES_MAX] };

    /// The root path, `:`.
    pub const ROOT: Self = {
        let mut text = [0; NAME_BYTES_MAX];
        text[0] = b':';
        Self { len: 1, text }
    };

    /// Reads the text form. One leading `:` may be missing or present; letters become lower case.
    ///
    /// # Errors
    /// [`NameError`], as the name says.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        Self::parse_bytes(text.as_bytes())
    }

    /// As [`Name::parse`], of bytes that nobody looked at.
    ///
    /// # Errors
    /// [`NameError`], as the name says.
    pub fn parse_bytes(input: &[u8]) -> Result<Self, NameError> {
        let mut name = Self::ROOT;
        name.assign(input)?;
        Ok(name)
    }

    /// Becomes the name of this text form. What an error leaves behind is still a name, but no particular one.
    ///
    /// # Errors
    /// As [`Name::parse_bytes`].
    #[inline]
    pub fn assign(&mut self, input: &[u8]) -> Result<(), NameError> {
        let rest = input.strip_prefix(b":").unwrap_or(input);
        match plain(rest) {
            Some(has_path) => self.assign_plain(rest, has_path),
            None => self.assign_slowly(input),
        }
    }

    /// Copies a text of which nothing must be changed.
    fn assign_plain(&mut self, rest: &[u8], has_path: bool) -> Result<(), NameError> {
        let place = if has_path { 0..rest.len() } else { 1..rest.len().saturating_add(1) };
        let len = u8::try_from(place.end).map_err(|_| NameError::TooLong)?;
        let text = self.text.get_mut(place).ok_or(NameError::TooLong)?;
        text.copy_from_slice(rest);
        if let (Some(first), false) = (self.text.first_mut(), has_path) {
            *first = b':';
        }
        self.len = len;
        Ok(())
    }

    #[cold]
    fn assign_slowly(&mut self, input: &[u8]) -> Result<(), NameError> {
        *self = Self::parse_slowly(input)?;
        Ok(())
    }

    fn parse_slowly(input: &[u8]) -> Result<Self, NameError> {
        if input.is_empty() {
            return Err(NameError::Empty);
        }
        if input == b":" {
            return Ok(Self::ROOT);
        }
        let rest = input.strip_prefix(b":").unwrap_or(input);
        let mut name = Self::EMPTY;
        if !rest.contains(&b':') {
            name.push(b':')?;
        }
        let labels = rest.strip_suffix(b":").unwrap_or(rest);
        for (index, label) in labels.split(|byte| *byte == b':').enumerate() {
            if index > 0 {
                name.push(b':')?;
            }
            name.push_label(label)?;
        }
        if labels.len() < rest.len() {
            name.push(b':')?;
        }
        Ok(name)
    }

    fn push(&mut self, byte: u8) -> Result<(), NameError> {
        let place = self.text.get_mut(usize::from(self.len)).ok_or(NameError::TooLong)?;
        *place = byte;
        self.len = self.len.checked_add(1).ok_or(NameError::TooLong)?;
        Ok(())
    }

    fn push_label(&mut self, label: &[u8]) -> Result<(), NameError> {
        check_label(label)?;
        label.iter().try_for_each(|byte| self.push(byte.to_ascii_lowercase()))
    }

    /// The text form, the one that goes on the wire.
    #[must_use]
    pub fn as_str(&self) -> &str {
        core::str::from_utf8(self.as_bytes()).unwrap_or_default()
    }

    /// The text form as bytes; all ASCII.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        self.text.get(..usize::from(self.len)).unwrap_or_default()
    }

    /// Whether this names a path and not a unikernel.
    #[must_use]
    pub fn is_path(&self) -> bool {
        self.as_bytes().last() == Some(&b':')
    }

    /// Whether this is the root path.
    #[must_use]
    pub fn is_root(&self) -> bool {
        self.len == 1
    }

    /// The labels from the root down; none for the root path.
    pub fn labels(&self) -> impl Iterator<Item = &str> + Clone {
        self.as_str().split(':').filter(|label| !label.is_empty())
    }

    /// The last label of a unikernel's name; nothing for a path.
    #[must_use]
    pub fn label(&self) -> Option<&str> {
        if self.is_path() { None } else { self.as_str().rsplit(':').next() }
    }

    /// The first label of its path; nothing where that is the root path.
    #[must_use]
    pub fn domain(&self) -> Option<&str> {
        self.as_str().split_once(':').map(|(first, _)| first).filter(|first| !first.is_empty())
    }

    /// The path that this is in: `foo:` of `foo:web`, and a path itself.
    #[must_use]
    pub fn path(&self) -> Self {
        if self.is_path() { *self } else { self.cut() }
    }

    /// The path above a path; nothing above the root.
    #[must_use]
    pub fn parent(&self) -> Option<Self> {
        if !self.is_path() {
            return Some(self.cut());
        }
        if self.is_root() {
            return None;
        }
        let mut shorter = *self;
        shorter.len = shorter.len.saturating_sub(1);
        Some(shorter.cut())
    }

    /// The text up to its last colon, or the root.
    fn cut(&self) -> Self {
        let Some(end) = self.as_bytes().iter().rposition(|byte| *byte == b':') else {
            return Self::ROOT;
        };
        let mut path = Self::EMPTY;
        for byte in self.as_bytes().iter().take(end.saturating_add(1)) {
            // A part of a name is no longer than the name, so it fits.
            let _ = path.push(*byte);
        }
        path
    }

    /// This path and those above it, up to the root: the path of a unikernel first.
    pub fn ancestors(&self) -> impl Iterator<Item = Self> {
        core::iter::successors(Some(self.path()), Self::parent)
    }

    /// Whether `self` (a path) is `other` or above it.
    #[must_use]
    pub fn contains(&self, other: &Self) -> bool {
        self.is_root() || (self.is_path() && other.as_bytes().starts_with(self.as_bytes()))
    }

    /// The unikernel of this label in this path.
    ///
    /// # Errors
    /// [`NameError::WrongKind`] when this is no path, and whatever is wrong with the label.
    pub fn join(&self, label: &str) -> Result<Self, NameError> {
        if !self.is_path() {
            return Err(NameError::WrongKind);
        }
        let mut name = *self;
        name.push_label(label.as_bytes())?;
        Ok(name)
    }

    /// The path of this label below this path.
    ///
    /// # Errors
    /// As [`Name::join`].
    pub fn join_path(&self, label: &str) -> Result<Self, NameError> {
        let mut name = if self.is_root() { Self::EMPTY } else { *self };
        if !self.is_path() {
            return Err(NameError::WrongKind);
        }
        name.push_label(label.as_bytes())?;
        name.push(b':')?;
        Ok(name)
    }

    /// This name as seen from `path`, which contains it: `bar:web` of `foo:bar:web` in `foo:`.
    #[must_use]
    pub fn relative_to(&self, path: &Self) -> Self {
        let mut name = Self::EMPTY;
        for byte in self.relative_text(path).bytes() {
            // No longer than the whole: it fits.
            let _ = name.push(byte);
        }
        name
    }

    /// The text of [`Name::relative_to`]: a name as seen from above is the end of its text.
    #[must_use]
    pub fn relative_text(&self, path: &Self) -> &str {
        let text = self.as_str();
        if path.is_root() || !path.contains(self) {
            return text;
        }
        let prefix = path.as_str().len();
        let rest = text.get(prefix..).unwrap_or_default();
        // What is directly in the path keeps the colon before it.
        if rest.contains(':') { rest } else { text.get(prefix.saturating_sub(1)..).unwrap_or_default() }
    }
}

/// Whether this is a name as it is written here, but for a leading colon; and then, whether it has a path.
#[inline]
fn plain(rest: &[u8]) -> Option<bool> {
    let (mut label_len, mut has_path) = (0_usize, false);
    for byte in rest {
        match byte {
            b'a'..=b'z' | b'0'..=b'9' | b'.' => {}
            b'-' if label_len > 0 => {}
            b':' if label_len > 0 => {
                has_path = true;
                label_len = 0;
                continue;
            }
            _ => return None,
        }
        label_len = label_len.wrapping_add(1);
        if label_len > LABEL_BYTES_MAX {
            return None;
        }
    }
    (label_len > 0 || has_path).then_some(has_path)
}

/// Whether this is a label: 1 to [`LABEL_BYTES_MAX`] letters, digits, `.` and `-`, the first not `-`.
///
/// # Errors
/// [`NameError`], as the name says.
pub fn check_label(label: &[u8]) -> Result<(), NameError> {
    if label.is_empty() {
        return Err(NameError::EmptyLabel);
    }
    if label.len() > LABEL_BYTES_MAX {
        return Err(NameError::LabelTooLong);
    }
    if let Some(byte) = label.iter().find(|byte| !byte.is_ascii_alphanumeric() && **byte != b'.' && **byte != b'-') {
        return Err(NameError::Character(*byte));
    }
    if label.first() == Some(&b'-') {
        return Err(NameError::LeadingDash);
    }
    Ok(())
}

/// The order of listings over the labels of two names (see [`Name`]).
#[must_use]
pub fn listing_order(a: &str, b: &str) -> Ordering {
    let mut left = a.split(':').filter(|label| !label.is_empty());
    let mut right = b.split(':').filter(|label| !label.is_empty());
    loop {
        match (left.next(), right.next()) {
            (None, None) => return a.ends_with(':').cmp(&b.ends_with(':')),
            (None, Some(_)) => return Ordering::Less,
            (Some(_), None) => return Ordering::Greater,
            (Some(one), Some(other)) => match other.cmp(one) {
                Ordering::Equal => {}
                different => return different,
            },
        }
    }
}

impl PartialEq for Name {
    fn eq(&self, other: &Self) -> bool {
        self.as_bytes() == other.as_bytes()
    }
}

impl Eq for Name {}

impl Hash for Name {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.as_bytes().hash(state);
    }
}

impl Ord for Name {
    fn cmp(&self, other: &Self) -> Ordering {
        listing_order(self.as_str(), other.as_str())
    }
}

impl PartialOrd for Name {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> Name {
        Name::parse(text).unwrap()
    }

    #[test]
    fn text_forms_are_the_peers() {
        for (input, text) in [
            (":", ":"),
            ("hello", ":hello"),
            (":hello", ":hello"),
            ("Foo:T1", "foo:t1"),
            (":foo:t1", "foo:t1"),
            ("foo:", "foo:"),
            (":foo:", "foo:"),
            ("a:b:", "a:b:"),
            ("..", ":.."),
            ("a-", ":a-"),
        ] {
            assert_eq!(name(input).as_str(), text, "{input}");
        }
    }

    #[test]
    fn what_is_no_name_is_refused_by_reason() {
        let long = [b'x'; 64];
        for (input, error) in [
            ("", NameError::Empty),
            ("::", NameError::EmptyLabel),
            (":::", NameError::EmptyLabel),
            ("a::b", NameError::EmptyLabel),
            ("a/b", NameError::Character(b'/')),
            ("a b", NameError::Character(b' ')),
            ("a\0", NameError::Character(0)),
            ("-a", NameError::LeadingDash),
            (core::str::from_utf8(&long).unwrap(), NameError::LabelTooLong),
        ] {
            assert_eq!(Name::parse(input).unwrap_err(), error, "{input:?}");
        }
        let deep = [b'a', b':'].repeat(126);
        assert_eq!(Name::parse_bytes(&deep).unwrap_err(), NameError::TooLong);
    }

    #[test]
    fn families() {
        let web = name("foo:bar:web");
        assert_eq!(web.label(), Some("web"));
        assert_eq!(web.path(), name("foo:bar:"));
        let up: heapless::Vec<Name, 4> = web.ancestors().collect();
        assert_eq!(up.as_slice(), [name("foo:bar:"), name("foo:"), Name::ROOT]);
        assert_eq!(name("hello").path(), Name::ROOT);
        assert_eq!((web.domain(), name("foo:").domain()), (Some("foo"), Some("foo")));
        assert_eq!((name("hello").domain(), Name::ROOT.domain()), (None, None));
        assert!(name("foo:").contains(&web) && Name::ROOT.contains(&web) && !name("fo:").contains(&web));
        assert!(!name("foo:").contains(&name("foo")));
        assert_eq!(web.relative_to(&name("foo:")).as_str(), "bar:web");
        assert_eq!(name("foo:t1").relative_to(&name("foo:")).as_str(), ":t1");
        assert_eq!(name("foo:").relative_to(&name("foo:")).as_str(), ":");
        assert_eq!(name("foo:").join("x").unwrap(), name("foo:x"));
        assert_eq!(Name::ROOT.join("x").unwrap(), name("x"));
        assert_eq!(Name::ROOT.join_path("x").unwrap(), name("x:"));
        assert_eq!(name("x:").join_path("y").unwrap(), name("x:y:"));
    }

    #[test]
    fn order_is_that_of_the_peers_listings() {
        let mut names = [name(":a"), name("p:x"), name(":c"), name(":p"), name("p:y"), name(":b"), name("p:y:z")];
        names.sort();
        let mut expected = [":p", "p:y", "p:y:z", "p:x", ":c", ":b", ":a"].into_iter();
        assert!(names.iter().map(Name::as_str).eq(&mut expected));
    }
}
