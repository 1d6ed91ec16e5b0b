//! Values as text: what a daemon sends is shown so that it cannot move a terminal's cursor or hide itself.

use std::fmt::Write;

use fulmar_core::time;

/// Bytes as text on one line: letters, digits and signs as they are, everything else escaped.
#[must_use]
pub fn plain(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for character in chunk.valid().chars() {
            if character == '\t' || !(character.is_control() || is_invisible(character)) {
                text.push(character);
            } else {
                text.extend(character.escape_default());
            }
        }
        for byte in chunk.invalid() {
            // Writing to a String cannot fail.
            let _ = write!(text, "\\x{byte:02x}");
        }
    }
    text
}

/// Characters that take no place or turn the direction of writing.
fn is_invisible(character: char) -> bool {
    matches!(character, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

/// A name before what is said about it; a path has its colon already.
#[must_use]
pub fn heading(name: &str) -> String {
    if name.ends_with(':') { name.to_owned() } else { format!("{name}:") }
}

/// A time as RFC 3339 has it, in UTC; milliseconds only where they are not 0.
#[must_use]
pub fn timestamp(unix_ms: i64) -> String {
    let mut buffer = [0; time::TEXT_BYTES_MAX];
    let compact = time::format(unix_ms, &mut buffer);
    let mut text = String::with_capacity(24);
    for (index, byte) in compact.iter().enumerate() {
        match index {
            4 | 6 => text.push('-'),
            8 => text.push('T'),
            10 | 12 => text.push(':'),
            _ => {}
        }
        text.push(char::from(*byte));
    }
    text
}

/// How long ago something was, in its two largest units.
#[must_use]
pub fn ago(then_unix_ms: i64, now_unix_ms: i64) -> String {
    let seconds = now_unix_ms.saturating_sub(then_unix_ms).max(0) / 1000;
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m {}s", seconds / 60, seconds % 60),
        3600..86_400 => format!("{}h {}m", seconds / 3600, seconds / 60 % 60),
        _ => format!("{}d {}h", seconds / 86_400, seconds / 3600 % 24),
    }
}

/// How long it is until something, as [`ago`].
#[must_use]
pub fn ahead(then_unix_ms: i64, now_unix_ms: i64) -> String {
    ago(now_unix_ms, then_unix_ms)
}

/// MB as the users of this system write them (2^20 bytes each).
#[must_use]
pub fn megabytes(mib: i64) -> String {
    format!("{mib} MB")
}

/// Bytes in the largest unit that leaves a number before the point.
#[must_use]
pub fn size(bytes: u64) -> String {
    const KIB: u64 = 1 << 10;
    const MIB: u64 = 1 << 20;
    let tenths = |unit: u64| (bytes / unit, bytes % unit * 10 / unit);
    match bytes {
        0..KIB => format!("{bytes} bytes"),
        KIB..MIB => {
            let (whole, tenth) = tenths(KIB);
            format!("{whole}.{tenth} kB")
        }
        _ => {
            let (whole, tenth) = tenths(MIB);
            format!("{whole}.{tenth} MB")
        }
    }
}

/// Ascending numbers, three or more in a row as a range.
#[must_use]
pub fn ranges(numbers: impl Iterator<Item = i64>) -> String {
    let mut runs: Vec<(i64, i64)> = Vec::new();
    for number in numbers {
        match runs.last_mut() {
            Some((_, last)) if last.checked_add(1) == Some(number) => *last = number,
            _ => runs.push((number, number)),
        }
    }
    let texts = runs.iter().map(|(first, last)| match last.saturating_sub(*first) {
        0 => first.to_string(),
        1 => format!("{first},{last}"),
        _ => format!("{first}-{last}"),
    });
    texts.collect::<Vec<_>>().join(",")
}

/// A word as a shell wants it: in quotation marks where it would not stay one word.
#[must_use]
pub fn shell_word(word: &str) -> String {
    let harmless = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./:=,@+%".contains(&byte);
    if !word.is_empty() && word.bytes().all(harmless) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', "'\\''"))
}

/// Bytes as hexadecimal digits.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// A MAC address with colons.
#[must_use]
pub fn mac(bytes: &[u8; 6]) -> String {
    bytes.map(|byte| format!("{byte:02x}")).join(":")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_moves_the_cursor() {
        for (bytes, text) in [
            (b"plain \\ text".as_slice(), "plain \\ text"),
            (b"a\tb", "a\tb"),
            (b"\x1b[2J", "\\u{1b}[2J"),
            (b"\r\n", "\\r\\n"),
            (b"\xff\xfe", "\\xff\\xfe"),
            ("gr\u{fc}n".as_bytes(), "gr\u{fc}n"),
            ("\u{202e}x".as_bytes(), "\\u{202e}x"),
        ] {
            assert_eq!(plain(bytes), text);
        }
    }

    #[test]
    fn times_are_rfc_3339() {
        assert_eq!(timestamp(0), "1970-01-01T00:00:00Z");
        assert_eq!(timestamp(1_795_231_306_698), "2026-11-21T03:21:46.698Z");
    }

    #[test]
    fn durations_have_two_units() {
        for (seconds, text) in [
            (-5, "0s"),
            (0, "0s"),
            (59, "59s"),
            (61, "1m 1s"),
            (3_661, "1h 1m"),
            (90_000, "1d 1h"),
            (864_000, "10d 0h"),
        ] {
            assert_eq!(ago(0, seconds * 1000), text);
        }
    }

    #[test]
    fn numbers_in_a_row_are_a_range() {
        for (numbers, text) in [
            (&[][..], ""),
            (&[0], "0"),
            (&[0, 1], "0,1"),
            (&[0, 1, 2, 5], "0-2,5"),
            (&[-1, 0, 1, i64::MAX], "-1-1,9223372036854775807"),
        ] {
            assert_eq!(ranges(numbers.iter().copied()), text);
        }
    }

    #[test]
    fn words_stay_words() {
        for (word, text) in
            [("a-b=1", "a-b=1"), ("", "''"), ("a b", "'a b'"), ("it's", "'it'\\''s'"), ("$x", "'$x'"), ("~", "'~'")]
        {
            assert_eq!(shell_word(word), text);
        }
    }

    #[test]
    fn sizes_have_a_unit() {
        for (bytes, text) in [(0, "0 bytes"), (1023, "1023 bytes"), (1536, "1.5 kB"), (10 << 20, "10.0 MB")] {
            assert_eq!(size(bytes), text);
        }
    }
}
