//! Tables of a manifest, read key by key: what is wrong is kept with its line, so that all of it can be said at once.

use std::fmt;
use std::ops::RangeInclusive;

use toml::Spanned;
use toml::de::{DeString, DeTable, DeValue};

/// Something that is wrong with a manifest.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Fault {
    /// The line, from 1.
    pub line: usize,
    /// What, and what mends it.
    pub text: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.line, self.text)
    }
}

/// All that is wrong with a text.
#[derive(Debug)]
pub(super) struct Faults<'t> {
    text: &'t str,
    pub(super) list: Vec<Fault>,
}

impl<'t> Faults<'t> {
    pub(super) fn new(text: &'t str) -> Self {
        Self { text, list: Vec::new() }
    }

    /// The line of this byte.
    pub(super) fn line(&self, at: usize) -> usize {
        let before = self.text.as_bytes().iter().take(at);
        before.filter(|byte| **byte == b'\n').count() + 1
    }

    pub(super) fn push(&mut self, line: usize, text: impl Into<String>) {
        self.list.push(Fault { line, text: text.into() });
    }
}

/// A table of which every key must be known.
pub(super) struct Section<'a, 'i> {
    /// What it is about, such as `unikernel web`; empty for the whole.
    what: String,
    table: &'a DeTable<'i>,
    known: Vec<&'static str>,
}

/// A key as it is written, its line, and what it is set to.
pub(super) struct Entry<'a, 'i> {
    pub(super) key: &'a str,
    pub(super) line: usize,
    pub(super) value: &'a DeValue<'i>,
}

impl<'a, 'i> Section<'a, 'i> {
    pub(super) fn new(what: impl Into<String>, table: &'a DeTable<'i>) -> Self {
        Self { what: what.into(), table, known: Vec::new() }
    }

    fn fault(&self, text: &str) -> String {
        if self.what.is_empty() { text.to_owned() } else { format!("{}: {text}", self.what) }
    }

    /// What this key is set to, and its line; nothing where it is not set, or to what it cannot be.
    pub(super) fn take<T>(
        &mut self,
        key: &'static str,
        faults: &mut Faults<'_>,
        read: impl FnOnce(&'a DeValue<'i>) -> Result<T, String>,
    ) -> Option<(usize, T)> {
        self.known.push(key);
        let value = self.table.get(key)?;
        let line = faults.line(value.span().start);
        match read(value.get_ref()) {
            Ok(value) => Some((line, value)),
            Err(reason) => {
                faults.push(line, self.fault(&format!("{key}: {reason}")));
                None
            }
        }
    }

    /// The entries of the table that this key is set to, in the order of the text.
    pub(super) fn entries(&mut self, key: &'static str, faults: &mut Faults<'_>) -> Vec<Entry<'a, 'i>> {
        let table = self.take(key, faults, |value| value.as_table().ok_or("is not a table".to_owned()));
        let mut entries: Vec<_> = table.map(|(_, table)| table.iter()).into_iter().flatten().collect();
        entries.sort_by_key(|(key, _)| key.span().start);
        let entry = |(key, value): (&'a Spanned<DeString<'i>>, &'a Spanned<DeValue<'i>>)| Entry {
            key: key.get_ref(),
            line: faults.line(key.span().start),
            value: value.get_ref(),
        };
        entries.into_iter().map(entry).collect()
    }

    /// Nothing else is known: all other keys are faults.
    pub(super) fn finish(self, faults: &mut Faults<'_>) {
        for (key, _) in self.table.iter().filter(|(key, _)| !self.known.contains(&key.get_ref().as_ref())) {
            let text = format!("there is no key '{}', but {}", key.get_ref(), self.known.join(", "));
            faults.push(faults.line(key.span().start), self.fault(&text));
        }
    }
}

pub(super) fn text<'a>(value: &'a DeValue<'_>) -> Result<&'a str, String> {
    value.as_str().ok_or_else(|| format!("is {}: write a text in quotes", value.type_str()))
}

pub(super) fn number(value: &DeValue<'_>, range: RangeInclusive<i64>) -> Result<i64, String> {
    let number = value.as_integer().and_then(|it| i64::from_str_radix(it.as_str(), it.radix()).ok());
    number.filter(|number| range.contains(number)).ok_or_else(|| {
        let (least, most) = range.into_inner();
        format!("is not a whole number from {least} to {most}")
    })
}

/// A list of these.
pub(super) fn list<'a, 'i, T>(
    value: &'a DeValue<'i>,
    read: impl Fn(&'a DeValue<'i>) -> Result<T, String>,
) -> Result<Vec<T>, String> {
    let items = value.as_array().ok_or_else(|| format!("is {}: write a list in brackets", value.type_str()))?;
    items.iter().map(|item| read(item.get_ref())).collect()
}
