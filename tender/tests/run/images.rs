//! Images: the ones that we build are what the ABI and the OCaml tools want, and damaged ones are refused by name.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use fulmar_core::solo5::{Target, inspect};

use crate::tender::{end, guests, image, tender};
use fulmar_tests::built::{Kind, NAMES, are_bare};

#[test]
fn our_images_are_what_the_abi_wants() {
    for name in NAMES {
        for (kind, target) in [(Kind::Hvt, Target::Hvt), (Kind::Spt, Target::Spt)] {
            let bytes = fs::read(guests().image(name, kind)).unwrap();
            let facts = inspect(&bytes[..]).unwrap();
            assert_eq!((facts.abi.target, facts.abi.version), (target, 2));
            assert_eq!(facts.section_fault, None, "{name}");
            assert_eq!(bytes[7..16], [0; 9], "{name}: the identification is that of a plain image");
            let (memory_max, bytes_max) = limits(name, kind);
            let memory = facts.memory_end - 0x10_0000;
            assert!(memory <= memory_max, "{name}.{} takes {memory} bytes of memory", kind.name());
            assert!(bytes.len() as u64 <= bytes_max, "{name}.{} has {} bytes", kind.name(), bytes.len());
        }
    }
}

/// Bytes of memory and of the file, at most: whoever makes the runtime larger is to notice.
fn limits(name: &str, kind: Kind) -> (u64, u64) {
    let (memory, bytes) = (32 << 10, 24 << 10);
    match (name, kind) {
        // The frames that wait in the ring.
        ("devices" | "network" | "many", Kind::Hvt) => (memory + (32 << 10), bytes),
        // TCP and IP.
        ("http" | "echo", _) => (160 << 10, 100 << 10),
        _ => (memory, bytes),
    }
}

/// A KVM that interprets its guests knows moves between SSE registers and memory, and nothing else of it. A `core` that was
/// compiled for Linux may have such moves.
#[test]
fn hvt_images_have_no_sse() {
    for name in NAMES {
        let path = image(Kind::Hvt, name);
        let output = match Command::new("objdump").arg("-d").arg("--no-show-raw-insn").arg(path).output() {
            Ok(output) if output.status.success() => output,
            other => {
                fulmar_tests::skips::skip("hvt images have no SSE", &format!("objdump: {other:?}"));
                return;
            }
        };
        let code = String::from_utf8_lossy(&output.stdout);
        assert!(code.contains("rep stos") && code.contains("out "), "{name}: this is not a disassembly of a guest");
        let forbidden: Vec<&str> = code.lines().filter(|line| is_forbidden(line)).collect();
        assert!(forbidden.is_empty(), "{name}: {forbidden:#?}");
    }
}

fn is_forbidden(line: &str) -> bool {
    let instruction = line.split_once(":\t").map_or("", |(_, instruction)| instruction);
    let operation = instruction.split_whitespace().next().unwrap_or_default();
    let vector = instruction.contains("%xmm") || instruction.contains("%ymm") || instruction.contains("%mm");
    let moves = ["movaps", "movups", "movdqa", "movdqu"];
    (vector && (are_bare() || !moves.contains(&operation)))
        || ["popcnt", "rdtscp", "int3", "fld", "fild"].contains(&operation)
}

#[test]
fn linux_does_not_run_an_image_as_a_program() {
    for kind in [Kind::Hvt, Kind::Spt] {
        let error = Command::new(image(kind, "hello")).spawn().unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::NotFound);
    }
}

/// Where to put which byte of hello.spt, and what the refusal must contain. The offsets of the ELF header are its own.
const DAMAGES: &[(usize, u8, &str)] = &[
    (0, 0, "no ELF file"),
    (4, 1, "not 64 bits"),
    (16, 3, "-no-pie"),
    (18, 3, "not for x86_64"),
    (56, 0, "number of program headers"),
    (39, 0x7f, "the file ends within the program headers"),
    (26, 0, "e_entry does not fall within the memory allocation range"),
    // The second program header is that of the text: its flags, its file offset, its address, its size.
    (64 + 56 + 4, 7, "phdr[1] requests WRITE and EXEC permissions"),
    (64 + 56 + 8 + 3, 1, "phdr[1] host file segment mismatched"),
    (64 + 56 + 16 + 2, 0, "phdr[1].p_vaddr outside of valid memory range"),
    (64 + 56 + 32 + 7, 0x80, "phdr[1] program file segment falls outside"),
    (64 + 56 + 40 + 7, 0x80, "phdr[1] program memory segment falls outside"),
    (64 + 56 + 48, 3, "phdr[1].p_vaddr is outside of memory range"),
];

#[test]
fn damaged_images_are_refused() {
    let good = fs::read(image(Kind::Spt, "hello")).unwrap();
    let path = scratch("damaged.spt");
    for (at, byte, wanted) in DAMAGES {
        let mut bytes = good.clone();
        bytes[*at] = *byte;
        refused(&path, &bytes, wanted);
    }
    refused(&path, &good[..0x3004], "phdr[3] host file segment mismatched");
    refused(&path, &good[..40], "the file ends within the elf header");
    refused(&path, b"", "no ELF file");
    refused(&path, b"#!/bin/sh\n", "no ELF file");
}

#[test]
fn notes_that_lie_are_refused() {
    let good = fs::read(image(Kind::Spt, "hello")).unwrap();
    let path = scratch("notes.spt");
    let abi = find(&good, &0x3149_4241u32.to_le_bytes()) - 8;
    let manifest = find(&good, &0x3154_464du32.to_le_bytes()) - 8;
    for (at, byte, wanted) in [
        (abi + 12, b'X', "No Solo5 ABI information found in executable"),
        (abi + 20, 1, "Executable is not for the solo5-spt target: it is for hvt; run it as solo5-hvt"),
        (abi + 20, 3, "Executable is not for a target that runs here but for virtio"),
        (abi + 24, 3, "Executable requests unsupported ABI version 3"),
        (abi + 4, 255, "note does not fall within valid size"),
        (manifest + 12, b'X', "No Solo5 manifest found in executable"),
        (manifest + 4, 1, "note does not fall within valid size"),
        (manifest + 24, 2, "Solo5 manifest is invalid: its version is not 1"),
        (manifest + 28, 64, "Solo5 manifest is invalid: its size"),
        (manifest + 32, b'x', "Solo5 manifest is invalid: its first entry"),
    ] {
        let mut bytes = good.clone();
        bytes[at] = byte;
        refused(&path, &bytes, wanted);
    }
}

fn refused(path: &Path, bytes: &[u8], wanted: &str) {
    fs::write(path, bytes).unwrap();
    let end = end(tender(Kind::Spt).arg("--mem=4").arg(path));
    assert_eq!((end.code(), end.stdout.as_str()), (Some(1), ""), "{wanted}: {end:?}");
    assert!(end.stderr.lines().count() == 1 && end.stderr.contains(wanted), "{wanted}: {end:?}");
    assert!(end.stderr.contains(&path.display().to_string()), "{end:?}");
}

fn scratch(name: &str) -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join(name)
}

fn find(bytes: &[u8], wanted: &[u8]) -> usize {
    bytes.windows(wanted.len()).position(|window| window == wanted).unwrap()
}
