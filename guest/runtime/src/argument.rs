//! The words of the command line: `--name=value`, `--name`, and others.

use crate::start::Guest;

/// What the words begin with that Solo5's own guests take as the amount of their output; we have no such output.
const VERBOSITY: &[u8] = b"--solo5:";

impl Guest {
    /// The words of the command line, less those for Solo5 itself at its beginning (`--solo5:quiet`).
    pub fn arguments(&self) -> impl Iterator<Item = &'static [u8]> + use<> {
        let words = self.command_line().split(|byte| *byte == b' ').filter(|word| !word.is_empty());
        words.skip_while(|word| word.starts_with(VERBOSITY))
    }

    /// The value of the last word `--name=value`.
    #[must_use]
    pub fn argument(&self, name: &str) -> Option<&'static [u8]> {
        let value = |word: &'static [u8]| word.strip_prefix(b"--")?.strip_prefix(name.as_bytes())?.strip_prefix(b"=");
        self.arguments().filter_map(value).last()
    }

    /// Whether there is a word `--name`.
    #[must_use]
    pub fn has_argument(&self, name: &str) -> bool {
        self.arguments().any(|word| word.strip_prefix(b"--") == Some(name.as_bytes()))
    }

    /// The number of the last word `--name=number`; `None` if there is no such word or its value is no number.
    #[must_use]
    pub fn number(&self, name: &str) -> Option<u64> {
        self.argument(name).and_then(decimal)
    }
}

/// The number that these decimal digits say, all of them.
#[must_use]
pub fn decimal(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0u64, |number, digit| {
        let digit = digit.checked_sub(b'0').filter(|digit| *digit < 10)?;
        number.checked_mul(10)?.checked_add(digit.into())
    })
}
