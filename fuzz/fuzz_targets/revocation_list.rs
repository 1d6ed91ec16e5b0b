//! See `fulmar_tests::checks::revocation_list`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fulmar_tests::checks::revocation_list(bytes));
