//! MAC addresses that nobody chose: always the same for the same interface of the same unikernel.

use md5::{Digest, Md5};

use crate::name::Name;

/// The address of the interface `device` of the unikernel `name`: `00:80:41` and the first three bytes of the MD5 of
/// the device's name and the unikernel's name in its text form.
#[must_use]
pub fn address(name: &Name, device: &str) -> [u8; 6] {
    let digest = Md5::new().chain_update(device.as_bytes()).chain_update(name.as_bytes()).finalize();
    let [first, second, third, ..]: [u8; 16] = digest.into();
    [0x00, 0x80, 0x41, first, second, third]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_address() {
        let name = Name::parse(":net1").unwrap();
        assert_eq!(address(&name, "service0"), [0x00, 0x80, 0x41, 0x9d, 0x98, 0xfa]);
    }
}
