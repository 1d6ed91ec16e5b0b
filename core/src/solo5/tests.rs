//! An image made by hand, and a table of what can be wrong with it.

use std::format;
use std::vec;
use std::vec::Vec;

use super::*;

/// Where the builder puts things.
const TABLE: usize = 64;
const ABI: usize = 0x200;
const MANIFEST: usize = 0x240;
const SECTIONS: usize = 0x600;
const NAMES: usize = 0x800;
const TEXT: usize = 0x1000;

fn put(image: &mut [u8], at: usize, bytes: &[u8]) {
    image[at..at + bytes.len()].copy_from_slice(bytes);
}

fn program_header(
    index: usize,
    kind: u32,
    flags: u32,
    offset: u64,
    vaddr: u64,
    file: u64,
    memory: u64,
) -> (usize, Vec<u8>) {
    let mut raw = vec![];
    raw.extend(kind.to_le_bytes());
    raw.extend(flags.to_le_bytes());
    for number in [offset, vaddr, vaddr, file, memory, 0x1000] {
        raw.extend(number.to_le_bytes());
    }
    (TABLE + 56 * index, raw)
}

/// Text, data with BSS, ABI note, manifest note with a block and a net device, section headers.
fn image() -> Vec<u8> {
    let mut image = vec![0; 0x3000];
    put(&mut image, 0, b"\x7fELF\x02\x01\x01");
    put(&mut image, 16, &[2, 0, 62, 0, 1, 0, 0, 0]);
    put(&mut image, 24, &0x10_0020u64.to_le_bytes());
    put(&mut image, 32, &(TABLE as u64).to_le_bytes());
    put(&mut image, 40, &(SECTIONS as u64).to_le_bytes());
    put(&mut image, 52, &[64, 0, 56, 0, 4, 0, 64, 0, 4, 0, 3, 0]);
    let headers = [
        program_header(0, 1, 5, TEXT as u64, 0x10_0000, 0x800, 0x800),
        program_header(1, 1, 6, 0x2000, 0x10_1000, 0x10, 0x1800),
        program_header(2, 4, 4, ABI as u64, 0, 36, 36),
        program_header(3, 4, 4, MANIFEST as u64, 0, 32 + 3 * 104, 32 + 3 * 104),
    ];
    for (at, raw) in headers {
        put(&mut image, at, &raw);
    }
    for (at, descriptor_bytes, note_type) in [(ABI, 16u32, 0x3149_4241u32), (MANIFEST, 4 + 8 + 3 * 104, 0x3154_464d)] {
        put(&mut image, at, &6u32.to_le_bytes());
        put(&mut image, at + 4, &descriptor_bytes.to_le_bytes());
        put(&mut image, at + 8, &note_type.to_le_bytes());
        put(&mut image, at + 12, b"Solo5");
    }
    put(&mut image, ABI + 20, &[2, 0, 0, 0, 2, 0, 0, 0]);
    put(&mut image, MANIFEST + 24, &[1, 0, 0, 0, 3, 0, 0, 0]);
    for (handle, name, kind) in [(0, "", 0x4000_0000u32), (1, "storage", 1), (2, "service", 2)] {
        put(&mut image, entry(handle), name.as_bytes());
        put(&mut image, entry(handle) + 68, &kind.to_le_bytes());
    }
    put(&mut image, NAMES, b"\0.note.solo5.abi\0.note.solo5.manifest\0");
    for (index, name, offset) in [(1, 1u32, ABI), (2, 17, MANIFEST), (3, 0, NAMES)] {
        put(&mut image, SECTIONS + 64 * index, &name.to_le_bytes());
        put(&mut image, SECTIONS + 64 * index + 24, &(offset as u64).to_le_bytes());
    }
    image
}

fn entry(handle: usize) -> usize {
    MANIFEST + 32 + 104 * handle
}

