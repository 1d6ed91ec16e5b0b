//! See `fulmar_tests::world`.
#![no_main]

use fulmar_tests::choose::Bytes;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fulmar_tests::world::run(&mut Bytes::new(bytes)));
