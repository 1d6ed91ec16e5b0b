//! Tables for people: columns as wide as their widest cell, two spaces between, no trailing blanks.

use std::io::{self, Write};

/// On which side the cells of a column begin.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Align {
    /// Texts.
    Left,
    /// Numbers.
    Right,
}

/// Rows under a heading.
#[derive(Debug)]
pub struct Table<const N: usize> {
    columns: [(&'static str, Align); N],
    rows: Vec<[String; N]>,
}

impl<const N: usize> Table<N> {
    /// A table without rows.
    #[must_use]
    pub fn new(columns: [(&'static str, Align); N]) -> Self {
        Self { columns, rows: Vec::new() }
    }

    /// Appends a row; an empty cell is shown as `-`.
    pub fn push(&mut self, row: [String; N]) {
        self.rows.push(row.map(|cell| if cell.is_empty() { "-".to_owned() } else { cell }));
    }

    /// Whether there is nothing under the heading.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Writes heading and rows.
    ///
    /// # Errors
    /// What `out` says.
    pub fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        let mut widths = self.columns.map(|(heading, _)| width(heading));
        for row in &self.rows {
            for (widest, cell) in widths.iter_mut().zip(row) {
                *widest = (*widest).max(width(cell));
            }
        }
        self.write_row(out, &widths, self.columns.iter().map(|(heading, _)| *heading))?;
        for row in &self.rows {
            self.write_row(out, &widths, row.iter().map(String::as_str))?;
        }
        Ok(())
    }

    fn write_row<'a>(
        &self,
        out: &mut dyn Write,
        widths: &[usize; N],
        cells: impl Iterator<Item = &'a str>,
    ) -> io::Result<()> {
        let mut line = String::new();
        for (((_, align), widest), cell) in self.columns.iter().zip(widths).zip(cells) {
            if !line.is_empty() {
                line.push_str("  ");
            }
            let blanks = " ".repeat(widest.saturating_sub(width(cell)));
            match align {
                Align::Left => line.extend([cell, &blanks]),
                Align::Right => line.extend([blanks.as_str(), cell]),
            }
        }
        writeln!(out, "{}", line.trim_end())
    }
}

/// Writes values under each other, each after its name.
///
/// # Errors
/// What `out` says.
pub fn write_pairs(out: &mut dyn Write, pairs: &[(&str, String)]) -> io::Result<()> {
    let widest = pairs.iter().map(|(name, _)| width(name)).max().unwrap_or(0);
    for (name, value) in pairs {
        let value = if value.is_empty() { "-" } else { value };
        writeln!(out, "{name}{}  {value}", " ".repeat(widest.saturating_sub(width(name))))?;
    }
    Ok(())
}

fn width(text: &str) -> usize {
    text.chars().count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let mut table = Table::new([("NAME", Align::Left), ("MEM", Align::Right), ("X", Align::Left)]);
        table.push([":a".into(), "32".into(), String::new()]);
        table.push(["foo:longer".into(), "1024".into(), "y".into()]);
        let mut out = Vec::new();
        table.write(&mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert_eq!(text, "NAME         MEM  X\n:a            32  -\nfoo:longer  1024  y\n");
    }
}