#[test]
fn a_good_image_tells_its_facts() {
    let facts = inspect(&image()[..]).unwrap();
    assert_eq!(facts.abi, Abi { target: Target::Spt, version: 2 });
    assert_eq!(facts.entry, 0x10_0020);
    assert_eq!(facts.memory_end, 0x10_3000);
    assert_eq!(facts.section_fault, None);
    assert_eq!(facts.check_runnable(), Ok(()));
    let devices: Vec<_> = facts.manifest.devices().iter().map(|device| (&device.name[..], device.kind)).collect();
    assert_eq!(devices, [("storage", DeviceKind::Block), ("service", DeviceKind::Net)]);
    assert_eq!(facts.manifest.handle("service", DeviceKind::Net), Some(2));
    assert_eq!(facts.manifest.handle("service", DeviceKind::Block), None);
}

/// Where to write what, and the error's text must contain this.
type Damage = (usize, &'static [u8], &'static str);

const DAMAGES: &[Damage] = &[
    (0, b"\x00", "no ELF file"),
    (4, b"\x01", "not 64 bits"),
    (5, b"\x02", "not little-endian"),
    (16, b"\x03", "-no-pie"),
    (18, b"\x03", "not for x86_64"),
    (20, b"\x02", "unknown version"),
    (52, b"\x3f", "size of the elf header"),
    (54, b"\x20", "size of a program header"),
    (56, b"\x00", "number of program headers"),
    (56, b"\xff\xff", "number of program headers"),
    (32, b"\xff\xff\xff\xff\xff\xff\xff\xff", "ends within the program headers"),
    (24, b"\x00\x00\x00\x00", "e_entry does not fall within"),
    (TABLE + 16, b"\x00\x00\x00\x00", "phdr[0].p_vaddr outside of valid memory range"),
    (TABLE + 16, b"\x00\x20\x10\x00", "phdr[1].p_vaddr is not in ascending order"),
    (TABLE + 48, b"\x01\x10\x00", "phdr[0].p_vaddr is outside of memory range (align_down"),
    (TABLE + 48, b"\x00\x00\x20", "phdr[0].p_vaddr_start is outside of memory range (0x0 < p_min"),
    (TABLE + 40, b"\x01\x10", "phdr[1].p_vaddr_start is outside of memory range (0x101000 < e_end"),
    (TABLE + 32, b"\xff\xff\xff\xff\xff\xff\xff\xff", "phdr[0] program file segment"),
    (TABLE + 40, b"\xff\xff\xff\xff\xff\xff\xff\xff", "phdr[0] program memory segment"),
    (TABLE + 40, b"\x01\x00", "phdr[0] program memory segment"),
    (TABLE + 48, b"\x10\x00", "phdr[0] p_vaddr_start/p_vaddr_end not aligned"),
    (TABLE + 4, b"\x03", "phdr[0] requests WRITE and EXEC"),
    (TABLE + 2 * 56 + 32, b"\x0b", "phdr[2] note does not fall within valid size"),
    (TABLE + 2 * 56 + 32, b"\x23", "phdr[2] note does not fall within valid size"),
    (TABLE + 2 * 56 + 32, b"\x13", "No Solo5 ABI information"),
    (TABLE + 2 * 56 + 8, b"\xff\xff\xff\xff\xff\xff\xff\xff", "phdr[2] note does not"),
    (ABI + 4, b"\x00", "phdr[2] note does not fall within valid size"),
    (ABI + 4, b"\x04", "phdr[2] note does not fall within valid size"),
    (ABI + 4, b"\x21", "phdr[2] note does not fall within valid size"),
    (ABI + 12, b"solo", "No Solo5 ABI information"),
    (ABI + 8, b"\x00", "No Solo5 ABI information"),
    (MANIFEST, b"\x05", "No Solo5 manifest found"),
    (MANIFEST + 4, b"\x01\x00", "phdr[3] note does not fall within valid size"),
    (MANIFEST + 4, b"\x04\x00", "phdr[3] note does not fall within valid size"),
    (MANIFEST + 4, b"\x05\x00", "manifest is invalid: its size"),
    (MANIFEST + 4, b"\xff\xff", "phdr[3] note does not fall within valid size"),
    (MANIFEST + 24, b"\x02", "manifest is invalid: its version"),
    (MANIFEST + 28, b"\x00", "manifest is invalid: its size"),
    (MANIFEST + 28, b"\x02", "manifest is invalid: its size"),
    (MANIFEST + 28, b"\xff\xff\xff\xff", "manifest is invalid: its size"),
    (MANIFEST + 32, b"x", "its first entry"),
    (MANIFEST + 32 + 68, b"\x01", "its first entry"),
    (MANIFEST + 32 + 104 + 72, b"\x01", "device 1 has fields set"),
    (MANIFEST + 32 + 104 + 88, b"\x01", "device 1 has fields set"),
    (MANIFEST + 32 + 104 + 96, b"\x01", "device 1 has fields set"),
    (MANIFEST + 32 + 104, b"\x00", "name of device 1"),
    (MANIFEST + 32 + 104, b"a-b", "name of device 1"),
    (MANIFEST + 32 + 104 + 67, b"x", "name of device 1"),
    (MANIFEST + 32 + 208 + 68, b"\x03", "device 2 is of unknown type 3"),
];

