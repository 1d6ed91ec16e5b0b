//! The two notes of an image, to the byte, and the macro that puts them into it.

use crate::tender::ABI_TARGET;

const NAME: [u8; 8] = *b"Solo5\0\0\0";

/// The note that says which tender the image is for.
#[repr(C, align(4))]
pub struct AbiNote([u32; 3], [u8; 8], [u32; 4]);

impl AbiNote {
    /// The note of the tender that this build is for, ABI version 2.
    #[must_use]
    #[expect(clippy::new_without_default, reason = "it is made in a static, where `default` cannot be called")]
    pub const fn new() -> AbiNote {
        AbiNote([6, 16, 0x3149_4241], NAME, [ABI_TARGET, 2, 0, 0])
    }
}

/// One entry of the manifest; the tender fills in what follows the kind.
#[repr(C, align(8))]
pub struct DeviceEntry {
    name: [u8; 68],
    kind: u32,
    filled_in: [u64; 4],
}

const fn entry(name: &str, kind: u32) -> DeviceEntry {
    let text = name.as_bytes();
    assert!(text.len() <= 67, "a device's name has at most 67 bytes");
    let mut entry = DeviceEntry { name: [0; 68], kind, filled_in: [0; 4] };
    let mut index = 0;
    while index < text.len() {
        assert!(text[index].is_ascii_alphanumeric(), "a device's name is letters and digits");
        entry.name[index] = text[index];
        index += 1;
    }
    entry
}

/// The first entry, which is no device.
#[must_use]
pub const fn reserved() -> DeviceEntry {
    entry("", 0x4000_0000)
}

/// A disk that the unikernel wants.
#[must_use]
pub const fn block(name: &str) -> DeviceEntry {
    entry(name, 1)
}

/// A network interface that the unikernel wants.
#[must_use]
pub const fn net(name: &str) -> DeviceEntry {
    entry(name, 2)
}

/// The note that declares the devices, `N` counting the reserved one.
#[repr(C, align(8))]
pub struct ManifestNote<const N: usize> {
    head: [u32; 3],
    name: [u8; 8],
    padding: u32,
    version: u32,
    count: u32,
    entries: [DeviceEntry; N],
}

impl<const N: usize> ManifestNote<N> {
    /// A note of these devices, the reserved one first.
    #[must_use]
    pub const fn new(entries: [DeviceEntry; N]) -> ManifestNote<N> {
        assert!(N >= 1 && N <= 64, "a unikernel has at most 63 devices");
        let head = [6, 4 + 8 + 104 * N as u32, 0x3154_464d];
        ManifestNote { head, name: NAME, padding: 0, version: 1, count: N as u32, entries }
    }
}

const _: () = assert!(size_of::<AbiNote>() == 36 && size_of::<DeviceEntry>() == 104);
const _: () = assert!(size_of::<ManifestNote<1>>() == 32 + 104);

/// Makes a unikernel of a function `fn(&Guest) -> i32`, its result the exit status, and declares the devices that it wants:
/// `unikernel!(main, [net("service")])`.
#[macro_export]
macro_rules! unikernel {
    ($main:path, [$($kind:ident($name:literal)),* $(,)?]) => {
        const _: () = {
            // Kept by the linker script. `#[used]` would mark the image as one with GNU extensions.
            #[unsafe(no_mangle)]
            #[unsafe(link_section = ".note.solo5.abi")]
            static FULMAR_GUEST_ABI: $crate::AbiNote = $crate::AbiNote::new();

            const COUNT: usize = [$($name,)* ""].len();
            #[unsafe(no_mangle)]
            #[unsafe(link_section = ".note.solo5.manifest")]
            static FULMAR_GUEST_MANIFEST: $crate::ManifestNote<COUNT> =
                $crate::ManifestNote::new([$crate::reserved(), $($crate::$kind($name)),*]);

            /// Makes Linux refuse to run the image as a program.
            #[unsafe(no_mangle)]
            #[unsafe(link_section = ".interp")]
            static FULMAR_GUEST_INTERPRETER: [u8; 24] = *b"/nonexistent/solo5/\0\0\0\0\0";

            #[unsafe(no_mangle)]
            extern "C" fn fulmar_guest_main(guest: &$crate::Guest) -> i32 {
                let main: fn(&$crate::Guest) -> i32 = $main;
                main(guest)
            }
        };
    };
}
