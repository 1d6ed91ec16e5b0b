//! The tender's command line; with AddressSanitizer.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fulmar_tender::fuzzing::command_line(bytes));
