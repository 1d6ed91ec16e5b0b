//! The segments that are there at the start. A torn tail is cut off the newest; what cannot be read at all is set aside, never
//! removed.

use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::sync::Arc;

use fulmar_core::event::{self, Header, RECORD_BYTES_MAX, RECORD_BYTES_MIN};
use fulmar_host::{error, warning};

use crate::store::{Segment, now_ms, unix_ms};

/// What follows the name of a segment that was set aside.
const ASIDE: &str = "damaged";

/// What was there.
#[derive(Debug)]
pub(crate) struct Found {
    /// From the oldest to the newest.
    pub(crate) segments: Vec<Segment>,
    /// The number of the next event, where no segment says it: higher than any that was ever given.
    pub(crate) next: u64,
    /// Bytes that were cut off.
    pub(crate) torn_bytes: u64,
}

/// The name of the segment that begins with this number.
pub(crate) fn file_name(first: u64) -> String {
    format!("{first:020}")
}

/// Looks through the folder. `see` is given the number that the writer gave to each record.
pub(crate) fn find(folder: &Path, mut see: impl FnMut(u64)) -> io::Result<Found> {
    let mut firsts = Vec::new();
    for entry in fs::read_dir(folder)? {
        let name = entry?.file_name();
        let first = name.to_str().and_then(|name| name.parse().ok());
        // What has another name is none of ours.
        firsts.extend(first.filter(|first| name.to_str() == Some(&file_name(*first))));
    }
    firsts.sort_unstable();
    let mut found = Found { segments: Vec::new(), next: 1, torn_bytes: 0 };
    let newest = firsts.last().copied();
    for first in firsts {
        let path = folder.join(file_name(first));
        let bytes = fs::read(&path)?;
        let header = event::decode_header(&bytes).ok().filter(|header| header.first == first && first >= found.next);
        match header {
            Some(header) => {
                let file = File::options().read(true).write(true).open(&path)?;
                let segment = take(header, &bytes, file, Some(first) == newest, &mut found.torn_bytes, &mut see)?;
                // What was cut off may have been seen: its number is not given again.
                found.next = segment.next + found.torn_bytes.div_ceil(RECORD_BYTES_MAX as u64);
                found.segments.push(segment);
            }
            // It was begun when everything stopped, and nothing is in it.
            None if bytes.len() < event::HEADER_BYTES && Some(first) == newest => fs::remove_file(&path)?,
            None => {
                let aside = path.with_extension(ASIDE);
                error!("{} is damaged: it is now {}", path.display(), aside.display());
                fs::rename(&path, &aside)?;
                // As many as can have been in it.
                let most = (bytes.len() / RECORD_BYTES_MIN) as u64;
                found.next = found.next.max(first.saturating_add(most));
            }
        }
    }
    Ok(found)
}

fn take(
    header: Header,
    bytes: &[u8],
    file: File,
    is_newest: bool,
    torn_bytes: &mut u64,
    see: &mut impl FnMut(u64),
) -> io::Result<Segment> {
    let written = file.metadata()?.modified();
    let mut times = None;
    let tail = event::find_tail(header, bytes, |record| {
        see(record.writer);
        if let Ok(entry) = record.entry() {
            let (begun, newest) = times.unwrap_or((entry.unix_ms, i64::MIN));
            times = Some((begun, entry.unix_ms.max(newest)));
        }
    });
    let mut segment_bytes = bytes.len();
    if is_newest && tail.bytes < bytes.len() {
        file.set_len(tail.bytes as u64)?;
        *torn_bytes = (bytes.len() - tail.bytes) as u64;
        warning!("cut {torn_bytes} bytes of an unfinished write, after event {}", tail.next - 1);
        segment_bytes = tail.bytes;
    }
    Ok(Segment {
        header,
        next: tail.next,
        bytes: segment_bytes as u64,
        begun_ms: times.map(|(begun, _)| begun),
        newest_ms: times.map_or(i64::MIN, |(_, newest)| newest),
        // Where the file system does not know, it counts as written now.
        written_ms: written.map_or_else(|_| now_ms(), unix_ms),
        spoilt: false,
        file: Arc::new(file),
    })
}
