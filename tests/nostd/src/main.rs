//! The core on bare metal: it decodes, encodes and scans, with six symbols that the compiler wants and nothing else.
//! A standard library anywhere below would define the panic handler a second time; an allocator would be missing.
#![no_std]
#![no_main]

#[cfg(feature = "with-alloc")]
extern crate alloc;
#[cfg(feature = "with-std")]
extern crate std;

use core::hint::black_box;
use core::panic::PanicInfo;

use fulmar_core::name::Name;
use fulmar_core::scan::{Limits, Scanner};
use fulmar_core::{certificate, mac, state_import, wire};

#[panic_handler]
fn panic(_: &PanicInfo<'_>) -> ! {
    loop {}
}

/// Where the linker says that a program begins. Everything is called with bytes that the compiler does not know, so that
/// nothing is left out of the program.
#[unsafe(no_mangle)]
extern "C" fn _start() -> ! {
    let mut buffer = black_box([0_u8; 256]);
    let input = black_box(*b"some bytes");
    if let Ok(message) = wire::decode(wire::Frame::whole(&input)) {
        black_box(wire::encode(&message, &mut buffer).is_ok());
    }
    black_box(Scanner::new(Limits::HOLD_ALL).next(&mut buffer, &mut input.as_slice()).is_ok());
    black_box(certificate::decode(&input).is_ok());
    black_box(state_import::decode(&input).is_ok());
    if let Ok(name) = Name::parse_bytes(&input) {
        black_box(mac::address(&name, "service"));
    }
    #[cfg(feature = "with-alloc")]
    black_box(alloc::vec![input]);
    loop {}
}

/// What the compiler calls by name. Nothing here is ever run.
mod symbols {
    macro_rules! symbols {
        ($($name:ident)*) => { $(
            #[unsafe(no_mangle)]
            extern "C" fn $name() -> ! {
                loop {}
            }
        )* };
    }

    symbols! { memcpy memmove memset memcmp bcmp rust_eh_personality }
}
