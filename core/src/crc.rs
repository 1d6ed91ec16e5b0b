//! CRC-32 (IEEE 802.3, reflected), by a table made at compile time: of the journal and of the event log.

const TABLE: [u32; 256] = table();

#[allow(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::cast_possible_truncation, reason = "const")]
const fn table() -> [u32; 256] {
    let mut table = [0; 256];
    let mut index = 0;
    while index < 256 {
        let mut value = index as u32;
        let mut bit = 0;
        while bit < 8 {
            value = if value & 1 == 1 { (value >> 1) ^ 0xedb8_8320 } else { value >> 1 };
            bit += 1;
        }
        table[index] = value;
        index += 1;
    }
    table
}

/// The CRC of these bytes, begun from `salt`; salt 0 is the usual CRC-32.
pub(crate) fn crc32(salt: u32, bytes: &[u8]) -> u32 {
    let register = bytes.iter().fold(!salt, |register, byte| {
        let [low, ..] = register.to_le_bytes();
        let entry = TABLE.get(usize::from(low ^ byte)).copied().unwrap_or_default();
        (register >> 8) ^ entry
    });
    !register
}

#[cfg(test)]
mod tests {
    use super::crc32;

    #[test]
    fn check_value_of_the_standard() {
        assert_eq!(crc32(0, b"123456789"), 0xcbf4_3926);
        assert_ne!(crc32(1, b"123456789"), 0xcbf4_3926);
        // Salted, a run of zeros is no fixed point either.
        assert_ne!(crc32(7, &[0; 20]), crc32(7, &[0; 21]));
    }
}
