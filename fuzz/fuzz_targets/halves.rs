//! See `fulmar_tests::checks::halves`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fulmar_tests::checks::halves(bytes));