#[test]
fn each_damage_is_named() {
    for (at, bytes, wanted) in DAMAGES {
        let mut image = image();
        put(&mut image, *at, bytes);
        let text = format!("{}", inspect(&image[..]).expect_err(wanted));
        assert!(text.contains(wanted), "{at:#x}: {text:?} should contain {wanted:?}");
    }
}

#[test]
fn two_devices_of_one_name_need_two_kinds() {
    let mut image = image();
    put(&mut image, entry(2), b"storage");
    assert!(inspect(&image[..]).is_ok());
    put(&mut image, entry(2) + 68, &[1]);
    let fault = ManifestFault::Twice { handle: 2 };
    assert_eq!(inspect(&image[..]), Err(ImageError::Manifest { fault }));
}

#[test]
fn a_strange_target_or_version_is_a_fact_but_does_not_run() {
    let mut image = image();
    put(&mut image, ABI + 20, &[6]);
    let facts = inspect(&image[..]).unwrap();
    assert_eq!(facts.check_runnable(), Err(ImageError::TargetForeign { target: Target::Xen }));
    put(&mut image, ABI + 20, &[1, 0, 0, 0, 3]);
    let facts = inspect(&image[..]).unwrap();
    assert_eq!(facts.check_runnable(), Err(ImageError::AbiVersion { version: 3 }));
}

#[test]
fn section_headers_are_a_warning() {
    for (at, byte, fault) in [
        (60, 0, SectionFault::Stripped),
        (NAMES + 3, b'x', SectionFault::Stripped),
        (9, 1, SectionFault::Identification),
        (63, 1, SectionFault::Damaged),
        (ABI + 30, 1, SectionFault::Abi),
        (SECTIONS + 2 * 64 + 24, 0, SectionFault::Manifest),
    ] {
        let mut image = image();
        image[at] = byte;
        assert_eq!(inspect(&image[..]).unwrap().section_fault, Some(fault));
    }
}

#[test]
fn a_cut_image_never_panics() {
    let image = image();
    for len in 0..image.len() {
        let _ = inspect(&image[..len]);
    }
    assert_eq!(inspect(&image[..0x200f]), Err(ImageError::SegmentCut { index: 1 }));
    assert_eq!(inspect(&image[..63]), Err(ImageError::Header { field: HeaderField::Truncated }));
}

proptest::proptest! {
    #[test]
    fn damaged_bytes_never_panic(damages in proptest::collection::vec((0usize..0x1000, 0u8..=255), 1..24)) {
        let mut image = image();
        for (at, byte) in damages {
            image[at] = byte;
        }
        let _ = inspect(&image[..]);
    }
}
