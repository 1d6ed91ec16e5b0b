//! The tender's side of the ring for frames; with AddressSanitizer.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fulmar_tender::fuzzing::ring(bytes));
