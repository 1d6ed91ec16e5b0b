//! The half of `vmmd` that acts, behind its channel, with a host that has no kernel behind it; with AddressSanitizer.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fulmar_vmmd::host_half::fuzzing::requests(bytes));
