//! See `fulmar_tests::checks::der`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fulmar_tests::checks::der(bytes));
