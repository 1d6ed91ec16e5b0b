//! Images for simulated hosts: real bytes, small, read by the core's own reader.

use std::sync::LazyLock;

use fulmar_core::machine::Digest;
use fulmar_core::solo5::{ImageFacts, Target, inspect};

/// One image that clients may send.
#[derive(Debug)]
pub struct TestImage {
    /// What stands for its SHA-256.
    pub digest: Digest,
    /// The image.
    pub bytes: Vec<u8>,
    /// What it says about itself; nothing for one that is damaged.
    pub facts: Option<ImageFacts>,
}

/// hvt and spt without devices, the same with the net device `service`, one that ends at 64 MiB, a damaged one, spt with the
/// block device `storage`, and with that, `extra` and `service`.
pub static IMAGES: LazyLock<Vec<TestImage>> = LazyLock::new(|| {
    let images = [
        image(1, &[], 0x1000),
        image(2, &[], 0x1000),
        image(1, &["service"], 0x1000),
        image(2, &["service"], 0x1000),
        image(2, &[], 63 << 20),
        b"not an image".to_vec(),
        image_with(2, &[Device::Block("storage")], 0x1000),
        image_with(2, &[Device::Net("service"), Device::Block("storage"), Device::Block("extra")], 0x1000),
    ];
    let image = |(index, bytes): (usize, Vec<u8>)| TestImage {
        digest: [u8::try_from(index).unwrap_or(0) + 1; 32],
        facts: inspect(&bytes[..]).ok(),
        bytes,
    };
    images.into_iter().enumerate().map(image).collect()
});

/// Index of the image that is damaged.
pub const DAMAGED: usize = 5;

impl TestImage {
    /// Which tender it is for.
    #[must_use]
    pub fn target(&self) -> Option<Target> {
        self.facts.as_ref().map(|facts| facts.abi.target)
    }
}

const TABLE: usize = 64;
const HEADER: usize = 56;
const ABI: usize = 0x200;
const MANIFEST: usize = 0x240;
const TEXT: usize = 0x1000;

