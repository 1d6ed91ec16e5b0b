//! Segments of the event log: as they are, and with every checksum put right, so that what is behind the checksums is reached too.

use fulmar_core::event::{
    FRAME_BYTES, HEADER_BYTES, Header, RECORD_BYTES_MAX, Record, Step, Tail, decode_header, encode_header,
    encode_record, find_tail, step,
};
use fulmar_core::limits::EVENT_BYTES_MAX;
use fulmar_core::wire::LogEntry;

/// A segment is read to its end whatever is in it, and what is read can be relied upon. The last byte is where it is cut.
///
/// # Panics
/// When something does not hold.
pub fn event_log(bytes: &[u8]) {
    check(bytes);
    for renumber in [false, true] {
        let mut healed = bytes.to_vec();
        heal(&mut healed, renumber);
        check(&healed);
    }
}

/// All records and where they end.
fn read(header: Header, bytes: &[u8]) -> (Vec<Record<'_>>, Tail) {
    let mut records = Vec::new();
    let tail = find_tail(header, bytes, |record| records.push(*record));
    (records, tail)
}

fn check(bytes: &[u8]) {
    let Ok(header) = decode_header(bytes) else { return };
    let (records, tail) = read(header, bytes);
    let mut least = header.first;
    for record in &records {
        assert!(record.sequence >= least, "{record:?}");
        least = record.sequence.saturating_add(1);
        let mut buffer = [0; EVENT_BYTES_MAX];
        if let Ok(entry) = record.entry() {
            let again = entry.encode(&mut buffer).map(LogEntry::decode);
            assert_eq!(again, Ok(Ok(entry)));
        }
    }
    assert_eq!(tail.next, least);
    // Cut as it says, it says the same.
    assert_eq!(read(header, &bytes[..tail.bytes]), (records.clone(), tail));
    assert_eq!(in_windows(header, bytes), records);
    // Cut anywhere, it says less.
    let place = usize::from(bytes.last().copied().unwrap_or(0));
    let cut = HEADER_BYTES + (bytes.len() - HEADER_BYTES) * place / 256;
    assert!(records.starts_with(&read(header, &bytes[..cut]).0));
}

/// The records, as they are read piece by piece.
fn in_windows(header: Header, bytes: &[u8]) -> Vec<Record<'_>> {
    let (mut records, mut at, mut expected) = (Vec::new(), HEADER_BYTES, header.first);
    loop {
        let end = bytes.len().min(at + RECORD_BYTES_MAX + 7);
        match step(header.salt, &bytes[at..end], expected, u64::MAX, end == bytes.len()) {
            Step::Record(record) => {
                expected = record.sequence + 1;
                at += record.bytes();
                records.push(record);
            }
            Step::Skip(skip) => {
                assert!(skip > 0);
                at += skip;
            }
            Step::Short => return records,
        }
    }
}

/// Puts the checksums right, and where `renumber` says so the numbers.
fn heal(bytes: &mut [u8], renumber: bool) {
    let Some((head, mut rest)) = bytes.split_first_chunk_mut::<HEADER_BYTES>() else { return };
    let number = |bytes: &[u8]| bytes.iter().rev().fold(0, |number, byte| (number << 8) | u64::from(*byte));
    // Numbers end some day, and that day is not what is looked for.
    let first = number(&head[16..24]) >> 1;
    // A record that an event quotes was made with the salt that was. The product's salt is nobody's to know.
    let salt = !u32::try_from(number(&head[12..16])).unwrap_or(0);
    *head = encode_header(Header { salt, first });
    let mut next = first;
    while let Some((fields, _)) = rest.split_first_chunk::<20>() {
        let length = usize::try_from(number(&fields[..4])).unwrap_or(usize::MAX);
        if length == 0 || length > EVENT_BYTES_MAX || length + FRAME_BYTES > rest.len() {
            return;
        }
        let (frame, after) = rest.split_at_mut(length + FRAME_BYTES);
        let sequence = if renumber { next } else { number(&frame[4..12]) };
        let payload = frame[20..20 + length].to_vec();
        let record = Record { sequence, writer: number(&frame[12..20]), payload: &payload };
        assert_eq!(encode_record(salt, &record, frame), Ok(frame.len()));
        next += 1;
        rest = after;
    }
}
