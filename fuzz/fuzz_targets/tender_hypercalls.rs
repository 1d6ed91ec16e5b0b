//! The tender's answers to hypercalls; with AddressSanitizer.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fulmar_tender::fuzzing::hypercalls(bytes));