/// A device that an image declares.
#[derive(Clone, Copy, Debug)]
pub enum Device<'a> {
    /// A network of this name.
    Net(&'a str),
    /// A block device of this name.
    Block(&'a str),
}

/// A Solo5 image for `target` (1 hvt, 2 spt) with these net devices, whose one segment takes `memory_bytes`.
#[must_use]
pub fn image(target: u32, nets: &[&str], memory_bytes: u64) -> Vec<u8> {
    let nets: Vec<Device<'_>> = nets.iter().map(|net| Device::Net(net)).collect();
    image_with(target, &nets, memory_bytes)
}

/// As [`image`], with devices of both kinds.
#[must_use]
pub fn image_with(target: u32, devices: &[Device<'_>], memory_bytes: u64) -> Vec<u8> {
    let mut image = vec![0; TEXT + 0x10];
    let mut put = |at: usize, bytes: &[u8]| image[at..at + bytes.len()].copy_from_slice(bytes);
    let manifest_bytes = 8 + 104 * (1 + devices.len());
    put(0, b"\x7fELF\x02\x01\x01");
    put(16, &[2, 0, 62, 0, 1, 0, 0, 0]);
    put(24, &0x10_0000_u64.to_le_bytes());
    put(32, &(TABLE as u64).to_le_bytes());
    put(52, &[64, 0, 56, 0, 3, 0, 64, 0, 0, 0, 0, 0]);
    let segments = [
        (1_u32, 5_u32, TEXT, 0x10_0000_u64, 0x10, memory_bytes),
        (4, 4, ABI, 0, 36, 36),
        (4, 4, MANIFEST, 0, 24 + manifest_bytes as u64, 24 + manifest_bytes as u64),
    ];
    for (index, (kind, flags, offset, address, file_bytes, memory_bytes)) in segments.into_iter().enumerate() {
        let at = TABLE + HEADER * index;
        put(at, &kind.to_le_bytes());
        put(at + 4, &flags.to_le_bytes());
        for (field, number) in [offset as u64, address, address, file_bytes, memory_bytes, 0x1000].iter().enumerate() {
            put(at + 8 + 8 * field, &number.to_le_bytes());
        }
    }
    for (at, content_bytes, kind) in [(ABI, 16, 0x3149_4241_u32), (MANIFEST, 4 + manifest_bytes, 0x3154_464d)] {
        put(at, &6_u32.to_le_bytes());
        put(at + 4, &u32::try_from(content_bytes).unwrap_or(0).to_le_bytes());
        put(at + 8, &kind.to_le_bytes());
        put(at + 12, b"Solo5");
    }
    put(ABI + 20, &target.to_le_bytes());
    put(ABI + 24, &2_u32.to_le_bytes());
    put(MANIFEST + 24, &1_u32.to_le_bytes());
    put(MANIFEST + 28, &u32::try_from(1 + devices.len()).unwrap_or(0).to_le_bytes());
    put(MANIFEST + 32 + 68, &0x4000_0000_u32.to_le_bytes());
    for (index, device) in devices.iter().enumerate() {
        let at = MANIFEST + 32 + 104 * (index + 1);
        let (name, kind) = match device {
            Device::Block(name) => (name, 1_u32),
            Device::Net(name) => (name, 2),
        };
        put(at, name.as_bytes());
        put(at + 68, &kind.to_le_bytes());
    }
    image
}

/// An spt image that writes a line to its console without end.
#[must_use]
pub fn flooding() -> Vec<u8> {
    const LINE_AT: usize = 0x40;
    const LINE: &[u8; 64] = b"a line of a unikernel that has nothing to say and says it again\n";
    let code = [
        &[0xb8, 1, 0, 0, 0][..],   // mov eax, 1: write
        &[0xbf, 1, 0, 0, 0],       // mov edi, 1: to the console
        &[0xbe, 0x40, 0, 0x10, 0], // mov esi, the line
        &[0xba, 64, 0, 0, 0],      // mov edx, its length
        &[0x0f, 0x05],             // syscall
        &[0xeb, 0xe8],             // jmp to the first of these
    ];
    let mut content = code.concat();
    content.resize(LINE_AT, 0);
    content.extend_from_slice(LINE);
    with_code(&[], &content)
}

/// An spt image with the block device `storage` and no other device. It counts its starts in the first byte of its disk, and then waits for ever.
#[must_use]
pub fn counting() -> Vec<u8> {
    let code = [
        &[0xb8, 17, 0, 0, 0][..],                       // mov eax, 17: pread64
        &[0xbf, 4, 0, 0, 0],                            // mov edi, 4: the disk, behind the image
        &[0x48, 0x8d, 0xb4, 0x24, 0, 0xfc, 0xff, 0xff], // lea rsi, [rsp-1024]
        &[0xba, 0, 2, 0, 0],                            // mov edx, 512: one sector
        &[0x45, 0x31, 0xd2],                            // xor r10d, r10d: the first
        &[0x0f, 0x05],                                  // syscall
        &[0xfe, 0x84, 0x24, 0, 0xfc, 0xff, 0xff],       // inc byte [rsp-1024]
        &[0xb8, 18, 0, 0, 0],                           // mov eax, 18: pwrite64, all else as before
        &[0x0f, 0x05],                                  // syscall
    ];
    with_code(&[Device::Block("storage")], &[code.concat(), WAITING.concat()].concat())
}

/// Bytes that [`filling`] makes the kernel write.
pub const FILLED_BYTES: usize = 1 << 20;

/// An spt image with the block device `storage`, of [`FILLED_BYTES`] or more, and no other device. It writes a sector to each page of that
/// many, which the kernel writes whole, and then waits for ever.
#[must_use]
pub fn filling() -> Vec<u8> {
    let code = [
        &[0xbf, 4, 0, 0, 0][..],                        // mov edi, 4: the disk, behind the image
        &[0x48, 0x8d, 0xb4, 0x24, 0, 0xfc, 0xff, 0xff], // lea rsi, [rsp-1024]
        &[0xba, 0, 2, 0, 0],                            // mov edx, 512: one sector
        &[0x45, 0x31, 0xd2],                            // xor r10d, r10d: the first page
        &[0xb8, 18, 0, 0, 0],                           // mov eax, 18: pwrite64
        &[0x0f, 0x05],                                  // syscall
        &[0x41, 0x81, 0xc2, 0, 0x10, 0, 0],             // add r10d, 4096: the next page
        &[0x41, 0x81, 0xfa, 0, 0, 0x10, 0],             // cmp r10d, FILLED_BYTES
        &[0x75, 0xe9],                                  // jne to where eax is loaded
    ];
    with_code(&[Device::Block("storage")], &[code.concat(), WAITING.concat()].concat())
}

/// An spt image without devices that says nothing and waits for ever. What it needs is next to nothing, so that there can be many.
#[must_use]
pub fn waiting() -> Vec<u8> {
    let code = [&[0x48, 0x8d, 0xb4, 0x24, 0, 0xfc, 0xff, 0xff][..]]; // lea rsi, [rsp-1024]: where events would go
    with_code(&[], &[code.concat(), WAITING.concat()].concat())
}

/// Waits for ever. In `rsi` it expects room for an event that does not come.
const WAITING: [&[u8]; 8] = [
    &[0x8b, 0x3c, 0x25, 0x20, 0x10, 1, 0], // mov edi, [0x11020]: the epoll of the boot information
    &[0xba, 1, 0, 0, 0],                   // mov edx, 1: one event
    &[0x41, 0xba, 0xff, 0xff, 0xff, 0xff], // mov r10d, -1: for ever
    &[0x45, 0x31, 0xc0],                   // xor r8d, r8d
    &[0x41, 0xb9, 8, 0, 0, 0],             // mov r9d, 8
    &[0xb8, 0x19, 1, 0, 0],                // mov eax, 281: epoll_pwait
    &[0x0f, 0x05],                         // syscall
    &[0xeb, 0xdc],                         // jmp to where the epoll is loaded
];

/// An spt image with these devices whose segment begins with this code.
fn with_code(devices: &[Device<'_>], code: &[u8]) -> Vec<u8> {
    let mut image = image_with(2, devices, 0x1000);
    image.resize(TEXT + code.len(), 0);
    image[TABLE + 32..TABLE + 40].copy_from_slice(&(code.len() as u64).to_le_bytes());
    image[TEXT..].copy_from_slice(code);
    image
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_but_the_damaged_one_are_images() {
        for (index, image) in IMAGES.iter().enumerate() {
            assert_eq!(image.facts.is_some(), index != DAMAGED, "{:?}", inspect(&image.bytes[..]));
        }
        assert_eq!(IMAGES[2].target(), Some(Target::Hvt));
        assert_eq!(IMAGES[3].facts.as_ref().unwrap().manifest.devices().len(), 1);
        assert_eq!(IMAGES[4].facts.as_ref().unwrap().memory_end, 64 << 20);
    }
}
