//! GeneralizedTime as the wire has it, `YYYYMMDDhhmmss[.fff]Z`, to and from milliseconds since 1970.
//!
//! No clock is read here. Leap seconds, offsets, missing seconds and other numbers of decimals are refused.

/// Bytes of the longest text form.
pub const TEXT_BYTES_MAX: usize = 19;

/// The first millisecond of the year 0.
pub const UNIX_MS_MIN: i64 = -62_167_219_200_000;

/// The last millisecond of the year 9999.
pub const UNIX_MS_MAX: i64 = 253_402_300_799_999;

const DAY_MS: i64 = 86_400_000;

/// Milliseconds since 1970 of a text form; nothing for what is not one or does not exist.
#[must_use]
pub fn parse(text: &[u8]) -> Option<i64> {
    let (date, fraction) = text.split_at_checked(14)?;
    let fraction_ms = match fraction {
        b"Z" => 0,
        [b'.', digits @ .., b'Z'] if digits.len() == 3 => digits_value(digits)?,
        _ => return None,
    };
    let (year, rest) = date.split_at_checked(4)?;
    let (month, rest) = rest.split_at_checked(2)?;
    let (day, rest) = rest.split_at_checked(2)?;
    let (hour, rest) = rest.split_at_checked(2)?;
    let (minute, second) = rest.split_at_checked(2)?;
    let (year, month, day) = (digits_value(year)?, digits_value(month)?, digits_value(day)?);
    let (hour, minute, second) = (digits_value(hour)?, digits_value(minute)?, digits_value(second)?);
    if day == 0 || day > month_days(year, month)? || hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let days =
        days_before_year(year)?.checked_add(days_before_month(year, month)?)?.checked_add(day.checked_sub(1)?)?;
    let minutes = hour.checked_mul(60)?.checked_add(minute)?;
    let day_ms = minutes.checked_mul(60)?.checked_add(second)?.checked_mul(1000)?.checked_add(fraction_ms)?;
    days.checked_mul(DAY_MS)?.checked_add(day_ms)?.checked_add(UNIX_MS_MIN)
}

/// The text form; a time outside [`UNIX_MS_MIN`] to [`UNIX_MS_MAX`] gives the nearest inside.
/// Milliseconds are written only where they are not 0.
#[must_use]
pub fn format(unix_ms: i64, text: &mut [u8; TEXT_BYTES_MAX]) -> &[u8] {
    let since_year_0 = unix_ms.clamp(UNIX_MS_MIN, UNIX_MS_MAX).wrapping_sub(UNIX_MS_MIN);
    let (mut days, in_day) = (since_year_0 / DAY_MS, since_year_0 % DAY_MS);
    // A year has at most 366 days, so this is the year or the one before it.
    let mut year = days / 366;
    while days_before_year(year.wrapping_add(1)).is_some_and(|before| before <= days) {
        year = year.wrapping_add(1);
    }
    days = days.wrapping_sub(days_before_year(year).unwrap_or(0));
    let mut month = 1_i64;
    while days_before_month(year, month.wrapping_add(1)).is_some_and(|before| before <= days) {
        month = month.wrapping_add(1);
    }
    let day = days.wrapping_sub(days_before_month(year, month).unwrap_or(0)).wrapping_add(1);
    let seconds = in_day / 1000;
    let fraction_ms = in_day % 1000;
    let mut place = text.iter_mut();
    let fields = [(year, 4), (month, 2), (day, 2), (seconds / 3600, 2), (seconds / 60 % 60, 2), (seconds % 60, 2)];
    for (value, digits) in fields {
        put_digits(&mut place, value, digits);
    }
    let mut len = 15;
    if fraction_ms != 0 {
        put(&mut place, b'.');
        put_digits(&mut place, fraction_ms, 3);
        len = TEXT_BYTES_MAX;
    }
    put(&mut place, b'Z');
    text.get(..len).unwrap_or_default()
}

fn put(place: &mut core::slice::IterMut<'_, u8>, byte: u8) {
    if let Some(next) = place.next() {
        *next = byte;
    }
}

fn put_digits(place: &mut core::slice::IterMut<'_, u8>, value: i64, digits: u32) {
    for power in (0..digits).rev() {
        let digit = (0..power).fold(value, |value, _| value / 10) % 10;
        put(place, b'0'.wrapping_add(u8::try_from(digit).unwrap_or(0)));
    }
}

fn digits_value(digits: &[u8]) -> Option<i64> {
    digits.iter().try_fold(0_i64, |value, digit| {
        let digit = digit.is_ascii_digit().then(|| i64::from(digit & 0x0f))?;
        value.checked_mul(10)?.checked_add(digit)
    })
}

fn is_leap(year: i64) -> bool {
    year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
}

fn month_days(year: i64, month: i64) -> Option<i64> {
    match month {
        1 | 3 | 5 | 7 | 8 | 10 | 12 => Some(31),
        4 | 6 | 9 | 11 => Some(30),
        2 => Some(if is_leap(year) { 29 } else { 28 }),
        _ => None,
    }
}

/// Days of the year before this month; month 13 has none before it because it does not exist.
fn days_before_month(year: i64, month: i64) -> Option<i64> {
    month_days(year, month)?;
    (1..month).try_fold(0_i64, |days, month| days.checked_add(month_days(year, month)?))
}

/// Days from the start of the year 0 to the start of this year.
fn days_before_year(year: i64) -> Option<i64> {
    let Some(last) = year.checked_sub(1).filter(|last| *last >= 0) else { return Some(0) };
    let leaps = (last / 4).checked_sub(last / 100)?.checked_add(last / 400)?.checked_add(1)?;
    year.checked_mul(365)?.checked_add(leaps)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_times() {
        for (text, unix_ms) in [
            ("19700101000000Z", 0),
            ("20230312234215Z", 1_678_664_535_000),
            ("20230312234215.007Z", 1_678_664_535_007),
            ("20000229000000Z", 951_782_400_000),
            ("19691231235959.999Z", -1),
            ("00000101000000Z", UNIX_MS_MIN),
            ("99991231235959.999Z", UNIX_MS_MAX),
        ] {
            assert_eq!(parse(text.as_bytes()), Some(unix_ms), "{text}");
            assert_eq!(format(unix_ms, &mut [0; TEXT_BYTES_MAX]), text.as_bytes());
        }
        assert_eq!(parse(b"20261121032134.000Z"), parse(b"20261121032134Z"));
        assert_eq!(format(i64::MAX, &mut [0; TEXT_BYTES_MAX]), b"99991231235959.999Z");
    }

    #[test]
    fn what_does_not_exist_is_refused() {
        for text in [
            "",
            "Z",
            "20231312234215Z",
            "20230012234215Z",
            "20230230234215Z",
            "20230100000000Z",
            "20230312244215Z",
            "20230312236015Z",
            "20230312234260Z",
            "20230312234215",
            "202303122342Z",
            "20230312234215+0100",
            "20230312234215.7Z",
            "20230312234215.0070Z",
            "2023031223421 Z",
            "19000229000000Z",
        ] {
            assert_eq!(parse(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn every_day_of_eight_centuries_comes_back() {
        let mut buffer = [0; TEXT_BYTES_MAX];
        for day in -146_097..146_097_i64 {
            let unix_ms = day * DAY_MS + day.rem_euclid(DAY_MS);
            assert_eq!(parse(format(unix_ms, &mut buffer)), Some(unix_ms));
        }
    }
}
