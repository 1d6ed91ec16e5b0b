//! Journals: as they are, and with every checksum put right, so that what is behind the checksums is reached too.

use fulmar_core::journal::{
    Entry, HEADER_BYTES, Header, RECORD_BYTES_MAX, Refused, Replay, Stamp, Tail, encode, encode_header, put_bytes, seal,
};
use fulmar_core::machine::{Machine, POLICY_BYTES_MAX};

use crate::world::State;

/// A machine of which each part is soon full.
type Small = Machine<6, 8, 4, 1, 2048>;

/// Replay ends, whatever is in the journal, and what it says can be relied upon. The last byte is where a journal that is
/// good is cut.
///
/// # Panics
/// When something does not hold.
pub fn journal(bytes: &[u8]) {
    let _ = replay(bytes);
    for renumber in [false, true] {
        let mut healed = bytes.to_vec();
        heal(&mut healed, renumber);
        if let Ok((entries, tail)) = replay(&healed) {
            good(&healed, &entries, tail);
            cut(&healed, &entries, bytes.last().copied().unwrap_or(0));
        }
    }
}

/// All entries and the verdict.
fn replay(bytes: &[u8]) -> Result<(Vec<Entry<'_>>, Tail), Refused> {
    let mut replay = Replay::new(bytes)?;
    let mut entries = Vec::new();
    while let Some(entry) = replay.next_entry()? {
        entries.push(entry);
        assert_eq!(Some(entry.generation), replay.header().base.checked_add(entries.len() as u64));
    }
    Ok((entries, replay.tail()?))
}

/// Puts the checksums right, and where `renumber` says so the generations.
fn heal(bytes: &mut [u8], renumber: bool) {
    let Some((head, mut rest)) = bytes.split_first_chunk_mut::<HEADER_BYTES>() else { return };
    let (salt, base) = (number(&head[12..16]), number(&head[16..24]));
    // Generations end some day, and that day is not what is looked for.
    let base = if renumber { base >> 1 } else { base };
    // A record that an argument quotes was made with the salt that was. The product's salt is nobody's to know.
    let salt = !u32::try_from(salt).unwrap_or(0);
    *head = encode_header(Header { salt, base });
    let mut generation = base;
    while let Some(len) = put_bytes(rest) {
        let (record, after) = rest.split_at_mut(len);
        generation = if renumber { generation + 1 } else { number(&record[4..12]) };
        let durable = if renumber { generation - 1 } else { number(&record[12..20]) };
        seal(record, salt, Stamp { generation, durable });
        rest = after;
    }
}

fn number(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |number, byte| (number << 8) | u64::from(*byte))
}

/// What holds for a journal that is not refused.
fn good(bytes: &[u8], entries: &[Entry<'_>], tail: Tail) {
    let (Tail::Clean { bytes: len, generation } | Tail::Torn { bytes: len, generation }) = tail;
    assert_eq!(matches!(tail, Tail::Clean { .. }), len == bytes.len() as u64);
    // Cut as it says, it is clean and says the same.
    let whole = bytes.get(..usize::try_from(len).unwrap_or(usize::MAX)).unwrap_or_default();
    assert_eq!(replay(whole), Ok((entries.to_vec(), Tail::Clean { bytes: len, generation })));
    // Written anew it says the same.
    let base = generation - entries.len() as u64;
    let mut again = encode_header(Header { salt: 77, base }).to_vec();
    for entry in entries {
        let mut buffer = vec![0; RECORD_BYTES_MAX];
        let stamp = Stamp { generation: entry.generation, durable: base };
        let len = encode(77, stamp, &entry.record, &mut buffer).unwrap_or(0);
        again.extend_from_slice(&buffer[..len]);
    }
    assert_eq!(replay(&again).map(|(entries, _)| entries), Ok(entries.to_vec()));
    restore(entries);
}

/// A journal that ends where nobody was told that it would go on says less, and never that it is damaged.
fn cut(bytes: &[u8], entries: &[Entry<'_>], place: u8) {
    let rest = bytes.len() - HEADER_BYTES;
    let shorter = &bytes[..HEADER_BYTES + rest * usize::from(place) / 256];
    let fewer = replay(shorter).map(|(fewer, _)| fewer);
    assert!(fewer.as_ref().is_ok_and(|fewer| entries.starts_with(fewer)), "{fewer:?}");
}

/// The machine takes the records in or refuses them. What it then holds is what they say, and comes back from its own.
fn restore(entries: &[Entry<'_>]) {
    let (mut machine, mut said) = (Small::new(), State::default());
    for entry in entries {
        if machine.restore(&entry.record).is_err() {
            return;
        }
        assert_eq!(said.take(&entry.record), Ok(()), "a machine takes in a record whose name is none");
    }
    let (mut again, held) = (Small::new(), state(&machine));
    assert!(held.unikernels.keys().eq(said.unikernels.keys()));
    assert!(held.policies.keys().eq(said.policies.keys()) && held.blocks == said.blocks);
    let mut buffer = [0; POLICY_BYTES_MAX];
    for change in machine.live_records() {
        let record = machine.record(change, &mut buffer);
        assert_eq!(record.map(|record| again.restore(&record)), Some(Ok(())));
    }
    assert_eq!(state(&again), held);
}

/// What a machine would have a journal say.
fn state(machine: &Small) -> State {
    let (mut state, mut buffer) = (State::default(), [0; POLICY_BYTES_MAX]);
    for change in machine.live_records() {
        let taken = machine.record(change, &mut buffer).map(|record| state.take(&record));
        assert_eq!(taken, Some(Ok(())));
    }
    state
}
