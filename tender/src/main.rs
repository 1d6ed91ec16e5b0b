//! The program `fulmar-tender`; all of it is in the library.
#![cfg_attr(all(target_os = "linux", target_arch = "x86_64", not(test)), no_main)]

/// The program's start, called by the C library. The Rust runtime's own start is left out: it would put handlers on the
/// signals of faults, and an spt guest that faults must die of the signal itself.
#[cfg(all(target_os = "linux", target_arch = "x86_64", not(test)))]
#[allow(unsafe_code, reason = "the C library knows the program's start by its bare name")]
#[unsafe(no_mangle)]
extern "C" fn main(_count: std::ffi::c_int, _words: *const *const std::ffi::c_char) -> std::ffi::c_int {
    fulmar_tender::start::main()
}

/// The same where the test harness needs a start of its own.
#[cfg(all(target_os = "linux", target_arch = "x86_64", test))]
fn main() {
    std::process::exit(fulmar_tender::start::main())
}

#[cfg(not(all(target_os = "linux", target_arch = "x86_64")))]
fn main() -> std::process::ExitCode {
    eprintln!("fulmar-tender: unikernels run on Linux x86_64 only: start it there");
    std::process::ExitCode::FAILURE
}
