//! See `fulmar_tests::checks::whole_certificate`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fulmar_tests::checks::whole_certificate(bytes));
