//! See `fulmar_tests::checks::state_file`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fulmar_tests::checks::state_file(bytes));
