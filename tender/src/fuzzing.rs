//! The doors that fuzzers come in by: each takes bytes that nobody has looked at, and must neither panic nor touch what is
//! not the guest's.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

use fulmar_core::solo5::{Elf, LOAD_ADDRESS_MIN, manifest, note};

use crate::arguments;
use crate::load::load;
use crate::memory::{Memory, Protection};

pub use crate::hvt::fuzzing::{hypercalls, ring};

/// A guest's memory: small, so that bad addresses are likely.
const MEMORY_BYTES: u64 = 4 << 20;

/// A command line, its words ended by NUL.
pub fn command_line(bytes: &[u8]) {
    let words = bytes.split(|byte| *byte == 0).map(|word| OsString::from_vec(word.to_vec()));
    // Whether it is good does not matter here.
    let _ = arguments::parse(words.collect());
}

/// An image, loaded as both kinds of tender do; what is said of it is put into words.
///
/// # Panics
/// If the loader wrote below where images may lie.
pub fn image(bytes: &[u8]) {
    let zeros = vec![0; LOAD_ADDRESS_MIN as usize];
    for protection in [Protection::Exact, Protection::NeverExecutable] {
        let Ok(mut memory) = Memory::anywhere(MEMORY_BYTES, MEMORY_BYTES) else { return };
        let Ok(elf) = Elf::read(bytes) else { return };
        let _ = note::find_abi(bytes, &elf);
        let _ = manifest::find(bytes, &elf);
        match load(&mut memory, bytes, &elf, protection) {
            Ok(layout) => {
                for address in [0, elf.entry, layout.image_end, memory.end(), u64::MAX] {
                    let _ = (layout.place(address).to_string(), memory.u64_at(address));
                }
            }
            Err(error) => drop(format!("{error:?}")),
        }
        // In one comparison: a loop would be slow under a fuzzer's instruments.
        let low = memory.bytes_mut(0, LOAD_ADDRESS_MIN).map(|low| *low == zeros[..]);
        assert_eq!(low, Ok(true), "nothing is loaded below an image");
    }
}
