//! See `fulmar_tests::checks::event_log`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fulmar_tests::checks::event_log(bytes));
