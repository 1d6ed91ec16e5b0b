//! See `fulmar_tests::checks::message_with_cut`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fulmar_tests::checks::message_with_cut(bytes));
