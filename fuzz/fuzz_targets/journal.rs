//! See `fulmar_tests::checks::journal`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fulmar_tests::checks::journal(bytes));
