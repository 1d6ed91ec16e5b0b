//! Section headers: no tender reads them, but the OCaml tools find the notes by the names of their sections. An image
//! without them runs here and is refused there, so `inspect` says so.

use super::bytes::{array_at, u16_at, u32_at, u64_at};
use super::error::{ImageError, SectionFault};
use super::manifest::{ENTRY_BYTES, HEAD_BYTES};
use super::note::{ABI_TYPE, MANIFEST_TYPE, NOTE_HEAD_BYTES, is_solo5};
use super::{ReadAt, fill};

/// Section headers that are looked at, at most.
const SECTIONS_MAX: u16 = 512;
const SECTION_HEADER_BYTES: u64 = 64;

const ABI_NAME: &[u8] = b".note.solo5.abi\0";
const MANIFEST_NAME: &[u8] = b".note.solo5.manifest\0";

/// What the OCaml tools would dislike; `None` if nothing.
///
/// # Errors
/// [`ImageError::Unreadable`] alone: faults of the image are the answer, not an error.
pub fn fault<R: ReadAt + ?Sized>(image: &R) -> Result<Option<SectionFault>, ImageError> {
    let mut head = [0; 64];
    if !fill(image, 0, &mut head)? {
        return Ok(Some(SectionFault::Damaged));
    }
    if array_at::<6>(&head, 9) != [0; 6] {
        return Ok(Some(SectionFault::Identification));
    }
    let table = Table { offset: u64_at(&head, 40), count: u16_at(&head, 60), names: u16_at(&head, 62) };
    if table.offset == 0 || table.count == 0 {
        return Ok(Some(SectionFault::Stripped));
    }
    if table.count > SECTIONS_MAX || u16_at(&head, 58) != 64 {
        return Ok(Some(SectionFault::Damaged));
    }
    let Some(names) = table.header(image, table.names)? else { return Ok(Some(SectionFault::Damaged)) };
    let (mut abi, mut manifest) = (None, None);
    for index in 0..table.count {
        let Some(section) = table.header(image, index)? else { return Ok(Some(SectionFault::Damaged)) };
        if has_name(image, &names, &section, ABI_NAME)? {
            abi = Some(section.offset);
        } else if has_name(image, &names, &section, MANIFEST_NAME)? {
            manifest = Some(section.offset);
        }
    }
    let (Some(abi), Some(manifest)) = (abi, manifest) else { return Ok(Some(SectionFault::Stripped)) };
    if !is_exact(image, abi, ABI_TYPE)? {
        return Ok(Some(SectionFault::Abi));
    }
    Ok((!is_exact(image, manifest, MANIFEST_TYPE)?).then_some(SectionFault::Manifest))
}

struct Table {
    offset: u64,
    count: u16,
    names: u16,
}

struct Section {
    name: u32,
    offset: u64,
}

impl Table {
    fn header<R: ReadAt + ?Sized>(&self, image: &R, index: u16) -> Result<Option<Section>, ImageError> {
        let mut raw = [0; 64];
        let at = self.offset.saturating_add(u64::from(index).saturating_mul(SECTION_HEADER_BYTES));
        let whole = index < self.count && fill(image, at, &mut raw)?;
        Ok(whole.then(|| Section { name: u32_at(&raw, 0), offset: u64_at(&raw, 24) }))
    }
}

fn has_name<R: ReadAt + ?Sized>(
    image: &R,
    names: &Section,
    section: &Section,
    wanted: &[u8],
) -> Result<bool, ImageError> {
    let mut raw = [0; MANIFEST_NAME.len()];
    let Some(name) = raw.get_mut(..wanted.len()) else { return Ok(false) };
    let at = names.offset.saturating_add(u64::from(section.name));
    Ok(fill(image, at, name)? && *name == *wanted)
}

/// Whether the note has exactly the size that its content needs, and an ABI note's spare words are zero.
fn is_exact<R: ReadAt + ?Sized>(image: &R, offset: u64, note_type: u32) -> Result<bool, ImageError> {
    let mut head = [0; NOTE_HEAD_BYTES];
    if !fill(image, offset, &mut head)? || !is_solo5(&head, note_type) {
        return Ok(false);
    }
    let bytes = u32_at(&head, 4);
    let mut content = [0; 16];
    if !fill(image, offset.saturating_add(20), &mut content)? {
        return Ok(false);
    }
    Ok(match note_type {
        ABI_TYPE => bytes == 16 && u64_at(&content, 8) == 0,
        _ => {
            let entries = usize::try_from(u32_at(&content, 8)).unwrap_or(usize::MAX);
            let needed = entries.saturating_mul(ENTRY_BYTES).saturating_add(HEAD_BYTES).saturating_add(4);
            usize::try_from(bytes) == Ok(needed)
        }
    })
}
