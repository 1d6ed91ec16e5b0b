//! The tender's loader, as both kinds use it; with AddressSanitizer.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fulmar_tender::fuzzing::image(bytes));
